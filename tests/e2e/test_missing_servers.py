"""A write at the moment of the leader's death."""

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
