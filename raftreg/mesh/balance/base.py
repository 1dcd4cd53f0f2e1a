"""What all load balancers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from raftreg.mesh.nouns import Call, Instance, Outcome


class Balancer(Protocol):
    """Chooses an instance for each call.

    The set of instances is replaced whole by `update`; what a balancer has learned of an instance
    stays as long as its key does. `choose` is O(1) or O(log n); all other work is in `update`.
    """

    def update(self, instances: Sequence[Instance], now_s: float) -> None:
        """Replaces the instances to choose from (those that are healthy and not ejected)."""
        ...

    def choose(self, call: Call, now_s: float) -> Instance | None:
        """Chooses one; None when there is none."""
        ...

    def began(self, instance: Instance, now_s: float) -> None:
        """A call to it began."""
        ...

    def ended(self, instance: Instance, outcome: Outcome, now_s: float) -> None:
        """It ended; called once for each `began`, also for an instance that is gone since."""
        ...


class Unmeasured:
    """Base of balancers that learn nothing from what became of a call."""

    def began(self, instance: Instance, now_s: float) -> None:
        """Nothing is learned of it."""

    def ended(self, instance: Instance, outcome: Outcome, now_s: float) -> None:
        """Nothing is learned of it."""
