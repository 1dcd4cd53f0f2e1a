"""Our own histories (`jepsen_like.history`): registers and sets.

Stale reads are no linearizable ones and don't count here; `check_register` has a rule for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from jepsen_like.checkers.models import CAS_REGISTER, SET, Add, Read
from jepsen_like.checkers.register import gather
from jepsen_like.history import (
    NEMESIS,
    Event,
    MalformedHistory,
    Operation,
    Type,
    decode,
    operations,
)
from jepsen_like.judge.inline import elements
from jepsen_like.judge.parts import Recorded, Unreadable


def read(lines: Iterable[bytes], source: str) -> Recorded:
    """Reads a history; what it is about shows in its first operation that is not a read.

    Raises:
        Unreadable: A line is no event or not where it can be, or no model here fits.
    """
    try:
        events = decode(lines, source)
        head = _head(events)
        if head and head[-1].f == "add":
            return _set(list(chain(head, events)))
        return Recorded(CAS_REGISTER, dict(gather(chain(head, events)).parts))
    except MalformedHistory as error:
        raise Unreadable(str(error)) from error


def _head(events: Iterator[Event]) -> list[Event]:
    """The events up to the first that tells what the history is about."""
    head: list[Event] = []
    for event in events:
        head.append(event)
        if event.process != NEMESIS and event.f != "read":
            break
    return head


def _set(events: list[Event]) -> Recorded:
    recorded = Recorded(SET)
    for operation in operations(events):
        _add(recorded, operation)
    return recorded


def _add(recorded: Recorded, operation: Operation) -> None:
    invoke, completion = operation.invoke, operation.completion
    if invoke.f == "read":
        if completion is not None and completion.type is Type.OK:
            seen = elements(completion.value, f"event {completion.index}")
            recorded.add(
                invoke.key, Read(seen), invoke.index, completion.index, completion.raft_index
            )
    elif invoke.f != "add" or not isinstance(invoke.value, (int, str)):
        raise Unreadable(f"event {invoke.index}: no operation on a set: {invoke.f}")
    elif completion is None or operation.type is Type.INFO:
        recorded.add(invoke.key, Add(invoke.value), invoke.index, None)
    elif operation.type is Type.OK:
        recorded.add(
            invoke.key, Add(invoke.value), invoke.index, completion.index, completion.raft_index
        )
