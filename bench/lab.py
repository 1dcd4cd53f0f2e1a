"""What scenarios share: how long to measure, where, and telling how far it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from bench.cluster import Cluster
from bench.load import Job, Tally
from bench.report import Row


class Lab(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a run.

    Attributes:
        directory: Where data directories are made (its disk is measured); None: the temporary one.
        quick: Shorter and fewer: to see that it works, not to publish.
        say: Shows what is being done.
    """

    directory: Path | None
    quick: bool
    say: Callable[[str], None]

    @property
    def repeats(self) -> int:
        """How often a rate is measured."""
        return 1 if self.quick else 3

    @property
    def seconds(self) -> float:
        """Length of one measurement of a rate."""
        return 1.0 if self.quick else 3.0

    async def rates(
        self, cluster: Cluster, kind: str, address: str, connections: int
    ) -> list[Tally]:
        """Runs a load some times."""
        tallies = []
        for turn in range(self.repeats):
            self.say(f"{kind}, {connections} connections, {turn + 1} of {self.repeats}")
            job = Job(
                kind=kind,
                address=address,
                connections=connections,
                seconds=self.seconds,
                salt=f"run-{turn}",
            )
            tallies.append(await cluster.load(job))
        return tallies


Scenario = Callable[[Lab], Awaitable[list[Row]]]


def latencies(tallies: list[Tally]) -> str:
    """Latency of the run with the median rate."""
    middle = sorted(tallies, key=lambda tally: tally.per_s)[len(tallies) // 2]
    return f"p50 {middle.p50_ms:.1f} ms, p99 {middle.p99_ms:.1f} ms"


def milliseconds(sorted_s: list[float], share: float) -> float:
    """A percentile of sorted seconds."""
    return sorted_s[min(len(sorted_s) - 1, int(len(sorted_s) * share))] * 1000
