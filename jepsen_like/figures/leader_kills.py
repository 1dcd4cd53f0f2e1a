"""Figure `leader-kills`: for how long nothing is acknowledged after kill -9 of the leader."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar, Final

from jepsen_like.figures.figure import (
    Done,
    Figure,
    Row,
    median,
    none_lost,
    quantile,
    seconds,
    within,
)
from jepsen_like.figures.lab import Cluster, Lab, Trouble, cluster
from jepsen_like.figures.record import Record, Round

BACK_S_MAX: Final = 60.0
SETTLE_S: Final = 0.5  #: the gap is looked for until this long after the first write is back
CALM_S: Final = (0.3, 1.3)


class LeaderKills(Figure):
    """Writes all the time through all servers; the leader is killed, then restarted."""

    name: ClassVar[str] = "leader-kills"
    rounds: ClassVar[int] = 100
    quick_rounds: ClassVar[int] = 2
    lasts: ClassVar[str] = "8 min"

    async def measure(self, lab: Lab, numbers: Sequence[int], done: Done) -> list[str]:
        """See `Figure.measure`."""
        async with cluster(lab, self.name) as it:
            for number in numbers:
                done(await _round(it, number))
            return await it.writers.missing_anywhere()

    def rows(self, record: Record) -> list[Row]:
        """See `Figure.rows`."""
        outages = record.values("outage_s")
        return [
            Row("leaders killed", str(len(outages)), "100", len(outages) >= self.rounds),
            within("write outage, median", median(outages), 0.8),
            within("write outage, 99th percentile", quantile(outages, 0.99), 2.0),
            Row("write outage, longest", seconds(max(outages))),
            Row("writes acknowledged", f"{sum(record.values('acknowledged')):,.0f}"),
            none_lost(record),
        ]

    def line(self, done: Round) -> str:
        """See `Figure.line`."""
        return f"outage {done.values['outage_s']:.2f} s after {done.facts['killed']} was killed"


async def _round(it: Cluster, number: int) -> Round:
    await it.whole()
    name = str(number)
    it.writers.begin(name)
    await asyncio.sleep(it.rng.uniform(*CALM_S))
    leader = await it.leader()
    pid = leader.pid
    killed_s = it.now_s()
    await leader.kill()
    first = await it.writers.acknowledged_after(killed_s, BACK_S_MAX)
    if first is None:
        raise Trouble(f"round {number}: no write is acknowledged {BACK_S_MAX:g} s after the kill")
    await asyncio.sleep(SETTLE_S)
    outage_s = it.writers.outage_s(killed_s, first.ended_s + SETTLE_S)
    await leader.start()
    await it.whole()
    losses = await it.check_round(name)
    return Round(
        number,
        values={"outage_s": outage_s, "acknowledged": len(it.writers.acknowledged[name])},
        facts={"killed": leader.name, "pid": pid, "pid_after": leader.pid},
        losses=losses,
    )
