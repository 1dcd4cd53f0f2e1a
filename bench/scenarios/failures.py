"""How long a failure is felt, and whether load alone is taken for one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import orjson

from bench.cluster import Cluster
from bench.failure import BenchFailure
from bench.generator.jobs import Job
from bench.lab import Figures, Lab, Line, Measurement, side_by_side
from bench.report import Goal, Row, published
from raftreg_cli.demo.plan import Host

SERVICE = "bench-web"
GONE_S_MAX = 30.0
HOSTS = 5


async def leader_lost(lab: Lab) -> list[Row]:
    """Kills the leader again and again; then lets it fall silent, as when its host is gone.

    The kernel of a killed process tells its peers at once. A stopped process keeps its connections
    and says nothing: then only time tells.
    """
    rounds = 3 if lab.quick else 20
    return await side_by_side(
        lab,
        [
            Measurement(
                lines=(
                    Line(
                        name="leader killed with -9 to the next accepted write",
                        unit="s",
                        more_is_better=False,
                        consul=published(15.4),
                        etcd=published(1.3, note="worst of 5: 1.75"),
                        goal=Goal(0.8, worst=1.5),
                    ),
                ),
                turn=_kill_leader,
                repeats=rounds,
                restarts=True,
            ),
            Measurement(
                lines=(
                    Line(
                        name="leader silent (SIGSTOP) to the next accepted write",
                        unit="s",
                        more_is_better=False,
                    ),
                ),
                turn=_silence_leader,
                repeats=rounds // 2,
                restarts=True,
            ),
        ],
    )


async def _kill_leader(servers: Cluster, number: int) -> Sequence[Figures]:
    del number  # each turn is the same
    leader = await servers.leader()
    at = await servers.kill([leader])
    taken_s = await servers.first_write(_others(servers, leader), at)
    await servers.start([leader])
    await servers.ready()
    return [Figures([taken_s])]


async def _silence_leader(servers: Cluster, number: int) -> Sequence[Figures]:
    del number
    leader = await servers.leader()
    at = servers.pause(leader)
    taken_s = await servers.first_write(_others(servers, leader), at)
    servers.resume(leader)
    await servers.ready()
    return [Figures([taken_s])]


def _others(servers: Cluster, leader: str) -> list[str]:
    return [name for name in servers.servers if name != leader]


async def host_killed(lab: Lab) -> list[Row]:
    """Kills an agent, and watches a service of its host as any client does."""
    line = Line(
        name="host killed to gone from passing",
        unit="s",
        more_is_better=False,
        consul=published(5.6),
        goal=Goal(4.0, worst=4.0),
    )
    kill = Measurement(lines=(line,), turn=_kill_host, repeats=1 if lab.quick else 5, restarts=True)
    return await side_by_side(lab, [kill], agents=1)


async def _kill_host(servers: Cluster, number: int) -> Sequence[Figures]:
    del number
    host, watched = servers.layout.agents[0], servers.layout.servers[0]
    await _register(servers, host)
    index = await _passing(servers, watched, 1)
    at = await servers.kill([host.name])
    await _passing(servers, watched, 0, index)
    taken_s = time.perf_counter() - at
    await servers.start([host.name])
    return [Figures([taken_s])]


async def _register(servers: Cluster, host: Host) -> None:
    body = orjson.dumps({"Name": SERVICE, "Port": 80})
    deadline = time.perf_counter() + GONE_S_MAX
    while not await servers.put(host, "/v1/agent/service/register", body, 6.0):
        if time.perf_counter() > deadline:
            raise BenchFailure(f"{host.name} takes no registration")
        await asyncio.sleep(0.05)


async def _passing(servers: Cluster, server: Host, count: int, index: int = 0) -> int:
    """Watches until so many instances pass; gives the index."""
    deadline = time.perf_counter() + GONE_S_MAX
    while time.perf_counter() < deadline:
        path = f"/v1/health/service/{SERVICE}?passing&index={index}&wait=10s"
        status, body, index = await servers.get(server, path, 15.0)
        if status == 200 and len(orjson.loads(body)) == count:
            return index
    raise BenchFailure(f"after {GONE_S_MAX:.0f} s there are not {count} passing instances")


async def false_alarms(lab: Lab) -> list[Row]:
    """Writes at full rate, and looks whether the health of a host changed meanwhile."""
    seconds = 4.0 if lab.quick else 20.0

    async def turn(servers: Cluster, number: int) -> Sequence[Figures]:
        del number
        watched = servers.servers[await servers.leader()]
        before = await _liveness(servers, watched, HOSTS)
        job = Job(kind="put", address=watched.http, connections=256, seconds=seconds)
        tally = await servers.load(job)
        after = await _liveness(servers, watched, HOSTS)
        changed = [name for name in before if before[name] != after.get(name)]
        note = f"{tally.per_s:,.0f} puts/s for {seconds:.0f} s"
        return [Figures([float(len(changed))], note)]

    line = Line(
        name=f"false alarms of {HOSTS} hosts under full load",
        unit="hosts",
        more_is_better=False,
        goal=Goal(0.0),
    )
    full = Measurement(lines=(line,), turn=turn, repeats=1)
    return await side_by_side(lab, [full], agents=HOSTS - 3)


async def _liveness(servers: Cluster, server: Host, hosts: int) -> dict[str, tuple[str, int]]:
    """Status of each host, and the index of its last change: a change there and back shows too."""
    deadline = time.perf_counter() + GONE_S_MAX
    while time.perf_counter() < deadline:
        _, body, _ = await servers.get(server, "/v1/health/state/any")
        checks: list[dict[str, Any]] = orjson.loads(body or b"[]")
        found = {
            check["Node"]: (check["Status"], check["ModifyIndex"])
            for check in checks
            if check["CheckID"] == "serfHealth"
        }
        if len(found) == hosts:
            return found
        await asyncio.sleep(0.1)
    raise BenchFailure(f"after {GONE_S_MAX:.0f} s there are not {hosts} hosts")
