"""Who may talk to a server: the handshake between two servers, as bytes in and bytes out.

Three modes. `Security.plain` checks protocol and version alone and is for loopback and networks
where every host is trusted. `Security.shared_key` and `Security.mutual_tls` let nobody in who does
not hold the key, or a certificate of the cluster's authority.

All modes start with a greeting from each side::

    "RREG" | version u8 | mode u8 | nonce 32 | id (UTF-8, 1 to 128 bytes)

With a shared key two proofs follow, the dialler's first, so that a stranger who dials a server is
given nothing computed from the key::

    transcript = u32 length, dialler's greeting, u32 length, listener's greeting
    keys       = HKDF-SHA256(key, salt = SHA-256(transcript), info = "raftreg peer v1", 4 x 32)
    proof      = HMAC-SHA256(the side's own proof key, transcript)

The four keys are the proof and the frame key of each direction. They hang on both nonces, both
ids, the mode and the version, so a proof can neither be replayed nor be sent back to its author.
From then on each frame carries HMAC-SHA256(frame key, u64 sequence | payload), cut to 16 bytes:
nothing can be injected, repeated, left out in the middle or reordered. Frames are not encrypted;
mutual TLS does that.

Sources: RFC 5869 (HKDF), RFC 2104 (HMAC), ISO/IEC 9798-4 (mutual challenge and response).
"""

import enum
import hashlib
import hmac
import secrets
import ssl
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from raftreg.errors import ConfigurationError, RaftregError
from raftreg.raft.wire import LENGTH

PROTOCOL_VERSION: Final = 1
KEY_BYTES_MIN: Final = 16
NONCE_BYTES: Final = 32
MAC_BYTES: Final = 16
ID_BYTES_MAX: Final = 128

_MAGIC: Final = b"RREG"
_GREETING: Final = struct.Struct(f">4sBB{NONCE_BYTES}s")
_FRAME_HEAD: Final = struct.Struct(">IB")
_SEQUENCE: Final = struct.Struct(">Q")
_SUBKEY_BYTES: Final = 32
_KDF_INFO: Final = b"raftreg peer v1"


class AuthenticationFailed(RaftregError):
    """The other side did not prove that it belongs to the cluster, or a frame was tampered with."""

    code = "authentication_failed"
    http_status = 403


class HandshakeTimeout(RaftregError):
    """The other side accepted the connection and then did not finish the handshake in time."""

    code = "handshake_timeout"
    http_status = 504


class Mode(enum.Enum):
    """How servers know each other; the value is its byte in the greeting."""

    PLAIN = 0
    SHARED_KEY = 1
    MUTUAL_TLS = 2


class Side(enum.Enum):
    """Who opened the connection."""

    DIALLER = "dialler"
    LISTENER = "listener"


class NameCheck(enum.Enum):
    """Which subject alternative name a server's certificate must carry, beyond its authority."""

    NONE = "none"
    """Any certificate of the authority. Only for an authority that signs nothing but servers."""
    ROLE = "role"
    """``server.<datacenter>.raftreg``."""
    ROLE_OR_NODE = "role_or_node"
    """The former, or the node name in the server's hello. The name is the peer's own word, so use
    this only when the authority signs no certificates for agents or clients."""


class Channel(Protocol):
    """Turns payloads into frames and back, after authentication."""

    def seal(self, kind: int, body: bytes) -> bytes:
        """Returns the whole frame. Frames must be sent in the order of the calls."""
        ...

    def open(self, frame: bytes) -> memoryview:
        """Returns ``kind | body`` of a frame without its length.

        Raises:
            AuthenticationFailed: it is not the next frame that the other side sealed.
        """
        ...


class PlainChannel:
    """Frames without a MAC: on trusted networks, and inside TLS."""

    def seal(self, kind: int, body: bytes) -> bytes:
        """Returns the whole frame."""
        return _FRAME_HEAD.pack(len(body) + 1, kind) + body

    def open(self, frame: bytes) -> memoryview:
        """Returns ``kind | body``."""
        return memoryview(frame)


