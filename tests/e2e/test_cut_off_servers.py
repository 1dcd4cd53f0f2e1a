"""Servers that the network cuts off, and their return."""

from __future__ import annotations

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.conftest import NewCluster
from tests.e2e.dump import same_everywhere
from tests.e2e.link import relayed
from tests.e2e.waiting import until

_PRE_VOTES_ENOUGH_BYTES = 4000


async def _term(ask: Ask, server: Member) -> int:
    return int((await ask.raft(server))["term"])


async def _lonely(ask: Ask, server: Member) -> bool:
    return await ask.leader_at(server) == ""


async def test_a_server_that_was_cut_off_does_not_depose_the_leader(
    new_cluster: NewCluster, ask: Ask
) -> None:
    """A follower is cut off for many election timeouts and comes back: same leader, same term.

    All the while the majority acknowledges writes, and the one cut off answers no linearizable
    read.
    """
    cluster = new_cluster(servers=3)
    async with relayed(cluster) as network:
        leader = await ask.settled(cluster)
        lonely = cluster.others(leader)[0]
        term = await _term(ask, leader)
        await network.cut(lonely)
        await until("it has noticed", lambda: _lonely(ask, lonely))

        async def asked_in_vain() -> bool:
            # It asks for votes that do not pass, until it has done so for a good while.
            assert await ask.kv_put(leader, "while/cut", b"x")
            return network.held_bytes > _PRE_VOTES_ENOUGH_BYTES

        await until("it has stood for election again and again", asked_in_vain)
        answer = await ask.get(lonely, "/v1/kv/while/cut")
        assert (answer.status, answer.text) == (500, "No cluster leader")
        assert (await ask.get(lonely, "/v1/kv/?keys&stale")).status in {200, 404}
        await network.mend(lonely)
        assert await ask.leader(cluster) is leader
        await same_everywhere(ask, cluster)
        assert [await _term(ask, server) for server in cluster.servers] == [term] * 3
        cluster.kill()


async def test_a_leader_that_is_cut_off_steps_down_and_answers_no_reads(
    new_cluster: NewCluster, ask: Ask
) -> None:
    """The others elect one of themselves; the old leader refuses reads and writes, then follows."""
    cluster: Cluster = new_cluster(servers=3)
    async with relayed(cluster) as network:
        old = await ask.settled(cluster)
        assert await ask.kv_put(old, "cut/value", b"old")
        await network.cut(old)
        new = await ask.leader(cluster, cluster.others(old))
        assert await ask.kv_put(new, "cut/value", b"new")
        answer = await ask.get(old, "/v1/kv/cut/value?raw")
        assert (answer.status, answer.text) == (500, "No cluster leader")
        stale = await ask.get(old, "/v1/kv/cut/value?raw&stale")
        assert stale.body == b"old"
        assert stale.headers["X-Consul-KnownLeader"] == "false"
        await network.mend(old)
        await ask.leader(cluster)
        assert (await ask.get(old, "/v1/kv/cut/value?raw")).body == b"new"
        await same_everywhere(ask, cluster)
        cluster.kill()
