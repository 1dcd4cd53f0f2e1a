"""Least request: of a few random instances the one with the fewest calls for its weight."""

from __future__ import annotations

import msgspec

from raftreg.mesh.balance.least_cost import LeastCost
from raftreg.mesh.balance.load import Load
from raftreg.mesh.balance.slow_start import SlowStart
from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Instance, Outcome, Randomness


class LeastRequestSettings(msgspec.Struct, frozen=True, kw_only=True, tag="least-request"):
    """Settings of least request.

    Attributes:
        choices: How many instances are compared, 2 to 10.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    choices: int = 2

    def __post_init__(self) -> None:
        within("choices", self.choices, 2, 10)


def pending_by_weight(load: Load, now_s: float) -> float:
    """Calls that have not ended, for its weight: as Envoy compares load / weight."""
    return load.pending / load.share


class LeastRequest(LeastCost[Load]):
    """Chooses the instance with the fewest calls in flight, of a few random ones.

    Args:
        settings: How many are compared.
        slow_start: How the weight of a new instance grows; None for at once.
        rng: Where chance comes from.
    """

    def __init__(
        self, settings: LeastRequestSettings, slow_start: SlowStart | None, rng: Randomness
    ) -> None:
        super().__init__(
            Load, pending_by_weight, choices=settings.choices, slow_start=slow_start, rng=rng
        )

    def ended(self, instance: Instance, outcome: Outcome, now_s: float) -> None:
        """A call to it ended."""
        self._loads.ended(instance)
