"""A linearization guessed from the indexes that came with the answers, and then verified.

An answer of the registry carries the index of the log up to which it speaks. Sorted by it, writes
before the reads of the same index, the operations should already be in an order that explains them.
That costs a sort instead of a search. Nothing rests on the indexes being right: the order is held
against real time and against the model, and is a linearization if it passes both (that is the
definition). If it does not pass, nothing is said: the search decides.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from math import inf

from jepsen_like.checkers.linear_search import Op
from jepsen_like.checkers.models import ANY, IMPOSSIBLE, State


def witness(ops: Sequence[Op], initial: State) -> list[Op] | None:
    """An order of all completed operations, and some open ones, that explains what was seen.

    Args:
        ops: The operations on one object.
        initial: The state that it began with.

    Returns:
        A linearization; None if a completed write has no index, or the guess is wrong.
    """
    completed = [op for op in ops if op.ret is not None]
    if any(op.index is None and not op.action.pure for op in completed):
        return None
    indexed = [op for op in completed if op.index is not None]
    indexed.sort(key=lambda op: (op.index, op.action.pure, op.call))
    unknown = _Open(op for op in ops if op.ret is None)
    order = _with_open(indexed, unknown, initial)
    if order is None:
        return None
    if len(indexed) < len(completed):
        extra = [op for op in completed if op.index is None]
        order = _with_pure(order, extra, initial, unknown.left())
    return order if is_linearization(order, ops, initial) else None


def is_linearization(order: Sequence[Op], ops: Sequence[Op], initial: State) -> bool:
    """Whether an order explains a history: the definition, checked in one pass.

    Args:
        order: Operations in the order in which they would have taken place.
        ops: All operations on the object; those that completed must be in the order, once each,
            and those that did not may be.
        initial: The state that the object began with.
    """
    placed = {op.call for op in order}
    if len(placed) != len(order) or not placed <= {op.call for op in ops}:
        return False
    if any(op.ret is not None and op.call not in placed for op in ops):
        return False
    state, latest_call = initial, -1
    for op in order:
        if op.ret is not None and op.ret < latest_call:
            return False  # something before it in the order was called after it had returned
        latest_call = max(latest_call, op.call)
        state = op.action.step(state)
        if state is IMPOSSIBLE:
            return False
    return True


class _Open:
    """Operations of unknown outcome, by the state that they lead to."""

    def __init__(self, ops: Iterable[Op]) -> None:
        self._by_state: dict[State, list[Op]] = {}
        for op in sorted(ops, key=lambda op: -op.call):
            if op.action.gives is not ANY:
                self._by_state.setdefault(op.action.gives, []).append(op)

    def path(self, state: State, wanted: State) -> list[Op] | None:
        """Takes operations that lead from one state to another; None if there are none."""
        found: list[Op] = []
        while wanted != state:
            ways = self._by_state.get(wanted)
            if not ways:
                return None
            found.append(ways.pop())
            if found[-1].action.needs is ANY:
                break
            wanted = found[-1].action.needs
        return found[::-1]

    def left(self) -> list[Op]:
        """Writes that were not taken, by call; each can take place in every state."""
        ops = (op for same in self._by_state.values() for op in same)
        return sorted((op for op in ops if op.action.needs is ANY), key=lambda op: op.call)


def _with_open(completed: Sequence[Op], unknown: _Open, initial: State) -> list[Op] | None:
    """Puts an operation of unknown outcome wherever only that explains what was seen."""
    order: list[Op] = []
    state = initial
    for op in completed:
        after = op.action.step(state)
        if after is IMPOSSIBLE:
            path = None if op.action.needs is ANY else unknown.path(state, op.action.needs)
            if path is None:
                return None
            order.extend(path)
            after = op.action.step(op.action.needs)
        order.append(op)
        state = after
    return order


def _with_pure(
    order: Sequence[Op], extra: Sequence[Op], initial: State, unknown: Sequence[Op]
) -> list[Op]:
    """Puts operations that change nothing where real time and the state allow it, if anywhere.

    Where the state does not, a write of unknown outcome may have been there, unseen by others.
    """
    gaps = _Gaps(order, initial, unknown)
    placed: list[tuple[int, int, Op]] = []
    for op in sorted(extra, key=lambda op: op.call):
        placed.extend(gaps.find(op))
    placed.sort(key=lambda entry: entry[:2])  # stable: by call otherwise
    return _merged(order, placed)


class _Gaps:
    """Places between the operations of an order; gap g is before order[g]."""

    def __init__(self, order: Sequence[Op], initial: State, unknown: Sequence[Op]) -> None:
        self._order = order
        self._unknown = list(unknown)
        self._states, self._calls = [initial], [-1]
        for op in order:
            self._states.append(op.action.step(self._states[-1]))
            self._calls.append(max(self._calls[-1], op.call))
        self._rets = [op.ret if op.ret is not None else inf for op in order]
        for at in range(len(order) - 2, -1, -1):
            self._rets[at] = min(self._rets[at], self._rets[at + 1])
        self._first = 0
        self._ended: list[tuple[int, int]] = []  # return and gap of what was placed
        self._hiding: dict[int, State] = {}  # what a write put into a gap leaves

    def find(self, op: Op) -> list[tuple[int, int, Op]]:
        """Gap, rank in it and operation, also of the write to put before it, if it needs one.

        Without a gap that fits, it is one that does not: the order will be found to be none. Those
        with rank 0 find the state as it was; then comes a write, and those that need it.
        """
        while self._ended and self._ended[0][0] < op.call:
            self._first = max(self._first, heappop(self._ended)[1])
        # All that returned before the call are left of it, all called after the return right of it.
        self._first = first = max(self._first, bisect_left(self._rets, op.call))
        last = bisect_right(self._calls, op.ret or 0) - 1
        found = self._fitting(op, first, last)
        heappush(self._ended, (op.ret or 0, found[-1][0]))
        return found

    def _fitting(self, op: Op, first: int, last: int) -> list[tuple[int, int, Op]]:
        for gap in range(first, last + 1):
            if op.action.step(self._states[gap]) == self._states[gap]:
                return [(gap, 0, op)]
        for gap in range(first, last + 1):
            if gap in self._hiding:
                if op.action.step(self._hiding[gap]) == self._hiding[gap]:
                    return [(gap, 1, op)]
            elif hidden := self._hidden(gap, op):
                self._hiding[gap] = hidden.action.gives
                return [(gap, 1, hidden), (gap, 1, op)]
        return [(first, 0, op)]

    def _hidden(self, gap: int, op: Op) -> Op | None:
        """A write that nobody else would see in a gap, since another follows there."""
        if gap < len(self._order) and self._order[gap].action.needs is not ANY:
            return None
        if gap < len(self._order) and self._order[gap].action.pure:
            return None
        limit = min(op.ret or 0, self._rets[gap] if gap < len(self._rets) else inf)
        for at, write in enumerate(self._unknown):
            if write.call > limit:
                return None
            if op.action.step(write.action.gives) == write.action.gives:
                return self._unknown.pop(at)
        return None


def _merged(order: Sequence[Op], placed: Sequence[tuple[int, int, Op]]) -> list[Op]:
    merged: list[Op] = []
    done = 0
    for gap, _, op in placed:
        merged.extend(order[done:gap])
        merged.append(op)
        done = gap
    merged.extend(order[done:])
    return merged
