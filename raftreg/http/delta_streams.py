"""Deltas as server-sent events: `Accept: text/event-stream` on a read that can be followed.

A stream begins with the whole answer (`snapshot` events, the last with `"More": false`), or, for a
client that comes back with `Last-Event-ID`, with what it missed. Then each change is a `delta`
event: `Added`, `Changed` (`Old` and `New`) and `Removed` rows. A comment comes every few seconds;
with it the server confirms that it still knows the newest state (unless `?stale`), and ends the
stream where it does not, so that the client goes to another one.

Changes that come close together are told together. A client that reads slowly is sent the sum of
what it missed, as a snapshot if that is smaller; nothing is queued for it beyond what it is being
sent. https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web

from raftreg.errors import RaftregError
from raftreg.http.deltas import DeltaFeed, DeltaQuery, Position
from raftreg.http.middleware import BEGUN, UNTIMED
from raftreg.http.params import Consistency, ReadOptions
from raftreg.http.problems import TooManyWatches
from raftreg.http.watch import ALL, Topic, WatchHub

EVENT_STREAM: Final = "text/event-stream"
BEAT: Final = b": beat\n\n"
BEAT_S: Final = 5.0
#: Changes of one answer within this time are told together.
GATHER_S: Final = 0.05
#: A client that takes nothing for so long is given up.
STALL_S: Final = 30.0
RETRY_MS: Final = 1_000
IDLE_FEEDS_MAX: Final = 64
IDLE_ROWS_MAX: Final = 2_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Followed:
    """What the answers come from: a server's state, or an agent's view.

    Attributes:
        hub: Tells of changes.
        ready: Returns when the state is new enough for these options; raises NoLeader.
        epoch: Names the history that the indexes belong to.
        newest: Index of the state.
    """

    hub: WatchHub
    ready: Callable[[ReadOptions], Awaitable[None]]
    epoch: Callable[[], str]
    newest: Callable[[], int]


def wants_events(request: web.Request) -> bool:
    """Tells whether a client asks for a stream of events."""
    return request.method == "GET" and EVENT_STREAM in request.headers.get("Accept", "").lower()


class _Live:
    """A feed with the streams on it: the one waiter of them all in the hub."""

    def __init__(self, feed: DeltaFeed, hub: WatchHub) -> None:
        self.feed = feed
        self.topics: tuple[Topic, ...] = (*feed.question.topics, (ALL, ""))
        self.streams = 0
        self.news: asyncio.Future[None] | None = None
        self.failed: RaftregError | None = None
        self._hub = hub
        self._dirty = False
        self._looked_at_s = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def enter(self) -> None:
        """A stream begins."""
        if not self.streams:
            self._hub.join(self)
            self._dirty = True  # it may have slept through changes
        self.streams += 1

    def leave(self) -> None:
        """A stream ended."""
        self.streams -= 1
        if not self.streams:
            self._hub.leave(self)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def wake(self) -> None:
        """Something changed: looks soon, but not more often than every `GATHER_S`."""
        self._dirty = True
        if self._timer is None:
            loop = asyncio.get_running_loop()
            at_s = max(self._looked_at_s + GATHER_S, loop.time())
            self._timer = loop.call_at(at_s, self._look)

    def fail(self, reason: RaftregError) -> None:
        """The process stops."""
        self.failed = reason
        self._tell()

    def look(self) -> None:
        """Looks now, if anything may have changed."""
        if self._dirty:
            self._dirty = False
            self._looked_at_s = asyncio.get_running_loop().time()
            self.feed.refresh()

    def _look(self) -> None:
        self._timer = None
        self.look()
        self._tell()

    def _tell(self) -> None:
        if self.news is not None and not self.news.done():
            self.news.set_result(None)
        self.news = None

    async def wait(self, timeout_s: float) -> bool:
        """Waits for the next look; False when the time is over.

        Raises:
            RaftregError: The process stops.
        """
        if self.news is None:
            self.news = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait((self.news,), timeout=timeout_s)
        if self.failed is not None:
            raise self.failed
        return bool(done)


class DeltaStreams:
    """The streams of one process, and the feeds that they share.

    Args:
        source: Where answers come from.
        streams_max: Streams at once; more are refused.
    """

    def __init__(self, source: Followed, streams_max: int) -> None:
        self._source = source
        self._streams_max = streams_max
        self._live: dict[Hashable, _Live] = {}
        #: Feeds without a stream, the longest idle first: who comes back soon is told what differs.
        self._idle: OrderedDict[Hashable, DeltaFeed] = OrderedDict()
        self.count = 0

    async def stream(
        self,
        request: web.Request,
        options: ReadOptions,
        question: DeltaQuery,
        head: Callable[[int], Mapping[str, str]],
    ) -> web.StreamResponse:
        """Answers a request with a stream, until the client goes or the process stops.

        Args:
            request: Of the client.
            options: How new answers must be.
            question: What it follows.
            head: From the index of the answer to further header lines.

        Raises:
            NoLeader: The state is not new enough.
            TooManyWatches: The limit is reached.
        """
        await self._source.ready(options)
        request[UNTIMED] = True
        with self._on(question) as live:
            response = _response(head(live.feed.position.index))
            writer = await response.prepare(request)
            assert writer is not None
            request[BEGUN] = response
            try:
                await self._send(response, live, options, _position(request))
                await response.write_eof()
            except (RaftregError, TimeoutError) as reason:
                _log.debug("stream_ended", path=request.path, reason=str(reason))
                await _end(response, request)
            return response

    async def _send(
        self,
        response: web.StreamResponse,
        live: _Live,
        options: ReadOptions,
        since: Position | None,
    ) -> None:
        """Sends what the client misses, again and again; ends by an error alone."""
        await _write(response, b"retry: %d\n\n" % RETRY_MS)
        while True:
            live.look()
            position, events = live.feed.missed(since)
            for event in events:
                await _write(response, event)
                # A write that fits lets nobody on. Those who come together go on together, too, and
                # so share the rendering of a large answer.
                await asyncio.sleep(0)
            if position != since:
                since = position
                continue  # much may have happened while the client was reading
            if not await live.wait(BEAT_S):
                if options.consistency is not Consistency.STALE:
                    await self._source.ready(options)
                await _write(response, BEAT)

    @contextmanager
    def _on(self, question: DeltaQuery) -> Iterator[_Live]:
        """The feed of a question, for as long as a stream is on it."""
        hub = self._source.hub
        if self.count + hub.count >= self._streams_max:
            raise TooManyWatches(f"{self.count} streams are open already; retry later")
        live = self._live.get(question.key)
        if live is None:
            feed = self._idle.pop(question.key, None)
            if feed is None:
                feed = DeltaFeed(question, self._source.epoch, self._source.newest)
            live = _Live(feed, hub)
        live.enter()
        self._live[question.key] = live
        self.count += 1
        try:
            live.look()
            yield live
        finally:
            self.count -= 1
            live.leave()
            if not live.streams:
                del self._live[question.key]
                self._rest(question.key, live.feed)

    def _rest(self, key: Hashable, feed: DeltaFeed) -> None:
        if len(feed) <= IDLE_ROWS_MAX:
            self._idle[key] = feed
            if len(self._idle) > IDLE_FEEDS_MAX:
                self._idle.popitem(last=False)


def _position(request: web.Request) -> Position | None:
    return Position.read(request.headers.get("Last-Event-ID", ""))


def _response(head: Mapping[str, str]) -> web.StreamResponse:
    # The last one: a proxy in between (nginx) must not gather events.
    fixed = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers={**head, **fixed})
    response.content_type = EVENT_STREAM
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Writes; waits while the client reads more slowly than we write, but not for ever."""
    async with asyncio.timeout(STALL_S):
        await response.write(data)


async def _end(response: web.StreamResponse, request: web.Request) -> None:
    """Ends a stream in order, or breaks it where the client takes nothing."""
    try:
        async with asyncio.timeout(1.0):
            await response.write_eof()
    except (TimeoutError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()


async def relay(
    request: web.Request, head: Mapping[str, str], chunks: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Hands on a stream that another process sends.

    Args:
        request: Of the client.
        head: Header lines of the other's answer.
        chunks: Its body.
    """
    request[UNTIMED] = True
    response = _response(head)
    await response.prepare(request)
    request[BEGUN] = response
    try:
        async for chunk in chunks:
            await _write(response, chunk)
        await response.write_eof()
    except (RaftregError, TimeoutError) as reason:
        _log.debug("stream_ended", path=request.path, reason=str(reason))
        await _end(response, request)
    return response
