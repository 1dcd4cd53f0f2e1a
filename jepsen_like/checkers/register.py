"""Registers: linearizable, but for the reads that were asked to be stale.

Vocabulary: f `read` (the invocation's value is the level: "default", "consistent" or "stale"; the
result is the value, null if absent), `write` (a value), `cas` ([expected, new]), with a key.
Each key is a compare-and-set register that begins absent (see `linear`).

* A FAIL never took effect. A `cas` that failed with `MISMATCH` as its error saw another value than
  it expected, at some moment between invocation and completion; other failures say nothing.
* A read whose level is "stale" is not linearizable. It must have shown absence or a value that a
  write invoked before the answer could have left; and what a process reads stale from one node must
  never go back: neither the index nor, where the order of two writes is certain (all writes of one
  value had returned before any of the other was invoked), the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from jepsen_like.checkers.linear import Outcome, check
from jepsen_like.checkers.linear_explain import explain
from jepsen_like.checkers.linear_search import Op
from jepsen_like.checkers.linear_shrink import smallest_part
from jepsen_like.checkers.models import CAS_REGISTER, Action, Cas, Mismatch, Read, Write
from jepsen_like.checkers.verdict import Anomaly, Valid, Verdict
from jepsen_like.history import NEMESIS, Event, MalformedHistory, Type

MISMATCH: Final = "another value is there"
ANOMALIES_MAX: Final = 100
SHOWN_MAX: Final = 20  #: of a violation that could not be made small
Scalar: TypeAlias = int | float | str | bool | None


class StaleRead(msgspec.Struct, frozen=True):
    """An answer from a server's own state."""

    key: str | None
    process: int
    node: str | None
    call: int
    ret: int
    value: Scalar
    index: int | None


class Gathered(msgspec.Struct):
    """A history as the checker needs it; positions are indexes of events.

    Attributes:
        parts: Operations by key, without stale reads.
        stale: Stale reads in the order of their answers.
        operations: Invocations.
        acknowledged: How many were OK.
        unknown: Writes of unknown outcome.
    """

    parts: dict[str | None, list[Op]] = {}
    stale: list[StaleRead] = []
    operations: int = 0
    acknowledged: int = 0
    unknown: int = 0


def check_register(events: Sequence[Event], *, steps_max: int | None = None) -> Verdict:
    """Judges a history of registers.

    Args:
        events: The history; event i has index i.
        steps_max: Budget of the search, in configurations; see `linear.check`.

    Raises:
        MalformedHistory: It breaks the rules of histories, or of the vocabulary above.
    """
    gathered = gather(events)
    outcome = check(gathered.parts, CAS_REGISTER.initial, steps_max=steps_max)
    anomalies = list(stale_anomalies(gathered))
    if outcome.linearizable is False:
        anomalies.insert(0, _violation(gathered, outcome, events))
    valid, why = _valid(gathered, outcome, anomalies)
    return Verdict(
        "register", valid, tuple(anomalies[:ANOMALIES_MAX]), why, _figures(gathered, outcome)
    )


def _valid(gathered: Gathered, outcome: Outcome, anomalies: Sequence[Anomaly]) -> tuple[Valid, str]:
    if anomalies:
        return Valid.FALSE, ""
    if outcome.linearizable is None:
        return Valid.UNKNOWN, f"key {outcome.key} was not decided within {outcome.steps} steps"
    if not gathered.acknowledged:
        return Valid.UNKNOWN, "nothing was acknowledged"
    return Valid.TRUE, ""


def _figures(gathered: Gathered, outcome: Outcome) -> dict[str, Any]:
    return {
        "operations": gathered.operations,
        "acknowledged": gathered.acknowledged,
        "unknown_writes": gathered.unknown,
        "stale_reads": len(gathered.stale),
        "keys": outcome.objects,
        "keys_searched": outcome.searched,
        "steps": outcome.steps,
    }


