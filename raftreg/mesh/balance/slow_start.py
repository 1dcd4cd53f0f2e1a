"""Slow start: an instance that is new gets its full share only by and by.

The ramp is Envoy's:
https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/slow_start

    weight' = weight * max(min_weight, (age / window) ^ (1 / aggression))
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Instance

WINDOW_MAX_S: Final = 86_400.0


class SlowStart(msgspec.Struct, frozen=True, kw_only=True):
    """How the weight of a new instance grows.

    Attributes:
        window_s: Seconds from when it was first seen until it has its full weight.
        aggression: 1 grows evenly; above 1 fast at first, below 1 slowly at first.
        min_weight: Share of its weight that it has at least, above 0 to 1.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    window_s: float = 60.0
    aggression: float = 1.0
    min_weight: float = 0.1

    def __post_init__(self) -> None:
        within("window_s", self.window_s, 0.001, WINDOW_MAX_S)
        within("aggression", self.aggression, 0.01, 100.0)
        within("min_weight", self.min_weight, 0.001, 1.0)

    def share(self, age_s: float) -> float:
        """Share of its weight, above 0 to 1, that an instance of this age has."""
        if age_s >= self.window_s:
            return 1.0
        elapsed = max(age_s, 0.0) / self.window_s
        return max(self.min_weight, math.pow(elapsed, 1.0 / self.aggression))


class Ramp:
    """Shares of a set of instances; costs one comparison when all of them are warm.

    Args:
        settings: How weights grow; None when all start with their full weight.
    """

    def __init__(self, settings: SlowStart | None) -> None:
        self._settings = settings
        self._warm_at_s = -math.inf

    def update(self, instances: Iterable[Instance]) -> None:
        """Takes another set of instances."""
        if self._settings is not None:
            newest_s = max((each.since_s for each in instances), default=-math.inf)
            self._warm_at_s = newest_s + self._settings.window_s

    def share(self, instance: Instance, now_s: float) -> float:
        """Share of its weight that an instance of the set has now."""
        if now_s >= self._warm_at_s or self._settings is None:
            return 1.0
        return self._settings.share(now_s - instance.since_s)
