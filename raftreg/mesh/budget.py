"""How many repeats the calls to an upstream have earned, so that repeats never become the load.

As Finagle's `RetryBudget` (K. Oliver, "Retry Budgets", 2016,
https://finagle.github.io/blog/2016/02/08/retry-budgets/): each call puts a part of a token into a
bucket, each repeat takes one out, tokens that are older than the window are gone, and a few repeats
a second are free for callers that call little.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from raftreg.mesh.checked import within

#: Tokens are counted in thousandths: whole numbers never drift.
_UNITS: Final = 1000
_SLOTS: Final = 10


class BudgetSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How many repeats are allowed.

    Attributes:
        ratio: Repeats for each call, 0 to 10; 0.2 lets the load grow by a fifth.
        per_second_min: Repeats a second that are allowed above that.
        window_s: How long calls count, 1 to 60 seconds; more lets repeats come in larger bursts.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    ratio: float = 0.2
    per_second_min: float = 10.0
    window_s: float = 10.0

    def __post_init__(self) -> None:
        within("ratio", self.ratio, 0.0, 10.0)
        within("per_second_min", self.per_second_min, 0.0, 1_000_000.0)
        within("window_s", self.window_s, 1.0, 60.0)


class RetryBudget:
    """The budget of one upstream, shared by all calls to it.

    Over the last `window_s` (within a tenth of it) there are never more repeats than
    `ratio * calls + per_second_min * window_s`. Each operation is O(1).

    Args:
        settings: How many repeats are allowed.
    """

    __slots__ = ("_balance", "_deposit", "_reserve", "_slot", "_slot_s", "_slots", "refused")

    def __init__(self, settings: BudgetSettings) -> None:
        self._deposit = round(settings.ratio * _UNITS)
        self._reserve = round(settings.per_second_min * settings.window_s * _UNITS)
        self._slot_s = settings.window_s / _SLOTS
        self._slots = [0] * _SLOTS
        self._slot = 0
        self._balance = self._reserve
        #: How often a repeat was refused; for metrics.
        self.refused = 0

    def deposit(self, now_s: float) -> None:
        """A call began (the first attempt, not a repeat)."""
        self._turn(now_s)
        self._add(self._deposit)

    def withdraw(self, now_s: float) -> bool:
        """Takes a repeat out of the budget; False when there is none left."""
        self._turn(now_s)
        if self._balance < _UNITS:
            self.refused += 1
            return False
        self._add(-_UNITS)
        return True

    def balance(self, now_s: float) -> int:
        """How many repeats could be made now."""
        self._turn(now_s)
        return max(self._balance // _UNITS, 0)

    def _add(self, units: int) -> None:
        self._slots[self._slot % _SLOTS] += units
        self._balance += units

    def _turn(self, now_s: float) -> None:
        """Forgets the slots that are older than the window; time never goes back."""
        slot = math.floor(now_s / self._slot_s)
        if slot <= self._slot:
            return
        for stale in range(max(self._slot + 1, slot - _SLOTS + 1), slot + 1):
            self._balance -= self._slots[stale % _SLOTS]
            self._slots[stale % _SLOTS] = 0
        self._slot = slot
