"""The smallest part of a history that can't be explained.

To leave out an operation that another depends on would make a violation of its own. So operations
are not left out but *relaxed*: one that changes nothing is removed (a constraint less), any other
becomes open: it may take place at any time after its call, or never. What a relaxed history can't
explain, the whole one can't either. The part that is given is a smallest set of operations such
that the history, with all others relaxed, is still not linearizable; none of the set can be relaxed
as well. It also fails alone, without the others: an open operation is never bound to take place.

First the shortest prefix that fails, unless the history is too long for that. (Prefixes of
linearizable histories are linearizable: an operation not yet returned is open.) Then, because more
constraints never explain more, the set is found by bisection (Junker's QuickXplain, 2004, one
element at a time): with the operations in an order, the shortest run that fails ends in one that
must be kept. The order says what is preferred where there is a choice: the last return, without
which the prefix would not fail; then what is near; among that, writes, which tell more than reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from jepsen_like.checkers.linear_search import Op, Search
from jepsen_like.checkers.models import State

STEPS_MAX: Final = 400_000
TRIAL_STEPS_MAX: Final = 20_000
RELAXED_A_STEP: Final = 4
PREFIX_OPS_MAX: Final = 5_000


def smallest_part(ops: Sequence[Op], initial: State, *, farthest: int = 0) -> list[Op] | None:
    """The operations that show, on their own, that a history is not linearizable.

    Args:
        ops: The operations on one object, known not to be linearizable.
        initial: The state that it began with.
        farthest: About so many operations, in the order of returns, can be explained (see
            `Search.farthest`; the search looks ahead, so it may have stopped before the violation).

    Returns:
        The operations by call: they fail alone, and are minimal. None if that took longer than the
        bounds of this module allow.
    """
    trials = _Trials(ops, initial)
    returns = sorted((op for op in ops if op.ret is not None), key=lambda op: op.ret or 0)
    if len(returns) <= PREFIX_OPS_MAX:
        size = _shortest(len(returns), lambda n: trials.fails(returns[:n]), guess=farthest + 1)
        *before, last = returns[:size]
        part = _reduced(trials, [last, *_preferred(before, len(before))])
    else:
        part = _reduced(trials, _preferred(returns, farthest))
    return None if part is None else sorted(part, key=lambda op: op.call)


def _reduced(trials: _Trials, rest: Sequence[Op]) -> list[Op] | None:
    """A minimal part that prefers what comes first; None if none is found to fail."""
    kept: list[Op] = []
    while trials.left > 0:
        run = _shortest(len(rest), lambda n: trials.fails([*kept, *rest[:n]]))  # noqa: B023
        if run == len(rest) and not trials.fails([*kept, *rest]):
            return None
        kept.append(rest[run - 1])
        rest = rest[: run - 1]
        if trials.fails(kept):
            return kept
    return None


def _preferred(ops: Sequence[Op], at: int) -> list[Op]:
    """The nearest to a place first, and among those about as near, writes, then the latest."""
    order = sorted(
        range(len(ops)),
        key=lambda n: (abs(n - at).bit_length(), ops[n].action.pure, -n),
    )
    return [ops[n] for n in order]


def _shortest(size: int, fails: Callable[[int], bool], guess: int = 1) -> int:
    """The least n up to `size` with fails(n), for a monotone `fails` that holds at `size`.

    It is sought from a guess upwards in growing steps, and then by halving.
    """
    low, high, stride = 0, max(1, min(guess, size)), 1
    while high < size and not fails(high):
        low, high, stride = high, min(high + stride, size), 2 * stride
    while high - low > 1:
        middle = (low + high) // 2
        if fails(middle):
            high = middle
        else:
            low = middle
    return high


class _Trials:
    """Relaxed versions of a history, searched within bounds."""

    def __init__(self, ops: Sequence[Op], initial: State) -> None:
        self._ops = ops
        self._initial = initial
        self.left = STEPS_MAX

    def fails(self, kept: Sequence[Op]) -> bool:
        """Whether the history is surely not linearizable with all others relaxed."""
        if not kept or self.left <= 0:
            return False
        until = max(op.ret or 0 for op in kept)
        calls = {op.call for op in kept}
        relaxed = [
            op if op.call in calls else Op(op.action, op.call, None)
            for op in self._ops
            if op.call in calls or (op.call < until and not op.action.pure)
        ]
        search = Search(relaxed, self._initial)
        failed = search.run(min(TRIAL_STEPS_MAX, self.left)) is False
        self.left -= search.steps + len(relaxed) // RELAXED_A_STEP
        return failed
