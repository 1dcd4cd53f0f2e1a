"""What was acknowledged is there, whatever dies."""

from __future__ import annotations

import asyncio

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster
from tests.e2e.dump import same_everywhere
from tests.e2e.load import loading

_ROUNDS = 2
_WRITES = 300


async def test_all_servers_killed_at_once_under_load_lose_nothing(mesh: Cluster, ask: Ask) -> None:
    """Kill -9 of every server at the same moment, several times: each acknowledged write is there.

    By linearizable reads, and then in every server's own state.
    """
    for number in range(_ROUNDS):
        async with loading(ask, mesh.servers, f"killed-{number}") as load:
            await load.more(_WRITES)
            mesh.kill(mesh.servers)
        await ask.settled(mesh)
        for server in mesh.servers:
            assert await load.lost(server) == []
        await same_everywhere(ask, mesh)
        lost = await asyncio.gather(*(load.lost(server, "&stale") for server in mesh.servers))
        assert lost == [[]] * len(mesh.servers)


async def test_the_leader_killed_under_load_loses_nothing(mesh: Cluster, ask: Ask) -> None:
    """Kill -9 of leader after leader while writes go on: nothing acknowledged is lost."""
    async with loading(ask, mesh.servers, "leaders") as load:
        for _ in range(2):
            await load.more(_WRITES)
            leader = await ask.leader(mesh)
            leader.kill()
            await load.more(_WRITES)
            mesh.start()
            await ask.leader(mesh)
        await load.more(_WRITES)
    await same_everywhere(ask, mesh)
    assert await load.lost(mesh.servers[0]) == []
