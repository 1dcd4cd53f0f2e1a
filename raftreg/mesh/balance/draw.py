"""Weighted draws in O(1): Walker's alias method, with the tables built as in Vose (1991).

M. D. Vose, "A linear algorithm for generating random numbers with a given distribution", IEEE
Transactions on Software Engineering 17 (9), 1991.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from raftreg.mesh.balance.slow_start import Ramp, SlowStart
from raftreg.mesh.nouns import Instance, Randomness

#: Draws that fall on instances which are not yet warm, before one of those is taken all the same.
_DRAWS_MAX: Final = 16


class AliasTable:
    """Draws an index with a probability proportional to its weight.

    Args:
        weights: Each above 0; at least one.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        count = len(weights)
        self._count = count
        self._alias = list(range(count))
        mean = sum(weights) / count
        self._keep = [weight / mean for weight in weights]
        self._even = min(weights) == max(weights)
        if not self._even:
            self._fill()

    def _fill(self) -> None:
        """Gives what a column lacks from one that has too much."""
        keep = self._keep
        small = [index for index, part in enumerate(keep) if part < 1.0]
        large = [index for index, part in enumerate(keep) if part >= 1.0]
        while small and large:
            poor, rich = small.pop(), large[-1]
            self._alias[poor] = rich
            keep[rich] -= 1.0 - keep[poor]
            if keep[rich] < 1.0:
                small.append(large.pop())
        # What is left is 1 but for rounding; its alias is itself.

    def draw(self, rng: Randomness) -> int:
        """An index; one number is drawn."""
        scaled = rng.random() * self._count
        column = int(scaled)
        if self._even or scaled - column < self._keep[column]:
            return column
        return self._alias[column]


class WeightedDraw:
    """Draws instances by weight, those in slow start by the share that they have now.

    A cold instance that is drawn is kept with the probability of its share, else drawn again
    (rejection sampling), so that no table is built anew while weights grow.

    Args:
        slow_start: How the weight of a new instance grows; None for at once.
        rng: Where chance comes from.
    """

    def __init__(self, slow_start: SlowStart | None, rng: Randomness) -> None:
        self._rng = rng
        self._ramp = Ramp(slow_start)
        self._instances: Sequence[Instance] = ()
        self._table: AliasTable | None = None

    def update(self, instances: Sequence[Instance]) -> None:
        """Takes another set of instances."""
        self._instances = instances
        self._ramp.update(instances)
        self._table = AliasTable([each.weight for each in instances]) if instances else None

    def draw(self, now_s: float) -> int | None:
        """Index of an instance; None when there is none."""
        if self._table is None:
            return None
        for _ in range(_DRAWS_MAX):
            index = self._table.draw(self._rng)
            if self.keeps(index, now_s):
                return index
        return self._table.draw(self._rng)

    def keeps(self, index: int, now_s: float) -> bool:
        """Whether this one is kept when it is drawn: always, unless it is in slow start."""
        share = self._ramp.share(self._instances[index], now_s)
        return share >= 1.0 or self._rng.random() < share
