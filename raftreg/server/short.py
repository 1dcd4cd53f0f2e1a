"""The short way of a server: keys, read and written, and the hot reads of the catalog."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from raftreg.core import query
from raftreg.core.commands import KVOp, KVVerb
from raftreg.errors import RaftregError
from raftreg.http.discovery import ReadHead, read_head_bytes
from raftreg.http.json import dumps
from raftreg.http.middleware import RequestMeter
from raftreg.http.params import ReadOptions
from raftreg.http.render import kv_json
from raftreg.http.reply import FALSE, GZIP_BYTES_MIN, GZIP_HEAD, JSON, TEXT, TRUE, gzip_bytes
from raftreg.http.wire.answers import Answer, fault, refusal
from raftreg.http.wire.catalog import catalog_hot, short_options
from raftreg.http.wire.gate import ReadGate, Spawn
from raftreg.http.wire.reads import ReadDesk, ReadRoute
from raftreg.http.wire.road import Caller, Hot, ShortRoad, ShortRoute
from raftreg.model import KVEntry
from raftreg.server.api.context import Context
from raftreg.server.api.kv import NOSNIFF, PREFIX, ROUTE, left_head
from raftreg.server.writes import write_head

#: A larger value is rendered each time.
KEPT_VALUE_BYTES_MAX: Final = 512
_READ_OPTIONS: Final = frozenset({"stale", "consistent", "raw", "index", "wait", "dc"})
_WRITE_OPTIONS: Final = frozenset({"dc"})
#: A key that needs no decoding, well within the limit of its length.
_KEY = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/-]{1,1024}")

#: Makes further kinds of hot requests (of the agent inside a server).
MoreHot = Callable[[ReadDesk, Spawn], Iterable[Hot]]

_log = structlog.get_logger(__name__)


def server_road(
    context: Context, meter: RequestMeter, spawn: Spawn, extra: Sequence[MoreHot] = ()
) -> ShortRoad:
    """The hot requests of a server.

    Args:
        context: The server's parts.
        meter: Counts answers.
        spawn: Runs a coroutine in the server's group of tasks.
        extra: More kinds of requests.
    """
    reads = context.reads
    timeout_s = context.settings.http.read_timeout_s
    gate = ReadGate(lambda: context.replica.read_index(timeout_s), spawn)
    desk = ReadDesk(reads.hub, meter, reads.now, reads.jitter, gate)
    datacenter = context.settings.datacenter

    def read(key: str, text: str) -> ShortRoute | None:
        options = short_options(text, _READ_OPTIONS, datacenter)
        if options is None or not _KEY.fullmatch(key):
            return None
        raw = any(pair.partition("=")[0] == "raw" for pair in text.split("&"))
        return ReadKey(desk, context, key, options, raw=raw)

    def write(key: str, text: str) -> ShortRoute | None:
        options = short_options(text, _WRITE_OPTIONS, datacenter)
        if options is None or not _KEY.fullmatch(key):
            return None
        return WriteKey(desk, context, key, spawn)

    return ShortRoad(
        (
            Hot(b"GET", PREFIX.encode("ascii"), read),
            Hot(b"PUT", PREFIX.encode("ascii"), write),
            *catalog_hot(desk, reads, lambda _: True),
            *(hot for more in extra for hot in more(desk, spawn)),
        )
    )


class ReadKey(ReadRoute):
    """GET /v1/kv/KEY.

    Args:
        desk: What short reads share.
        context: The server's parts.
        key: The key.
        options: Of the request.
        raw: Answer with the value alone.
    """

    __slots__ = ("_answer", "_context", "_entry", "_gzip", "_head", "_index", "_key", "_raw")

    def __init__(
        self, desk: ReadDesk, context: Context, key: str, options: ReadOptions, *, raw: bool
    ) -> None:
        super().__init__(desk, ROUTE, options, query.topics_kv(key))
        self._context = context
        self._key = key
        self._raw = raw
        # The last answer, with what it was made of. Rows are never changed in place.
        self._answer: Answer | None = None
        self._entry: KVEntry | None = None
        self._index = 0
        self._head: ReadHead | None = None
        self._gzip = False

    def index(self) -> int:
        """See `ReadRoute.index`."""
        return query.kv_get(self._context.machine.state, self._key).index

    def newest(self) -> int:
        """See `ReadRoute.newest`."""
        return self._context.machine.state.index

    def answer(self, *, gzip: bool) -> Answer:
        """See `ReadRoute.answer`."""
        found = query.kv_get(self._context.machine.state, self._key)
        head = self._context.reads.head(self._options)
        if (
            self._answer is not None
            and found.value is self._entry
            and found.index == self._index
            and head is self._head
            and gzip is self._gzip
        ):
            return self._answer
        answer = self._make(found.value, read_head_bytes(found.index, head), gzip=gzip)
        if found.value is None or _may_keep(found.value):
            self._answer, self._entry, self._index = answer, found.value, found.index
            self._head, self._gzip = head, gzip
        return answer

    def _make(self, entry: KVEntry | None, head: bytes, *, gzip: bool) -> Answer:
        if entry is None:
            return Answer(b"", 404, TEXT, head)
        if entry.ttl_ms:
            head += left_head(self._context, entry)
        if self._raw:
            return Answer(entry.value, 200, TEXT, head + NOSNIFF)
        body = dumps([kv_json(entry)])
        if gzip and len(body) >= GZIP_BYTES_MIN:
            return Answer(gzip_bytes(body), 200, JSON, head + GZIP_HEAD)
        return Answer(body, 200, JSON, head)


def _may_keep(entry: KVEntry) -> bool:
    """Answers that are small, and say the same as long as the entry is the same."""
    return not entry.ttl_ms and len(entry.value) <= KEPT_VALUE_BYTES_MAX


class WriteKey:
    """PUT /v1/kv/KEY without conditions.

    Args:
        desk: Clock, dates and figures.
        context: The server's parts.
        key: The key.
        spawn: Runs a coroutine in the server's group of tasks.
    """

    __slots__ = ("_context", "_desk", "_key", "_spawn")

    def __init__(self, desk: ReadDesk, context: Context, key: str, spawn: Spawn) -> None:
        self._desk = desk
        self._context = context
        self._key = key
        self._spawn = spawn

    def serve(self, caller: Caller) -> bool:
        """See `ShortRoute.serve`."""
        # A client that goes away leaves a write that may commit; nobody is told.
        self._spawn(self._write(caller, caller.body))
        return True

    async def _write(self, caller: Caller, value: bytes) -> None:
        desk = self._desk
        op = KVOp(verb=KVVerb.SET, key=self._key, value=value)
        status = 200
        try:
            outcome = await self._context.writes.propose(op)
        except RaftregError as error:
            status, answer = error.http_status, refusal(error, desk.dates.at(desk.now()))
        except Exception:  # noqa: BLE001 - the last line of defence; the fault is logged in full
            _log.exception("request_failed", method="PUT", path=PREFIX + self._key)
            status, answer = 500, fault(desk.dates.at(desk.now()))
        else:
            body = TRUE if outcome.result is True else FALSE
            whole = Answer(body, 200, JSON, write_head(outcome))
            answer = whole.at(desk.dates.at(desk.now()))
        desk.meter.observe(ROUTE, "PUT", status, desk.now() - caller.began_s)
        caller.reply(answer)
