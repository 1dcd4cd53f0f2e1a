"""Wish 2: a watch wakes for what it covers, and for nothing else."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.ask import Answer, Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.waiting import until

_WAIT = "wait=60s"


async def _watches(ask: Ask, member: Member) -> float:
    return await ask.metric(member, "raftreg_watches")


@pytest.mark.parametrize("where", ["server", "agent", "view"])
async def test_wish_02_a_service_watch_sleeps_through_other_services(
    mesh: Cluster, ask: Ask, where: str
) -> None:
    """Changes of another service wake no watch of this one; its own change wakes it once.

    At a server, through an agent, and over an agent's own view.
    """
    agent, other_agent = mesh.agents
    asked = mesh.servers[0] if where == "server" else agent
    flags = "&stale" if where == "view" else ""
    mine, other = f"mine-{where}", f"other-{where}"
    for name in (mine, other):
        await ask.register(agent, name)

    async def visible() -> Answer:
        answer = await ask.get(asked, f"/v1/health/service/{mine}?passing{flags}")
        assert answer.json()
        return answer

    before = await until("the service is visible", visible)
    path = f"/v1/health/service/{mine}?index={before.index}&{_WAIT}{flags}"
    watch = asyncio.ensure_future(ask.get(asked, path, limit_s=90.0))  # noqa: TID251  # one request
    try:
        await _busy_elsewhere(ask, mesh, asked, other, other_agent, flags)
        assert not watch.done(), "the watch woke for another service"
        await ask.put(agent, f"/v1/agent/check/warn/service:{mine}-at-{agent.name}")
        woken = await watch
    finally:
        watch.cancel()
    assert woken.index > before.index
    statuses = {check["Status"] for row in woken.json() for check in row["Checks"]}
    assert "warning" in statuses, "the one wake-up is the own change"


async def _busy_elsewhere(
    ask: Ask, mesh: Cluster, asked: Member, other: str, other_agent: Member, flags: str
) -> None:
    """Changes another service in every way, and waits until the asked member has it all."""
    agent = mesh.agents[0]
    instance = f"{other}-at-{agent.name}"
    for verb in ("warn", "fail", "pass"):
        await ask.put(agent, f"/v1/agent/check/{verb}/service:{instance}")
    await ask.register(other_agent, other, Tags=["new"])
    await ask.put(agent, f"/v1/agent/service/deregister/{instance}")
    await ask.kv_put(agent, f"{other}/key", b"value")

    async def arrived() -> bool:
        return await ask.passing(asked, other, flags) == {f"{other}-at-{other_agent.name}"}

    await until("the other changes are visible where the watch is", arrived)


async def test_wish_02_a_key_watch_sleeps_through_other_keys(mesh: Cluster, ask: Ask) -> None:
    """A watched key, a watched prefix and a watched session wake only for their own changes."""
    server = mesh.servers[0]
    await ask.kv_put(server, "quiet/mine/key", b"1")
    created = await ask.put(server, "/v1/session/create", {"TTL": "60s"})
    session = created.json()["ID"]
    paths = ["/v1/kv/quiet/mine/key", "/v1/kv/quiet/mine/?recurse", f"/v1/session/info/{session}"]
    watches = []
    idle = await _watches(ask, server)
    for path in paths:
        index = (await ask.get(server, path)).index
        mark = "&" if "?" in path else "?"
        blocking = ask.get(server, f"{path}{mark}index={index}&{_WAIT}", limit_s=90.0)
        watches.append(asyncio.ensure_future(blocking))  # noqa: TID251  # one request

    async def all_wait() -> bool:
        return await _watches(ask, server) >= idle + len(paths)

    try:
        await until("all three wait", all_wait)
        for n in range(5):
            await ask.kv_put(server, f"quiet/other/{n}", b"x")
            await ask.kv_put(server, "quiet/mine-too", b"x")
        await ask.put(server, "/v1/session/create", {"TTL": "60s"})
        await ask.get(server, "/v1/kv/quiet/other/4")
        assert not any(watch.done() for watch in watches)
        await ask.kv_put(server, "quiet/mine/key", b"2")
        await ask.put(server, f"/v1/session/destroy/{session}")
        key, tree, info = await asyncio.gather(*watches)
    finally:
        for watch in watches:
            watch.cancel()
    assert key.json()[0]["ModifyIndex"] == tree.json()[0]["ModifyIndex"] == key.index
    assert info.json() == []
