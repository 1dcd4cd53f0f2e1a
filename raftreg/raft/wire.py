"""Frames and messages between servers, as bytes: no socket, no clock, no key.

A frame is ``u32 length (big endian) | payload``, where the length counts the payload. While a
connection is being authenticated the payload is a fixed binary record (`raftreg.raft.security`).
Afterwards it is ``kind u8 | body | mac``, the mac being empty without a shared key; the body of a
message or hello is one msgpack map.

Everything that arrives is hostile until shown otherwise: a length is checked before a byte of its
frame is kept, and a decoder either returns plain values or raises `WireError`.
"""

import enum
import struct
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import msgpack

from raftreg.errors import RaftregError

LENGTH: Final = struct.Struct(">I")

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""Largest payload on an authenticated connection."""

HANDSHAKE_FRAME_BYTES_MAX: Final = 4 * 1024
"""Largest payload on a connection that has proved nothing yet."""

ARRAY_ITEMS_MAX: Final = 1 << 20
MAP_ITEMS_MAX: Final = 1 << 16

Octets: TypeAlias = bytes | bytearray | memoryview

Message: TypeAlias = dict[str, Any]
"""``{"type": str, ...}`` of None, bool, int, float, str, bytes, lists and maps with str keys."""


class Kind(enum.IntEnum):
    """First byte of each payload on an authenticated connection."""

    MESSAGE = 0
    HELLO = 1
    PING = 2
    PONG = 3


class WireError(RaftregError):
    """Bytes that are not what the protocol allows, or a message that it cannot carry."""

    code = "wire"
    http_status = 400

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OversizeFrame(WireError):
    """A frame longer than the limit that holds at this point of the connection."""

    code = "oversize_frame"
    http_status = 413


def encode_message(message: Message) -> bytes:
    """Returns the msgpack body of a message.

    Args:
        message: a map with a str under "type". Tuples travel as lists. Map keys must be str: the
            receiving side refuses a message with others.

    Raises:
        WireError: no "type", a value that msgpack has no plain type for, an integer beyond 64
            bits, nesting that is too deep, or more than `FRAME_BYTES_MAX` bytes.
    """
    if type(message.get("type")) is not str:
        raise WireError('message has no "type" of type str')
    body = encode_map(message)
    if len(body) >= FRAME_BYTES_MAX:
        raise OversizeFrame(f"message of {len(body)} bytes is over {FRAME_BYTES_MAX - 1}")
    return body


def encode_map(values: Message) -> bytes:
    """Returns a map of plain values as msgpack.

    Raises:
        WireError: a value that msgpack has no plain type for.
    """
    try:
        body: bytes = msgpack.packb(values, use_bin_type=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"message cannot be encoded: {error}") from error
    return body


def decode_message(body: Octets) -> Message:
    """Returns the message in a msgpack body.

    Raises:
        WireError: too long, not msgpack, truncated, bytes left over, an extension or timestamp
            type, a map key that is no str, not a map, or no "type".
    """
    message = decode_map(body)
    if type(message.get("type")) is not str:
        raise WireError('message has no "type" of type str')
    return message


def decode_map(body: Octets) -> Message:
    """Returns the map of plain values in a msgpack body.

    Raises:
        WireError: as `decode_message`, but for "type".
    """
    size_bytes = memoryview(body).nbytes
    if size_bytes > FRAME_BYTES_MAX:
        raise OversizeFrame(f"body of {size_bytes} bytes is over {FRAME_BYTES_MAX}")
    try:
        values = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            object_hook=_require_str_keys,
            ext_hook=_refuse_extension,
            max_str_len=size_bytes,
            max_bin_len=size_bytes,
            max_array_len=min(size_bytes, ARRAY_ITEMS_MAX),
            max_map_len=min(size_bytes, MAP_ITEMS_MAX),
            # Zero also keeps out timestamps, which never reach ext_hook.
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise WireError(f"not a valid message: {type(error).__name__}: {error}") from error
    if type(values) is not dict:
        raise WireError(f"message is a {type(values).__name__}, not a map")
    return values


def _require_str_keys(values: dict[Any, Any]) -> dict[Any, Any]:
    for key in values:
        if type(key) is not str:
            raise WireError(f"map key is a {type(key).__name__}, not a str")
    return values


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise WireError(f"extension type {code} is not allowed")


class FrameDecoder:
    """Cuts a byte stream into payloads. Keeps at most one incomplete frame.

    Args:
        limit_bytes: largest payload. It may be changed between two payloads; what follows in the
            bytes already fed is held to the new limit.
    """

    __slots__ = ("_partial", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._partial = bytearray()

    @property
    def buffered_bytes(self) -> int:
        """Bytes kept of a frame that has not arrived whole."""
        return len(self._partial)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the payloads that `data` completes; to be iterated to its end.

        Raises:
            OversizeFrame: a length over the limit; nothing of that frame is kept.
            WireError: a length of zero.
        """
        at = 0
        if self._partial:
            at = self._fill_partial(data)
            if not self._partial_is_whole():
                return
            frame = bytes(memoryview(self._partial)[LENGTH.size :])
            self._partial = bytearray()
            yield frame
        while len(data) - at >= LENGTH.size:
            length = self._checked_length(data, at)
            start = at + LENGTH.size
            if len(data) - start < length:
                break
            at = start + length
            yield data[start:at]
        self._partial += memoryview(data)[at:]

    def _checked_length(self, data: Octets, at: int) -> int:
        length: int = LENGTH.unpack_from(data, at)[0]
        if length > self.limit_bytes:
            raise OversizeFrame(f"frame of {length} bytes is over the limit of {self.limit_bytes}")
        if length == 0:
            raise WireError("empty frame")
        return length

    def _fill_partial(self, data: bytes) -> int:
        """Moves what the incomplete frame lacks from `data` to it; returns how much that was."""
        taken = 0
        if len(self._partial) < LENGTH.size:
            taken = LENGTH.size - len(self._partial)
            self._partial += data[:taken]
            if len(self._partial) < LENGTH.size:
                return len(data)
        missing = LENGTH.size + self._checked_length(self._partial, 0) - len(self._partial)
        self._partial += memoryview(data)[taken : taken + missing]
        return min(len(data), taken + missing)

    def _partial_is_whole(self) -> bool:
        if len(self._partial) < LENGTH.size:
            return False
        length: int = LENGTH.unpack_from(self._partial)[0]
        return len(self._partial) == LENGTH.size + length
