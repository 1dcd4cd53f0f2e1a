"""Wish 7: a cluster comes back by itself, also with new addresses; no file is edited by hand."""

from __future__ import annotations

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.conftest import NewCluster
from tests.e2e.dump import same_everywhere
from tests.e2e.waiting import until


async def _write(ask: Ask, member: Member, name: str) -> None:
    assert await ask.kv_put(member, f"recovery/{name}", name.encode())


async def _has(ask: Ask, member: Member, *names: str) -> bool:
    tree = await ask.kv_tree(member, "recovery/")
    return all(tree.get(f"recovery/{name}") == name.encode() for name in names)


async def test_wish_07_the_whole_cluster_and_a_majority_come_back(mesh: Cluster, ask: Ask) -> None:
    """All servers killed, then two of three: started again, they go on where they were."""
    await _write(ask, mesh.servers[0], "before")
    mesh.kill()
    await ask.settled(mesh)
    assert await _has(ask, mesh.servers[1], "before")
    await _write(ask, mesh.servers[1], "between")
    mesh.kill(mesh.servers[1:])
    await ask.settled(mesh)
    for server in mesh.servers:
        assert await _has(ask, server, "before", "between")
    await _write(ask, mesh.servers[2], "after")


async def test_wish_07_all_servers_come_back_with_new_addresses(
    new_cluster: NewCluster, ask: Ask
) -> None:
    """Every server and agent moves to another network: data, membership and hosts follow."""
    cluster = new_cluster(servers=3, agents=1)
    await ask.settled(cluster)
    await _write(ask, cluster.servers[0], "moved")
    instance = await ask.register(cluster.agents[0], "mover")
    cluster.kill()
    cluster.readdress()
    await ask.settled(cluster)
    assert await _has(ask, cluster.servers[2], "moved")
    await _write(ask, cluster.servers[2], "at-home")
    expected = sorted(server.raft_address for server in cluster.servers)

    async def members_moved() -> bool:
        for server in cluster.servers:
            if (await ask.get(server, "/v1/status/peers")).json() != expected:
                return False
        return True

    async def instance_moved() -> bool:
        rows = (await ask.get(cluster.servers[0], "/v1/health/service/mover?passing")).json()
        found = {row["Service"]["ID"]: row["Node"]["Address"] for row in rows}
        return found == {instance: cluster.agents[0].address}

    await until("the members' new addresses", members_moved)
    await until("the instance's new address", instance_moved)


async def test_wish_07_servers_move_one_by_one_and_a_wiped_one_is_taken_back(
    new_cluster: NewCluster, ask: Ask
) -> None:
    """A server that moves is found again; one that lost its disk comes back with all data."""
    cluster = new_cluster(servers=3)
    await ask.settled(cluster)
    await _write(ask, cluster.servers[0], "start")
    for server in cluster.servers:
        server.kill()
        cluster.readdress([server])
        await ask.settled(cluster)
        await _write(ask, server, server.name)
    wiped = cluster.servers[1]
    wiped.kill()
    cluster.wipe(wiped)
    await ask.settled(cluster)
    voters = sorted(server.raft_address for server in cluster.servers)

    async def votes_again() -> bool:
        return all(
            [
                (await ask.get(server, "/v1/status/peers")).json() == voters
                for server in cluster.servers
            ]
        )

    await until("three voters again, in the eyes of all", votes_again)
    await same_everywhere(ask, cluster)
    assert await _has(ask, wiped, "start", *(server.name for server in cluster.servers))
    cluster.kill([cluster.servers[0]])  # so that the wiped server's vote is needed
    await ask.leader(cluster, cluster.servers[1:])
    await _write(ask, wiped, "without-the-first")
