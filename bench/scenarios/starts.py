"""From starting three processes to the first write, and memory with a full store."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.cluster import Cluster, cluster
from bench.generator.jobs import Job
from bench.lab import Figures, Lab, Line, Measurement, alone_in_turn, side_by_side
from bench.report import Goal, Row, published
from bench.systems import System

KEYS = 100_000


async def run(lab: Lab) -> list[Row]:
    """New clusters, then one with 100,000 keys that is killed and started again."""
    keys = KEYS // 10 if lab.quick else KEYS
    empty = await alone_in_turn(lab, _empty_line(), lab.repeats, _start_empty)
    full = Measurement(lines=_full_lines(keys), turn=_Full(keys).turn, restarts=True)
    return [*empty, *await side_by_side(lab, [full])]


def _empty_line() -> Line:
    return Line(
        name="start of three to the first write, empty",
        unit="s",
        more_is_better=False,
        consul=published(6.0),
        etcd=published(1.2),
        goal=Goal(2.5),
    )


def _full_lines(keys: int) -> tuple[Line, ...]:
    return (
        Line(
            name=f"the same with {keys:,} keys, after kill -9",
            unit="s",
            more_is_better=False,
            consul=published(10.0),
            etcd=published(1.2),
            goal=Goal(2.5),
        ),
        Line(
            name=f"memory with {keys:,} keys of 200 B, just written",
            unit="MiB",
            more_is_better=False,
            etcd=published(115),
        ),
        Line(
            name=f"memory with {keys:,} keys of 200 B, after a start",
            unit="MiB",
            more_is_better=False,
        ),
    )


async def _start_empty(lab: Lab, system: System) -> Figures:
    async with cluster(lab.directory, start=False, system=system) as servers:
        return Figures([await _start(servers)])


class _Full:
    """A cluster with keys; it is filled in the first turn.

    Args:
        keys: How many.
    """

    def __init__(self, keys: int) -> None:
        self._keys = keys

    async def turn(self, servers: Cluster, number: int) -> Sequence[Figures]:
        """Kills all and starts them again."""
        written = await self._fill(servers) if number == 0 else Figures([])
        await servers.kill(list(servers.servers))
        taken_s = await _start(servers)
        await servers.ready()
        return [Figures([taken_s]), written, Figures(_memory(servers))]

    async def _fill(self, servers: Cluster) -> Figures:
        leader = await servers.leader()
        before_mib = servers.rss_bytes(leader) / 2**20
        address = servers.servers[leader].http
        fill = await servers.load(Job(kind="fill", address=address, connections=8, keys=self._keys))
        await servers.ready()
        note = f"{before_mib:.0f} MiB before; written in {fill.seconds:.1f} s"
        return Figures(_memory(servers), note)


def _memory(servers: Cluster) -> list[float]:
    return [servers.rss_bytes(name) / 2**20 for name in servers.servers]


async def _start(servers: Cluster) -> float:
    at = time.perf_counter()
    names = list(servers.servers)
    await servers.start(names)
    return await servers.first_write(names, at)
