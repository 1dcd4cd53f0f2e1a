"""How servers keep strangers out, and how processes end."""

from __future__ import annotations

import asyncio

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster
from tests.e2e.conftest import NewCluster
from tests.e2e.waiting import until


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
