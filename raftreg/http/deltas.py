"""What changed in the answer to a question, for clients that follow it: added, changed, removed.

A `DeltaFeed` keeps the rows of one question's answer as they were told last, and a short past of
differences. All streams of one question share it: a change is looked at once, and rendered once.

Positions. A position is the index at which a client has the whole answer, with the epoch that the
index belongs to. A client that comes back is sent exactly what it missed, where that is known:

* its index is one at which this feed looked, and all differences since are still kept; or
* nothing of the answer changed after its index (the state is at least as new as the client's).

In any other case it is sent the whole answer again. Differences between *other* indexes than its
own would not do: a row that it saw changed, and that was changed back, would be missing from them.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from raftreg.http.json import dumps
from raftreg.http.watch import Topic

KEPT_DELTAS_MAX: Final = 256
KEPT_BYTES_MAX: Final = 1 << 20
LOOKS_KEPT_MAX: Final = 4 * KEPT_DELTAS_MAX
#: Rows of one event of a snapshot; a larger answer comes in several.
SNAPSHOT_ROWS_MAX: Final = 500
#: A difference of more rows than the answer has, and these, is told as a snapshot instead.
_SLACK_ROWS: Final = 32
_EPOCH_CHARS: Final = 8

Source = Any  # a row of the registry as it is stored: compared, and rendered when it is told


class DeltaQuery(msgspec.Struct, frozen=True):
    """One question whose answer is a set of rows.

    Attributes:
        key: Names the question; equal questions share a feed.
        topics: What its answer depends on.
        find: Asks: gives the index of the answer, and its rows by their identity.
        render: A row as JSON.
        holds: Whether a rendered row passes the filter; None: there is none.
    """

    key: Hashable
    topics: tuple[Topic, ...]
    find: Callable[[], tuple[int, Mapping[Hashable, Source]]]
    render: Callable[[Source], Mapping[str, Any]]
    holds: Callable[[Any], bool] | None = None


class Position(msgspec.Struct, frozen=True):
    """Up to where a client has an answer; `Last-Event-ID` in the form `<index>.<epoch>`."""

    index: int
    epoch: str

    @classmethod
    def read(cls, text: str) -> Position | None:
        """Reads a position; None when it is none of ours."""
        index, dot, epoch = text.partition(".")
        if not (dot and index.isascii() and index.isdecimal() and len(index) <= 20):
            return None
        return cls(int(index), epoch)

    def __str__(self) -> str:
        return f"{self.index}.{self.epoch}"


class _Row(msgspec.Struct, frozen=True, gc=False):
    """A row as it was told last; one that the filter kept back was not told."""

    source: Source
    held: bool


class _Delta(msgspec.Struct, frozen=True, gc=False):
    """A difference as it is sent."""

    index: int
    rows: int
    event: bytes


class _Snapshot:
    """A large answer for those who read it at the same time: each event is rendered once.

    It is held by its readers alone, and is made as far as the fastest of them has come.
    """

    def __init__(self, index: int, events: Iterator[bytes]) -> None:
        self.index = index
        self._rest = events
        self._made: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        at = 0
        while at < len(self._made) or self._make():
            yield self._made[at]
            at += 1

    def _make(self) -> bool:
        event = next(self._rest, None)
        if event is not None:
            self._made.append(event)
        return event is not None


class DeltaFeed:
    """The answer to one question, and its recent past.

    Args:
        question: The question.
        epoch: Names the history that indexes belong to.
        newest: Index of the state that the question is asked of.
    """

    def __init__(
        self, question: DeltaQuery, epoch: Callable[[], str], newest: Callable[[], int]
    ) -> None:
        self.question = question
        self._epoch_now = epoch
        self._newest = newest
        self._epoch = epoch()[:_EPOCH_CHARS]
        index, found = question.find()
        self._rows = {key: self._row(key, source, {}) for key, source in found.items()}
        self._index = self._floor = index
        self._kept: deque[_Delta] = deque()
        self._kept_bytes = 0
        #: Indexes at which this feed has looked, in their order.
        self._looks: dict[int, None] = {index: None}
        self._snapshot: tuple[int, list[bytes]] | None = None
        self._being_read: weakref.ref[_Snapshot] | None = None

    def __len__(self) -> int:
        """Rows, also those that the filter keeps back."""
        return len(self._rows)

    @property
    def position(self) -> Position:
        """Where a client is that was told everything."""
        return Position(self._index, self._epoch)

    def refresh(self) -> bool:
        """Looks at the answer; True when it differs from what was told."""
        index, found = self.question.find()
        epoch = self._epoch_now()[:_EPOCH_CHARS]
        rows = {key: self._row(key, source, self._rows) for key, source in found.items()}
        before, self._rows = self._rows, rows
        if epoch != self._epoch or index < self._index:
            # Another history: what was kept leads nowhere any more.
            self._forget()
            self._epoch, self._index, self._floor = epoch, index, index
            self._looks = {index: None}
            return True
        self._index = index
        self._looks[index] = None
        if len(self._looks) > LOOKS_KEPT_MAX:
            del self._looks[next(iter(self._looks))]
        delta = _difference(before, rows, self.question.render)
        if delta is None:
            return False
        self._keep(delta)
        return True

    def missed(self, since: Position | None) -> tuple[Position, Iterator[bytes]]:
        """Gives what a client has not been told, as events, and where it is after them.

        Args:
            since: Up to where it has the answer; None: it has nothing.
        """
        deltas = None if since is None else self._since(since)
        if deltas is None:
            return self.position, self._snapshot_events()
        return self.position, (delta.event for delta in deltas)

    def _since(self, since: Position) -> list[_Delta] | None:
        """The differences after a position; None when only the whole answer will do."""
        if since.epoch != self._epoch:
            return None
        if since.index >= self._index:
            return [] if since.index <= self._newest() else None
        if since.index < self._floor or since.index not in self._looks:
            return None
        deltas = [delta for delta in self._kept if delta.index > since.index]
        if sum(delta.rows for delta in deltas) > len(self._rows) + _SLACK_ROWS:
            return None
        return deltas

    # -- rows ------------------------------------------------------------------------------------

    def _row(self, key: Hashable, source: Source, known: Mapping[Hashable, _Row]) -> _Row:
        old = known.get(key)
        if old is not None and (old.source is source or old.source == source):
            return old
        holds = self.question.holds
        return _Row(source, holds is None or holds(self.question.render(source)))

    def _keep(self, delta: dict[str, list[Any]]) -> None:
        rows = sum(map(len, delta.values()))
        if rows > len(self._rows) + _SLACK_ROWS:
            self._forget()
            self._floor = self._index
            return
        event = sse_event("delta", {"Index": self._index, **delta}, self.position)
        self._kept.append(_Delta(self._index, rows, event))
        self._kept_bytes += len(event)
        while len(self._kept) > KEPT_DELTAS_MAX or self._kept_bytes > KEPT_BYTES_MAX:
            oldest = self._kept.popleft()
            self._kept_bytes -= len(oldest.event)
            self._floor = oldest.index

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0
        self._snapshot = self._being_read = None

    # -- the whole answer ------------------------------------------------------------------------

    def _snapshot_events(self) -> Iterator[bytes]:
        """The whole answer of now; a small one is rendered once for all who come."""
        if self._snapshot is not None and self._snapshot[0] == self._index:
            return iter(self._snapshot[1])
        being_read = None if self._being_read is None else self._being_read()
        if being_read is not None and being_read.index == self._index:
            return iter(being_read)
        # Taken now: rows may change while the events are on their way to a slow client.
        sources = [row.source for row in self._rows.values() if row.held]
        events = self._render(sources, self.position)
        if len(sources) > SNAPSHOT_ROWS_MAX:
            shared = _Snapshot(self._index, events)
            self._being_read = weakref.ref(shared)
            return iter(shared)
        kept = list(events)
        if sum(map(len, kept)) <= KEPT_BYTES_MAX:
            self._snapshot = (self._index, kept)
        return iter(kept)

    def _render(self, sources: list[Source], at: Position) -> Iterator[bytes]:
        """Events of a snapshot; only the last carries an id: a part is no place to go on from."""
        rest = iter(sources)
        left = len(sources)
        while True:
            rows = [self.question.render(source) for source in islice(rest, SNAPSHOT_ROWS_MAX)]
            left -= len(rows)
            data: dict[str, Any] = {"Index": at.index, "Rows": rows, "More": left > 0}
            yield sse_event("snapshot", data, None if left else at)
            if not left:
                return


def _difference(
    before: Mapping[Hashable, _Row],
    after: Mapping[Hashable, _Row],
    render: Callable[[Source], Mapping[str, Any]],
) -> dict[str, list[Any]] | None:
    """What a client that was told `before` has to learn; None when it is nothing."""
    delta: dict[str, list[Any]] = {"Added": [], "Changed": [], "Removed": []}
    for key in (*after, *(key for key in before if key not in after)):
        old, new = _shown(before.get(key)), _shown(after.get(key))
        if old is new:
            continue
        if old is None:
            delta["Added"].append(render(new))
        elif new is None:
            delta["Removed"].append(render(old))
        else:
            delta["Changed"].append({"Old": render(old), "New": render(new)})
    return delta if any(delta.values()) else None


def _shown(row: _Row | None) -> Source | None:
    return row.source if row is not None and row.held else None


def sse_event(kind: str, data: Mapping[str, Any], at: Position | None) -> bytes:
    """Writes a server-sent event (WHATWG HTML, "Server-sent events").

    Args:
        kind: Its name.
        data: Its data; as JSON it is one line.
        at: Its id: where a client that has it may go on from.
    """
    head = f"event: {kind}\n" if at is None else f"event: {kind}\nid: {at}\n"
    return b"%bdata: %b\n\n" % (head.encode("ascii"), dumps(data))
