"""The best of a few random candidates, by whatever cost: "the power of two choices".

M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE Transactions on
Parallel and Distributed Systems 12 (10), 2001: the best of two is nearly as good as the best of
all, needs no sorted structure, and does not send every caller to the one that looks idle.

The first candidate is drawn by weight and wins a tie, so that weights hold where nothing else
tells the instances apart; the others are drawn evenly from the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic

from raftreg.mesh.balance.draw import WeightedDraw
from raftreg.mesh.balance.load import L, Loads
from raftreg.mesh.balance.slow_start import SlowStart
from raftreg.mesh.nouns import Call, Instance, Randomness


class LeastCost(Generic[L]):
    """Chooses the cheapest of a few candidates, in O(1).

    Args:
        make: Makes the load of an instance that is new.
        cost: What one more call to an instance costs at a time, 0 or more.
        choices: How many candidates are compared, 2 or more.
        slow_start: How the weight of a new instance grows; None for at once.
        rng: Where chance comes from.
    """

    def __init__(
        self,
        make: Callable[[Instance], L],
        cost: Callable[[L, float], float],
        *,
        choices: int,
        slow_start: SlowStart | None,
        rng: Randomness,
    ) -> None:
        self._cost = cost
        self._rivals = choices - 1
        self._rng = rng
        self._draw = WeightedDraw(slow_start, rng)
        self._loads = Loads(make)

    def update(self, instances: Sequence[Instance], now_s: float) -> None:
        """Replaces the instances to choose from."""
        self._loads.update(instances)
        self._draw.update([entry.instance for entry in self._loads.entries])

    def choose(self, call: Call, now_s: float) -> Instance | None:
        """Chooses one; None when there is none."""
        first = self._draw.draw(now_s)
        if first is None:
            return None
        entries = self._loads.entries
        best = entries[first]
        others = len(entries) - 1
        if others == 0:
            return best.instance
        best_cost = self._cost(best, now_s)
        for _ in range(self._rivals):
            index = int(self._rng.random() * others)
            index += index >= first
            cost = self._cost(entries[index], now_s)
            if cost < best_cost and self._draw.keeps(index, now_s):
                best, best_cost = entries[index], cost
        return best.instance

    def began(self, instance: Instance, now_s: float) -> None:
        """A call to it began."""
        self._loads.began(instance)
