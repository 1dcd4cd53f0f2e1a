"""From starting three processes to the first write, and memory with a full store."""

from __future__ import annotations

import time

from bench.cluster import Cluster, cluster
from bench.generator.jobs import Job
from bench.lab import Lab
from bench.report import Goal, Row, published

KEYS = 100_000


async def run(lab: Lab) -> list[Row]:
    """New clusters, then one with 100,000 keys that is killed and started again."""
    empty_s = []
    for turn in range(lab.repeats):
        lab.say(f"start of an empty cluster, {turn + 1} of {lab.repeats}")
        async with cluster(lab.directory, start=False) as servers:
            empty_s.append(await _start(servers))
    keys = KEYS // 10 if lab.quick else KEYS
    full_s = []
    async with cluster(lab.directory) as servers:
        empty_mib = servers.rss_bytes(await servers.leader()) / 2**20
        lab.say(f"writing {keys:,} keys")
        leader = servers.servers[await servers.leader()].http
        fill = await servers.load(Job(kind="fill", address=leader, connections=8, keys=keys))
        await servers.ready()
        names = list(servers.servers)
        filled_mib = [servers.rss_bytes(name) / 2**20 for name in names]
        for turn in range(lab.repeats):
            lab.say(f"start with {keys:,} keys, {turn + 1} of {lab.repeats}")
            await servers.kill(names)
            full_s.append(await _start(servers))
            await servers.ready()
        started_mib = [servers.rss_bytes(name) / 2**20 for name in names]
    goal = Goal(2.5)
    return [
        Row(
            name="start of three to the first write, empty",
            unit="s",
            samples=empty_s,
            consul=published(6.0),
            etcd=published(1.2),
            goal=goal,
        ),
        Row(
            name=f"the same with {keys:,} keys, after kill -9",
            unit="s",
            samples=full_s,
            consul=published(10.0),
            etcd=published(1.2),
            goal=goal,
        ),
        Row(
            name=f"memory with {keys:,} keys of 200 B, just written",
            unit="MiB",
            samples=filled_mib,
            etcd=published(115),
            note=f"{empty_mib:.0f} MiB before; written in {fill.seconds:.1f} s",
        ),
        Row(
            name=f"memory with {keys:,} keys of 200 B, after a start",
            unit="MiB",
            samples=started_mib,
        ),
    ]


async def _start(servers: Cluster) -> float:
    at = time.perf_counter()
    names = list(servers.servers)
    await servers.start(names)
    return await servers.first_write(names, at)