def gather(events: Iterable[Event]) -> Gathered:
    """Turns events into operations by key, in one pass.

    Raises:
        MalformedHistory: See `check_register`.
    """
    gathered = Gathered()
    busy: dict[int, Event] = {}
    for event in events:
        if event.process == NEMESIS:
            continue
        if event.type is Type.INVOKE:
            if event.process in busy:
                raise MalformedHistory(f"event {event.index}: process {event.process} is busy")
            busy[event.process] = event
            gathered.operations += 1
            continue
        invoke = busy.pop(event.process, None)
        if invoke is None:
            raise MalformedHistory(f"event {event.index}: a completion of nothing")
        _add(gathered, invoke, event)
    for invoke in busy.values():
        _add(gathered, invoke, None)
    return gathered


def _add(gathered: Gathered, invoke: Event, completion: Event | None) -> None:
    kind = Type.INFO if completion is None else completion.type
    gathered.acknowledged += kind is Type.OK
    ops = gathered.parts.setdefault(invoke.key, [])
    if kind is Type.OK and completion is not None:
        if invoke.f == "read" and invoke.value == "stale":
            gathered.stale.append(_stale(invoke, completion))
            return
        action = _action(invoke, completion)
        ops.append(Op(action, invoke.index, completion.index, completion.raft_index))
    elif kind is Type.INFO:
        if invoke.f != "read":
            gathered.unknown += 1
            ops.append(Op(_action(invoke, None), invoke.index, None))
    elif completion is not None and invoke.f == "cas" and completion.error == MISMATCH:
        seen = Mismatch(_pair(invoke)[0])
        ops.append(Op(seen, invoke.index, completion.index, completion.raft_index))


def _stale(invoke: Event, completion: Event) -> StaleRead:
    return StaleRead(
        invoke.key,
        invoke.process,
        completion.node,
        invoke.index,
        completion.index,
        _scalar(completion, completion.value),
        completion.raft_index,
    )


def _action(invoke: Event, completion: Event | None) -> Action:
    match invoke.f:
        case "read":
            shown = completion or invoke
            return Read(_scalar(shown, shown.value))
        case "write":
            return Write(_scalar(invoke, invoke.value))
        case "cas":
            return Cas(*_pair(invoke))
        case _:
            raise MalformedHistory(f"event {invoke.index}: no operation on a register: {invoke.f}")


def _pair(invoke: Event) -> tuple[Scalar, Scalar]:
    if not isinstance(invoke.value, list) or len(invoke.value) != 2:
        raise MalformedHistory(f"event {invoke.index}: a cas needs [expected, new]")
    expected, new = invoke.value
    return _scalar(invoke, expected), _scalar(invoke, new)


def _scalar(event: Event, value: object) -> Scalar:
    if value is None or isinstance(value, (int, float, str)):
        return value
    raise MalformedHistory(f"event {event.index}: a register holds no {type(value).__name__}")


def _violation(gathered: Gathered, outcome: Outcome, events: Sequence[Event]) -> Anomaly:
    ops = gathered.parts[outcome.key]
    describe = _describer(events)
    part = smallest_part(ops, CAS_REGISTER.initial, farthest=outcome.farthest)
    if part is None:
        returns = sorted((op for op in ops if op.ret is not None), key=lambda op: op.ret or 0)
        part = returns[max(0, outcome.farthest + 1 - SHOWN_MAX) : outcome.farthest + 1]
        message = (
            f"{describe(part[-1])} can't be explained together with all before it; which of them"
            f" contradict it would take longer to find out, the last {len(part)} are shown"
        )
    else:
        message = explain(part, ops, CAS_REGISTER.initial, describe)
    shown = sorted(
        position for op in part for position in (op.call, op.ret) if position is not None
    )
    return Anomaly("not-linearizable", message, tuple(shown))


