"""What the search looks things up in: operations, states by number, operations without a return."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from jepsen_like.checkers.linear_texts import named_texts
from jepsen_like.checkers.models import (
    ANY,
    IMPOSSIBLE,
    UNSEEN,
    Action,
    Add,
    Append,
    Cas,
    Mismatch,
    Read,
    State,
    Write,
    fold,
)

NOWHERE: Final = -1  #: no state
ENDLESS: Final = sys.maxsize  #: later than any position


class Op(msgspec.Struct, frozen=True):
    """One operation on one object.

    Attributes:
        action: What it did, with the result that was seen.
        call: Position of its invocation in the history; no other event has it.
        ret: Position of its return, after `call`; None if its outcome never became known.
        index: The position in the replicated log that the answer told, if it told one.
    """

    action: Action
    call: int
    ret: int | None
    index: int | None = None


class Table:
    """States and actions by number, and the steps between states.

    Args:
        ops: All operations.
        initial: The first state; it has the number 0.
    """

    def __init__(self, ops: Sequence[Op], initial: State) -> None:
        self._values: list[State] = []
        self._steps: list[dict[int, int]] = []
        self._states: dict[State, int] = {}
        self._actions: dict[Action, int] = {}
        self._fold = fold({op.action for op in ops})
        for op in ops:
            self._actions.setdefault(self._as_seen(op.action), len(self._actions))
        self._by_number = list(self._actions)
        self.state(initial)
        self.unseen = self.state(UNSEEN)
        self.needs = [self._known(action.needs) for action in self._by_number]
        self.gives = [self._known(action.gives) for action in self._by_number]
        self._named = named_texts([op.action for op in ops], initial)
        self.sinks = self._find_sinks()
        self.seen = self._find_seen()
        grow = (Read, Add) if initial == frozenset() else ()
        #: whether no state, once left, ever comes back
        self.one_way = self._named is not None or all(isinstance(op.action, grow) for op in ops)
        #: whether the states to which actions lead are known without a state at hand
        self.is_plain = not any(isinstance(a, (Append, Add)) for a in self._by_number)

    def action(self, op: Op) -> int:
        """The number of what an operation did; the same for all that nobody can tell apart."""
        return self._actions[self._as_seen(op.action)]

    def _as_seen(self, action: Action) -> Action:
        """The action with UNSEEN for what it writes, if nobody will ever ask for that."""
        match action:
            case Write(value) if self._fold(value) is UNSEEN:
                return Write(UNSEEN)
            case Cas(expected, new) if self._fold(new) is UNSEEN:
                return Cas(expected, UNSEEN)
            case _:
                return action

    def state(self, state: State) -> int:
        """The number of a state, or of those like it."""
        state = self._fold(state)
        found = self._states.setdefault(state, len(self._values))
        if found == len(self._values):
            self._values.append(state)
            self._steps.append({})
        return found

    def step(self, state: int, action: int) -> int:
        """The state after an action, or NOWHERE if no linearization can have that step."""
        known = self._steps[state]
        after = known.get(action)
        if after is None:
            value = self._by_number[action].step(self._values[state])
            after = NOWHERE if value is IMPOSSIBLE else self.state(value)
            if after == self.unseen and action in self.seen:
                after = NOWHERE
            known[action] = after
        return after

    def _known(self, state: State) -> int:
        return NOWHERE if state is ANY else self.state(state)

    def _find_sinks(self) -> frozenset[int]:
        """Actions that lead to UNSEEN from every state; none if there is a `Mismatch`."""
        if any(isinstance(action, Mismatch) for action in self._by_number):
            return frozenset()
        asked = [action.needs for action in self._by_number]
        elements = {one for state in asked if isinstance(state, frozenset) for one in state}

        def is_sink(number: int, action: Action) -> bool:
            match action:
                case Write():
                    return self.gives[number] == self.unseen
                case Append(text):
                    return self._named is not None and text not in self._named
                case Add(element):
                    return element not in elements
                case _:
                    return False

        return frozenset(n for n, action in enumerate(self._by_number) if is_sink(n, action))

    def _find_seen(self) -> frozenset[int]:
        """Actions that can't lead to UNSEEN, since something that was read names them."""
        if self._named is None:
            return frozenset()
        return frozenset(
            n
            for n, action in enumerate(self._by_number)
            if isinstance(action, Append) and action.text in self._named
        )


class _Kind(msgspec.Struct):
    """Open operations with the same action: consecutive numbers, ascending by call."""

    action: int
    first: int
    mask: int
    calls: list[int]
    needs: int
    blind: bool

    def next(self, before: int, used: int) -> tuple[int, int] | None:
        """Number and action of the first unused one, if it was called before a position."""
        at = (used >> self.first & self.mask).bit_length()
        if at < len(self.calls) and self.calls[at] < before:
            return self.first + at, self.action
        return None


class OpenOps:
    """Operations without a return, numbered by action and call.

    Args:
        ops: The operations.
        table: Numbers of states and actions.
    """

    def __init__(self, ops: Sequence[Op], table: Table) -> None:
        by_action: dict[int, list[Op]] = {}
        for op in sorted(ops, key=lambda op: op.call):
            by_action.setdefault(table.action(op), []).append(op)
        self.ops: list[Op] = []
        self._kinds: list[_Kind] = []
        self._giving: dict[int, list[_Kind]] = {}
        for action, same in by_action.items():
            if action in table.sinks:
                continue  # of no use to anybody
            calls = [op.call for op in same]
            needs, gives = table.needs[action], table.gives[action]
            blind = needs == NOWHERE != gives
            kind = _Kind(action, len(self.ops), (1 << len(same)) - 1, calls, needs, blind)
            self.ops.extend(same)
            self._kinds.append(kind)
            self._giving.setdefault(gives, []).append(kind)

    def available(self, before: int, used: int) -> list[tuple[int, int]]:
        """The first unused one of each kind, as number and action, called before a position."""
        found = []
        for kind in self._kinds:  # ascending by first call
            if kind.calls[0] >= before:
                break
            if one := kind.next(before, used):
                found.append(one)
        return found

    def leading_to(self, wanted: set[int], before: int, used: int) -> list[tuple[int, int]]:
        """Of `available`, those after which something wants to be next.

        That is a completed operation, or an open one which leads on to what is wanted. Those whose
        effect depends on the state before may be followed by anything.
        """
        if NOWHERE in self._giving:
            return self.available(before, used)
        found, closed, waiting = [], set(wanted), list(wanted)
        while waiting:
            for kind in self._giving.get(waiting.pop(), ()):
                one = kind.next(before, used)
                if one is None:
                    continue
                found.append(one)
                if kind.needs != NOWHERE and kind.needs not in closed:
                    closed.add(kind.needs)
                    waiting.append(kind.needs)
        return sorted(found)

    def may_make(self, state: int, used: int) -> bool:
        """Whether an unused one, called whenever, leads to a state."""
        return any(kind.next(ENDLESS, used) for kind in self._giving.get(state, ()))

    def may_write(self, before: int, used: int) -> bool:
        """Whether an unused write was called before a position."""
        return any(kind.blind and kind.next(before, used) for kind in self._kinds)
