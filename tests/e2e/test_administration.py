"""What steers a process from outside: its log, and its end."""

from __future__ import annotations

import asyncio
import json

import aiohttp

from tests.e2e.ask import Ask
from tests.e2e.cluster import Member
from tests.e2e.conftest import NewCluster
from tests.e2e.waiting import until


async def _ends(member: Member) -> int:
    """The exit code of a process that is about to end."""

    async def ended() -> bool:
        return not member.running

    await until(f"{member.name} ends", ended)
    return await member.stop()


async def _reload_is_logged(ask: Ask, member: Member) -> None:
    """Follows the log until the line of a reload has come."""
    url = f"{member.url}/v1/agent/monitor?loglevel=debug&logjson"
    async with asyncio.timeout(30), aiohttp.ClientSession() as http, http.get(url) as stream:
        (member.definitions / "web.json").write_text('{"service": {"name": "web"}}')
        await ask.put(member, "/v1/agent/reload?token=s3cret")
        async for line in stream.content:
            assert b"s3cret" not in line
            entry = json.loads(line)
            if entry["@message"] == "definitions reloaded":
                assert (entry["@level"], entry["services"]) == ("info", 1)
                return
    raise AssertionError("the log ended before the line came")


async def test_a_process_shows_its_log_and_ends_when_told(
    new_cluster: NewCluster, ask: Ask
) -> None:
    """An agent and a server: lines as they are written, and exit code 0 after `leave`."""
    cluster = new_cluster(servers=1, agents=1)
    await ask.settled(cluster)
    agent, server = cluster.agents[0], cluster.servers[0]
    await _reload_is_logged(ask, agent)
    await ask.put(agent, "/v1/agent/leave")
    assert await _ends(agent) == 0
    assert agent.name not in {
        row["Node"] for row in (await ask.get(server, "/v1/catalog/nodes")).json()
    }
    await ask.put(server, "/v1/agent/leave")
    assert await _ends(server) == 0
