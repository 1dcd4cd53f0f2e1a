"""The catalog: what was registered is found everywhere soon after the faults are over.

Vocabulary. The key is the instance's id, unique over all nodes.

* `register`: value `{"passing": true|false|null}`: how it counts afterwards; null where the
  registration leaves the status as it was. OK: acknowledged by where it was registered.
  `"local": true` when an agent was asked: it may bring the change to the servers later.
* `deregister`: value `{}` or `{"local": true}`.
* `health`: value `{"passing": true|false}`, and "local". FAIL also when there is no such instance.
* `look` (node: where it is asked): invocation `{"via": "http"|"dns", "level": "default"|"stale",
  "final": true|false}`; agents answer from their view: "stale". The result of `http` is the sorted
  list of `[instance, passing]` of all instances; that of `dns` the same with the passing ones only.
  FAIL: no answer.

Final looks: after everything is healed, every place (node and via) is asked again and again, until
more than `SETTLE_S` (10 s) after the last fault was healed and the last change ended, and at least
once after that.

Rules:

* phantom: no look shows an instance whose registration had not begun.
* stale-look: a look of level "default" shows each instance as the operations can have left it at
  some moment of the look: it misses nothing that was acknowledged before it began.
* diverged: the first look of each place that begins `SETTLE_S` after the end of faults and changes,
  and all later ones, show for each instance something that the operations can have left; and the
  same at every place. Not one such look at a place that was asked at all: UNKNOWN.
* no-answer: a final look after that time is answered.

An operation of unknown outcome may have taken effect, or not; at the end all places must agree on
which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from jepsen_like.checkers.findings import (
    Findings,
    completed,
    end_of,
    key_of,
    outcomes,
    settled_ns,
    value_of,
)
from jepsen_like.checkers.latest import NEVER, Change, Latest
from jepsen_like.checkers.verdict import Verdict
from jepsen_like.history import Event, Operation, Type, operations

SETTLE_S: Final = 10.0
_CHANGES: Final = ("register", "deregister", "health")
_ABSENT: Final = "absent"
_PASSING: Final = "passing"
_CRITICAL: Final = "critical"


class _ChangeValue(msgspec.Struct, frozen=True):
    """The value of a change."""

    passing: bool | None = None
    local: bool = False


class _LookValue(msgspec.Struct, frozen=True):
    """The value of the invocation of a look."""

    via: str
    level: str = "stale"
    final: bool = False


class _Look(msgspec.Struct, frozen=True):
    """A look, with its answer as the state of each instance shown."""

    operation: Operation
    value: _LookValue
    shown: dict[str, str]

    @property
    def place(self) -> tuple[str, str]:
        """Where and how was asked."""
        return self.operation.invoke.node or "?", self.value.via

    def state(self, instance: str) -> str:
        """What it shows of an instance."""
        return self.shown.get(instance, _ABSENT)

    @property
    def events(self) -> tuple[Event, Event | None]:
        return self.operation.invoke, self.operation.completion


class _Instance:
    """What can be known of one instance."""

    def __init__(self, changes: Sequence[Operation]) -> None:
        self.first = min(
            (change.invoke.index for change in changes if change.invoke.f == "register"),
            default=NEVER,
        )
        kept = [change for change in changes if change.type is not Type.FAIL]
        #: As the servers may show it at any time: what an agent accepted may come there later.
        self.now = Latest((_change(op, locals_end=NEVER) for op in kept), _ABSENT)
        #: As it must be in the end.
        self.settled = Latest((_change(op, locals_end=0) for op in kept), _ABSENT)


def _change(operation: Operation, locals_end: int) -> Change:
    value: _ChangeValue = value_of(operation.invoke, _ChangeValue | None) or _ChangeValue()
    end = end_of(operation, NEVER)
    if value.local:
        end = max(end, locals_end)
    return Change(operation.invoke.index, end, end < NEVER, _states(operation, value))


def _states(operation: Operation, value: _ChangeValue) -> tuple[str, ...]:
    if operation.invoke.f == "deregister":
        return (_ABSENT,)
    if value.passing is None:
        return (_PASSING, _CRITICAL)
    return (_PASSING,) if value.passing else (_CRITICAL,)


def check_catalog(events: Sequence[Event]) -> Verdict:
    """Checks a catalog; see the module for vocabulary and rules.

    Raises:
        MalformedHistory: A value has another shape.
    """
    found = Findings("catalog")
    everything = operations(events)
    changes = [op for op in everything if op.invoke.f in _CHANGES]
    by_instance: dict[str, list[Operation]] = defaultdict(list)
    for change in changes:
        by_instance[key_of(change.invoke)].append(change)
    instances = {name: _Instance(ops) for name, ops in by_instance.items()}
    looks = [_look(op) for op in everything if op.invoke.f == "look"]
    answered = [look for look in looks if look.operation.type is Type.OK]
    found.figures = outcomes(changes) | {"looks": len(answered), "instances": len(instances)}
    for look in answered:
        _check_phantoms(found, look, instances)
        if look.value.level in {"default", "consistent"}:
            _check_new(found, look, instances)
    _check_settled(found, looks, instances, settled_ns(events, changes, SETTLE_S))
    if not any(change.type is Type.OK for change in changes):
        found.unknown("no change was acknowledged")
    if not answered:
        found.unknown("no look was answered")
    return found.verdict()


def _look(operation: Operation) -> _Look:
    value: _LookValue = value_of(operation.invoke, _LookValue)
    shown: dict[str, str] = {}
    if operation.type is Type.OK:
        rows: list[tuple[str, bool]] = value_of(completed(operation), list[tuple[str, bool]])
        shown = {name: _PASSING if passing else _CRITICAL for name, passing in rows}
    return _Look(operation, value, shown)


def _check_phantoms(found: Findings, look: _Look, instances: dict[str, _Instance]) -> None:
    end = completed(look.operation).index
    for name in look.shown:
        known = instances.get(name)
        if known is None or known.first > end:
            message = f"{_where(look)} shows {name}, which nobody had begun to register"
            found.add("phantom", message, look.events[1])


def _check_new(found: Findings, look: _Look, instances: dict[str, _Instance]) -> None:
    start, end = look.operation.invoke.index, completed(look.operation).index
    for name, instance in instances.items():
        if not _may_show(look, instance.now, name, start, end):
            message = (
                f"{_where(look)} shows {name} as {look.state(name)}, which it can't have been then"
            )
            found.add("stale-look", message, *look.events)


def _may_show(look: _Look, latest: Latest, name: str, start: int, end: int) -> bool:
    state = look.state(name)
    if latest.may_be(state, start, end):
        return True
    # DNS leaves out what is not passing.
    return look.value.via == "dns" and state == _ABSENT and latest.may_be(_CRITICAL, start, end)


def _where(look: _Look) -> str:
    node, via = look.place
    return f"{node} by {via}"


def _check_settled(
    found: Findings, looks: Sequence[_Look], instances: dict[str, _Instance], from_ns: int
) -> None:
    """Some time after the end every place shows what it must, and the same."""
    settled = [look for look in looks if look.operation.invoke.time_ns >= from_ns]
    answered = [look for look in settled if look.operation.type is Type.OK]
    for look in settled:
        if look.operation.type is not Type.OK:
            message = f"{_where(look)} gave no answer after everything was healed"
            found.add("no-answer", message, *look.events)
    for look in answered:
        start, end = look.operation.invoke.index, completed(look.operation).index
        for name, instance in instances.items():
            if not _may_show(look, instance.settled, name, start, end):
                message = (
                    f"{_where(look)} shows {name} as {look.state(name)} more than {SETTLE_S:g} s "
                    "after the end of faults and changes: the operations can't have left it so"
                )
                found.add("diverged", message, *look.events)
    _check_agreement(found, answered, instances)
    missing = {look.place for look in looks} - {look.place for look in answered}
    if missing:
        places = ", ".join(f"{node} by {via}" for node, via in sorted(missing)[:8])
        found.unknown(f"no settled look at {places}")
    found.figures["settled_looks"] = len(answered)


def _check_agreement(
    found: Findings, answered: Sequence[_Look], instances: dict[str, _Instance]
) -> None:
    by_http = [look for look in answered if look.value.via != "dns"]
    if not by_http:
        return
    model = by_http[0]
    passing = {name: state for name, state in model.shown.items() if state == _PASSING}
    for look in answered:
        expected = passing if look.value.via == "dns" else model.shown
        if look.shown == expected:
            continue
        name = min(
            n for n in {*instances, *look.shown, *expected} if look.shown.get(n) != expected.get(n)
        )
        message = (
            f"{_where(look)} shows {name} as {look.state(name)}, {_where(model)} as "
            f"{model.state(name)}, long after everything was healed"
        )
        found.add("diverged", message, model.events[1], look.events[1])
