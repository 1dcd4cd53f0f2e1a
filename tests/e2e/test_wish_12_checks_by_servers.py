"""Wish 12: the servers check hosts without an agent, and a dead server's checks go on elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.conftest import NewCluster
from tests.e2e.targets import Target, target
from tests.e2e.waiting import until

_HOSTS = 6
_SETTINGS = "[external_checks]\nenabled = true\n"


@pytest.fixture
async def watching(new_cluster: NewCluster, ask: Ask, tmp_path: Path) -> Cluster:
    """Three servers that look after hosts without an agent."""
    config = tmp_path / "server.toml"
    config.write_text(_SETTINGS)
    cluster = new_cluster(servers=3)
    for server in cluster.servers:
        server.flags += ["--config", str(config)]
    cluster.start()
    await ask.settled(cluster)
    return cluster


async def _register(ask: Ask, server: Member, name: str, **definition: Any) -> None:
    check = {
        "CheckID": "up",
        "Name": "up",
        "ServiceID": "legacy",
        "Definition": definition,
    }
    await ask.put(
        server,
        "/v1/catalog/register",
        {
            "Node": name,
            "Address": "127.0.0.1",
            "NodeMeta": {"external-node": "true"},
            "Service": {"ID": "legacy", "Service": "legacy", "Port": 80},
            "Check": check,
        },
    )


async def _nodes(ask: Ask, server: Member, status: str) -> set[str]:
    rows = (await ask.get(server, "/v1/health/checks/legacy?stale")).json()
    return {row["Node"] for row in rows if row["Status"] == status}


async def _shares(ask: Ask, servers: list[Member]) -> list[float]:
    counts = [ask.metric(server, "raftreg_external_checks") for server in servers]
    return list(await asyncio.gather(*counts))


@asynccontextmanager
async def _legacy(ask: Ask, cluster: Cluster) -> AsyncIterator[tuple[set[str], Target]]:
    """Hosts without an agent, whose services answer as the target decides."""
    names = {f"legacy-{number}" for number in range(_HOSTS)}
    async with target() as service:
        for name in sorted(names):
            await _register(ask, cluster.servers[0], name, HTTP=service.url, Interval="1s")
        yield names, service


async def test_wish_12_checks_move_when_a_server_dies(watching: Cluster, ask: Ask) -> None:
    """Each check has one server; the dead one's go on at the others, and none becomes critical.

    Afterwards they still tell the truth: all fail when the services do, and recover with them.
    """
    server, *others = watching.servers
    async with _legacy(ask, watching) as (names, service):

        async def all_pass() -> bool:
            return await _nodes(ask, others[0], "passing") == names

        async def all_fail() -> bool:
            return await _nodes(ask, others[0], "critical") == names

        async def shared() -> bool:
            return sum(await _shares(ask, watching.servers)) == _HOSTS

        async def taken_over() -> bool:
            return sum(await _shares(ask, others)) == _HOSTS

        await until("all are found healthy", all_pass)
        await until("each check has one server", shared)
        server.kill()
        await until("the others have its checks", taken_over)
        probes = service.probes
        assert await all_pass(), "a healthy host became critical by a death of a server"

        async def probed_again() -> bool:
            return service.probes >= probes + 2 * _HOSTS

        await until("they are probed by others", probed_again)
        assert await all_pass()
        service.answers(lambda _: False)
        await until("all fail", all_fail)
        service.answers(lambda _: True)
        await until("all are well again", all_pass)
        watching.start()
        await ask.settled(watching)
        await until("the shares are as before", shared)
        assert await all_pass()


async def test_wish_12_a_ttl_check_lives_by_heartbeats_over_the_death_of_the_leader(
    watching: Cluster, ask: Ask
) -> None:
    """Heartbeats through any server keep it passing; silence ends it, under a new leader too."""
    await _register(ask, watching.servers[0], "beaten", TTL="4s")
    path = "/v1/health/external/pass/beaten/up"

    async def beat() -> bool:
        for server in watching.servers:
            if server.running:
                answer = await ask.request("PUT", server, path)
                assert answer.status == 200, answer.text
        return True

    await beat()
    assert await _nodes(ask, await ask.leader(watching), "passing") == {"beaten"}
    leader = await ask.leader(watching)
    leader.kill()
    survivors = watching.others(leader)
    now = asyncio.get_running_loop().time
    new = await ask.leader(watching, survivors)
    await until("a heartbeat is taken", beat)
    beaten_at = now()
    assert await _nodes(ask, new, "passing") == {"beaten"}

    async def silent() -> bool:
        return await _nodes(ask, new, "critical") == {"beaten"}

    await until("silence makes it critical", silent, poll_s=0.2)
    assert now() - beaten_at >= 4, "a TTL ended before its time"