class KeyedChannel:
    """Frames with a truncated HMAC over a sequence number and the payload."""

    __slots__ = ("_open_key", "_opened", "_seal_key", "_sealed")

    def __init__(self, *, seal_key: bytes, open_key: bytes) -> None:
        self._seal_key = seal_key
        self._open_key = open_key
        self._sealed = 0
        self._opened = 0

    def seal(self, kind: int, body: bytes) -> bytes:
        """Returns the whole frame and counts it."""
        payload = bytes((kind,)) + body
        mac = _frame_mac(self._seal_key, self._sealed, payload)
        self._sealed += 1
        return LENGTH.pack(len(payload) + MAC_BYTES) + payload + mac

    def open(self, frame: bytes) -> memoryview:
        """Returns ``kind | body`` of the next frame.

        Raises:
            AuthenticationFailed: too short, tampered with, repeated or out of order.
        """
        if len(frame) <= MAC_BYTES:
            raise AuthenticationFailed(f"frame of {len(frame)} bytes has no room for its MAC")
        payload, mac = frame[:-MAC_BYTES], frame[-MAC_BYTES:]
        if not hmac.compare_digest(mac, _frame_mac(self._open_key, self._opened, payload)):
            raise AuthenticationFailed(f"MAC of frame {self._opened} is wrong")
        self._opened += 1
        return memoryview(payload)


def _frame_mac(key: bytes, sequence: int, payload: bytes) -> bytes:
    return hmac.digest(key, _SEQUENCE.pack(sequence) + payload, "sha256")[:MAC_BYTES]


class _Step(enum.Enum):
    GREETING = "greeting"
    PROOF = "proof"
    DONE = "done"
    FAILED = "failed"


