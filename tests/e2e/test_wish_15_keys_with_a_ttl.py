"""Wish 15: keys that end by themselves, in their time, whatever happens to the servers."""

from __future__ import annotations

import asyncio

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.waiting import until

TTL_S = 6


async def _there(ask: Ask, member: Member, key: str) -> bool:
    answer = await ask.get(member, f"/v1/kv/{key}")
    assert answer.status in (200, 404), answer.text
    return answer.status == 200


async def _gone(ask: Ask, member: Member, key: str) -> None:
    async def gone() -> bool:
        return not await _there(ask, member, key)

    await until(f"{key} is gone", gone, poll_s=0.2)


async def test_wish_15_a_key_ends_in_its_time_over_the_death_of_leaders(
    mesh: Cluster, ask: Ask
) -> None:
    """Renewed, it lives on under each new leader; left alone, it ends, and never before its time.

    A watch of it through an agent is told of the end, and of nothing before.
    """
    agent = mesh.agents[0]
    now = asyncio.get_running_loop().time
    key = "wish15/heartbeat"
    assert await ask.kv_put(agent, key, b"alive", f"?ttl={TTL_S}s")
    shown = await ask.get(agent, f"/v1/kv/{key}")
    assert shown.json()[0]["TTL"] == f"{TTL_S}s"
    watch = asyncio.ensure_future(  # noqa: TID251  # one request
        ask.get(agent, f"/v1/kv/{key}?index={shown.index}&wait=5m", limit_s=120.0)
    )
    try:
        for _ in range(2):
            leader = await ask.leader(mesh)
            leader.kill()
            await ask.leader(mesh, mesh.others(leader))
            renewed_at = now()
            assert await ask.kv_put(agent, key, b"", "?renew")
            mesh.start()
        assert not watch.done(), "a renewal is no news"
        await _gone(ask, agent, key)
        assert now() - renewed_at >= TTL_S, "the key ended before its time"
        ended = await watch
    finally:
        watch.cancel()
    assert (ended.status, ended.body) == (404, b"")
    assert ended.index > shown.index
    assert not await ask.kv_put(agent, key, b"", "?renew")


async def test_wish_15_deadlines_survive_the_end_of_all_servers(mesh: Cluster, ask: Ask) -> None:
    """All servers die at once: keys come back with what was left of their terms, then end."""
    agent = mesh.agents[1]
    assert await ask.kv_put(agent, "wish15/short", b"x", f"?ttl={TTL_S}s")
    assert await ask.kv_put(agent, "wish15/long", b"x", "?ttl=1h")
    mesh.kill(mesh.servers)
    await ask.settled(mesh)
    left = (await ask.get(agent, "/v1/kv/wish15/long")).headers["X-Raftreg-Expires-In"]
    assert left.startswith("59m"), left
    await _gone(ask, agent, "wish15/short")
    for server in mesh.servers:
        assert await _there(ask, server, "wish15/long")
    assert await ask.kv_put(agent, "wish15/long", b"for ever")
    assert "TTL" not in (await ask.get(agent, "/v1/kv/wish15/long")).json()[0]


async def test_wish_15_a_value_that_is_too_large_is_refused_with_the_limit(
    mesh: Cluster, ask: Ask
) -> None:
    """The text names the size and the limit, at a server and through an agent."""
    data = b"x" * (512 * 1024 + 1)
    for member in (mesh.servers[0], mesh.agents[0]):
        answer = await ask.request("PUT", member, "/v1/kv/wish15/large", data=data)
        assert answer.status == 413
        assert "524289 bytes" in answer.text
        assert "524288 bytes" in answer.text
