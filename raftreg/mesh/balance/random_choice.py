"""Random choice by weight."""

from __future__ import annotations

from collections.abc import Sequence

from raftreg.mesh.balance.base import Unmeasured
from raftreg.mesh.balance.draw import WeightedDraw
from raftreg.mesh.balance.slow_start import SlowStart
from raftreg.mesh.nouns import Call, Instance, Randomness


class RandomChoice(Unmeasured):
    """Chooses each instance with a probability proportional to its weight, in O(1).

    Args:
        slow_start: How the weight of a new instance grows; None for at once.
        rng: Where chance comes from.
    """

    def __init__(self, slow_start: SlowStart | None, rng: Randomness) -> None:
        self._draw = WeightedDraw(slow_start, rng)
        self._instances: Sequence[Instance] = ()

    def update(self, instances: Sequence[Instance], now_s: float) -> None:
        """Replaces the instances to choose from."""
        self._instances = tuple(instances)
        self._draw.update(self._instances)

    def choose(self, call: Call, now_s: float) -> Instance | None:
        """Chooses one; None when there is none."""
        index = self._draw.draw(now_s)
        return None if index is None else self._instances[index]
