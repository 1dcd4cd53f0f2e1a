"""Requests a second, closed loop."""

from __future__ import annotations

from bench.cluster import cluster
from bench.lab import Lab, latencies
from bench.load import Job
from bench.report import Goal, Row

#: Connections; the goal; what Consul and etcd did.
PUTS = (
    (1, 520, "380", "520"),
    (16, 2_300, "1,700", "2,300"),
    (64, 5_850, "3,600", "2,100-3,900"),
    (256, 7_500, "4,900", "5,000"),
)
KEYS = 10_000


async def puts(lab: Lab) -> list[Row]:
    """KV writes of 200 B at the leader."""
    rows = []
    async with cluster(lab.directory) as servers:
        leader = servers.servers[await servers.leader()].http
        for connections, goal, consul, etcd in PUTS:
            tallies = await lab.rates(servers, "put", leader, connections)
            rows.append(
                Row(
                    name=f"KV puts of 200 B, {connections} connections",
                    unit="/s",
                    samples=[tally.per_s for tally in tallies],
                    consul=consul,
                    etcd=etcd,
                    goal=Goal(goal, at_least=True),
                    note=latencies(tallies),
                )
            )
    return rows


async def gets(lab: Lab) -> list[Row]:
    """KV reads at the leader."""
    rows = []
    async with cluster(lab.directory) as servers:
        leader = servers.servers[await servers.leader()].http
        lab.say("writing keys to read")
        await servers.load(Job(kind="fill", address=leader, connections=8, keys=KEYS))
        for kind, what, etcd in (("get", "default", "7,500"), ("get-stale", "stale", "10,600")):
            tallies = await lab.rates(servers, kind, leader, 64)
            rows.append(
                Row(
                    name=f"KV gets, {what}, 64 connections",
                    unit="/s",
                    samples=[tally.per_s for tally in tallies],
                    consul="23,000",
                    etcd=etcd,
                    goal=Goal(23_000, at_least=True),
                    note=latencies(tallies),
                )
            )
    return rows


async def registrations(lab: Lab) -> list[Row]:
    """Nodes with a service and a check through the catalog, services through an agent."""
    rows = []
    async with cluster(lab.directory, agents=1) as servers:
        leader = servers.servers[await servers.leader()].http
        agent = servers.layout.agents[0].http
        for kind, what, address, goal, consul in (
            ("agent", "an agent", agent, 2_000, "110-210"),
            ("catalog", "the catalog", leader, 1_400, "1,100-1,400"),
        ):
            tallies = await lab.rates(servers, kind, address, 64)
            rows.append(
                Row(
                    name=f"registrations through {what}, 64 connections",
                    unit="/s",
                    samples=[tally.per_s for tally in tallies],
                    consul=consul,
                    goal=Goal(goal, at_least=True),
                    note=latencies(tallies),
                )
            )
    return rows