class Handshake:
    """One side of the handshake on one connection.

    The owner sends what gathers in `outgoing` (also after an error: the other side then learns
    why), gives each received payload to `receive`, and goes on with `channel` once it is set.

    Args:
        side: which end of the connection this is.
        mode: the mode that both sides must be in.
        self_id: this server's id, 1 to 128 bytes of UTF-8.
        key: the shared key; None in the other modes.
        nonce: `NONCE_BYTES` fresh random bytes.

    Attributes:
        outgoing: payloads to send, oldest first; the owner empties it.
        peer_id: the other side's id, proved once `channel` is set.
        channel: None until the handshake is over.
    """

    def __init__(
        self, *, side: Side, mode: Mode, self_id: str, key: bytes | None, nonce: bytes
    ) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"nonce has {len(nonce)} bytes, not {NONCE_BYTES}")
        name = self_id.encode()
        if not 1 <= len(name) <= ID_BYTES_MAX:
            raise ConfigurationError(f"server id has {len(name)} bytes, not 1 to {ID_BYTES_MAX}")
        self._side = side
        self._mode = mode
        self._key = key
        self._nonce = nonce
        self._greeting = _GREETING.pack(_MAGIC, PROTOCOL_VERSION, mode.value, nonce) + name
        self._step = _Step.GREETING
        self._own_proof = b""
        self._expected_proof = b""
        self._keyed_channel: KeyedChannel | None = None
        self.outgoing: list[bytes] = [self._greeting] if side is Side.DIALLER else []
        self.peer_id = ""
        self.channel: Channel | None = None

    def receive(self, payload: bytes) -> None:
        """Takes the other side's next payload.

        Raises:
            AuthenticationFailed: another protocol, version or mode, or a wrong proof. The handshake
                is then dead.
        """
        step, self._step = self._step, _Step.FAILED
        if step is _Step.GREETING:
            self._step = self._receive_greeting(payload)
        elif step is _Step.PROOF:
            self._step = self._receive_proof(payload)
        else:
            raise AuthenticationFailed("payload after the end of the handshake")

    def _receive_greeting(self, theirs: bytes) -> _Step:
        if theirs[: len(_MAGIC)] != _MAGIC:
            raise AuthenticationFailed("not a raftreg server: it does not speak this protocol")
        if self._side is Side.LISTENER:
            self.outgoing.append(self._greeting)
        self.peer_id = self._checked_peer_id(theirs)
        if self._key is None:
            self.channel = PlainChannel()
            return _Step.DONE
        self._derive(theirs, self._key)
        if self._side is Side.DIALLER:
            self.outgoing.append(self._own_proof)
        return _Step.PROOF

    def _checked_peer_id(self, greeting: bytes) -> str:
        version = greeting[len(_MAGIC)] if len(greeting) > len(_MAGIC) else None
        if version != PROTOCOL_VERSION:
            raise AuthenticationFailed(
                f"peer speaks protocol version {version}, this server {PROTOCOL_VERSION}"
            )
        if not _GREETING.size < len(greeting) <= _GREETING.size + ID_BYTES_MAX:
            raise AuthenticationFailed(f"greeting has a wrong size of {len(greeting)} bytes")
        _, _, mode, nonce = _GREETING.unpack_from(greeting)
        if mode != self._mode.value:
            own = _mode_name(self._mode.value)
            raise AuthenticationFailed(
                f"peer uses security mode {_mode_name(mode)}, this server {own}"
            )
        if nonce == self._nonce:
            raise AuthenticationFailed("peer sent this server's own nonce back")
        try:
            return greeting[_GREETING.size :].decode()
        except UnicodeDecodeError:
            raise AuthenticationFailed("id in the greeting is not UTF-8") from None

    def _derive(self, theirs: bytes, key: bytes) -> None:
        dialled = self._side is Side.DIALLER
        first, second = (self._greeting, theirs) if dialled else (theirs, self._greeting)
        transcript = LENGTH.pack(len(first)) + first + LENGTH.pack(len(second)) + second
        salt = hashlib.sha256(transcript).digest()
        derived = HKDF(SHA256(), 4 * _SUBKEY_BYTES, salt, _KDF_INFO).derive(key)
        keys = [derived[at : at + _SUBKEY_BYTES] for at in range(0, len(derived), _SUBKEY_BYTES)]
        dialler, listener = keys[:2], keys[2:]
        own, other = (dialler, listener) if dialled else (listener, dialler)
        self._own_proof = hmac.digest(own[0], transcript, "sha256")
        self._expected_proof = hmac.digest(other[0], transcript, "sha256")
        self._keyed_channel = KeyedChannel(seal_key=own[1], open_key=other[1])

    def _receive_proof(self, proof: bytes) -> _Step:
        if not hmac.compare_digest(proof, self._expected_proof):
            raise AuthenticationFailed("peer does not hold this cluster's shared key")
        if self._side is Side.LISTENER:
            self.outgoing.append(self._own_proof)
        self.channel = self._keyed_channel
        return _Step.DONE


def _mode_name(value: int) -> str:
    try:
        return Mode(value).name.lower()
    except ValueError:
        return str(value)


class TlsPaths(msgspec.Struct, frozen=True):
    """PEM files of mutual TLS; `ca` signs the certificates of all servers."""

    cert: Path
    key: Path
    ca: Path


