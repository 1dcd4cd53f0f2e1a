"""How long failures last, from what single calls have seen of them.

A call that failed sees little of how long that lasted: it was not over at the last repeat that
failed (at `low`), and it was over at the first that succeeded (by `high`), or never seen to be. To
take `high` for the time of recovery would learn every needlessly long wait as a necessary one, and
to leave out the calls that never succeeded would learn that all recover. So both ends are kept:
counts of intervals on a fixed grid of delays, which add up in any order; and the share that has
recovered by each delay is their nonparametric maximum likelihood estimate, found by Turnbull's
self-consistency iteration (B. W. Turnbull, "The Empirical Distribution Function with Arbitrarily
Grouped, Censored and Truncated Data", J. R. Statist. Soc. B 38, 1976).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

import msgspec

from raftreg.decoding import MsgpackDecoder
from raftreg.errors import InvalidRequest
from raftreg.mesh.histogram import bucket_of, upper_bound_s

DELAY_MIN_S: Final = 0.001
DELAY_MAX_S: Final = 60.0
_FIRST: Final = bucket_of(DELAY_MIN_S)


def delay_of(delay_s: float) -> int:
    """The place of a delay on the grid, from 0: two buckets of the histogram each, a step of 22 %.

    Raises:
        ValueError: It is not a number.
    """
    return min(max((bucket_of(delay_s) - _FIRST + 1) // 2, 0), DELAYS - 1)


def delay_s(place: int) -> float:
    """The greatest delay at a place of the grid, in seconds."""
    return upper_bound_s(_FIRST + 2 * place)


DELAYS: Final = 1 + (bucket_of(DELAY_MAX_S) - _FIRST + 1) // 2
#: The place of what did not recover as long as anyone looked.
NEVER: Final = DELAYS
#: The most intervals that there are.
INTERVALS_MAX: Final = (DELAYS + 1) * (DELAYS + 2) // 2
WEIGHT_MAX: Final = 1e12
#: What has decayed to less than this says nothing any more.
_WEIGHT_MIN: Final = 0.01
#: The iteration slows down as it nears its end; what these rounds leave is less than the noise.
_ROUNDS_MAX: Final = 80
_CHANGE_MIN: Final = 1e-4
_VERSION: Final = 1


class Recoveries:
    """Counts of intervals in which failures ended, as weights that may decay."""

    __slots__ = ("weights",)

    def __init__(self, weights: Mapping[tuple[int, int], float] | None = None) -> None:
        self.weights: dict[tuple[int, int], float] = dict(weights or {})

    @property
    def weight(self) -> float:
        """How many failures it knows of, the old ones counting less."""
        return math.fsum(self.weights.values())

    def observe(self, failed_s: float | None, succeeded_s: float | None) -> None:
        """Counts a failure.

        Args:
            failed_s: When the last repeat that failed began, in seconds since the failure; None
                when none failed.
            succeeded_s: The same for the first repeat that succeeded; None when none did. With
                neither there is nothing to learn, and nothing is counted.
        """
        if failed_s is None and succeeded_s is None:
            return
        high = NEVER if succeeded_s is None else delay_of(succeeded_s)
        # It failed at this place, so it ended at a later one: places that allowed both would let a
        # repeat that fails every other time look as if it always succeeded.
        low = 0 if failed_s is None else min(delay_of(failed_s) + 1, high)
        self.weights[low, high] = self.weights.get((low, high), 0.0) + 1.0

    def merge(self, other: Recoveries) -> None:
        """Adds what another one has counted."""
        for interval, weight in other.weights.items():
            total = self.weights.get(interval, 0.0) + weight
            self.weights[interval] = min(total, WEIGHT_MAX)

    def decay(self, factor: float) -> None:
        """Multiplies all weights; intervals of which next to nothing is left are dropped.

        Args:
            factor: From 0 to 1.
        """
        decayed = {interval: weight * factor for interval, weight in self.weights.items()}
        self.weights = {key: weight for key, weight in decayed.items() if weight >= _WEIGHT_MIN}

    def curve(self) -> tuple[float, ...]:
        """The share of failures that are over by each place of the grid; all 0 without data.

        Where no call looked, the estimate is not unique; it then grows evenly over the places in
        question, so that a plan may try a delay there and find out. O(rounds * intervals), 10 to 50
        milliseconds for a full table: not for the path of a call.
        """
        if not self.weights:
            return (0.0,) * DELAYS
        shares = [1.0 / (DELAYS + 1)] * (DELAYS + 1)
        for _ in range(_ROUNDS_MAX):
            fresh = self._consistent(shares)
            change = max(abs(one - other) for one, other in zip(shares, fresh, strict=True))
            shares = fresh
            if change < _CHANGE_MIN:
                break
        return tuple(min(total, 1.0) for total in accumulate(shares[:DELAYS]))

    def _consistent(self, shares: list[float]) -> list[float]:
        """One round: each failure is split over its interval as the shares say, and summed up."""
        sums = [0.0, *accumulate(shares)]
        steps = [0.0] * (DELAYS + 2)
        total = 0.0
        for (low, high), weight in self.weights.items():
            inside = sums[high + 1] - sums[low]
            if inside <= 0:  # underflow
                continue
            steps[low] += weight / inside
            steps[high + 1] -= weight / inside
            total += weight
        densities = accumulate(steps[: DELAYS + 1])
        raw = [share * max(density, 0.0) for share, density in zip(shares, densities, strict=True)]
        scale = sum(raw)
        return [share / scale for share in raw] if scale > 0 and total > 0 else shares

    def encode(self) -> bytes:
        """Its form for the wire, as msgpack."""
        return msgspec.msgpack.encode(self.plain())

    def plain(self) -> PlainRecoveries:
        """Its form for the wire."""
        rows = [(low, high, weight) for (low, high), weight in sorted(self.weights.items())]
        return PlainRecoveries(version=_VERSION, rows=tuple(rows))


class PlainRecoveries(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Recoveries on the wire.

    Attributes:
        version: 1.
        rows: First and last place of the interval, and how often it was seen.
    """

    version: int
    rows: tuple[tuple[int, int, float], ...]


_DECODER: Final[MsgpackDecoder[PlainRecoveries]] = MsgpackDecoder(PlainRecoveries)


def decode(data: bytes) -> Recoveries:
    """Reads what `Recoveries.encode` wrote.

    Raises:
        InvalidRequest: It is nothing of the kind; the text says why.
    """
    try:
        plain = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"recoveries: {error}") from error
    return from_plain(plain)


def from_plain(plain: PlainRecoveries) -> Recoveries:
    """Reads recoveries from their form for the wire.

    Raises:
        InvalidRequest: An interval or a weight is out of bounds, or there are too many.
    """
    if plain.version != _VERSION:
        raise InvalidRequest(f"recoveries: version {plain.version} is not known")
    if len(plain.rows) > INTERVALS_MAX:
        raise InvalidRequest(f"recoveries: {len(plain.rows)} intervals")
    found = Recoveries()
    for low, high, weight in plain.rows:
        if not (0 <= low <= high <= NEVER and 0 < weight <= WEIGHT_MAX):
            raise InvalidRequest(f"recoveries: interval {low} to {high} with weight {weight}")
        if (low, high) in found.weights:
            raise InvalidRequest(f"recoveries: interval {low} to {high} twice")
        found.weights[low, high] = weight
    return found
