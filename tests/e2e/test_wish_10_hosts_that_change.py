"""Wish 10: a renamed or reinstalled host, or one with a new address, needs no clean-up."""

from __future__ import annotations

from typing import Any

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.conftest import NewCluster
from tests.e2e.waiting import until


async def _nodes(ask: Ask, server: Member) -> dict[str, dict[str, Any]]:
    rows = (await ask.get(server, "/v1/catalog/nodes")).json()
    return {row["Node"]: row for row in rows}


async def test_wish_10_a_host_may_change_its_name_disk_and_address(
    new_cluster: NewCluster, ask: Ask
) -> None:
    """Killed and started with another name, then without its data, then elsewhere: one node each.

    Its services follow, and no row of its former self is left.
    """
    cluster = new_cluster(servers=3, agents=1)
    await ask.settled(cluster)
    agent, server = cluster.agents[0], cluster.servers[0]
    instance = await ask.register(agent, "changeling")
    servers = {member.name for member in cluster.servers}
    first_id = (await _nodes(ask, server))[agent.name]["ID"]

    async def only_this_host() -> dict[str, Any] | None:
        nodes = await _nodes(ask, server)
        alive = await ask.alive(server)
        if set(nodes) == servers | {agent.name} and agent.name in alive:
            return nodes[agent.name]
        return None

    agent.kill()
    agent.name = "renamed"
    await ask.settled(cluster)
    row = await until("the new name alone", only_this_host)
    assert row["ID"] == first_id
    await until("its service", lambda: _has_instance(ask, cluster, instance))

    agent.kill()
    cluster.wipe(agent)
    await ask.settled(cluster)
    row = await until("the new installation alone", only_this_host)
    assert row["ID"] != first_id
    assert await ask.passing(server, "changeling") == set(), "its services went with its disk"
    instance = await ask.register(agent, "changeling")

    agent.kill()
    cluster.readdress([agent])
    await ask.settled(cluster)
    row = await until("the new address", lambda: _at_address(ask, server, agent))
    assert await until("one node", only_this_host) == row
    await until("its service", lambda: _has_instance(ask, cluster, instance))
    assert await ask.addresses(agent, "changeling") == {agent.address}


async def _at_address(ask: Ask, server: Member, agent: Member) -> dict[str, Any] | None:
    row = (await _nodes(ask, server)).get(agent.name)
    return row if row is not None and row["Address"] == agent.address else None


async def _has_instance(ask: Ask, cluster: Cluster, instance: str) -> bool:
    """The instance is up in the catalog, and in the view of its own host."""
    views = [
        await ask.passing(cluster.servers[0], "changeling"),
        await ask.passing(cluster.agents[0], "changeling", "&stale"),
    ]
    return all(view == {instance} for view in views)
