"""What callers see while servers are missing: the leader, or a majority."""

from __future__ import annotations

import signal

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster
from tests.e2e.waiting import until


async def test_a_write_through_an_agent_outlives_the_leader(mesh: Cluster, ask: Ask) -> None:
    """Sent at the moment of the leader's death it succeeds, and takes effect once."""
    agent = mesh.agents[0]
    leader = await ask.settled(mesh)
    leader.send(signal.SIGKILL)
    # Create only: a repetition that took effect twice would meet its own key and answer false.
    assert await ask.kv_put(agent, "during", b"1", "?cas=0")
    await ask.settled(mesh)

    async def caught_up() -> bool:
        answer = await ask.get(leader, "/v1/kv/during?stale")
        return answer.status == 200

    await until("the old leader to catch up", caught_up)


async def test_one_of_three_acknowledges_nothing(mesh: Cluster, ask: Ask) -> None:
    """Without a majority writes and default reads fail; stale reads and DNS go on."""
    survivor, *others = mesh.servers
    agent = mesh.agents[0]
    assert await ask.kv_put(survivor, "kept", b"1")
    mesh.kill(others)
    refused = await ask.request("PUT", survivor, "/v1/kv/refused", data=b"1")
    assert refused.status in (500, 503), refused.text

    async def no_leader() -> bool:
        answer = await ask.get(survivor, "/v1/kv/kept")
        return answer.status == 500 and answer.text == "No cluster leader"

    await until("the survivor to know that it can't lead", no_leader)
    assert (await ask.get(survivor, "/v1/kv/kept?stale&raw")).body == b"1"
    assert await ask.addresses(agent, "consul")
    mesh.start([others[0]])

    async def accepted() -> bool:
        return await ask.kv_put(survivor, "again", b"1")

    await until("writes with two of three", accepted)
