"""What a nemesis is: faults, each injected, held and healed, each with the proof that it acted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import Any, ClassVar, Final

import msgspec

from jepsen_like.ground.api import Ground, Need

#: The fact with which a fault tells of a promise that it saw broken; it makes the run FALSE.
VIOLATION: Final = "violation"


class Evidence(msgspec.Struct, frozen=True):
    """Proof about one fault.

    Attributes:
        acted: It is proved that the fault acted. What is not proved did not happen.
        facts: What proves it: counters before and after, process states, errors injected.
    """

    acted: bool
    facts: dict[str, Any] = {}


class Fault(ABC):
    """One kind of fault. The object lives for a run and may keep what `heal` needs.

    Class attributes:
        name: As the command line and the history know it.
        needs: What the machine must offer.
        hold_s: For how long it is held, least and most.
        calm_s: Least and most time between healing and the next injection.
        spares: How many servers it needs beside those of the cluster.
        agents: How many agents it needs.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    hold_s: ClassVar[tuple[float, float]] = (2.0, 6.0)
    calm_s: ClassVar[tuple[float, float]] = (2.0, 6.0)
    spares: ClassVar[int] = 0
    agents: ClassVar[int] = 0

    @abstractmethod
    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """Begins it; gives what was done to whom, for the history."""

    @abstractmethod
    async def heal(self, ground: Ground) -> Evidence:
        """Ends it and everything that it left (stopped processes run again); gives the proof.

        May be called without an injection before, and twice: it must leave a whole cluster.
        """
