"""Wish 3: who follows a service or a tree of keys is told what was added, changed and removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from raftreg.client import RegistryClient
from tests.e2e.ask import Ask
from tests.e2e.cluster import HTTP_PORT, Cluster, Member
from tests.e2e.waiting import LIMIT_S


@asynccontextmanager
async def _client(*members: Member) -> AsyncIterator[RegistryClient]:
    addresses = [f"{member.address}:{HTTP_PORT}" for member in members]
    async with RegistryClient(addresses) as client:
        yield client


@pytest.mark.parametrize("where", ["server", "agent"])
async def test_wish_03_an_instance_comes_changes_and_goes(
    mesh: Cluster, ask: Ask, where: str
) -> None:
    """Each change of the service is one delta with what it was and is; others are none."""
    asked = mesh.servers[0] if where == "server" else mesh.agents[1]
    agent, name = mesh.agents[0], f"wish03-{where}"
    await ask.register(agent, f"{name}-other")
    async with (
        asyncio.timeout(LIMIT_S),
        _client(asked) as client,
        aclosing(client.health.watch_deltas(name, passing=True)) as deltas,
    ):
        assert not (await anext(deltas)).added
        instance = await ask.register(agent, name)
        came = await anext(deltas)
        assert [entry.service.id for entry in came.added] == [instance]
        await ask.register(agent, f"{name}-other", Tags=["changed"])
        await ask.put(agent, f"/v1/agent/check/fail/service:{instance}")
        gone = await anext(deltas)
        assert [entry.service.id for entry in gone.removed] == [instance]
        await ask.put(agent, f"/v1/agent/check/pass/service:{instance}")
        assert [entry.service.id for entry in (await anext(deltas)).added] == [instance]
        await ask.put(agent, f"/v1/agent/service/deregister/{instance}")
        assert not (await anext(deltas)).rows


async def test_wish_03_no_gap_over_the_death_of_the_server_that_told(
    mesh: Cluster, ask: Ask
) -> None:
    """Changes made while the stream was broken arrive as differences from another server."""
    server, *others = mesh.servers
    async with (
        asyncio.timeout(LIMIT_S),
        _client(server, *others) as client,
        aclosing(client.kv.watch_deltas("wish03/")) as deltas,
    ):
        await ask.kv_put(server, "wish03/a", b"1")
        seen = await anext(deltas)
        while len(seen.rows) < 1:
            seen = await anext(deltas)
        server.kill()
        await ask.leader(mesh, others)
        for key, value in (("a", b"2"), ("b", b"1"), ("c", b"1")):
            await ask.kv_put(others[0], f"wish03/{key}", value)
        await ask.request("DELETE", others[0], "/v1/kv/wish03/b")
        values: dict[object, bytes] = {}
        async for delta in deltas:
            values = {key: entry.value for key, entry in delta.rows.items()}
            if values == {"wish03/a": b"2", "wish03/c": b"1"}:
                break
    assert values == {"wish03/a": b"2", "wish03/c": b"1"}


async def test_wish_03_a_tree_is_followed_through_an_agent(mesh: Cluster, ask: Ask) -> None:
    """An agent hands the stream on; it goes on over the death of the leader."""
    agent = mesh.agents[0]
    async with (
        asyncio.timeout(LIMIT_S),
        _client(agent) as client,
        aclosing(client.kv.watch_deltas("wish03-agent/")) as deltas,
    ):
        await anext(deltas)
        await ask.kv_put(agent, "wish03-agent/k", b"1")
        assert [entry.key for entry in (await anext(deltas)).added] == ["wish03-agent/k"]
        leader = await ask.leader(mesh)
        leader.kill()
        await ask.leader(mesh, mesh.others(leader))
        await ask.kv_put(agent, "wish03-agent/k", b"2")
        ((old, new),) = (await anext(deltas)).changed
        assert (old.value, new.value) == (b"1", b"2")
