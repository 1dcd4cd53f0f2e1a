"""Who runs a service and is well: by HTTP, by DNS, and by watching."""

from __future__ import annotations

from collections.abc import Sequence

from bench.cluster import Cluster
from bench.generator.jobs import DnsJob, Job, WatchJob
from bench.generator.watching import SERVICE as WATCHED
from bench.lab import Figures, Lab, Line, Measurement, rate, side_by_side, timed
from bench.report import Row, Times, published
from bench.scenarios.rates import at_agent, at_leader, load
from raftreg.config import join_host_port

#: Instances; times Consul; what Consul did on a server and on an agent.
HEALTH = ((10, 3, 7_100, 7_000), (100, 10, 1_300, 2_000), (1000, 20, 141, 232))
HEALTH_CONNECTIONS = 16
#: Instances; what Consul did with A queries on an agent and on a server.
NAMES = ((3, 4_400, 19_000), (10, 2_400, 11_000), (50, 680, 3_500))
WATCHERS = 1000
WATCHED_INSTANCES = 10
WATCH_ROUNDS = 10


async def fill(servers: Cluster, name: str, instances: int) -> None:
    """Registers a service, and waits until server and agents know it."""
    leader = servers.servers[await servers.leader()]
    await servers.load(
        Job(
            kind="fill-service",
            address=leader.http,
            connections=8,
            salt=name,
            instances=instances,
        )
    )
    path = f"/v1/health/service/{name}?passing"
    await servers.until_rows(leader, path, instances)
    for agent in servers.layout.agents:
        await servers.until_rows(agent, f"{path}&cached", instances)


async def health(lab: Lab) -> list[Row]:
    """`GET /v1/health/service/NAME?passing` on the leader, and `?cached` on an agent."""

    async def prepare(servers: Cluster) -> None:
        for instances, *_ in HEALTH:
            await fill(servers, f"web-{instances}", instances)

    measurements = []
    for instances, factor, on_server, on_agent in HEALTH:
        path = f"/v1/health/service/web-{instances}?passing"
        for where, what, query, consul in (
            (at_leader, "server", "", on_server),
            (at_agent, "agent, cached", "&cached", on_agent),
        ):
            line = Line(
                name=f"health of {instances} instances, {what}, {HEALTH_CONNECTIONS} connections",
                consul=published(consul),
                goal=Times(factor),
            )
            measurements.append(load(lab, line, where, "path", HEALTH_CONNECTIONS, path + query))
    return await side_by_side(lab, measurements, agents=1, prepare=prepare)


async def names(lab: Lab) -> list[Row]:
    """A and SRV queries over UDP, without EDNS0."""

    async def prepare(servers: Cluster) -> None:
        for instances, *_ in NAMES:
            await fill(servers, f"web-{instances}", instances)

    measurements = [
        _questions(lab, rdtype, instances, agent=agent, consul=consul)
        for rdtype in ("A", "SRV")
        for instances, on_agent, on_server in NAMES
        for agent, consul in ((True, on_agent), (False, on_server))
    ]
    return await side_by_side(lab, measurements, agents=1, prepare=prepare)


def _questions(lab: Lab, rdtype: str, instances: int, *, agent: bool, consul: float) -> Measurement:
    where, what = (at_agent, "agent") if agent else (at_leader, "server")

    async def turn(servers: Cluster, number: int) -> Sequence[Figures]:
        del number  # each turn is the same
        name = await where(servers)
        host = servers.host(name)
        job = DnsJob(
            address=join_host_port(host.address, host.dns_port),
            name=f"web-{instances}.service.consul.",
            rdtype=rdtype,
            seconds=lab.seconds,
        )
        return [rate(*await timed(servers, name, job))]

    line = Line(
        name=f"DNS {rdtype}, {instances} instances, {what}",
        consul=published(consul) if rdtype == "A" else None,
        goal=Times(10 if agent else 3),
    )
    return Measurement(lines=(line,), turn=turn)


async def watchers(lab: Lab) -> list[Row]:
    """One change of a service that many watch."""
    count = WATCHERS // 10 if lab.quick else WATCHERS

    async def prepare(servers: Cluster) -> None:
        await fill(servers, WATCHED, WATCHED_INSTANCES)

    measurements = [
        _watch(lab, count, what, agent=agent, query=query, consul=consul)
        for agent, what, query, consul in (
            (False, "the leader", "", 73),
            (True, "an agent", "", 370),
            (True, "an agent, cached", "&cached", 370),
        )
    ]
    return await side_by_side(lab, measurements, agents=1, prepare=prepare)


def _watch(
    lab: Lab, count: int, what: str, *, agent: bool, query: str, consul: float
) -> Measurement:
    async def turn(servers: Cluster, number: int) -> Sequence[Figures]:
        del number  # each turn is the same
        leader = servers.servers[await servers.leader()].http
        name = await at_agent(servers) if agent else await at_leader(servers)
        tally = await servers.watch(
            WatchJob(
                address=servers.host(name).http,
                path=f"/v1/health/service/{WATCHED}?passing{query}",
                change_address=leader,
                watchers=count,
                rounds=2 if lab.quick else WATCH_ROUNDS,
            )
        )
        note = f"{tally.early} early answers" if tally.early else ""
        return [Figures(tally.median_ms, note), Figures(tally.last_ms)]

    told = f"change to the {{}} of {count:,} watchers told, through {what}"
    return Measurement(
        lines=(
            Line(
                name=told.format("median"),
                unit="ms",
                more_is_better=False,
                consul=published(consul),
                goal=Times(3),
            ),
            Line(
                name=told.format("last"),
                unit="ms",
                more_is_better=False,
                # Only its median was published; its last watcher was told later than that.
                consul=published(consul, note="its median"),
                goal=Times(3),
            ),
        ),
        turn=turn,
        repeats=1 if lab.quick else 2,
    )
