"""One TCP or TLS connection between two servers: handshake, frames in, coalesced frames out.

`Connection` is the `asyncio.Protocol` under `raftreg.raft.transport`. It knows bytes, limits and
the handshake, and tells its owner about payloads; who may be connected to whom is the owner's
matter. Protocol and not streams: a frame is handled in the call that brought its last byte, and
all frames written in one turn of the loop leave in one `write`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from raftreg.errors import RaftregError
from raftreg.raft.security import AuthenticationFailed, Channel, Handshake, Side
from raftreg.raft.wire import LENGTH, FrameDecoder, Kind, WireError

_CLOSE_S_MAX: Final = 1.0
"""How long a closing connection may take to send what is buffered, in seconds."""


class Disconnected(RaftregError):
    """The other side closed the connection, or the network did."""

    code = "disconnected"
    http_status = 503


class ConnectionOwner(Protocol):
    """What a connection tells. The calls are made from the loop; none may block."""

    def authenticated(self, connection: Connection) -> None:
        """The handshake is over: `peer_id` is known and frames may be written."""
        ...

    def received(self, connection: Connection, kind: int, body: memoryview) -> None:
        """A payload has arrived. May raise RaftregError, which closes the connection."""
        ...

    def lost(self, connection: Connection) -> None:
        """The connection is closed, for the reason in `error`; nothing follows."""
        ...


class Connection(asyncio.Protocol):
    """See the module.

    Args:
        side: which end this is.
        handshake: fresh, of the same side.
        owner: who is told.
        limit_bytes: largest payload until the owner raises it by `set_limit`.
        clock: seconds, monotonic.

    Attributes:
        remote: "host:port" of the other end.
        heard_at_s: clock value when bytes last arrived, or when a backlog was seen to drain.
        error: why the connection was closed; None while it is open.
        established: set by the owner's `establish`; resolved with None then, or with the error.
        closed: resolved when the socket is gone.
        hello: what the other side said of itself; set by the owner.
        told_hello: what this side said of itself when the connection was made; set by the owner.
    """

    def __init__(
        self,
        *,
        side: Side,
        handshake: Handshake,
        owner: ConnectionOwner,
        limit_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.side = side
        self.remote = "?"
        self.heard_at_s = clock()
        self.error: RaftregError | None = None
        self.established: asyncio.Future[RaftregError | None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.hello: dict[str, Any] | None = None
        self.told_hello = b""
        self._loop = loop
        self._owner = owner
        self._handshake = handshake
        self._channel: Channel | None = None
        self._decoder = FrameDecoder(limit_bytes)
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._written_bytes = 0
        self._drained_bytes = 0
        self._had_backlog = False

    @property
    def peer_id(self) -> str:
        """The other side's id; proved once the connection is authenticated."""
        return self._handshake.peer_id

    @property
    def was_made(self) -> bool:
        """Whether there is or was a socket: then `closed` will be resolved."""
        return self._transport is not None

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The other side's certificate as `getpeercert` gives it; None without TLS."""
        if self._transport is None:
            return None
        certificate: dict[str, Any] | None = self._transport.get_extra_info("peercert")
        return certificate

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were written here and that the kernel has not taken yet."""
        if self._transport is None:
            return self._pending_bytes
        return self._pending_bytes + self._transport.get_write_buffer_size()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the handshake."""
        # uvloop's class has these methods without inheriting them.
        self._transport = cast("asyncio.Transport", transport)
        if self.error is not None:
            self._transport.abort()
            return
        self.remote = _address_text(transport.get_extra_info("peername"))
        self.heard_at_s = self._clock()
        self._send_handshake()

    def data_received(self, data: bytes) -> None:
        """Takes bytes; any error in them closes the connection."""
        self.heard_at_s = self._clock()
        try:
            for frame in self._decoder.feed(data):
                if self.error is not None:
                    return
                self._take(frame)
        except RaftregError as error:
            self.close(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the connection for good."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if self.error is None:
            self.error = _error_of_loss(exc)
        self._discard_pending()
        self._settle(self.error)
        if not self.closed.done():
            self.closed.set_result(None)
        self._owner.lost(self)

    # -- for the owner

    def set_limit(self, limit_bytes: int) -> None:
        """Sets the largest payload from the next one on, in bytes."""
        self._decoder.limit_bytes = limit_bytes

    def establish(self) -> None:
        """Resolves `established`: the owner has accepted the other side."""
        self._settle(None)

    def write(self, kind: Kind, body: bytes = b"") -> None:
        """Queues a frame; it leaves at the end of this turn of the loop. Unbounded: the owner
        looks at `buffered_bytes` first. Does nothing unless authenticated and open.
        """
        if self._channel is not None and self.error is None:
            self._queue(self._channel.seal(kind, body))

    def note_progress(self) -> None:
        """Counts a shrinking backlog as a sign of life, for a peer that is slow and not dead.

        To be called at intervals. Bytes that went straight to the kernel prove nothing: only a
        backlog that was there at the last call and has moved since does.
        """
        backlog_bytes = self.buffered_bytes
        drained_bytes = self._written_bytes - backlog_bytes
        if self._had_backlog and drained_bytes > self._drained_bytes:
            self.heard_at_s = self._clock()
        self._had_backlog = backlog_bytes > 0
        self._drained_bytes = drained_bytes

    def close(self, error: RaftregError) -> None:
        """Sends what is queued, for at most a second, and closes; the first error counts."""
        if self.error is not None:
            return
        self._flush()
        self.error = error
        self._settle(error)
        if self._transport is not None:
            self._transport.close()
            if not self.closed.done():
                self._abort_timer = self._loop.call_later(_CLOSE_S_MAX, self._transport.abort)

    def abort(self, error: RaftregError) -> None:
        """Closes at once; what is queued is lost."""
        self._discard_pending()
        if self.error is None:
            self.error = error
            self._settle(error)
        if self._transport is not None:
            self._transport.abort()

    # -- inside

    def _take(self, frame: bytes) -> None:
        if self._channel is None:
            self._advance_handshake(frame)
            return
        payload = self._channel.open(frame)
        if not payload:
            raise WireError("empty payload")
        self._owner.received(self, payload[0], payload[1:])

    def _advance_handshake(self, frame: bytes) -> None:
        try:
            self._handshake.receive(frame)
        finally:
            # Also after a mismatch: the greeting tells the other side's log what is wrong.
            self._send_handshake()
        if self._handshake.channel is not None:
            self._channel = self._handshake.channel
            self._owner.authenticated(self)

    def _send_handshake(self) -> None:
        for payload in self._handshake.outgoing:
            self._queue(LENGTH.pack(len(payload)) + payload)
        self._handshake.outgoing.clear()

    def _queue(self, frame: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(frame)
        self._pending_bytes += len(frame)
        self._written_bytes += len(frame)

    def _flush(self) -> None:
        if not self._pending or self._transport is None or self.error is not None:
            return
        frames, self._pending, self._pending_bytes = self._pending, [], 0
        self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def _discard_pending(self) -> None:
        self._pending.clear()
        self._pending_bytes = 0

    def _settle(self, error: RaftregError | None) -> None:
        # A future of a loop that is being closed may be cancelled already.
        with contextlib.suppress(asyncio.InvalidStateError):
            self.established.set_result(error)


def _error_of_loss(exc: Exception | None) -> RaftregError:
    if isinstance(exc, ssl.SSLError):
        return AuthenticationFailed(f"TLS: {exc}")
    return Disconnected(f"connection lost: {exc or 'closed by the other side'}")


def _address_text(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[0], address[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "?"
