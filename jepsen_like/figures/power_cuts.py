"""Figure `power-cuts`: servers lose their power under load, at random, and all at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import ClassVar, Final

from jepsen_like.figures.figure import Done, Figure, Row, none_lost
from jepsen_like.figures.lab import Cluster, Lab, Trouble, cluster
from jepsen_like.figures.record import Record, Round
from jepsen_like.ground.api import DiskControl, Host, Need

LOAD_S: Final = (0.4, 2.0)
DARK_S: Final = (0.0, 1.0)
DELAY_S: Final = 0.01
KINDS: Final = ("all servers", "one server", "the leader", "two of three")


class PowerCuts(Figure):
    """Every server's data is on a disk that forgets what was not synced, in part or whole."""

    name: ClassVar[str] = "power-cuts"
    rounds: ClassVar[int] = 200
    quick_rounds: ClassVar[int] = 4
    needs: ClassVar[frozenset[Need]] = frozenset({Need.NETWORK, Need.DISK})
    lasts: ClassVar[str] = "25 min"

    async def measure(self, lab: Lab, numbers: Sequence[int], done: Done) -> list[str]:
        """See `Figure.measure`."""
        async with cluster(
            lab, self.name, disk=True, workers=12, pause_s=0.02, body_bytes=600
        ) as it:
            for number in numbers:
                done(await _round(it, number, KINDS[number % len(KINDS)]))
            return await it.writers.missing_anywhere()

    def rows(self, record: Record) -> list[Row]:
        """See `Figure.rows`."""
        cuts = len(record.rounds)
        kinds = [f"{len(record.values('servers', kind))} of {kind}" for kind in KINDS]
        lost = {
            what: sum(one.facts.get("lost", {}).get(what, 0) for one in record.rounds)
            for what in ("writes", "bytes", "names")
        }
        return [
            Row("power cuts", str(cuts), "200", cuts >= self.rounds),
            Row("of them", ", ".join(kinds)),
            Row("servers that lost their power", f"{sum(record.values('servers')):,.0f}"),
            Row(
                "what the disks forgot, not having been synced",
                f"{lost['writes']:,} writes ({lost['bytes']:,} bytes), {lost['names']:,} names",
            ),
            Row("writes acknowledged", f"{sum(record.values('acknowledged')):,.0f}"),
            none_lost(record),
        ]

    def line(self, done: Round) -> str:
        """See `Figure.line`."""
        lost = done.facts["lost"]
        return (
            f"{done.kind}: the disks forgot {lost['writes']} writes, "
            f"{done.values['acknowledged']:.0f} acknowledged ones are there"
        )


async def _round(it: Cluster, number: int, kind: str) -> Round:
    await it.whole()
    name = str(number)
    it.writers.begin(name)
    # Slow disks: at any moment something is written and not yet synced.
    await _set_delay(it, DELAY_S)
    await asyncio.sleep(it.rng.uniform(*LOAD_S))
    hosts = await _chosen(it, kind)
    torn = bool(it.rng.getrandbits(1))
    lost = await _cut_power(it, hosts, torn=torn)
    await asyncio.sleep(it.rng.uniform(*DARK_S))
    await _set_delay(it, 0.0)
    for host in hosts:
        await host.start()
    await it.whole()
    losses = await it.check_round(name)
    return Round(
        number,
        kind,
        values={"servers": len(hosts), "acknowledged": len(it.writers.acknowledged[name])},
        facts={"servers": [host.name for host in hosts], "torn": torn, "lost": lost},
        losses=losses,
    )


async def _chosen(it: Cluster, kind: str) -> list[Host]:
    servers = it.ground.servers
    match kind:
        case "all servers":
            return list(servers)
        case "the leader":
            return [await it.leader()]
        case "two of three":
            return it.rng.sample(servers, 2)
        case _:
            return [it.rng.choice(servers)]


async def _cut_power(it: Cluster, hosts: Sequence[Host], *, torn: bool) -> dict[str, int]:
    """All disks stop at one instant; then the processes end, and what was not synced goes."""
    disks = [_disk(host) for host in hosts]
    await asyncio.gather(*(disk.freeze() for disk in disks))
    for host in hosts:
        host.send(signal.SIGKILL)
    seeds = [it.rng.getrandbits(32) for _ in disks]
    lost = await asyncio.gather(
        *(disk.lose_power(seed=s, torn=torn) for disk, s in zip(disks, seeds, strict=True))
    )
    await asyncio.gather(*(host.kill() for host in hosts))
    return {what: sum(one.get(what, 0) for one in lost) for what in ("writes", "bytes", "names")}


async def _set_delay(it: Cluster, delay_s: float) -> None:
    disks = [_disk(host) for host in it.ground.servers]
    await asyncio.gather(*(disk.set_faults(delay_s=delay_s) for disk in disks))


def _disk(host: Host) -> DiskControl:
    if host.disk is None:
        raise Trouble(f"{host.name} has no disk that could lose its power")
    return host.disk
