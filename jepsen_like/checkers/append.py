"""List append: transactions over lists, checked for isolation by cycles of dependencies.

After K. Kingsbury and P. Alvaro, "Elle: Inferring Isolation Anomalies from Experimental
Observations", VLDB 2020; the names of the anomalies are Adya's.

Vocabulary:

* `txn`: the invocation's value is a list of steps `["append", key, element]` (int, unique for its
  key in the run) and `["r", key, null]`, done in this order, atomically. An OK completion repeats
  the steps with each read filled in: `["r", key, [1, 2]]`, `[]` for a key that is not there. A read
  shows the appends that stand before it in its own transaction.
* FAIL: it definitely had no effect (a check-and-set within it did not hold). INFO: unknown.

Expected is strict serializability. The workload reads every key at the end, when all transactions
are over; without such a read of a key nothing is known about its last appends: UNKNOWN.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from jepsen_like.checkers.findings import Findings, completed, end_of, malformed, outcomes, value_of
from jepsen_like.checkers.graph import Cycle, Graph, Kind, Step, anomalies
from jepsen_like.checkers.verdict import Verdict
from jepsen_like.history import Event, MalformedHistory, Operation, Type, operations

_Step = tuple[Literal["append", "r"], str, int | list[int] | None]


class _Txn(msgspec.Struct, frozen=True):
    """A transaction; `number` is its node in the graph."""

    number: int
    operation: Operation
    steps: tuple[_Step, ...]

    @property
    def event(self) -> Event:
        return self.operation.completion or self.operation.invoke

    def appends(self) -> Iterator[tuple[str, int]]:
        """What it appends: key, element."""
        for verb, key, value in self.steps:
            if verb == "append" and isinstance(value, int):
                yield key, value

    def reads(self) -> Iterator[tuple[str, list[int]]]:
        """What it read, if it was acknowledged: key, list."""
        if self.operation.type is not Type.OK:
            return
        for verb, key, value in self.steps:
            if verb == "r" and isinstance(value, list):
                yield key, value


class _Read(msgspec.Struct, frozen=True):
    """One read of one key."""

    txn: _Txn
    shown: list[int]


class _Key:
    """All that is known of one list.

    Attributes:
        writers: Who appends each element.
        inner: Elements that their own transaction follows up with another one.
        longest: The longest read.
        latest: The read that began last.
        acknowledged: The elements of acknowledged transactions.
    """

    def __init__(self) -> None:
        self.writers: dict[int, _Txn] = {}
        self.inner: set[int] = set()
        self.longest: _Read | None = None
        self.latest: _Read | None = None
        self.acknowledged: list[int] = []

    @property
    def order(self) -> list[int]:
        """The elements in the order in which they were appended, as far as it was seen."""
        return [] if self.longest is None else self.longest.shown

    def note(self, read: _Read) -> None:
        """Takes a read; they come in the order of their beginnings."""
        self.latest = read
        if self.longest is None or len(read.shown) > len(self.longest.shown):
            self.longest = read

    def writer(self, at: int) -> _Txn | None:
        """Who appended the element at a position; None for who can't have, or past the end."""
        order = self.order
        txn = self.writers.get(order[at]) if 0 <= at < len(order) else None
        return None if txn is None or txn.operation.type is Type.FAIL else txn


def check_append(events: Sequence[Event]) -> Verdict:
    """Checks list-append histories; see the module for vocabulary and rules.

    Raises:
        MalformedHistory: An element is appended twice, or a value has another shape.
    """
    found = Findings("append")
    everything = [op for op in operations(events) if op.invoke.f == "txn"]
    txns = [_txn(number, operation) for number, operation in enumerate(everything)]
    found.figures = outcomes(everything)
    keys = _keys(txns)
    for txn in txns:
        _check_inside(found, txn)
    for name, key in sorted(keys.items()):
        _check_elements(found, name, key)
    _check_reads(found, txns, keys)
    for name, key in sorted(keys.items()):
        _check_lost(found, name, key)
    graph = _graph(txns, keys, events)
    for kind, cycle in anomalies(graph):
        _report(found, kind, cycle, txns, keys)
    if not any(txn.operation.type is Type.OK for txn in txns):
        found.unknown("no transaction was acknowledged")
    found.figures["keys"] = len(keys)
    return found.verdict()


def _txn(number: int, operation: Operation) -> _Txn:
    told = completed(operation) if operation.type is Type.OK else operation.invoke
    steps: tuple[_Step, ...] = value_of(told, tuple[_Step, ...])
    for verb, key, value in steps:
        if verb == "append" and not isinstance(value, int):
            raise malformed(told, f"an append to {key} names no element")
        if verb == "r" and operation.type is Type.OK and not isinstance(value, list):
            raise malformed(told, f"the read of {key} is not filled in")
    return _Txn(number, operation, steps)


