"""Wish 6: locks and sessions survive a change of leaders, and end when they say."""

from __future__ import annotations

import asyncio

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.waiting import until

TTL_S = 10  # the shortest that a session may have


async def _session(ask: Ask, member: Member, **more: str) -> str:
    body = {"TTL": f"{TTL_S}s", "LockDelay": "0s"} | more
    return str((await ask.put(member, "/v1/session/create", body)).json()["ID"])


async def _holder(ask: Ask, member: Member, key: str) -> str | None:
    row = (await ask.get(member, f"/v1/kv/{key}")).json()[0]
    session = row.get("Session")
    return None if session is None else str(session)


async def test_wish_06_a_lock_survives_the_death_of_the_leader_and_ends_on_time(
    mesh: Cluster, ask: Ask
) -> None:
    """The leader is killed: the holder keeps the lock, nobody else gets it, renewals go on.

    Then the renewals stop: no sooner than one TTL after the last one, and before two are over,
    the session ends and the contender has the lock.
    """
    agent, other = mesh.agents
    now = asyncio.get_running_loop().time
    session, contender = await _session(ask, agent), await _session(ask, other, TTL="10m")
    key = "wish06/lock"
    assert await ask.kv_put(agent, key, b"mine", f"?acquire={session}")
    for _ in range(2):
        leader = await ask.leader(mesh)
        leader.kill()
        survivors = mesh.others(leader)
        await ask.leader(mesh, survivors)
        assert await _holder(ask, agent, key) == session
        assert not await ask.kv_put(other, key, b"theirs", f"?acquire={contender}")
        renewed_at = now()
        renewed = await ask.put(agent, f"/v1/session/renew/{session}")
        assert renewed.json()[0]["ID"] == session
        mesh.start()

    async def taken() -> bool:
        return await ask.kv_put(other, key, b"theirs", f"?acquire={contender}")

    await until("the contender has the lock", taken, limit_s=2 * TTL_S, poll_s=0.2)
    assert now() - renewed_at >= TTL_S, "a session ended before its time"
    assert await _holder(ask, agent, key) == contender
    assert (await ask.get(agent, f"/v1/session/info/{session}")).json() == []
    await ask.put(other, f"/v1/session/destroy/{contender}")


async def test_wish_06_sessions_of_a_dead_host_end_with_it(mesh: Cluster, ask: Ask) -> None:
    """A session belongs to its agent's host: when that dies its locks are free, its keys gone."""
    dies, stays = mesh.agents
    releasing = await _session(ask, dies, TTL="10m")
    deleting = await _session(ask, dies, TTL="10m", Behavior="delete")
    assert await ask.kv_put(dies, "wish06/released", b"1", f"?acquire={releasing}")
    assert await ask.kv_put(dies, "wish06/deleted", b"1", f"?acquire={deleting}")
    dies.kill()

    async def ended() -> bool:
        tree = await ask.kv_tree(stays, "wish06/")
        return "wish06/deleted" not in tree and await _holder(ask, stays, "wish06/released") is None

    await until("both locks are free", ended)


async def test_wish_06_a_session_ends_when_its_check_fails(mesh: Cluster, ask: Ask) -> None:
    """A session that depends on a node check is gone as soon as that check is critical."""
    agent = mesh.agents[0]
    check = {"Name": "wish06", "TTL": "10m", "Status": "passing"}
    await ask.put(agent, "/v1/agent/check/register", check)
    body = {"Checks": ["serfHealth", "wish06"], "LockDelay": "0s"}
    session = (await ask.put(agent, "/v1/session/create", body)).json()["ID"]
    assert await ask.kv_put(agent, "wish06/checked", b"1", f"?acquire={session}")
    await ask.put(agent, "/v1/agent/check/fail/wish06")

    async def ended() -> bool:
        return (await ask.get(agent, f"/v1/session/info/{session}")).json() == []  # type: ignore[no-any-return]

    await until("the session ends", ended)
    assert await _holder(ask, agent, "wish06/checked") is None
    await ask.put(agent, "/v1/agent/check/deregister/wish06")
