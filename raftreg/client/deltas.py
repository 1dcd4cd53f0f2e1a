"""Deltas: what was added, changed and removed, as an async iterator that outlives servers.

The server's side is a stream of server-sent events (WHATWG HTML, "Server-sent events"). After a
break the stream is opened again where it ended, at another server if need be. Where no server knows
what was missed, it sends the whole answer, and what differs is found here: who reads the iterator
sees differences alone, and never has a gap.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from raftreg.client.failures import BadAnswer, transient
from raftreg.client.options import Params
from raftreg.errors import ConnectionLost, InvalidRequest, RaftregError

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient

T = TypeVar("T")

EVENT_BYTES_MAX = 256 * 1024 * 1024
ROWS_MAX = 2_000_000
SILENCE_S = 15.0  #: servers send a comment every 5 seconds


class Delta(msgspec.Struct, Generic[T], frozen=True):
    """What changed.

    Attributes:
        index: Registry index of the answer.
        added: Rows that are new; at first, all there are.
        changed: (old, new) of rows that differ.
        removed: Rows that are gone, as they were.
        rows: All rows by identity, as they are now: the same mapping in every delta.
    """

    index: int
    added: tuple[T, ...]
    changed: tuple[tuple[T, T], ...]
    removed: tuple[T, ...]
    rows: Mapping[Hashable, T]


class Event(msgspec.Struct, frozen=True):
    """A server-sent event as it came."""

    kind: str
    data: bytes
    id: str = ""


class EventReader:
    """Bytes in, events out (pure); comments and unknown fields are passed over.

    Args:
        event_bytes_max: A longer event is refused.
    """

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._rest = bytearray()
        self._size_bytes = 0
        self._kind = self._id = ""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """Takes bytes as they arrive; gives the events that they complete.

        Raises:
            BadAnswer: An event is too long, or is no UTF-8 where it must be.
        """
        events: list[Event] = []
        start = len(self._rest)
        self._rest += data
        if b"\n" in data:
            # Only up to what is new: a long line that comes in pieces is looked through once.
            end = self._rest.rindex(b"\n", start) + 1
            lines = bytes(self._rest[:end]).split(b"\n")
            del self._rest[:end]
            for line in lines[:-1]:
                event = self._line(line.removesuffix(b"\r"))
                if event is not None:
                    events.append(event)
        if self._size_bytes + len(self._rest) > self._event_bytes_max:
            raise BadAnswer(f"an event of more than {self._event_bytes_max} bytes")
        return events

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        self._size_bytes += len(line)
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._data.append(value)
            case b"event":
                self._kind = _text(value)
            case b"id":
                self._id = _text(value)
            case _:
                pass
        return None

    def _dispatch(self) -> Event | None:
        event = None
        if self._data:
            event = Event(self._kind, b"\n".join(self._data), self._id)
        self._kind = self._id = ""
        self._data.clear()
        self._size_bytes = 0
        return event


class _Told(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Data of both kinds of events."""

    index: int
    rows: tuple[Any, ...] = ()
    more: bool = False
    added: tuple[Any, ...] = ()
    changed: tuple[dict[str, Any], ...] = ()
    removed: tuple[Any, ...] = ()


