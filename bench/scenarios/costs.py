"""What answers and rows cost: processor time and memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from bench.cluster import Cluster
from bench.generator.jobs import DnsJob, Job
from bench.lab import Figures, Lab, Line, Measurement, side_by_side, timed
from bench.report import Row
from bench.scenarios.discovery import fill
from bench.scenarios.rates import KEYS, at_agent, at_leader, fill_keys, register_ttl
from raftreg.config import join_host_port
from raftreg_cli.demo.plan import Host

CONNECTIONS = 16
INSTANCES = (10_000, 100_000)
SERVICE = "web-100"
SERVICE_INSTANCES = 100


async def processor(lab: Lab) -> list[Row]:
    """Processor seconds of the process that answers, by a million answers under load."""

    async def prepare(servers: Cluster) -> None:
        await fill_keys(servers)
        await register_ttl(servers)
        await fill(servers, SERVICE, SERVICE_INSTANCES)

    def http(kind: str, path: str = "") -> Callable[[Host], Job]:
        return lambda host: Job(
            kind=kind,
            address=host.http,
            connections=CONNECTIONS,
            seconds=lab.seconds,
            keys=KEYS,
            path=path,
        )

    def dns(host: Host) -> DnsJob:
        return DnsJob(
            address=join_host_port(host.address, host.dns_port),
            name=f"{SERVICE}.service.consul.",
            rdtype="A",
            seconds=lab.seconds,
        )

    path = f"/v1/health/service/{SERVICE}?passing"
    measurements = [
        _cost(what, where, job)
        for what, where, job in (
            ("KV gets, default, leader", at_leader, http("get")),
            ("KV gets, stale, leader", at_leader, http("get-stale")),
            ("KV puts, leader", at_leader, http("put")),
            ("health of 100 instances, leader", at_leader, http("path", path)),
            ("health of 100 instances, agent, cached", at_agent, http("path", f"{path}&cached")),
            ("TTL heartbeats, agent", at_agent, http("heartbeat")),
            ("DNS A of 100 instances, leader", at_leader, dns),
            ("DNS A of 100 instances, agent", at_agent, dns),
        )
    ]
    return await side_by_side(lab, measurements, agents=1, prepare=prepare)


def _cost(
    what: str,
    where: Callable[[Cluster], Awaitable[str]],
    job_for: Callable[[Host], Job | DnsJob],
) -> Measurement:
    async def turn(servers: Cluster, number: int) -> Sequence[Figures]:
        del number  # each turn is the same
        name = await where(servers)
        tally, cpu_s = await timed(servers, name, job_for(servers.host(name)))
        return [Figures([cpu_s / tally.answers_total * 1e6], f"at {tally.per_s:,.0f}/s")]

    line = Line(name=f"processor time a million answers: {what}", unit="s", more_is_better=False)
    return Measurement(lines=(line,), turn=turn)


async def memory(lab: Lab) -> list[Row]:
    """Resident memory of servers and an agent with a full catalog."""
    rows: list[Row] = []
    for instances in INSTANCES:
        rows += await _memory(lab, instances // 10 if lab.quick else instances)
    return rows


async def _memory(lab: Lab, instances: int) -> list[Row]:
    async def prepare(servers: Cluster) -> None:
        leader = servers.servers[await servers.leader()]
        await servers.load(
            # One by one: see `catalog_fill`.
            Job(kind="fill-catalog", address=leader.http, connections=1, instances=instances)
        )
        last = f"/v1/health/service/svc-{(instances - 1) // 100:04}?passing"
        for host in (leader, *servers.layout.agents):
            await servers.until_rows(host, last + ("&cached" if not host.raft_port else ""), 100)

    async def turn(servers: Cluster, number: int) -> Sequence[Figures]:
        del number
        leader = await servers.leader()
        follower = next(name for name in servers.servers if name != leader)
        agent = servers.layout.agents[0].name
        return [Figures([servers.rss_bytes(name) / 2**20]) for name in (leader, follower, agent)]

    lines = tuple(
        Line(name=f"memory with {instances:,} instances, {what}", unit="MiB", more_is_better=False)
        for what in ("leader", "follower", "agent")
    )
    once = Measurement(lines=lines, turn=turn, repeats=1)
    return await side_by_side(lab, [once], agents=1, prepare=prepare)
