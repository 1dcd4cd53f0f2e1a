"""Agents' answers while the servers are out of reach: the last view, with its age, never nothing.

Vocabulary. The key is the instance's id; all instances are of one service.

* `register`: value `{"via": "server"|"agent", "steady": true|false}`, node: who was asked. Via a
  server the instance is on an external node (no host whose lease could end) and passing. Via an
  agent it is on that agent's host; OK means that the agent accepted it, perhaps cut off.
  "steady": it is never deregistered. Steady instances registered through servers come first.
* `deregister`: of instances that are not steady; value `{"via": …}`.
* `look` (node: the agent): invocation `{"via": "stale"|"cached"|"dns", "final": true|false}`. OK:
  `{"instances": [[id, passing], …] sorted, "age_s": number|null}`; by DNS the passing ones only,
  and `age_s` null (DNS can't tell it). `age_s` is what the answer says of its age
  (X-Consul-LastContact, or Age). FAIL: no answer, or an error.

Final looks as in `catalog`: each agent, in each way that was used, is asked until more than
`SETTLE_S` after the end of faults and changes, and at least once after that.

Rules, for each agent:

* forgotten: what an agent has shown once and is steady and registered through a server stays in all
  its later answers, passing.
* no-answer: an agent that has answered before answers every look, except while a fault names it.
* no-age: an answer by HTTP tells its age.
* age-untrue: an answer that misses an instance registered through a server, acknowledged more than
  `LAG_S` before the look began, says that it is at least that old, less `LAG_S`.
* not-arrived, not-gone: `SETTLE_S` after the end, every answer shows all that was registered, as
  passing, and nothing that was deregistered, through agents that were cut off, too.

No acknowledged registration, or no look at all, or no final look of an agent: UNKNOWN.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from jepsen_like.checkers.findings import (
    Faults,
    Findings,
    completed,
    end_of,
    key_of,
    outcomes,
    settled_ns,
    value_of,
)
from jepsen_like.checkers.latest import NEVER
from jepsen_like.checkers.verdict import Verdict
from jepsen_like.history import Event, Operation, Type, operations

SETTLE_S: Final = 10.0
LAG_S: Final = 3.0
_NS: Final = 1_000_000_000


class _ChangeValue(msgspec.Struct, frozen=True):
    """The value of a registration or deregistration."""

    via: str
    steady: bool = False


class _LookValue(msgspec.Struct, frozen=True):
    """The value of the invocation of a look."""

    via: str
    final: bool = False


class _Shown(msgspec.Struct, frozen=True):
    """The value of an answer."""

    instances: list[tuple[str, bool]]
    age_s: float | None = None


class _Look(msgspec.Struct, frozen=True):
    """A look; `shown` is None when there was no answer."""

    operation: Operation
    via: str
    shown: dict[str, bool] | None
    age_s: float | None

    @property
    def agent(self) -> str:
        return self.operation.invoke.node or "?"

    @property
    def events(self) -> tuple[Event, Event | None]:
        return self.operation.invoke, self.operation.completion


class _Instance:
    """One instance: when it was registered, and when it may have gone."""

    def __init__(self, name: str, changes: Sequence[Operation]) -> None:
        self.name = name
        registered = [op for op in changes if op.invoke.f == "register"]
        values = [value_of(op.invoke, _ChangeValue) for op in registered]
        self.by_server = bool(values) and all(value.via == "server" for value in values)
        self.steady = bool(values) and all(value.steady for value in values)
        acknowledged = [completed(op) for op in registered if op.type is Type.OK]
        #: The first acknowledgement that it is there.
        self.there = acknowledged[0] if acknowledged else None
        gone = [op for op in changes if op.invoke.f == "deregister" and op.type is not Type.FAIL]
        self.going = min((op.invoke.index for op in gone), default=NEVER)
        kept = [op for op in registered if op.type is not Type.FAIL]
        over = max((end_of(op, NEVER) for op in kept), default=-1)
        #: The acknowledged end of a deregistration that began after all registrations were over.
        self.gone = next(
            (op.completion for op in gone if op.type is Type.OK and over < op.invoke.index), None
        )


class _Agent:
    """What one agent has shown so far."""

    def __init__(self) -> None:
        self.answered: Event | None = None
        #: Steady instances of servers, with the first answer that showed each.
        self.known: dict[str, Event] = {}


def check_answers(events: Sequence[Event]) -> Verdict:
    """Checks the answers of agents; see the module for vocabulary and rules.

    Raises:
        MalformedHistory: A value has another shape.
    """
    found = Findings("answers")
    everything = operations(events)
    changes = [op for op in everything if op.invoke.f in {"register", "deregister"}]
    instances = _instances(changes)
    looks = [_look(op) for op in everything if op.invoke.f == "look"]
    found.figures = outcomes(changes) | {
        "looks": len(looks),
        "answered": sum(look.shown is not None for look in looks),
    }
    _check_views(found, looks, instances, Faults(events))
    for look in looks:
        _check_age(found, look, instances)
    _check_end(found, looks, instances, settled_ns(events, changes, SETTLE_S))
    if not any(op.type is Type.OK for op in changes):
        found.unknown("no registration was acknowledged")
    if not looks:
        found.unknown("nobody looked")
    return found.verdict()


def _instances(changes: Sequence[Operation]) -> dict[str, _Instance]:
    by_name: dict[str, list[Operation]] = defaultdict(list)
    for change in changes:
        by_name[key_of(change.invoke)].append(change)
    return {name: _Instance(name, ops) for name, ops in by_name.items()}


def _look(operation: Operation) -> _Look:
    value: _LookValue = value_of(operation.invoke, _LookValue)
    if operation.type is not Type.OK:
        return _Look(operation, value.via, None, None)
    shown: _Shown = value_of(completed(operation), _Shown)
    return _Look(operation, value.via, dict(shown.instances), shown.age_s)


def _check_views(
    found: Findings, looks: Sequence[_Look], instances: dict[str, _Instance], faults: Faults
) -> None:
    """An agent that has answered goes on to do so, and forgets nothing."""
    agents: dict[str, _Agent] = defaultdict(_Agent)
    over = sorted(
        (look for look in looks if look.operation.completion is not None),
        key=lambda look: completed(look.operation).index,
    )
    for look in over:
        agent = agents[look.agent]
        if look.shown is None:
            _check_answered(found, look, agent, faults)
            continue
        event = completed(look.operation)
        for name, first in agent.known.items():
            if first.index < look.operation.invoke.index and not look.shown.get(name, False):
                message = f"agent {look.agent} ({look.via}) no longer shows {name} as passing"
                found.add("forgotten", message, first, *look.events)
        agent.answered = agent.answered or event
        for name, passing in look.shown.items():
            instance = instances.get(name)
            if passing and instance is not None and instance.steady and instance.by_server:
                agent.known.setdefault(name, event)


def _check_answered(found: Findings, look: _Look, agent: _Agent, faults: Faults) -> None:
    start, end = look.operation.invoke, completed(look.operation)
    if agent.answered is None or agent.answered.index > start.index:
        return
    if not faults.hit(look.agent, start.time_ns, end.time_ns):
        message = f"agent {look.agent} ({look.via}) gave no answer: {end.error or 'no reason'}"
        found.add("no-answer", message, agent.answered, start, end)


def _check_age(found: Findings, look: _Look, instances: dict[str, _Instance]) -> None:
    """An answer tells how old it is, and does not make itself younger."""
    if look.shown is None or look.via == "dns":
        return
    if look.age_s is None:
        message = f"agent {look.agent} ({look.via}) does not tell the age of its answer"
        found.add("no-age", message, look.events[1])
        return
    start_ns, end = look.operation.invoke.time_ns, completed(look.operation).index
    for instance in instances.values():
        if instance.name in look.shown or not instance.by_server or instance.there is None:
            continue
        old_s = (start_ns - instance.there.time_ns) / _NS
        if instance.going > end and look.age_s + LAG_S < old_s:
            message = (
                f"agent {look.agent} ({look.via}) says that its answer is {look.age_s:g} s old, "
                f"but {instance.name}, registered {old_s:.1f} s before, is missing"
            )
            found.add("age-untrue", message, instance.there, *look.events)
            return


def _check_end(
    found: Findings, looks: Sequence[_Look], instances: dict[str, _Instance], from_ns: int
) -> None:
    """Some time after the end every agent shows what is registered."""
    settled = [
        look
        for look in looks
        if look.shown is not None and look.operation.invoke.time_ns >= from_ns
    ]
    for look in settled:
        for instance in instances.values():
            _check_arrived(found, look, instance)
    missing = {(look.agent, look.via) for look in looks} - {
        (look.agent, look.via) for look in settled
    }
    if missing:
        places = ", ".join(f"{agent} ({via})" for agent, via in sorted(missing)[:8])
        found.unknown(f"no settled look at {places}")
    found.figures["settled_looks"] = len(settled)


def _check_arrived(found: Findings, look: _Look, instance: _Instance) -> None:
    assert look.shown is not None
    passing = look.shown.get(instance.name, False)
    if instance.there is not None and instance.going == NEVER and not passing:
        message = (
            f"agent {look.agent} ({look.via}) does not show {instance.name} as passing, more than "
            f"{SETTLE_S:g} s after the end of faults and changes"
        )
        found.add("not-arrived", message, instance.there, *look.events)
    elif instance.gone is not None and instance.name in look.shown:
        message = f"agent {look.agent} ({look.via}) still shows {instance.name}, long deregistered"
        found.add("not-gone", message, instance.gone, *look.events)
