"""Network coordinates: estimates of round trips between hosts that never measured each other. Pure.

Vivaldi (Dabek, Cox, Kaashoek and Morris, SIGCOMM 2004) models each pair of hosts as a spring whose
length at rest is their round trip; each measurement moves a host a little towards where the spring
wants it. With it come a height for the host's own link (section 5.4), an adjustment learned from
the latest measurements (Lee, Zhang, Sahu and Saha, "On Suitability of Euclidean Embedding of
Internet Hosts", 2006), and a median filter and gravity (Ledlie, Gardner and Seltzer, "Network
Coordinates in the Wild", NSDI 2007). The figures are those of Serf, so that coordinates mean the
same to clients.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from raftreg.model import Coordinate

DIMENSIONS: Final = 8
ERROR_MAX: Final = 1.5
#: How much one measurement may change the error (paper: c_e) and the point (c_c).
CE: Final = 0.25
CC: Final = 0.25
ADJUSTMENT_WINDOW: Final = 20
HEIGHT_MIN_S: Final = 10e-6
LATENCY_SAMPLES: Final = 3
GRAVITY_RHO_S: Final = 150.0
#: A round trip that took longer says more about a stall than about the network.
RTT_MAX_S: Final = 10.0
#: No part of a sound coordinate is larger: what is comes from a fault, or from an enemy.
PART_MAX_S: Final = 3600.0
#: Hosts whose latest measurements are remembered.
PEERS_MAX: Final = 1024

_ZERO: Final = 1e-6
_Vec = Sequence[float]


class UniformSource(Protocol):
    """Gives random numbers, as `random.Random` does."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


def origin() -> Coordinate:
    """Where a host begins that has measured nothing yet."""
    return Coordinate(vec=(0.0,) * DIMENSIONS, error=ERROR_MAX, adjustment=0.0, height=HEIGHT_MIN_S)


def is_valid(coordinate: Coordinate) -> bool:
    """Tells whether a coordinate can be reckoned with: of our dimensions, finite and not huge."""
    if len(coordinate.vec) != DIMENSIONS:
        return False
    if coordinate.height < 0 or coordinate.error < 0:
        return False
    parts = (*coordinate.vec, coordinate.error, coordinate.adjustment, coordinate.height)
    return all(-PART_MAX_S <= part <= PART_MAX_S for part in parts)  # NaN is in no range


def round_trip_s(one: Coordinate, other: Coordinate) -> float:
    """Estimated round trip between two coordinates, in seconds."""
    raw_s = _raw_distance_s(one, other)
    adjusted_s = raw_s + (one.adjustment + other.adjustment)
    return adjusted_s if adjusted_s > 0 else raw_s


def _raw_distance_s(one: Coordinate, other: Coordinate) -> float:
    return math.dist(one.vec, other.vec) + (one.height + other.height)


class Position:
    """The coordinate of one host, moved by what it measures.

    Args:
        rng: Chooses a direction where two hosts are at one point.
        start: Where it begins; None: at the origin.

    Attributes:
        coordinate: Where it is now.
        updates: How many measurements it has taken in.
    """

    def __init__(self, rng: UniformSource, start: Coordinate | None = None) -> None:
        self.coordinate = start or origin()
        self.updates = 0
        self._rng = rng
        self._offsets: deque[float] = deque([0.0] * ADJUSTMENT_WINDOW, ADJUSTMENT_WINDOW)
        self._samples: OrderedDict[str, deque[float]] = OrderedDict()

    def measured(self, peer: str, other: Coordinate, rtt_s: float) -> bool:
        """Takes in one measurement.

        Args:
            peer: Name of the other host.
            other: Its coordinate when it answered.
            rtt_s: The round trip to it, in seconds.

        Returns:
            False when it can't be used: it is no duration, or the coordinate is none.
        """
        if not 0 <= rtt_s <= RTT_MAX_S or not is_valid(other):
            return False
        filtered_s = max(self._filtered_s(peer, rtt_s), _ZERO)
        moved = self._pulled(self.coordinate, other, filtered_s)
        self._offsets.append(filtered_s - _raw_distance_s(moved, other))
        adjustment = sum(self._offsets) / (2 * ADJUSTMENT_WINDOW)
        moved = self._drawn_home(_with(moved, adjustment=adjustment))
        self.coordinate = moved if is_valid(moved) else origin()
        self.updates += 1
        return True

    def _filtered_s(self, peer: str, rtt_s: float) -> float:
        """The median of the latest round trips to a host."""
        samples = self._samples.get(peer)
        if samples is None:
            samples = self._samples[peer] = deque(maxlen=LATENCY_SAMPLES)
            if len(self._samples) > PEERS_MAX:
                self._samples.popitem(last=False)
        self._samples.move_to_end(peer)
        samples.append(rtt_s)
        return sorted(samples)[len(samples) // 2]

    def _pulled(self, own: Coordinate, other: Coordinate, rtt_s: float) -> Coordinate:
        """Vivaldi's step: the surer the other is against us, the further it moves us."""
        distance_s = round_trip_s(own, other)
        wrongness = abs(distance_s - rtt_s) / rtt_s
        weight = own.error / max(own.error + other.error, _ZERO)
        error = CE * weight * wrongness + own.error * (1 - CE * weight)
        force_s = CC * weight * (rtt_s - distance_s)
        return _with(self._moved(own, other, force_s), error=min(error, ERROR_MAX))

    def _drawn_home(self, own: Coordinate) -> Coordinate:
        """Gravity: a small force to the origin, so that all do not drift away together."""
        centre = origin()
        force_s = -((round_trip_s(centre, own) / GRAVITY_RHO_S) ** 2)
        return self._moved(own, centre, force_s)

    def _moved(self, own: Coordinate, other: Coordinate, force_s: float) -> Coordinate:
        """Moves away from another coordinate by a force, or towards it by a negative one."""
        apart_s = math.dist(own.vec, other.vec)
        if apart_s > _ZERO:
            direction: _Vec = [(a - b) / apart_s for a, b in zip(own.vec, other.vec, strict=True)]
            height_s = own.height + force_s * (own.height + other.height) / apart_s
        else:
            direction = self._any_direction()
            height_s = own.height
        vec = (a + force_s * step for a, step in zip(own.vec, direction, strict=True))
        return _with(own, vec=vec, height=max(height_s, HEIGHT_MIN_S))

    def _any_direction(self) -> _Vec:
        vec = [self._rng.random() - 0.5 for _ in range(DIMENSIONS)]
        length = math.hypot(*vec)
        if length <= _ZERO:
            return (1.0,) + (0.0,) * (DIMENSIONS - 1)
        return [part / length for part in vec]


def _with(
    coordinate: Coordinate,
    *,
    vec: Iterable[float] | None = None,
    error: float | None = None,
    adjustment: float | None = None,
    height: float | None = None,
) -> Coordinate:
    return Coordinate(
        vec=coordinate.vec if vec is None else tuple(vec),
        error=coordinate.error if error is None else error,
        adjustment=coordinate.adjustment if adjustment is None else adjustment,
        height=coordinate.height if height is None else height,
    )