def _keys(txns: Sequence[_Txn]) -> dict[str, _Key]:
    keys: dict[str, _Key] = defaultdict(_Key)
    for txn in txns:
        last: dict[str, int] = {}
        for name, element in txn.appends():
            key = keys[name]
            if element in key.writers:
                index = txn.operation.invoke.index
                raise MalformedHistory(f"event {index}: {element} is appended to {name} again")
            key.writers[element] = txn
            if name in last:
                key.inner.add(last[name])
            last[name] = element
            if txn.operation.type is Type.OK:
                key.acknowledged.append(element)
        for name, shown in txn.reads():
            keys[name].note(_Read(txn, shown))
    return keys


# -- what a single read or key shows ---------------------------------------------------------------


def _check_inside(found: Findings, txn: _Txn) -> None:
    """A transaction sees its own appends, and nobody else's between its steps."""
    if txn.operation.type is not Type.OK:
        return
    whole: dict[str, list[int]] = {}
    tail: dict[str, list[int]] = defaultdict(list)
    for verb, key, value in txn.steps:
        if verb == "append" and isinstance(value, int):
            tail[key].append(value)
            continue
        assert isinstance(value, list)
        at_least = whole.get(key, [])
        own = len(value) - len(tail[key])
        if value[max(own, 0) :] != tail[key] or (key in whole and value[: max(own, 0)] != at_least):
            message = f"a transaction reads {key} as {_short(value)} against its own steps before"
            found.add("internal", message, *_events(txn))
        whole[key] = value
        tail[key] = []


def _check_elements(found: Findings, name: str, key: _Key) -> None:
    """All that is in a list was appended, once, by somebody who did not fail."""
    if key.longest is None:
        return
    shown_by = key.longest.txn.event
    for element, count in Counter(key.order).items():
        writer = key.writers.get(element)
        if count > 1:
            message = f"{name} holds {element} {count} times"
            found.add("duplicate-element", message, shown_by)
        if writer is None:
            found.add("phantom", f"{name} holds {element}, which nobody appended", shown_by)
        elif writer.operation.type is Type.FAIL:
            message = f"{name} holds {element}, the append of which definitely failed"
            found.add("G1a", message, writer.event, shown_by)


def _check_reads(found: Findings, txns: Sequence[_Txn], keys: dict[str, _Key]) -> None:
    for txn in txns:
        for name, shown in txn.reads():
            key = keys[name]
            longest = key.longest
            assert longest is not None
            if key.order[: len(shown)] != shown:
                message = (
                    f"{name} was read as {_short(shown)} and as {_short(key.order)}: neither is a "
                    "prefix of the other"
                )
                found.add("incompatible-order", message, txn.event, longest.txn.event)
            last = shown[-1] if shown else None
            if last in key.inner and key.writers[last] is not txn:
                message = f"{name} was read as {_short(shown)} in the middle of a transaction"
                found.add("G1b", message, key.writers[last].event, txn.event)


def _check_lost(found: Findings, name: str, key: _Key) -> None:
    """What was acknowledged is in the reads that began after; somebody must have read then."""
    if not key.acknowledged:
        return
    unseen = _unseen(key)
    latest_start = -1 if key.latest is None else key.latest.txn.operation.invoke.index
    for element in unseen:
        writer = key.writers[element]
        if key.latest is not None and writer.event.index < latest_start:
            message = f"{element} was appended to {name}, and a read after that misses it"
            found.add("lost-append", message, writer.event, *_events(key.latest.txn))
    if latest_start < max(key.writers[element].event.index for element in key.acknowledged):
        found.unknown(f"nobody read {name} after the last acknowledged append")


def _unseen(key: _Key) -> list[int]:
    """Acknowledged elements that no read showed."""
    seen = set(key.order)
    return [element for element in key.acknowledged if element not in seen]


# -- dependencies ----------------------------------------------------------------------------------


def _graph(txns: Sequence[_Txn], keys: dict[str, _Key], events: Sequence[Event]) -> Graph:
    graph = Graph(len(txns))
    tails: dict[str, _Tail] = {}
    for name, key in keys.items():
        _add_order(graph, key)
        tail = _add_tail(graph, key)
        if tail is not None:
            tails[name] = tail
    for txn in txns:
        for name, shown in txn.reads():
            _add_read(graph, txn, keys[name], shown, tails.get(name))
    _add_real_time(graph, txns, keys, len(events))
    graph.freeze()
    return graph


def _add_order(graph: Graph, key: _Key) -> None:
    for at in range(1, len(key.order)):
        before, after = key.writer(at - 1), key.writer(at)
        if before is not None and after is not None and before is not after:
            graph.edge(before.number, after.number, Kind.WW)


class _Tail(msgspec.Struct, frozen=True):
    """The appends to a list that came after all that was read, in an order not known.

    Attributes:
        node: Leads to their transactions.
        writers: The transactions.
    """

    node: int
    writers: frozenset[int]