class Security:
    """How this server proves itself and checks others. Made by one of the three class methods.

    The shared key is never logged and is no part of the repr.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        key: bytes | None = None,
        tls: TlsPaths | None = None,
        datacenter: str = "dc1",
        name_check: NameCheck = NameCheck.NONE,
        nonces: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.mode = mode
        self._key = key
        self._tls = tls
        self._role_name = f"server.{datacenter}.raftreg"
        self._name_check = name_check
        self._nonces = nonces
        self._contexts = _tls_contexts(tls) if tls is not None else None

    @classmethod
    def plain(cls) -> "Security":
        """No authentication, only a check of protocol and version: loopback, trusted networks."""
        return cls(Mode.PLAIN)

    @classmethod
    def shared_key(
        cls, key: bytes, *, nonces: Callable[[int], bytes] = secrets.token_bytes
    ) -> "Security":
        """Every server holds the same secret; frames are authenticated, not encrypted.

        Args:
            key: at least 16 random bytes.
            nonces: source of that many fresh random bytes.

        Raises:
            ConfigurationError: the key is too short.
        """
        if len(key) < KEY_BYTES_MIN:
            raise ConfigurationError(
                f"shared key has {len(key)} bytes, needs at least {KEY_BYTES_MIN}: "
                "make one with `openssl rand -hex 32`"
            )
        return cls(Mode.SHARED_KEY, key=bytes(key), nonces=nonces)

    @classmethod
    def mutual_tls(
        cls,
        cert: str | Path,
        key: str | Path,
        ca: str | Path,
        *,
        datacenter: str = "dc1",
        name_check: NameCheck = NameCheck.ROLE_OR_NODE,
    ) -> "Security":
        """TLS 1.3, each side showing a certificate that `ca` signed.

        Args:
            cert: PEM file with this server's certificate and its chain.
            key: PEM file with its private key.
            ca: PEM file with the authority of all servers.
            datacenter: names the role ``server.<datacenter>.raftreg``.
            name_check: which name the other side's certificate must carry.

        Raises:
            ConfigurationError: a file is missing or can't be used.
        """
        return cls(
            Mode.MUTUAL_TLS,
            tls=TlsPaths(Path(cert), Path(key), Path(ca)),
            datacenter=datacenter,
            name_check=name_check,
        )

    def __repr__(self) -> str:
        return f"Security(mode={self.mode.name.lower()})"

    def reload(self) -> None:
        """Reads the TLS files again, for connections made from now on; nothing in other modes.

        Raises:
            ConfigurationError: a file can't be used; what was loaded before stays in use.
        """
        if self._tls is not None:
            self._contexts = _tls_contexts(self._tls)

    def tls_context(self, side: Side) -> ssl.SSLContext | None:
        """Returns the context for a new connection, None without TLS."""
        if self._contexts is None:
            return None
        return self._contexts[side]

    def handshake(self, side: Side, self_id: str) -> Handshake:
        """Starts one side of a handshake, with a fresh nonce."""
        return Handshake(
            side=side,
            mode=self.mode,
            self_id=self_id,
            key=self._key,
            nonce=self._nonces(NONCE_BYTES),
        )

    def check_certificate(self, certificate: Mapping[str, Any] | None, node: str) -> None:
        """Checks the name in the other side's certificate, whose chain TLS has verified.

        Args:
            certificate: as `ssl.SSLSocket.getpeercert` gives it; None without TLS.
            node: the node name in the other side's hello.

        Raises:
            AuthenticationFailed: no subject alternative name that is allowed.
        """
        if self.mode is not Mode.MUTUAL_TLS or self._name_check is NameCheck.NONE:
            return
        allowed = {self._role_name}
        if self._name_check is NameCheck.ROLE_OR_NODE:
            allowed.add(node.lower())
        names = [
            value.lower()
            for kind, value in (certificate or {}).get("subjectAltName", ())
            if kind == "DNS"
        ]
        if allowed.isdisjoint(names):
            raise AuthenticationFailed(
                f"certificate is for {', '.join(names) or 'no name'}, "
                f"needs one of {', '.join(sorted(allowed))}"
            )


def _tls_contexts(paths: TlsPaths) -> dict[Side, ssl.SSLContext]:
    protocols = {Side.DIALLER: ssl.PROTOCOL_TLS_CLIENT, Side.LISTENER: ssl.PROTOCOL_TLS_SERVER}
    return {side: _tls_context(protocol, paths) for side, protocol in protocols.items()}


def _tls_context(protocol: int, paths: TlsPaths) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Servers are dialled by address, so names are checked against role and node, not host.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(paths.ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use the authority in {paths.ca}: {error}") from error
    try:
        context.load_cert_chain(paths.cert, paths.key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"cannot use the certificate {paths.cert} with the key {paths.key}: {error}"
        ) from error
    return context


def _no_password() -> bytes:
    raise ValueError("the key is encrypted, and a server can't ask for its passphrase")
