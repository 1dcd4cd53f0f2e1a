"""Histories made by hand, and histories made from a serial execution, for the tests of checkers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from jepsen_like.history import NEMESIS, Event, Type

S = 1_000_000_000


class Open:
    """An operation that has begun in a script."""

    def __init__(self, script: Script, process: int, f: str, key: str | None, node: str | None):
        self._script = script
        self._fields = {"process": process, "f": f, "key": key, "node": node}
        self.start = len(script.events) - 1

    def ok(self, value: Any = None, raft_index: int | None = None) -> int:
        """Ends it as acknowledged; gives the index of the event."""
        return self._end(Type.OK, value, raft_index)

    def fail(self) -> int:
        """Ends it as definitely failed."""
        return self._end(Type.FAIL, None, None)

    def info(self) -> int:
        """Ends it as unknown."""
        return self._end(Type.INFO, None, None)

    def _end(self, type_: Type, value: Any, raft_index: int | None) -> int:
        return self._script.add(type=type_, value=value, raft_index=raft_index, **self._fields)


class Script:
    """A history in the making; a second passes between events, unless `at` says otherwise."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._now_ns = 0
        self._processes = 0

    def at(self, time_s: float) -> None:
        """The next event happens then."""
        self._now_ns = int(time_s * S) - S

    def add(self, **fields: Any) -> int:
        """Adds an event; gives its index."""
        self._now_ns += S
        event = Event(index=len(self.events), time_ns=self._now_ns, **fields)
        self.events.append(event)
        return event.index

    def begin(
        self, f: str, value: Any = None, key: str | None = None, node: str | None = None
    ) -> Open:
        """Begins an operation in a process of its own."""
        self._processes += 1
        process = self._processes
        self.add(process=process, type=Type.INVOKE, f=f, key=key, value=value, node=node)
        return Open(self, process, f, key, node)

    def ok(
        self,
        f: str,
        value: Any = None,
        result: Any = None,
        *,
        key: str | None = None,
        node: str | None = None,
        raft_index: int | None = None,
    ) -> int:
        """A whole operation that was acknowledged; the result is the value where it is None."""
        opened = self.begin(f, value, key, node)
        return opened.ok(value if result is None else result, raft_index)

    def nemesis(self, f: str, value: Any = None) -> int:
        """The nemesis does something."""
        return self.add(process=NEMESIS, type=Type.INFO, f=f, value=value)


class Atom(msgspec.Struct):
    """One operation of a serial execution, with how far it reaches around its moment.

    Attributes:
        f, key, value: As invoked.
        result: Value of the completion.
        before, after: How long it began before its moment and ended after it.
        type: Its outcome.
        raft_index: The index of its answer.
        node: Where it was asked.
    """

    f: str
    value: Any
    result: Any
    key: str | None = None
    before: int = 0
    after: int = 0
    type: Type = Type.OK
    raft_index: int | None = None
    node: str | None = None


def overlapped(atoms: Sequence[Atom]) -> list[Event]:
    """The history of a serial execution, each operation stretched over its neighbours.

    The moments of the operations are 10 apart; each operation has a process of its own.
    """
    moments: list[tuple[float, int, Type, Atom]] = []
    for number, atom in enumerate(atoms):
        moment = number * 10
        moments.append((moment - 0.1 - atom.before, number, Type.INVOKE, atom))
        moments.append((moment + 0.1 + atom.after, number, atom.type, atom))
    moments.sort(key=lambda item: (item[0], item[1]))
    return [
        Event(
            index=index,
            time_ns=(index + 1) * 1_000_000,
            process=number,
            type=type_,
            f=atom.f,
            key=atom.key,
            value=atom.result if type_ is Type.OK else atom.value,
            node=atom.node,
            raft_index=atom.raft_index if type_ is Type.OK else None,
        )
        for index, (_, number, type_, atom) in enumerate(moments)
    ]


def spreads() -> st.SearchStrategy[int]:
    """How far operations reach: most a little, some far."""
    return st.one_of(st.integers(0, 15), st.integers(0, 60))


def renumbered(events: Sequence[Event]) -> list[Event]:
    """The events with indexes that fit their places."""
    return [msgspec.structs.replace(e, index=index) for index, e in enumerate(events)]


def changed(events: Sequence[Event], at: int, change: Callable[[Any], Any]) -> list[Event]:
    """A copy in which the value of one event is another."""
    event = msgspec.structs.replace(events[at], value=change(events[at].value))
    return [*events[:at], event, *events[at + 1 :]]