def _add_tail(graph: Graph, key: _Key) -> _Tail | None:
    """Adds what came after the longest read; what a later read should have shown is lost anyway."""
    latest_start = -1 if key.latest is None else key.latest.txn.operation.invoke.index
    unseen = {key.writers[element].number: key.writers[element] for element in _unseen(key)}
    later = frozenset(number for number, txn in unseen.items() if txn.event.index > latest_start)
    if not later:
        return None
    tail = graph.node()
    for number in sorted(later):
        graph.edge(tail, number, Kind.VIA)
    last = key.writer(len(key.order) - 1)
    if last is not None and last.number not in later:
        graph.edge(last.number, tail, Kind.WW)
    return _Tail(tail, later)


def _add_read(graph: Graph, txn: _Txn, key: _Key, shown: list[int], tail: _Tail | None) -> None:
    if key.order[: len(shown)] != shown:
        return  # reported; what it depends on is not known
    before, after = key.writer(len(shown) - 1), key.writer(len(shown))
    if before is not None and before is not txn:
        graph.edge(before.number, txn.number, Kind.WR)
    if after is not None and after is not txn:
        graph.edge(txn.number, after.number, Kind.RW)
    if tail is not None and len(shown) == len(key.order) and txn.number not in tail.writers:
        graph.edge(txn.number, tail.node, Kind.RW)


def _add_real_time(graph: Graph, txns: Sequence[_Txn], keys: dict[str, _Key], never: int) -> None:
    """Who ended before another began comes before it.

    A row of nodes stands for "everything that ended up to here": each transaction leads to the one
    where it ended, and the newest one leads to each that begins.
    """
    seen = {writer.number for key in keys.values() for writer in _seen_writers(key)}
    moments: list[tuple[int, int, bool]] = []
    for txn in txns:
        if txn.operation.type is Type.OK or txn.number in seen:
            moments.append((txn.operation.invoke.index, txn.number, False))
            end = end_of(txn.operation, never)
            if end < never and txn.operation.type is Type.OK:
                moments.append((end, txn.number, True))
    moments.sort()
    ended = graph.node()
    is_used = False
    for _, number, is_end in moments:
        if not is_end:
            graph.edge(ended, number, Kind.VIA)
            is_used = True
            continue
        if is_used:
            following = graph.node()
            graph.edge(ended, following, Kind.VIA)
            ended, is_used = following, False
        graph.edge(number, ended, Kind.RT)


def _seen_writers(key: _Key) -> Iterator[_Txn]:
    for at in range(len(key.order)):
        writer = key.writer(at)
        if writer is not None:
            yield writer


# -- telling ---------------------------------------------------------------------------------------


def _report(
    found: Findings, kind: str, cycle: Cycle, txns: Sequence[_Txn], keys: dict[str, _Key]
) -> None:
    steps = list(_without_via(cycle))
    if not steps:
        found.add(kind, "transactions depend on each other in a circle too long to be shown")
        return
    told = "; ".join(_tell(step, txns, keys) for step in steps)
    events = [event for step in steps for event in _events(txns[step.source])]
    found.add(kind, told, *events)


def _without_via(cycle: Cycle) -> Iterator[Step]:
    """The steps between transactions: each edge together with the free ones after it."""
    starts = [at for at, step in enumerate(cycle) if step.kind is not Kind.VIA]
    for number, at in enumerate(starts):
        following = cycle[starts[(number + 1) % len(starts)]]
        yield Step(cycle[at].source, following.source, cycle[at].kind)


def _tell(step: Step, txns: Sequence[_Txn], keys: dict[str, _Key]) -> str:
    source, target = txns[step.source], txns[step.target]
    names = f"T{source.event.index}", f"T{target.event.index}"
    match step.kind:
        case Kind.WW:
            how = f"appended before {names[1]} did" + _tell_order(source, target, keys)
        case Kind.WR:
            how = f"was read by {names[1]}" + _tell_read(source, target, keys)
        case Kind.RW:
            how = f"did not see what {names[1]} appended" + _tell_missed(source, target, keys)
        case _:
            how = f"ended before {names[1]} began"
    return f"{names[0]} {how}"


def _tell_order(source: _Txn, target: _Txn, keys: dict[str, _Key]) -> str:
    for name, element in target.appends():
        order = keys[name].order
        at = order.index(element) if element in order else 0
        if at > 0 and keys[name].writers.get(order[at - 1]) is source:
            return f" ({name}: {order[at - 1]}, then {element})"
    return ""


def _tell_read(source: _Txn, target: _Txn, keys: dict[str, _Key]) -> str:
    for name, shown in target.reads():
        if shown and keys[name].writers.get(shown[-1]) is source:
            return f" ({name}: {shown[-1]})"
    return ""


def _tell_missed(source: _Txn, target: _Txn, keys: dict[str, _Key]) -> str:
    for name, shown in source.reads():
        missed = [element for key, element in target.appends() if key == name]
        if missed and missed[0] not in shown:
            return f" ({name}: {missed[0]})"
    return ""


def _events(txn: _Txn) -> tuple[Event, Event | None]:
    return txn.operation.invoke, txn.operation.completion


def _short(shown: Sequence[int]) -> str:
    if len(shown) <= 8:
        return str(list(shown))
    return f"[… {', '.join(map(str, shown[-6:]))}] ({len(shown)} elements)"
