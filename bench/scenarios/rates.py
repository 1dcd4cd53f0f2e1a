"""Requests a second, closed loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bench.cluster import Cluster
from bench.generator.jobs import Job
from bench.lab import Figures, Lab, Line, Measurement, rate, side_by_side, timed
from bench.report import Goal, Row, Times, published

#: Connections; the goal; what Consul and etcd did.
PUTS = (
    (1, 520, published(380), published(520)),
    (16, 2_300, published(1_700), published(2_300)),
    (64, 5_850, published(3_600), published(2_100, 3_900)),
    (256, 7_500, published(4_900), published(5_000)),
)
KEYS = 10_000
CONNECTIONS = 64


class _Where(Protocol):
    async def __call__(self, servers: Cluster) -> str:
        """Names the process to load."""
        ...


async def at_leader(servers: Cluster) -> str:
    """The server that leads."""
    return await servers.leader()


async def at_agent(servers: Cluster) -> str:
    """The first agent."""
    return servers.layout.agents[0].name


def load(
    lab: Lab,
    line: Line,
    where: _Where,
    kind: str,
    connections: int = CONNECTIONS,
    path: str = "",
) -> Measurement:
    """A load of some kind at some process."""

    async def turn(servers: Cluster, number: int) -> Sequence[Figures]:
        name = await where(servers)
        job = Job(
            kind=kind,
            address=servers.host(name).http,
            connections=connections,
            seconds=lab.seconds,
            salt=f"run-{number}",
            keys=KEYS,
            path=path,
        )
        return [rate(*await timed(servers, name, job))]

    return Measurement(lines=(line,), turn=turn)


async def puts(lab: Lab) -> list[Row]:
    """KV writes of 200 B at the leader."""
    measurements = [
        load(
            lab,
            Line(
                name=f"KV puts of 200 B, {connections} connections",
                consul=consul,
                etcd=etcd,
                goal=Goal(goal),
            ),
            at_leader,
            "put",
            connections,
        )
        for connections, goal, consul, etcd in PUTS
    ]
    return await side_by_side(lab, measurements)


async def fill_keys(servers: Cluster) -> None:
    """Writes the keys that are read."""
    leader = servers.servers[await servers.leader()].http
    await servers.load(Job(kind="fill", address=leader, connections=8, keys=KEYS))


async def gets(lab: Lab) -> list[Row]:
    """KV reads at the leader."""
    measurements = [
        load(
            lab,
            Line(
                name=f"KV gets, {what}, {CONNECTIONS} connections",
                consul=published(23_000),
                etcd=etcd,
                goal=Times(2),
            ),
            at_leader,
            kind,
        )
        for kind, what, etcd in (
            ("get", "default", published(7_500)),
            ("get-stale", "stale", published(10_600)),
        )
    ]
    return await side_by_side(lab, measurements, prepare=fill_keys)


async def registrations(lab: Lab) -> list[Row]:
    """Services through an agent; nodes with a service and a check through the catalog."""
    measurements = [
        load(
            lab,
            Line(
                name=f"registrations through an agent, {CONNECTIONS} connections",
                consul=published(110, 210),
                goal=Times(10),
            ),
            at_agent,
            "agent",
        ),
        load(
            lab,
            Line(
                name=f"registrations through the catalog, {CONNECTIONS} connections",
                consul=published(1_100, 1_400),
                goal=Goal(1_400),
            ),
            at_leader,
            "catalog",
        ),
    ]
    return await side_by_side(lab, measurements, agents=1)


async def register_ttl(servers: Cluster) -> None:
    """Registers what heartbeats keep alive."""
    agent = servers.layout.agents[0].http
    await servers.load(Job(kind="fill-ttl", address=agent, connections=16, instances=CONNECTIONS))


async def heartbeats(lab: Lab) -> list[Row]:
    """Owners of TTL checks that say "passing" to their agent."""
    line = Line(
        name=f"TTL heartbeats through an agent, {CONNECTIONS} connections",
        consul=published(1_300),
        goal=Times(10),
    )
    beats = load(lab, line, at_agent, "heartbeat")
    return await side_by_side(lab, [beats], agents=1, prepare=register_ttl)
