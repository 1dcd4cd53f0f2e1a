"""Weighted round robin, interleaved: a heavy instance's turns are spread over the round.

nginx's smooth weighted round robin does so by looking at every instance for each call. Here it is
a heap of deadlines, O(log n), as Envoy's EDF scheduler has it: a turn of an instance comes 1/weight
after its last one on a clock that only choices move (stride scheduling: Waldspurger and Weihl,
MIT/LCS/TM-528, 1995). First turns lie apart by the golden ratio, so that many light instances do
not come all at once between the turns of a heavy one, and callers that start together do not all
begin with the same instance.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from raftreg.mesh.balance.base import Unmeasured
from raftreg.mesh.balance.slow_start import Ramp, SlowStart
from raftreg.mesh.nouns import Call, Instance, Randomness

_GOLDEN: Final = 0.6180339887498949

#: When its turn is; its rank, which breaks ties; the instance.
_Turn = tuple[float, int, Instance]


class RoundRobin(Unmeasured):
    """Gives each instance as many turns in a round as its weight says.

    Args:
        slow_start: How the weight of a new instance grows; None for at once.
        rng: Where chance comes from: one number, for where the first round begins.
    """

    def __init__(self, slow_start: SlowStart | None, rng: Randomness) -> None:
        self._ramp = Ramp(slow_start)
        self._phase = rng.random()
        self._turns: list[_Turn] = []
        self._reached = 0.0

    def update(self, instances: Sequence[Instance], now_s: float) -> None:
        """Replaces the instances; those that stay keep their place in the round."""
        self._ramp.update(instances)
        before = {turn[2].key: turn for turn in self._turns}
        turns: list[_Turn] = []
        for rank, instance in enumerate(sorted(instances, key=lambda each: each.key)):
            known = before.get(instance.key)
            if known is None:
                ahead = (self._phase + rank * _GOLDEN) % 1.0 / self._weight(instance, now_s)
            else:
                ahead = (known[0] - self._reached) * known[2].weight / instance.weight
            turns.append((ahead, rank, instance))
        heapq.heapify(turns)
        self._turns = turns
        self._reached = 0.0

    def choose(self, call: Call, now_s: float) -> Instance | None:
        """Chooses the one whose turn it is; None when there is none."""
        turns = self._turns
        if not turns:
            return None
        at, rank, instance = turns[0]
        self._reached = at
        heapq.heapreplace(turns, (at + 1.0 / self._weight(instance, now_s), rank, instance))
        return instance

    def _weight(self, instance: Instance, now_s: float) -> float:
        """Its weight now, slow start counted in."""
        return instance.weight * self._ramp.share(instance, now_s)
