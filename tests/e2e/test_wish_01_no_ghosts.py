"""Wish 1: an instance whose agent is gone must go, wherever it was taken out, and stay gone."""

from __future__ import annotations

import asyncio

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.waiting import until


async def _gone_everywhere(ask: Ask, cluster: Cluster, service: str, instance: str) -> bool:
    views = await asyncio.gather(
        *(ask.passing(member, service) for member in cluster.members if member.running)
    )
    return all(instance not in view for view in views)


async def test_wish_01_no_ghosts_when_a_host_dies(mesh: Cluster, ask: Ask) -> None:
    """An agent killed with -9 takes its instance out of discovery, by HTTP and by DNS."""
    stays, dies = mesh.agents
    for agent in (stays, dies):
        await ask.register(agent, "ghost")
    both = {stays.address, dies.address}

    async def known() -> bool:
        return await ask.addresses(stays, "ghost") == both

    async def gone() -> bool:
        dead = await _gone_everywhere(ask, mesh, "ghost", f"ghost-at-{dies.name}")
        return dead and await ask.addresses(stays, "ghost") == {stays.address}

    await until("DNS knows both", known)
    dies.kill()
    await until("the dead host's instance is gone", gone)
    assert await ask.passing(mesh.servers[0], "ghost") == {f"ghost-at-{stays.name}"}


async def test_wish_01_no_ghosts_after_a_graceful_leave(mesh: Cluster, ask: Ask) -> None:
    """A host that is stopped in order is out of the catalog when its process has ended."""
    agent = mesh.agents[1]
    instance = await ask.register(agent, "leaver")
    assert await ask.passing(mesh.servers[0], "leaver") == {instance}
    assert await agent.stop() == 0
    for server in mesh.servers:
        assert (await ask.get(server, "/v1/catalog/service/leaver")).json() == []
        assert (await ask.get(server, f"/v1/catalog/node/{agent.name}")).json() is None


async def test_wish_01_no_ghosts_after_deregistration_and_restart(mesh: Cluster, ask: Ask) -> None:
    """What was deregistered at its agent does not come back, also not with the agent's restart."""
    agent = mesh.agents[0]
    instance = await ask.register(agent, "quitter")
    await ask.put(agent, f"/v1/agent/service/deregister/{instance}")
    assert await ask.passing(mesh.servers[0], "quitter") == set()
    agent.kill()
    await ask.settled(mesh)
    await ask.register(agent, "newcomer")  # the restarted agent has told all that it knows
    assert (await ask.get(mesh.servers[0], "/v1/catalog/service/quitter")).json() == []


async def test_wish_01_no_ghosts_of_strangers(mesh: Cluster, ask: Ask) -> None:
    """An instance that somebody else put on an agent's host through the catalog is taken away."""
    agent, server = mesh.agents[0], mesh.servers[0]
    await ask.put(
        server,
        "/v1/catalog/register",
        {
            "Node": agent.name,
            "Address": agent.address,
            "SkipNodeUpdate": True,
            "Service": {"ID": "stranger", "Service": "stranger", "Port": 1},
        },
    )

    async def gone() -> bool:
        found: list[object] = (await ask.get(server, "/v1/catalog/service/stranger")).json()
        return not found

    await until("the stranger is gone", gone)


async def test_wish_01_no_ghosts_of_a_host_taken_out_by_hand(mesh: Cluster, ask: Ask) -> None:
    """A dead host that was deregistered through the catalog stays gone, with all that it had."""
    agent: Member = mesh.agents[1]
    server = mesh.servers[1]
    await ask.register(agent, "buried")
    agent.kill()
    await ask.put(server, "/v1/catalog/deregister", {"Node": agent.name})
    for each in mesh.servers:
        assert (await ask.get(each, "/v1/catalog/service/buried")).json() == []
        assert (await ask.get(each, f"/v1/catalog/node/{agent.name}")).json() is None
