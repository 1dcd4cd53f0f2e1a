"""Peak EWMA: of two random instances the one that is expected to answer sooner.

As Finagle's `p2c.P2CPeakEwma`: the latency of an instance is a moving average that rises to a peak
at once and falls by and by, and its load is that latency times the calls that would wait there.
https://twitter.github.io/finagle/guide/Clients.html#power-of-two-choices-p2c-least-loaded
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from raftreg.mesh.balance.least_cost import LeastCost
from raftreg.mesh.balance.load import Load
from raftreg.mesh.balance.slow_start import SlowStart
from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Instance, Outcome, Randomness

#: Load of an instance that has calls and never answered one: it gets no second before it does.
_UNPROVEN: Final = 1e6
#: The least that a call takes; 0 would say that there was none.
_LATENCY_MIN_S: Final = 1e-9


class PeakEwmaSettings(msgspec.Struct, frozen=True, kw_only=True, tag="peak-ewma"):
    """Settings of peak EWMA.

    Attributes:
        decay_s: Seconds in which what was measured loses all but 1/e of its weight.
        failure_cost_s: A failed call counts as one that took this long or longer, since a broken
            instance that refuses at once must not look like the fastest; 0 for its real time.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    decay_s: float = 10.0
    failure_cost_s: float = 1.0

    def __post_init__(self) -> None:
        within("decay_s", self.decay_s, 0.001, 86_400.0)
        within("failure_cost_s", self.failure_cost_s, 0.0, 3600.0)


class LatencyLoad(Load):
    """Load of one instance with its latency.

    Args:
        instance: Whose it is.

    Attributes:
        latency_s: Moving average as of `measured_s`; 0 when nothing was measured.
        measured_s: When the last call ended.
    """

    __slots__ = ("latency_s", "measured_s")

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self.latency_s = 0.0
        self.measured_s = 0.0

    def observe(self, duration_s: float, now_s: float, decay_s: float) -> None:
        """Takes in how long a call took."""
        took_s = max(duration_s, _LATENCY_MIN_S)
        kept = math.exp(-max(now_s - self.measured_s, 0.0) / decay_s) if self.latency_s else 0.0
        self.latency_s = max(took_s, self.latency_s * kept + took_s * (1.0 - kept))
        self.measured_s = now_s


class PeakEwma(LeastCost[LatencyLoad]):
    """Chooses the instance that is expected to answer sooner, of two random ones.

    Args:
        settings: How fast is forgotten, and what a failure counts.
        slow_start: How the weight of a new instance grows; None for at once.
        rng: Where chance comes from.
    """

    def __init__(
        self, settings: PeakEwmaSettings, slow_start: SlowStart | None, rng: Randomness
    ) -> None:
        super().__init__(LatencyLoad, self._load, choices=2, slow_start=slow_start, rng=rng)
        self._settings = settings

    def _load(self, load: LatencyLoad, now_s: float) -> float:
        """Seconds one more call would take; those of an idle one fade, and it is tried again."""
        if load.latency_s == 0.0:
            return _UNPROVEN + load.pending if load.pending else 0.0
        idle_s = max(now_s - load.measured_s, 0.0)
        latency_s = load.latency_s * math.exp(-idle_s / self._settings.decay_s)
        return latency_s * (1.0 + load.pending / load.share)

    def ended(self, instance: Instance, outcome: Outcome, now_s: float) -> None:
        """A call to it ended; its duration is taken in while the instance is in the set."""
        load = self._loads.ended(instance)
        if load is None:
            return
        duration_s = outcome.duration_s
        if outcome.failed:
            duration_s = max(duration_s, self._settings.failure_cost_s)
        load.observe(duration_s, now_s, self._settings.decay_s)
