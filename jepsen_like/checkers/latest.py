"""What an object can be, by the changes made to it: which of them may have been the last.

For an object whose changes each set its whole state, a look that runs from s to e may show the
state of change W if W began before e, and no other acknowledged change lies wholly between W's end
and s. That is Lamport's regular register ("On interprocess communication", 1986): cheaper to decide
than linearizability, and what it refuses is never linearizable.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Final

import msgspec

NEVER: Final = 1 << 62


class Change(msgspec.Struct, frozen=True):
    """A change of an object.

    Attributes:
        start: Index of the event where it began.
        end: Index of its completion; `NEVER` when its effect may come at any time.
        certain: It took effect before `end`.
        states: What the object may be after it.
    """

    start: int
    end: int
    certain: bool
    states: tuple[Hashable, ...]


class Latest:
    """The changes of one object, ready for questions in logarithmic time.

    Args:
        changes: All that may have taken effect.
        initial: The state before any of them.
    """

    def __init__(self, changes: Iterable[Change], initial: Hashable) -> None:
        ordered = sorted(changes, key=lambda change: change.start)
        self._starts: dict[Hashable, list[int]] = defaultdict(list)
        #: For each state and position, the latest end among the changes up to there.
        self._ends: dict[Hashable, list[int]] = defaultdict(list)
        for change in (Change(-1, -1, True, (initial,)), *ordered):
            for state in change.states:
                ends = self._ends[state]
                self._starts[state].append(change.start)
                ends.append(max(change.end, ends[-1] if ends else -1))
        certain = sorted((c for c in ordered if c.certain), key=lambda change: change.end)
        self._certain_ends = [change.end for change in certain]
        self._latest_starts: list[int] = []
        for change in certain:
            before = self._latest_starts[-1] if self._latest_starts else -1
            self._latest_starts.append(max(before, change.start))

    def may_be(self, state: Hashable, start: int, end: int) -> bool:
        """Tells whether a look between two events can show a state.

        Args:
            state: The state shown.
            start: Index of the event with which the look began.
            end: Index of the event with which it ended.
        """
        done = bisect_left(self._certain_ends, start)
        bound = self._latest_starts[done - 1] if done else -1
        begun = bisect_left(self._starts.get(state, []), end)
        return begun > 0 and self._ends[state][begun - 1] >= bound
