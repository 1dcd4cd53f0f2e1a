"""What servers keep to when they die, all at once or one after the other."""

from __future__ import annotations

import asyncio
import contextlib

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.conftest import NewCluster
from tests.e2e.waiting import until

_WRITERS = 8
_ENOUGH = 300


async def _write(ask: Ask, server: Member, name: str, acknowledged: set[str]) -> None:
    """Writes key after key until the server dies; notes each once it was acknowledged."""
    number = 0
    with contextlib.suppress(OSError):
        while True:
            number += 1
            key = f"load/{name}/{number}"
            answer = await ask.request("PUT", server, f"/v1/kv/{key}", data=key.encode())
            if answer.status == 200 and answer.json() is True:
                acknowledged.add(key)


async def test_all_killed_under_load_lose_nothing(new_cluster: NewCluster, ask: Ask) -> None:
    """Kill -9 of all three at once: after a restart every acknowledged write is there."""
    cluster = new_cluster()
    await ask.settled(cluster)
    acknowledged: set[str] = set()

    async def enough() -> bool:
        return len(acknowledged) > _ENOUGH

    async with asyncio.TaskGroup() as group:
        for number in range(_WRITERS):
            server = cluster.servers[number % len(cluster.servers)]
            group.create_task(_write(ask, server, str(number), acknowledged))
        await until("some load", enough)
        cluster.kill()
    await ask.settled(cluster)
    for server in cluster.servers:
        found = await ask.kv_tree(server, "load/")
        lost = acknowledged - found.keys()
        assert not lost, f"{server.name} lost {sorted(lost)[:5]}"


async def test_a_cluster_that_moved_knows_its_addresses(new_cluster: NewCluster, ask: Ask) -> None:
    """All servers come back with new addresses: the members list holds them, the leader's too."""
    cluster = new_cluster()
    await ask.settled(cluster)
    cluster.kill()
    cluster.readdress()
    await ask.settled(cluster)

    async def known() -> bool:
        shown = await ask.get(cluster.servers[0], "/v1/status/peers")
        return set(shown.json()) == {server.raft_address for server in cluster.servers}

    await until("the new addresses of all", known)


async def test_a_server_with_another_key_stays_out(new_cluster: NewCluster, ask: Ask) -> None:
    """It never becomes a member, sees nothing, and the cluster does not mind."""
    cluster = new_cluster()
    keys = cluster.servers[0].directory.parent
    for name in ("right", "wrong"):
        (keys / f"{name}.key").write_text(f"the {name} key of enough length")
    for server in cluster.servers:
        server.flags = ["--encrypt-key-file", str(keys / "right.key")]
    leader = await ask.settled(cluster)
    victim = cluster.others(leader)[0]
    victim.kill()
    cluster.wipe(victim)
    victim.flags = ["--encrypt-key-file", str(keys / "wrong.key")]
    cluster.start([victim])

    async def refused() -> bool:
        return "auth" in victim.log_tail()

    await until("the refusal in its log", refused)
    assert await ask.kv_put(leader, "still", b"1")
    assert (await ask.get(victim, "/v1/kv/still?stale")).status == 404


async def test_every_process_leaves_in_order(mesh: Cluster) -> None:
    """SIGTERM ends agents and servers with exit code 0 and without a traceback."""
    members = [*mesh.agents, *mesh.servers]
    codes = await asyncio.gather(*(member.stop() for member in members))
    assert codes == [0] * len(members)
    for member in members:
        assert "Traceback" not in member.log_tail()
