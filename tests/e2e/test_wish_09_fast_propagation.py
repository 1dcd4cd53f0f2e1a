"""Wish 9: what changes is seen everywhere soon; nothing keeps old answers alive."""

from __future__ import annotations

import asyncio

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.targets import target
from tests.e2e.waiting import until

_SOON_S = 10.0  # a few hundredths on an idle machine; `make bench` tells


async def _in_dns(ask: Ask, members: list[Member], service: str, expected: set[str]) -> bool:
    found = await asyncio.gather(*(ask.addresses(member, service) for member in members))
    return all(view == expected for view in found)


async def test_wish_09_changes_reach_every_resolver(mesh: Cluster, ask: Ask) -> None:
    """Registered, failed, recovered, deregistered: DNS of every host tells, through no cache."""
    agent = mesh.agents[0]
    here: set[str] = {agent.address}

    async def shown(expected: set[str]) -> None:
        await until(
            f"{expected or 'nothing'} in every DNS",
            lambda: _in_dns(ask, mesh.members, "news", expected),
            limit_s=_SOON_S,
        )

    for _ in range(3):
        instance = await ask.register(agent, "news")
        assert await ask.passing(mesh.servers[2], "news") == {instance}, "at once, where it counts"
        await shown(here)
        await ask.put(agent, f"/v1/agent/check/fail/service:{instance}")
        await shown(set())
        await ask.put(agent, f"/v1/agent/check/pass/service:{instance}")
        await shown(here)
        await ask.put(agent, f"/v1/agent/service/deregister/{instance}")
        await shown(set())


async def test_wish_09_a_failing_instance_leaves_every_view(mesh: Cluster, ask: Ask) -> None:
    """An instance whose check fails goes from all resolvers, however many fail with it."""
    agents = mesh.agents
    async with target() as service:
        check = {"HTTP": service.url, "Interval": "1s", "Status": "passing"}
        for agent in agents:
            await ask.register(agent, "doomed", Check=check)
        everyone = {agent.address for agent in agents}
        await until(
            "both in DNS", lambda: _in_dns(ask, mesh.members, "doomed", everyone), limit_s=_SOON_S
        )
        service.answers(lambda _: False)
        await until("none left", lambda: _in_dns(ask, mesh.members, "doomed", set()))
        for agent in agents:
            await ask.put(agent, f"/v1/agent/service/deregister/doomed-at-{agent.name}")
