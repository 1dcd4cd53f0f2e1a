"""Wish 13: one query for all services, with health, tags and metadata, filtered and paged."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from raftreg.client import Consistency, Read, RegistryClient
from tests.e2e.ask import Ask
from tests.e2e.cluster import HTTP_PORT, Cluster
from tests.e2e.waiting import until

_COUNT = 7


@pytest.mark.parametrize("where", ["server", "agent", "view"])
async def test_wish_13_all_services_in_pages_by_several_tags(
    mesh: Cluster, ask: Ask, where: str
) -> None:
    """The same answer at a server, through an agent, and from an agent's own view.

    The pages of one walk hold every service that has both tags once, with its health.
    """
    asked = mesh.servers[1] if where == "server" else mesh.agents[1]
    read = Read(consistency=Consistency.STALE) if where == "view" else Read()
    names = {f"wish13-{where}-{number}" for number in range(_COUNT)}
    agent, other = mesh.agents
    for name in sorted(names):
        await ask.register(agent, name, Tags=["wish13", where], Meta={"tier": "front"})
        await ask.register(other, name, Tags=["wish13"], Meta={"tier": "back"})
    sick = f"wish13-{where}-3"
    await ask.put(agent, f"/v1/agent/check/fail/service:{sick}-at-{agent.name}")
    async with RegistryClient([f"{asked.address}:{HTTP_PORT}"]) as client:

        async def walk() -> dict[str, tuple[int, int, str]]:
            found: dict[str, tuple[int, int, str]] = {}
            async for row in client.health.services(tags=["wish13", where], page_size=3, read=read):
                assert row.name not in found, "told twice"
                found[row.name] = (row.passing, row.critical, row.meta["tier"][0])
            assert set(found) == names, found
            assert found[sick] == (0, 1, "front")
            return found

        found = await until("all are told", walk)
        assert [each for each in found.values() if each == (1, 0, "front")] == [(1, 0, "front")] * (
            _COUNT - 1
        )
        expression = f'Critical != 0 and Name matches "^wish13-{where}-" and "back" in Meta.tier'
        sums = [row async for row in client.health.services(filter_=expression, read=read)]
    assert [(row.name, row.passing, row.critical, row.nodes) for row in sums] == [(sick, 1, 1, 2)]


async def test_wish_13_it_can_be_watched(mesh: Cluster, ask: Ask) -> None:
    """With an index the query waits for the next change of any service's health."""
    agent = mesh.agents[0]
    instance = await ask.register(agent, "wish13-watched")
    wanted = quote('Name == "wish13-watched"')
    path = f"/v1/health/services?filter={wanted}"
    before = await ask.get(agent, path)
    assert before.json()["Services"][0]["Passing"] == 1
    await ask.put(agent, f"/v1/agent/check/fail/service:{instance}")
    after = await ask.get(agent, f"{path}&index={before.index}&wait=30s", limit_s=60.0)
    assert after.json()["Services"][0]["Critical"] == 1
    assert after.index > before.index