class Table(Generic[T]):
    """The answer as it is put together from events (pure).

    Args:
        read: A row of JSON as a value of ours.
        identity: What makes a row itself.
    """

    def __init__(self, read: Callable[[Any], T], identity: Callable[[T], Hashable]) -> None:
        self._rows: dict[Hashable, T] = {}
        self.rows: Mapping[Hashable, T] = MappingProxyType(self._rows)
        self.last_id = ""
        self._read = read
        self._identity = identity
        self._parts: dict[Hashable, T] = {}
        self._begun = False

    def restart(self) -> None:
        """The stream broke: a snapshot that was not whole begins anew."""
        self._parts = {}

    def take(self, event: Event) -> Delta[T] | None:
        """Applies an event; None while there is nothing to tell.

        Raises:
            BadAnswer: It can't be applied.
        """
        if event.kind not in {"snapshot", "delta"}:
            return None
        try:
            told = msgspec.json.decode(event.data, type=_Told)
            news = self._snapshot(told) if event.kind == "snapshot" else self._delta(told)
        except (msgspec.DecodeError, KeyError) as error:
            raise BadAnswer(f"an event can't be read: {error!r}") from error
        if news is None:
            return None
        delta = self._apply(told.index, news)
        self.last_id = event.id or self.last_id
        first, self._begun = not self._begun, True
        return delta if first or delta.added or delta.changed or delta.removed else None

    def _snapshot(self, told: _Told) -> dict[Hashable, T | None] | None:
        """What a whole answer says of each row, known or not; None while it is not whole."""
        self._parts |= self._keyed(told.rows)
        if len(self._parts) > ROWS_MAX:
            raise BadAnswer(f"an answer of more than {ROWS_MAX} rows")
        if told.more:
            return None
        whole, self._parts = self._parts, {}
        return dict.fromkeys(self._rows) | whole

    def _delta(self, told: _Told) -> dict[Hashable, T | None]:
        gone: dict[Hashable, T | None] = dict.fromkeys(self._keyed(told.removed))
        return gone | self._keyed(told.added) | self._keyed(c["New"] for c in told.changed)

    def _keyed(self, rows: Any) -> dict[Hashable, T]:
        values = (self._read(row) for row in rows)
        return {self._identity(value): value for value in values}

    def _apply(self, index: int, news: Mapping[Hashable, T | None]) -> Delta[T]:
        """Writes rows (None: it is gone); gives what differs from before."""
        added, changed, removed = [], [], []
        for key, new in news.items():
            old = self._rows.get(key)
            if new is None:
                self._rows.pop(key, None)
                if old is not None:
                    removed.append(old)
                continue
            self._rows[key] = new
            if old is None:
                added.append(new)
            elif old != new:
                changed.append((old, new))
        return Delta(index, tuple(added), tuple(changed), tuple(removed), self.rows)


async def deltas(
    client: RegistryClient,
    path: str,
    table: Table[T],
    *,
    params: Params,
    patience_s: float | None = None,
) -> AsyncGenerator[Delta[T], None]:
    """Yields the whole answer first, then each difference.

    Args:
        client: Where servers are.
        path: Percent-encoded path of a read that can be followed.
        table: Puts the answer together.
        params: Query of the read.
        patience_s: Raise the error after so many seconds without a server; None: never give up.

    Raises:
        InvalidRequest: The path can't be followed.
        RaftregError: What else the servers say of such a request, or `patience_s` is over.
    """
    failing_since: float | None = None
    rounds = 0
    while True:
        try:
            async for event in _events(client, path, params, table.last_id):
                failing_since, rounds = None, 0
                delta = table.take(event)
                if delta is not None:
                    yield delta
        except RaftregError as error:
            now_s = client.clock.monotonic()
            failing_since = now_s if failing_since is None else failing_since
            over = patience_s is not None and now_s - failing_since >= patience_s
            if not transient(error) or over:
                raise
        table.restart()
        await client.pause(rounds)
        rounds += 1


async def _events(
    client: RegistryClient, path: str, params: Params, last_id: str
) -> AsyncIterator[Event]:
    """The events of one stream, until it ends."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    async with client.stream(path, params=params, headers=headers, silence_s=SILENCE_S) as stream:
        kind = stream.headers.get("Content-Type", "")
        if not kind.startswith("text/event-stream"):
            raise InvalidRequest(f"{path} can't be followed: the answer is {kind or 'nothing'}")
        reader = EventReader()
        async for chunk in stream:
            for event in reader.feed(chunk):
                yield event
        raise ConnectionLost(f"{stream.address}: the stream ended")


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadAnswer("a stream of events that is no UTF-8") from error
