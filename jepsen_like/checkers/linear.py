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

STEPS_MAX: Final = 2_000_000
_SLICE_STEPS: Final = 500


class Outcome(msgspec.Struct, frozen=True):
    """What is known of a history.

    Attributes:
        linearizable: The answer; None if the budget ran out before it was found.
        key: The object that fails, or one that was not decided.
        steps: Configurations tried.
        objects: How many objects there were.
        searched: How many of them needed a search.
        farthest: Of the object that fails: so many operations, in the order of their returns,
            could be explained together.
    """

    linearizable: bool | None
    key: Any = None
    steps: int = 0
    objects: int = 0
    searched: int = 0
    farthest: int = 0


def check(
    parts: Mapping[Any, Sequence[Op]], initial: State, *, steps_max: int = STEPS_MAX
) -> Outcome:
    """Decides whether a history is linearizable.

    Args:
        parts: The operations on each object.
        initial: The state that every object began with.
        steps_max: Configurations to try, over all objects.
    """
    waiting = {
        key: Search(ops, initial) for key, ops in parts.items() if witness(ops, initial) is None
    }
    searched, steps, slice_steps = len(waiting), 0, _SLICE_STEPS
    while waiting:
        for key, search in tuple(waiting.items()):
            before = search.steps
            found = search.run(min(slice_steps, steps_max - steps))
            steps += search.steps - before
            if found:
                del waiting[key]
            elif found is False or steps >= steps_max:
                return Outcome(found, key, steps, len(parts), searched, search.farthest)
        slice_steps *= 2
    return Outcome(True, None, steps, len(parts), searched)
