"""Watches: whoever follows changes sees them in order, none lost and none twice.

Vocabulary. `modify_index` is the registry's index of the write that is shown.

* `write`: key, value int, unique for its key; OK has `raft_index`, the key's ModifyIndex. In the
  part for prefixes each write makes a new key. For feeds it registers a service instance: the key
  is its id and the value is in its metadata.
* `watch-prefix` (key: the prefix), `watch-key` (key: the key): one blocking query. The invocation's
  value is `{"watcher": name, "since": index, "wait_s": seconds}`; the watcher is the logical one:
  it stays while its process number changes, and it watches one thing with one kind. `since` is the
  index of its last answer, 0 at the beginning. OK: the value is a list of `[key, value,
  modify_index]`, those with a modify_index above `since`, by modify_index; `[]` when the wait ended
  without news. `raft_index` is the X-Consul-Index of the answer, the next `since`. Any server may
  be asked. A lost answer is FAIL; the watcher then repeats with the same `since`.
* `watch-feed` (key null): one turn at the stream /v1/internal/view, from `since` on: it is opened
  (or kept open), and some frames are read. The value is a list of `[key, value, modify_index]` of
  the service rows of this workload, in the order in which they came; `raft_index` is the index of
  the last frame read whole (deltas, or a beat; not a reset: its content follows), the next `since`.
  Of a content that is sent anew after "reset", rows with a modify_index above `since` are given,
  sorted by it, since it comes in the order of the table.

At the end each watcher watches (`final`) until it has reached the index of the last write or an
answer brings nothing new.

Rules, for each watcher, over its OK answers in order:

* index-backwards: the index of an answer is never below `since`.
* watch-order: modify_index rises strictly through all answers: nothing old, nothing out of order.
* watch-twice: no write is shown twice.
* watch-phantom: what is shown was written, under that index if the write was acknowledged, and the
  write did not definitely fail.
* watch-lost: an answer of index `i` shows every acknowledged write of `since` < modify_index <= `i`
  to what is watched; for a single key it is enough that it shows a later one: it may leave out
  values that were overwritten.
* watch-late: no answer comes more than `LATE_S` after a write that ends the wait was acknowledged,
  while no fault was active and its `wait_s` was longer. (A wake-up that is lost shows only so.)

Who was not at the end of the last acknowledged write with the final answers: watch-behind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from jepsen_like.checkers.findings import (
    Faults,
    Findings,
    completed,
    key_of,
    malformed,
    outcomes,
    value_of,
)
from jepsen_like.checkers.verdict import Verdict
from jepsen_like.history import Event, MalformedHistory, Operation, Type, operations

LATE_S: Final = 5.0
_NS: Final = 1_000_000_000
_KINDS: Final = ("watch-prefix", "watch-key", "watch-feed")

#: What a watch shows: key, value, modify_index.
_Row = tuple[str, int, int]


class _Question(msgspec.Struct, frozen=True):
    """The value of an invocation of a watch."""

    watcher: str
    since: int
    wait_s: float = 0.0


class _Answer(msgspec.Struct, frozen=True):
    """A watch that was answered."""

    operation: Operation
    question: _Question
    rows: tuple[_Row, ...]
    index: int

    @property
    def event(self) -> Event:
        return completed(self.operation)


class _Target:
    """What one or more watchers watch, and the writes to it whose index is known.

    Args:
        kind: The `f` of the watch.
        key: The key or prefix; None for a feed.
    """

    def __init__(self, kind: str, key: str | None) -> None:
        self.kind = kind
        self.key = key
        self.indexes: list[int] = []
        self.writes: list[Operation] = []
        #: For each position, the earliest end of an acknowledged write from there on.
        self._soonest: list[Event | None] = []

    def covers(self, key: str) -> bool:
        """Tells whether writes to a key belong to it."""
        if self.kind == "watch-key":
            return key == self.key
        return self.key is None or key.startswith(self.key)

    def take(self, known: Sequence[tuple[int, Operation]]) -> None:
        """Takes all writes whose index is known, by index."""
        mine = [(index, op) for index, op in known if self.covers(key_of(op.invoke))]
        self.indexes = [index for index, _ in mine]
        self.writes = [op for _, op in mine]
        soonest: Event | None = None
        for write in reversed(self.writes):
            if write.type is Type.OK:
                end = completed(write)
                soonest = end if soonest is None or end.index < soonest.index else soonest
            self._soonest.append(soonest)
        self._soonest.reverse()

    def between(self, since: int, index: int) -> tuple[int, int]:
        """Positions of the writes with `since` < index <= `index`."""
        return bisect_right(self.indexes, since), bisect_right(self.indexes, index)

    def soonest_after(self, since: int) -> Event | None:
        """The first acknowledgement of a write above an index."""
        at = bisect_right(self.indexes, since)
        return self._soonest[at] if at < len(self._soonest) else None

    def last_acknowledged(self) -> tuple[int, Event] | None:
        """Index and end of the newest acknowledged write."""
        for index, write in zip(reversed(self.indexes), reversed(self.writes), strict=True):
            if write.type is Type.OK:
                return index, completed(write)
        return None


class _Writes:
    """All writes, by what they wrote.

    Raises:
        MalformedHistory: A value comes twice for its key.
    """

    def __init__(self, everything: Sequence[Operation]) -> None:
        self.by_value: dict[tuple[str, int], Operation] = {}
        #: The index of each write that is known, by its answer or by who saw it first.
        self.index_of: dict[tuple[str, int], tuple[int, Event]] = {}
        for operation in everything:
            if operation.invoke.f == "write":
                self._add(operation)

    def _add(self, operation: Operation) -> None:
        written = (key_of(operation.invoke), int(value_of(operation.invoke, int)))
        if written in self.by_value:
            raise MalformedHistory(
                f"event {operation.invoke.index}: {written[1]} is written to {written[0]} again"
            )
        self.by_value[written] = operation
        index = operation.raft_index
        if operation.type is Type.OK and index is not None:
            self.index_of[written] = (index, completed(operation))

    def known(self) -> list[tuple[int, Operation]]:
        """The writes whose index is known, by index."""
        known = [(index, self.by_value[w]) for w, (index, _) in self.index_of.items()]
        known.sort(key=lambda pair: (pair[0], pair[1].invoke.index))
        return known


def check_watch(events: Sequence[Event]) -> Verdict:
    """Checks watches; see the module for vocabulary and rules.

    Raises:
        MalformedHistory: A value has another shape.
    """
    found = Findings("watch")
    everything = operations(events)
    writes = _Writes(everything)
    found.figures = outcomes(writes.by_value.values())
    answers = _answers(everything)
    for watched in answers.values():
        for answer in watched:
            _check_rows(found, answer, writes)
    targets = _targets(everything, writes)
    for watched in answers.values():
        _check_order(found, watched)
        for answer in watched:
            _check_complete(found, answer, targets[_target_of(answer.operation)])
    _check_late(found, everything, targets, Faults(events))
    _check_end(found, answers, targets)
    found.figures["answers"] = sum(map(len, answers.values()))
    if not writes.known():
        found.unknown("no write was acknowledged with its index")
    if not any(answer.rows for watched in answers.values() for answer in watched):
        found.unknown("no watch showed anything")
    return found.verdict()


def _target_of(operation: Operation) -> tuple[str, str | None]:
    return operation.invoke.f, operation.invoke.key


def _answers(everything: Sequence[Operation]) -> dict[str, list[_Answer]]:
    """The OK answers of each watcher in order."""
    answers: dict[str, list[_Answer]] = defaultdict(list)
    for operation in everything:
        if operation.invoke.f not in _KINDS or operation.type is not Type.OK:
            continue
        event = completed(operation)
        if event.raft_index is None:
            raise malformed(event, "an answer without index")
        question: _Question = value_of(operation.invoke, _Question)
        rows: tuple[_Row, ...] = value_of(event, tuple[_Row, ...])
        answers[question.watcher].append(_Answer(operation, question, rows, event.raft_index))
    return answers


def _targets(
    everything: Sequence[Operation], writes: _Writes
) -> dict[tuple[str, str | None], _Target]:
    targets: dict[tuple[str, str | None], _Target] = {}
    known = writes.known()
    for operation in everything:
        place = _target_of(operation)
        if operation.invoke.f in _KINDS and place not in targets:
            targets[place] = _Target(*place)
            targets[place].take(known)
    return targets


def _check_rows(found: Findings, answer: _Answer, writes: _Writes) -> None:
    """What is shown was written, under the index that is known for it."""
    for key, value, index in answer.rows:
        write = writes.by_value.get((key, value))
        if write is None or write.type is Type.FAIL:
            how = "which nobody wrote" if write is None else "the write of which failed"
            message = f"watcher {answer.question.watcher} saw {key} = {value}, {how}"
            failed = None if write is None else write.completion
            found.add("watch-phantom", message, failed, answer.event)
            continue
        known, told_by = writes.index_of.setdefault((key, value), (index, answer.event))
        if known != index:
            message = (
                f"watcher {answer.question.watcher} saw {key} = {value} under index {index}, "
                f"not {known}"
            )
            found.add("watch-phantom", message, told_by, answer.event)


def _check_order(found: Findings, watched: Sequence[_Answer]) -> None:
    """Indexes rise through all answers of a watcher, and nothing comes twice."""
    highest, highest_in = -1, None
    shown: dict[tuple[str, int], Event] = {}
    for answer in watched:
        who = answer.question.watcher
        if answer.index < answer.question.since:
            message = f"watcher {who} asked from {answer.question.since}, got {answer.index}"
            found.add("index-backwards", message, answer.operation.invoke, answer.event)
        for key, value, index in answer.rows:
            before = shown.get((key, value))
            shown[key, value] = answer.event
            if before is not None:
                message = f"watcher {who} saw {key} = {value} twice"
                found.add("watch-twice", message, before, answer.event)
            elif index <= highest:
                message = f"watcher {who} saw {key} = {value} (index {index}) after {highest}"
                found.add("watch-order", message, highest_in, answer.event)
            if index > highest:
                highest, highest_in = index, answer.event


def _check_complete(found: Findings, answer: _Answer, target: _Target) -> None:
    """An answer shows all that it must between the last index and its own."""
    low, high = target.between(answer.question.since, answer.index)
    if low == high:
        return
    who, event = answer.question.watcher, answer.event
    if target.kind == "watch-key":
        newest = max((index for _, _, index in answer.rows), default=0)
        if newest < target.indexes[high - 1]:
            write = target.writes[high - 1]
            message = (
                f"watcher {who} got index {answer.index} of {target.key} without the write of "
                f"{write.invoke.value} at {target.indexes[high - 1]}"
            )
            found.add("watch-lost", message, write.completion or write.invoke, event)
        return
    shown = {(key, value) for key, value, _ in answer.rows}
    for at in range(low, high):
        write = target.writes[at]
        if (write.invoke.key, write.invoke.value) not in shown:
            message = (
                f"watcher {who} got from {answer.question.since} to {answer.index} without "
                f"{write.invoke.key} = {write.invoke.value} at {target.indexes[at]}"
            )
            found.add("watch-lost", message, write.completion or write.invoke, event)


def _check_late(
    found: Findings,
    everything: Sequence[Operation],
    targets: dict[tuple[str, str | None], _Target],
    faults: Faults,
) -> None:
    """While all is well, a watch is answered soon after a write that it covers."""
    for operation in everything:
        if operation.invoke.f not in _KINDS[:2] or operation.completion is None:
            continue
        question: _Question = value_of(operation.invoke, _Question)
        written = targets[_target_of(operation)].soonest_after(question.since)
        if written is None or question.wait_s <= LATE_S:
            continue
        from_ns = max(written.time_ns, operation.invoke.time_ns)
        late_s = (operation.completion.time_ns - from_ns) / _NS
        if late_s > LATE_S and faults.quiet(from_ns, operation.completion.time_ns):
            message = f"watcher {question.watcher} heard of a write {late_s:.1f} s after it"
            found.add("watch-late", message, written, operation.invoke, operation.completion)


def _check_end(
    found: Findings,
    answers: dict[str, list[_Answer]],
    targets: dict[tuple[str, str | None], _Target],
) -> None:
    """At the end each watcher is where the last acknowledged write is."""
    for who, watched in sorted(answers.items()):
        last = watched[-1]
        newest = targets[_target_of(last.operation)].last_acknowledged()
        if newest is None or last.index >= newest[0]:
            continue
        index, written = newest
        if last.operation.invoke.index < written.index:
            found.unknown(f"watcher {who} did not watch after the last write")
            continue
        message = f"watcher {who} ended at index {last.index}, the last write is at {index}"
        found.add("watch-behind", message, written, last.operation.invoke, last.event)
