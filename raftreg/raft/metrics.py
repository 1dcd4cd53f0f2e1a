"""What a Raft node counts about itself; the server's metrics page reads it. Plain numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

TIME_BOUNDS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SIZE_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Distribution:
    """A histogram with fixed bounds, cheap to feed.

    Args:
        bounds: Upper bounds of the buckets, ascending; one more bucket takes what is above.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class NodeMetrics:
    """Counters (`…_total`) and distributions of one node."""

    def __init__(self) -> None:
        self.entries_applied_total = 0
        self.proposals_applied_total = 0
        self.bad_entries_total = 0
        self.batches_total = 0
        self.read_rounds_total = 0
        self.snapshots_installed_total = 0
        self.protocol_violations_total = 0
        self.batch_sizes = Distribution(SIZE_BOUNDS)
        self.fsync_s = Distribution(TIME_BOUNDS_S)
        self.proposal_s = Distribution(TIME_BOUNDS_S)
        self.read_index_s = Distribution(TIME_BOUNDS_S)
