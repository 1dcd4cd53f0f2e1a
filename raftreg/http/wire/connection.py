"""One client's connection: the short way where it is sure, aiohttp's protocol for all the rest.

The connection owns the transport. It answers what `ShortRoad` recognises, one request at a time,
and hands everything else, byte for byte, to an aiohttp protocol of its own. Three states follow:

* **ours**: at the boundary of two requests (or within a head that is not whole yet).
* **fed**: a request whose end we know (`raftreg.http.wire.head`) was given to aiohttp. Once aiohttp
  waits for the next one, requests may be short again.
* **surrendered**: the end of a request was not for us to say. aiohttp reads all that follows.

Answers keep the order of requests: the short way begins nothing while aiohttp has anything in hand,
and what is pipelined behind a short request waits in a bounded buffer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol, cast

import structlog
from aiohttp.web_protocol import RequestHandler

from raftreg.http.wire.head import HEAD_BYTES_MAX, Fields, may_become, read_line
from raftreg.http.wire.road import BODY_BYTES_MAX, ShortRoad, ShortRoute

#: What may wait behind a request that is being answered, before reading stops. The largest request
#: that is held until it is whole fits in, or it would never be.
BEHIND_BYTES_MAX: Final = HEAD_BYTES_MAX + BODY_BYTES_MAX
#: Requests of one client that are answered before others get their turn.
IN_A_TURN_MAX: Final = 64
#: A body that is given to aiohttp as it comes has to bring so much within a keep-alive's time.
UPLOAD_BYTES_MIN: Final = 4096
_HEAD_END: Final = b"\r\n\r\n"

_log = structlog.get_logger(__name__)


class Front(Protocol):
    """What all connections of a listener share.

    Attributes:
        road: Finds short routes.
        now: Monotonic seconds.
    """

    road: ShortRoad
    now: Callable[[], float]

    def plain(self) -> RequestHandler:
        """A new protocol of aiohttp."""
        ...

    def opened(self, connection: Connection) -> None:
        """A connection was made."""
        ...

    def closed(self, connection: Connection) -> None:
        """It is gone."""
        ...


class Connection(asyncio.Protocol):
    """A connection; a `Caller` for short routes.

    Args:
        front: What it shares with the others.
    """

    # Thousands of them wait at once.
    __slots__ = (
        "_arrived_bytes",
        "_behind",
        "_blocks",
        "_body_left",
        "_closing",
        "_eof",
        "_front",
        "_lines",
        "_plain",
        "_pumping",
        "_read_paused",
        "_resting",
        "_surrendered",
        "_transport",
        "_unsent_bytes",
        "_write_paused",
        "began_s",
        "body",
        "busy",
        "gzip",
        "idle_since_s",
        "on_gone",
        "progressed",
    )

    def __init__(self, front: Front) -> None:
        self._front = front
        self._lines = front.road.lines
        self._blocks = front.road.blocks
        self._transport: asyncio.Transport | None = None
        self._plain: RequestHandler | None = None
        self._behind = b""  # bytes that nobody has taken yet
        self._arrived_bytes = 0  # since something was last known to move
        self._body_left = 0  # of the request that aiohttp is being fed
        self._surrendered = False
        self._write_paused = False
        self._read_paused = False
        self._pumping = False
        self._resting = False  # while others have their turn
        self._unsent_bytes = 0
        self._eof = False
        self._closing = False
        self.busy = False
        self.gzip = False
        self.body = b""
        self.began_s = 0.0
        self.on_gone: Callable[[], None] | None = None
        self.progressed = True
        self.idle_since_s = 0.0

    # -- asyncio's side ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.idle_since_s = self._front.now()
        self._front.opened(self)

    def data_received(self, data: bytes) -> None:
        """Takes bytes; the hot form, one whole request known by sight, is served at once."""
        if self.busy or self._behind or self._plain is not None or self._write_paused:
            self._take(data)
            return
        end = data.find(b"\r\n")
        route = self._lines.get(data[:end])
        fields = self._blocks.get(data[end:])
        if route is None or fields is None or fields.length_bytes or not fields.short:
            self._take(data)
            return
        self.body = b""
        if not self._serve(route, fields):
            self._take(data)

    def eof_received(self) -> bool:
        """The client sends no more; what it asked before is answered, unless it would wait long.

        A client that is gone looks the same, so a blocking query ends here.
        """
        self._eof = True
        return self._resting or (self.busy and self.on_gone is None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends what is under way for this client."""
        self._transport = None
        self._behind = b""
        gone, self.on_gone = self.on_gone, None
        if gone is not None:
            gone()
        if self._plain is not None:
            self._plain.connection_lost(exc)
        self._front.closed(self)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._write_paused = True
        self._set_reading()
        if self._plain is not None:
            self._plain.pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._write_paused = False
        self.progressed = True
        if self._plain is not None:
            self._plain.resume_writing()
        if not self._pumping:
            self._pump()

    # -- a short route's side ------------------------------------------------------------------

    def reply(self, answer: bytes, tail: bytes = b"") -> None:
        """See `Caller.reply`."""
        self.busy = False
        self.on_gone = None
        self.progressed = True
        transport = self._transport
        if transport is None:
            return
        if tail:
            transport.writelines((answer, tail))
        else:
            transport.write(answer)
        if (self._behind or self._eof or self._closing or self._read_paused) and not self._pumping:
            self._pump()

    def wait(self, on_gone: Callable[[], None]) -> bool:
        """See `Caller.wait`."""
        if self._transport is None:
            return False
        if self._eof:
            self._transport.close()
            return False
        self.on_gone = on_gone
        return True

    # -- the listener's side -------------------------------------------------------------------

    def finish(self) -> None:
        """Closes once the request in hand is answered; aiohttp closes what it has."""
        self._closing = True
        if not self.busy and self._plain is None and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Breaks the connection."""
        if self._transport is not None:
            self._transport.abort()

    def sweep(self, now_s: float, keepalive_s: float) -> None:
        """Closes a connection on which nothing has moved for too long.

        Nothing moves while no request is whole (an idle client, or one that sends its head or its
        body drop by drop), and while a client that is being written to does not read.
        """
        transport = self._transport
        if transport is None:
            return
        unsent_bytes = transport.get_write_buffer_size()
        if self._uploads():
            waiting = self._arrived_bytes >= UPLOAD_BYTES_MIN
        else:
            waiting = not unsent_bytes and not self._is_idle()
        if self.progressed or waiting or unsent_bytes != self._unsent_bytes:
            self.progressed = False
            self._unsent_bytes = unsent_bytes
            self._arrived_bytes = 0
            self.idle_since_s = now_s
        elif now_s - self.idle_since_s >= keepalive_s:
            (transport.abort if unsent_bytes else transport.close)()

    # -- inside --------------------------------------------------------------------------------

    def _serve(self, route: ShortRoute, fields: Fields) -> bool:
        """Begins a request; False when it must take the plain road."""
        self.busy = True
        self.gzip = fields.gzip
        self.began_s = self._front.now()
        try:
            if route.serve(self):
                return True
        except Exception:  # noqa: BLE001 - the last line of defence; the fault is logged in full
            _log.exception("short_way_failed")
            self.abort()
            return True
        self.busy = False
        return False

    def _take(self, data: bytes) -> None:
        self._arrived_bytes += len(data)
        if self._surrendered:
            assert self._plain is not None
            waited = _waits(self._plain)
            self._plain.data_received(data)
            if waited and not _waits(self._plain):
                self.progressed = True  # a request has come
            return
        self._behind = self._behind + data if self._behind else data
        if not self._pumping:
            self._pump()

    def _pump(self) -> None:
        """Takes from what came as much as can be taken now."""
        self._pumping = True
        left = IN_A_TURN_MAX
        try:
            while self._behind and not self.busy and self._goes_on() and self._step():
                left -= 1
                if not left and self._behind:
                    self._resting = True
                    asyncio.get_running_loop().call_soon(self._rested)
        finally:
            self._pumping = False
        if (self._eof or self._closing) and self._is_idle() and self._transport is not None:
            self._transport.close()
        elif self._read_paused or len(self._behind) > BEHIND_BYTES_MAX:
            self._set_reading()

    def _rested(self) -> None:
        self._resting = False
        if self._transport is not None:
            self._pump()

    def _goes_on(self) -> bool:
        """False when no further request is begun: others have their turn, or the process stops."""
        return not self._resting and (not self._closing or self._body_left > 0)

    def _is_idle(self) -> bool:
        if self.busy or self._resting:
            return False
        return self._plain is None or _waits(self._plain)

    def _uploads(self) -> bool:
        """True while aiohttp has a request of which the body is not whole."""
        # There is no public way to ask; see `_waits`.
        request = None if self._plain is None else self._plain._current_request  # noqa: SLF001
        return request is not None and not request.content.is_eof()

    def _step(self) -> bool:
        """Takes one request, or a piece of a body; False when more bytes are needed."""
        if self._body_left:
            piece = self._cut(self._body_left)
            self._body_left -= len(piece)
            assert self._plain is not None
            self._plain.data_received(piece)
            return True
        if self._write_paused and self._plain is None:
            return False
        data = self._behind
        end = data.find(_HEAD_END, 0, HEAD_BYTES_MAX)
        if end >= 0:
            return self._begin(data, end + len(_HEAD_END))
        if len(data) >= HEAD_BYTES_MAX or not may_become(data):
            self._surrender()
        return False

    def _begin(self, data: bytes, size: int) -> bool:
        """Takes a request whose head is whole.

        Args:
            data: What is there.
            size: Of the head, in bytes.
        """
        line_end = data.find(b"\r\n")
        line = data[:line_end]
        fields = self._front.road.fields(data[line_end:size])
        if fields is None:
            self._surrender()
            return False
        route = self._front.road.route(line) if self._may_be_short(fields) else None
        if route is not None:
            whole = size + fields.length_bytes
            if len(data) < whole:
                return False
            self.body, self._behind = data[size:whole], data[whole:]
            if self._serve(route, fields):
                return True
            self._behind = data
        if read_line(line) is None:
            self._surrender()
            return False
        self._body_left = fields.length_bytes
        self._plain_protocol().data_received(self._cut(size))
        return True

    def _may_be_short(self, fields: Fields) -> bool:
        plain = self._plain
        return (
            fields.short
            and fields.length_bytes <= BODY_BYTES_MAX
            and (plain is None or (_waits(plain) and not self._write_paused))
        )

    def _cut(self, size_bytes: int) -> bytes:
        """Takes so many bytes, or what there is, from the front of what waits."""
        piece, self._behind = self._behind[:size_bytes], self._behind[size_bytes:]
        return piece

    def _surrender(self) -> None:
        """Leaves this connection to aiohttp, with all that was not taken yet."""
        self._surrendered = True
        data, self._behind = self._behind, b""
        if self._read_paused:
            self._set_reading()
        self._plain_protocol().data_received(data)

    def _plain_protocol(self) -> RequestHandler:
        self.progressed = True
        if self._plain is None:
            assert self._transport is not None
            self._plain = self._front.plain()
            self._plain.connection_made(self._transport)
            if self._write_paused:
                self._plain.pause_writing()
        return self._plain

    def _set_reading(self) -> None:
        """Reads on, or stops while too much waits here or the client does not read."""
        if self._transport is None or self._transport.is_closing():
            return
        ours = self._plain is None or self.busy
        pause = ours and (self._write_paused or len(self._behind) > BEHIND_BYTES_MAX)
        if pause and not self._read_paused:
            self._transport.pause_reading()
        elif self._read_paused and not pause:
            self._transport.resume_reading()
        self._read_paused = pause


def _waits(plain: RequestHandler) -> bool:
    """True when aiohttp has answered all it was given, and waits for a next request.

    There is no public way to ask. `test_wire_connection.py` fails when these names change.
    """
    waiter = plain._waiter  # noqa: SLF001 - see above
    return waiter is not None and not waiter.done() and not plain._messages  # noqa: SLF001
