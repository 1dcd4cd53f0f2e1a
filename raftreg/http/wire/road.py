"""What the short way answers, and how a request finds it: by its bytes, in one look.

A request line that was recognised before is a key of a table, and so is the block of fields that a
client sends with each of its requests. Both tables are bounded; what falls out is read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

import msgspec

from raftreg.errors import RaftregError
from raftreg.http.wire.head import Fields, read_fields, read_line

LINES_KEPT_MAX: Final = 32_768
BLOCKS_KEPT_MAX: Final = 1024
#: What is longer is read each time: tables of entries without a bound on each have none.
LINE_KEPT_BYTES_MAX: Final = 512
BLOCK_KEPT_BYTES_MAX: Final = 2048
#: A longer body is read by aiohttp, piece by piece.
BODY_BYTES_MAX: Final = 64 * 1024

_V = TypeVar("_V")


class Caller(Protocol):
    """Who waits for an answer: a connection with one request in flight.

    Attributes:
        gzip: The client takes gzip.
        body: Body of the request.
        began_s: When the request was whole, in monotonic seconds.
        on_gone: Is called when the client goes before its answer; set by `wait`.
    """

    gzip: bool
    body: bytes
    began_s: float
    on_gone: Callable[[], None] | None

    def reply(self, answer: bytes, tail: bytes = b"") -> None:
        """Sends the answer, whole; exactly once a request. Nothing happens if nobody is there.

        Args:
            answer: All of it, or what comes before `tail`.
            tail: A large body.
        """
        ...

    def wait(self, on_gone: Callable[[], None]) -> bool:
        """Asks to be told when the client goes: its answer may take long.

        Returns:
            False when the client has gone already, or has sent its end, which looks the same:
            nobody waits for this answer, and there must be none.
        """
        ...

    def abort(self) -> None:
        """Breaks the connection: there is no answer."""
        ...


class ShortRoute(Protocol):
    """One recognised request line."""

    def serve(self, caller: Caller) -> bool:
        """Answers now or later.

        Returns:
            False when this request has to take the plain road after all; nothing was done then.
        """
        ...


#: From the rest of the path and the query string, both ASCII, to a route. None, or a RaftregError,
#: sends the request down the plain road, where it is said what is wrong with it.
Make = Callable[[str, str], "ShortRoute | None"]


class Hot(msgspec.Struct, frozen=True):
    """A kind of request that is answered here.

    Attributes:
        method: HTTP method.
        prefix: Beginning of its paths.
        make: Makes the route of one request line.
    """

    method: bytes
    prefix: bytes
    make: Make


class ShortRoad:
    """Finds routes by bytes.

    Args:
        hot: The kinds of requests, by prefix; the first that fits decides.
    """

    def __init__(self, hot: Iterable[Hot]) -> None:
        self._hot = tuple(hot)
        #: Request lines and blocks of fields that were recognised: read by connections directly.
        self.lines: OrderedDict[bytes, ShortRoute] = OrderedDict()
        self.blocks: OrderedDict[bytes, Fields] = OrderedDict()

    def fields(self, block: bytes) -> Fields | None:
        """What a block of fields means; None when it is not for us to say."""
        fields = self.blocks.get(block)
        if fields is None:
            fields = read_fields(block)
            if fields is not None and len(block) <= BLOCK_KEPT_BYTES_MAX:
                _keep(self.blocks, block, fields, BLOCKS_KEPT_MAX)
        return fields

    def route(self, line: bytes) -> ShortRoute | None:
        """The route of a well-formed request line; None: it takes the plain road."""
        route = self.lines.get(line)
        if route is None:
            route = self._find(line)
            if route is not None and len(line) <= LINE_KEPT_BYTES_MAX:
                _keep(self.lines, line, route, LINES_KEPT_MAX)
        return route

    def _find(self, line: bytes) -> ShortRoute | None:
        read = read_line(line)
        if read is None:
            return None
        for hot in self._hot:
            if read.method == hot.method and read.path.startswith(hot.prefix):
                rest = read.path[len(hot.prefix) :].decode("ascii")
                try:
                    return hot.make(rest, read.query.decode("ascii"))
                except RaftregError:
                    return None
        return None


def _keep(table: OrderedDict[bytes, _V], key: bytes, value: _V, size_max: int) -> None:
    """Adds to a bounded table; the oldest entry goes (re-reading one costs microseconds)."""
    table[key] = value
    if len(table) > size_max:
        table.popitem(last=False)
