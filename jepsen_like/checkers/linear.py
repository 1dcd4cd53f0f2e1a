"""Linearizability of a history of many objects.

A history is linearizable exactly if what it says of each object is (Herlihy and Wing 1990, theorem
1), so each object is decided alone (P-compositionality: Horn and Kroening, "Faster linearizability
checking via P-compositionality", 2015). Objects whose order the indexes tell need no search
(`linear_witness`). The others are searched in turns with growing budgets, since one that is hard to
finish may stand beside one that fails at once; the first that fails decides.

A million operations with indexes take a sort and one pass. A budget of steps bounds time and memory
of the search; when it runs out, the answer is "unknown".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from jepsen_like.checkers.linear_search import Op, Search
from jepsen_like.checkers.linear_witness import witness
from jepsen_like.checkers.models import State

#: Budget of a search: so many configurations, and so many more for each operation.
STEPS_MAX: Final = 1_500_000
STEPS_AN_OP_MAX: Final = 4
#: What every object gets in the first turn, and for each of its operations: most need no more.
_TURN_STEPS: Final = 500
_TURN_STEPS_AN_OP: Final = 3


class Outcome(msgspec.Struct, frozen=True):
    """What is known of a history.

    Attributes:
        linearizable: The answer; None if the budget ran out before it was found.
        key: The object that fails, or one that was not decided.
        steps: Configurations tried.
        objects: How many objects there were.
        searched: How many of them needed a search.
        farthest: Of the object that fails: so many operations, in the order of their returns,
            could be explained together; see `Search.farthest`.
    """

    linearizable: bool | None
    key: Any = None
    steps: int = 0
    objects: int = 0
    searched: int = 0
    farthest: int = 0


def check(
    parts: Mapping[Any, Sequence[Op]], initial: State, *, steps_max: int | None = None
) -> Outcome:
    """Decides whether a history is linearizable.

    Args:
        parts: The operations on each object.
        initial: The state that every object began with.
        steps_max: Configurations to try, over all objects; by default as many as the constants of
            this module say.
    """
    if steps_max is None:
        steps_max = STEPS_MAX + STEPS_AN_OP_MAX * sum(map(len, parts.values()))
    turns = _Turns(parts, initial, steps_max)
    hard: list[Any] = [key for key, ops in parts.items() if witness(ops, initial) is None]
    searched, factor = len(hard), 1
    while hard:
        left = []
        for key in hard:
            found = turns.give(key, factor)
            if found:
                continue
            if found is False or turns.steps >= steps_max:
                farthest = turns.farthest(key)
                return Outcome(found, key, turns.steps, len(parts), searched, farthest)
            left.append(key)
        hard, factor = left, 2 * factor
    return Outcome(True, None, turns.steps, len(parts), searched)


class _Turns:
    """Searches that are made when they are first needed, and dropped when they are done."""

    def __init__(self, parts: Mapping[Any, Sequence[Op]], initial: State, steps_max: int) -> None:
        self._parts = parts
        self._initial = initial
        self._steps_max = steps_max
        self._searches: dict[Any, Search] = {}
        self.steps = 0

    def give(self, key: Any, factor: int) -> bool | None:
        """Lets the search of one object go on for a turn; gives the answer, if it has one."""
        ops = self._parts[key]
        search = self._searches.pop(key, None) or Search(ops, self._initial)
        turn = factor * (_TURN_STEPS + _TURN_STEPS_AN_OP * len(ops))
        before = search.steps
        found = search.run(min(turn, self._steps_max - self.steps))
        self.steps += search.steps - before
        if not found:
            self._searches[key] = search
        return found

    def farthest(self, key: Any) -> int:
        """See `Search.farthest`."""
        return self._searches[key].farthest