def _describer(events: Sequence[Event]) -> Callable[[Op], str]:
    def describe(op: Op) -> str:
        invoke = events[op.call]
        node = None if op.ret is None else events[op.ret].node
        at = f" at {node or invoke.node}" if node or invoke.node else ""
        by = f" (process {invoke.process})"
        match op.action:
            case Read(value):
                return f"read {invoke.key} -> {_shown(value)}{at}{by}"
            case Write(value):
                return f"write {invoke.key} = {_shown(value)}{at}{by}"
            case Cas(expected, new):
                return f"cas {invoke.key} {_shown(expected)} -> {_shown(new)}{at}{by}"
            case Mismatch(expected):
                return f"cas {invoke.key}, finding no {_shown(expected)},{at}{by}"
            case _:  # pragma: no cover - registers have no other
                return invoke.f

    return describe


def _shown(value: object) -> str:
    return "absent" if value is None else str(value)


class _Writes(msgspec.Struct):
    """All writes of one value of one key."""

    first_call: int
    last_ret: float


def stale_anomalies(gathered: Gathered) -> Iterator[Anomaly]:
    """What stale reads must not show; see the module."""
    if not gathered.stale:
        return
    writes = {key: _writes(ops) for key, ops in gathered.parts.items()}
    sequences: dict[tuple[int, str | None, str | None], list[StaleRead]] = {}
    for read in gathered.stale:
        sequences.setdefault((read.process, read.node, read.key), []).append(read)
        source = writes.get(read.key, {}).get(read.value)
        if read.value is not None and (source is None or source.first_call > read.ret):
            text = f"stale read {read.key} -> {read.value} at {read.node}: nobody had written that"
            yield Anomaly("stale-read-of-nothing", text, (read.call, read.ret))
    for reads in sequences.values():
        yield from _backwards(reads, writes.get(reads[0].key, {}))


def _writes(ops: Sequence[Op]) -> dict[Scalar, _Writes]:
    found: dict[Scalar, _Writes] = {}
    for op in ops:
        if not isinstance(op.action, (Write, Cas)):
            continue
        ret = float("inf") if op.ret is None else op.ret
        value: Any = op.action.gives
        known = found.setdefault(value, _Writes(op.call, ret))
        known.first_call = min(known.first_call, op.call)
        known.last_ret = max(known.last_ret, ret)
    return found


def _backwards(reads: Sequence[StaleRead], writes: Mapping[Scalar, _Writes]) -> Iterator[Anomaly]:
    """Where what one process read at one node went back.

    Each read is held against the newest before it, by index and by value: the order of two values
    may be certain where that of each and one read between them is not.
    """
    by_index = by_value = reads[0]
    for read in reads[1:]:
        where = f"stale reads of {read.key} by process {read.process} at {read.node} went back"
        if (read.index or 0) < (by_index.index or 0) and read.index is not None:
            text = f"{where} from index {by_index.index} to {read.index}"
            yield Anomaly("stale-read-went-back", text, _events(by_index, read))
        elif _is_older(read.value, by_value.value, writes):
            shown = f"from {_shown(by_value.value)} to {_shown(read.value)}"
            text = f"{where} {shown}, which had been overwritten"
            yield Anomaly("stale-read-went-back", text, _events(by_value, read))
        by_index = max(by_index, read, key=lambda one: one.index or 0)
        by_value = max(by_value, read, key=lambda one: _first_call(one.value, writes))


def _events(earlier: StaleRead, later: StaleRead) -> tuple[int, ...]:
    return (earlier.call, earlier.ret, later.call, later.ret)


def _first_call(value: Scalar, writes: Mapping[Scalar, _Writes]) -> int:
    return writes[value].first_call if value in writes else -1


def _is_older(value: Scalar, than: Scalar, writes: Mapping[Scalar, _Writes]) -> bool:
    """Whether every write of a value surely came before any of another; absence comes first."""
    if value in writes:
        return writes[value].last_ret < _first_call(than, writes)
    return value is None and than in writes
