"""Wish 5: registering again, a reload or a restart never makes a healthy instance critical."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.deltas import following
from tests.e2e.targets import target
from tests.e2e.waiting import until


def _body(name: str, url: str) -> dict[str, Any]:
    """A definition whose check begins critical, as it does unless it says otherwise."""
    check = {"CheckID": f"{name}-check", "HTTP": url, "Interval": "1s", "Timeout": "2s"}
    return {"ID": name, "Name": name, "Port": 80, "Check": check}


async def _healthy(ask: Ask, member: Member, name: str) -> bool:
    return await ask.passing(member, name) == {name}


async def test_wish_05_registering_again_keeps_the_health(mesh: Cluster, ask: Ask) -> None:
    """An instance registered again, with the same or another definition, stays passing."""
    agent = mesh.agents[0]
    async with target() as service, following(mesh.servers) as deltas:
        body = _body("again", service.url)
        await ask.put(agent, "/v1/agent/service/register", body)
        await until("it is healthy", lambda: _healthy(ask, agent, "again"))
        deltas.mark()
        for n in range(5):
            await ask.put(agent, "/v1/agent/service/register", body | {"Tags": [f"v{n}"]})
            assert await _healthy(ask, mesh.servers[0], "again")
        await ask.put(agent, "/v1/agent/service/register?replace-existing-checks", body)

        async def probed_again(since: int = service.probes) -> bool:
            return service.probes >= since + 2

        await until("it was probed since", probed_again)
        await ask.put(agent, "/v1/agent/service/deregister/again")
    assert "critical" not in deltas.statuses("again-check")


async def test_wish_05_restarts_keep_the_health(mesh: Cluster, ask: Ask) -> None:
    """Reload, kill and restart of the agent, kill and restart of each server: always passing."""
    agent = mesh.agents[0]
    async with target() as service:
        body = _body("steadfast", service.url)
        definition = agent.definitions / "steadfast.json"
        definition.write_text(json.dumps({"service": body}))
        agent.send(signal.SIGHUP)
        await until("it is healthy", lambda: _healthy(ask, agent, "steadfast"))
        try:
            async with following(mesh.servers) as deltas:
                agent.send(signal.SIGHUP)
                agent.kill()
                await ask.settled(mesh)
                for server in mesh.servers:
                    server.kill()
                    await ask.settled(mesh)
                assert await _healthy(ask, mesh.servers[0], "steadfast")
                assert "critical" not in deltas.statuses("steadfast-check")
        finally:
            definition.unlink()
            agent.send(signal.SIGHUP)

    async def gone() -> bool:
        return not await ask.passing(agent, "steadfast")

    await until("a definition whose file is gone is gone", gone)


async def test_wish_05_leaving_and_coming_back_keeps_the_health(mesh: Cluster, ask: Ask) -> None:
    """An agent that leaves takes its instance away, and brings it back as healthy as it was."""
    agent = mesh.agents[1]
    async with target() as service, following(mesh.servers) as deltas:
        await ask.put(agent, "/v1/agent/service/register", _body("traveller", service.url))
        await until("it is healthy", lambda: _healthy(ask, agent, "traveller"))
        deltas.mark()
        await agent.stop()
        assert await ask.passing(mesh.servers[0], "traveller") == set()
        await ask.settled(mesh)
        await until("it is back", lambda: _healthy(ask, agent, "traveller"))
        await ask.put(agent, "/v1/agent/service/deregister/traveller")
    assert deltas.statuses("traveller-check") <= {"passing", "gone"}


async def test_wish_05_hosts_stay_alive_over_a_change_of_leaders(mesh: Cluster, ask: Ask) -> None:
    """No host's lease is lost when the leader is killed: serfHealth of the others never flips."""
    async with following(mesh.servers) as deltas:
        leader = await ask.leader(mesh)
        leader.kill()
        await ask.leader(mesh, mesh.others(leader))
        renewals = [ask.metric(agent, "raftreg_agent_lease_held") for agent in mesh.agents]
        assert await asyncio.gather(*renewals) == [1.0] * len(mesh.agents)
        await ask.settled(mesh)
        for member in mesh.members:
            if member is not leader:
                assert deltas.statuses("serfHealth", member.name) <= {"passing"}, member.name
