"""Counts and latencies over time, in bounded memory however long the run is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from jepsen_like.history import Type

OUTCOMES: tuple[Type, ...] = (Type.OK, Type.FAIL, Type.INFO)

#: Latencies are told apart by steps of 10**(1/40), about 6 %: a quantile is right within 3 %.
STEPS_PER_DECADE = 40
BINS_MAX = 480
#: Width of a bin at first; it doubles whenever the run outgrows `BINS_MAX` of them.
FIRST_WIDTH_NS = 20_000_000


class Latencies:
    """A histogram with logarithmic steps, after Tene's HdrHistogram: bounded, and mergeable."""

    __slots__ = ("count", "max_ns", "steps")

    def __init__(self) -> None:
        self.count = 0
        self.max_ns = 0
        self.steps: dict[int, int] = {}

    def add(self, latency_ns: int) -> None:
        """Counts one latency, in nanoseconds; below 1 it is taken as 1."""
        latency_ns = max(latency_ns, 1)
        step = int(math.log10(latency_ns) * STEPS_PER_DECADE)
        self.steps[step] = self.steps.get(step, 0) + 1
        self.count += 1
        self.max_ns = max(self.max_ns, latency_ns)

    def merge(self, other: Latencies) -> None:
        """Adds what another one has counted."""
        for step, count in other.steps.items():
            self.steps[step] = self.steps.get(step, 0) + count
        self.count += other.count
        self.max_ns = max(self.max_ns, other.max_ns)

    def quantile_ns(self, share: float) -> int:
        """The latency that this share (0 to 1) of the operations did not exceed; 0 without any."""
        left = share * self.count
        for step in sorted(self.steps):
            left -= self.steps[step]
            if left <= 0:
                return min(round(middle_ns(step)), self.max_ns)
        return self.max_ns


def middle_ns(step: int) -> float:
    """The latency in the middle of a step."""
    return float(10 ** ((step + 0.5) / STEPS_PER_DECADE))


class Bin:
    """What happened in one stretch of time.

    Attributes:
        ended: Operations that ended in it, in the order of `OUTCOMES`.
        begun: Latencies of those that began in it, in the same order.
    """

    __slots__ = ("begun", "ended")

    def __init__(self) -> None:
        self.ended = [0, 0, 0]
        self.begun = (Latencies(), Latencies(), Latencies())

    def merge(self, other: Bin) -> None:
        """Adds another bin to this one."""
        for place in range(len(OUTCOMES)):
            self.ended[place] += other.ended[place]
            self.begun[place].merge(other.begun[place])


class TimeBins:
    """Equal stretches of time from 0, at most `BINS_MAX`: their width grows with the run."""

    def __init__(self) -> None:
        self.width_ns = FIRST_WIDTH_NS
        self.bins: list[Bin] = []

    def add(self, begun_ns: int, ended_ns: int, outcome: Type) -> None:
        """Counts an operation.

        Args:
            begun_ns: When it began, in nanoseconds since the run did; below 0 is taken as 0.
            ended_ns: When it ended.
            outcome: How it ended.
        """
        place = OUTCOMES.index(outcome)
        self._at(ended_ns).ended[place] += 1
        self._at(begun_ns).begun[place].add(ended_ns - begun_ns)

    def _at(self, time_ns: int) -> Bin:
        time_ns = max(time_ns, 0)
        while time_ns // self.width_ns >= BINS_MAX:
            self._fold()
        number = time_ns // self.width_ns
        while len(self.bins) <= number:
            self.bins.append(Bin())
        return self.bins[number]

    def _fold(self) -> None:
        self.bins = list(merged(self.bins, 2))
        self.width_ns *= 2

    def coarse(self, bins_max: int) -> tuple[int, list[Bin]]:
        """The same in at most `bins_max` bins: their width in nanoseconds, and they."""
        factor = max(1, math.ceil(len(self.bins) / bins_max))
        return self.width_ns * factor, list(merged(self.bins, factor))


def merged(bins: Sequence[Bin], factor: int) -> Iterator[Bin]:
    """Joins each `factor` neighbours into a new bin."""
    for start in range(0, len(bins), factor):
        joined = Bin()
        for one in bins[start : start + factor]:
            joined.merge(one)
        yield joined
