"""Near instances first, and as much to others as the near ones can't take.

Zones are levels of priority, as Envoy's: a level whose share of fit instances, times the
overprovisioning factor, is 1 or more takes all; what it lacks spills over to the next.
https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from raftreg.mesh.balance.panic import panics
from raftreg.mesh.checked import within
from raftreg.mesh.nouns import MeshConfigError

#: Zones that can be put in an order.
ZONES_MAX: Final = 64
_WHOLE: Final = 1.0 - 1e-9


class Locality(msgspec.Struct, frozen=True, kw_only=True):
    """Which zones are tried first.

    Attributes:
        zones: The nearest first, usually the caller's own alone; those that are not named come
            last, together. Empty: all are alike.
        overprovisioning: A zone takes all its load until fewer than 1/overprovisioning of its
            instances are fit.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    zones: tuple[str, ...] = ()
    overprovisioning: float = 1.4

    def __post_init__(self) -> None:
        within("overprovisioning", self.overprovisioning, 1.0, 100.0)
        if len(self.zones) > ZONES_MAX:
            raise MeshConfigError(f"zones: at most {ZONES_MAX}, not {len(self.zones)}")
        if "" in self.zones or len(set(self.zones)) < len(self.zones):
            raise MeshConfigError("zones: must be names, each given once")


class Level(msgspec.Struct, frozen=True):
    """Instances of one level.

    Attributes:
        fit: How many are healthy and not ejected.
        total: How many there are.
    """

    fit: int
    total: int


class Spread(msgspec.Struct, frozen=True):
    """How calls are spread over levels.

    Attributes:
        loads: Share of the calls that each level gets; they add up to 1, or all are 0 when none
            can take calls.
        panic: Whether each level uses all of its instances, fit or not.
    """

    loads: tuple[float, ...]
    panic: tuple[bool, ...]


def spread(
    levels: Sequence[Level], *, overprovisioning: float = 1.4, panic_threshold: float = 0.5
) -> Spread:
    """Spreads calls over levels, the first ones first.

    There is no panic while the levels together can take all calls. Where all of them panic, each
    gets calls by the number of its instances.

    Args:
        levels: From the nearest to the farthest.
        overprovisioning: What the share of fit instances is multiplied by.
        panic_threshold: Share of fit instances below which a level panics.
    """
    health = [min(1.0, overprovisioning * lv.fit / lv.total) if lv.total else 0.0 for lv in levels]
    together = min(1.0, sum(health))
    panic = [
        together < _WHOLE and lv.total > 0 and panics(lv.fit, lv.total, panic_threshold)
        for lv in levels
    ]
    present = sum(lv.total for lv in levels)
    if present and all(panic[place] for place, lv in enumerate(levels) if lv.total):
        return Spread(tuple(lv.total / present for lv in levels), tuple(panic))
    return Spread(_fill(health, together), tuple(panic))


def _fill(health: Sequence[float], together: float) -> tuple[float, ...]:
    """Gives each level what it can take of what is left."""
    loads: list[float] = []
    left = 1.0 if together > 0.0 else 0.0
    for part in health:
        load = min(left, part / together) if left else 0.0
        loads.append(load)
        left -= load
    return tuple(loads)
