"""A snapshot restored on a cluster that is not the one it came from."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from functools import partial

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.conftest import NewCluster
from tests.e2e.waiting import until


async def _save(ask: Ask, member: Member) -> bytes:
    answer = await ask.get(member, "/v1/snapshot")
    assert answer.status == 200, answer.text
    return answer.body


async def _restore(ask: Ask, member: Member, archive: bytes) -> None:
    answer = await ask.request("PUT", member, "/v1/snapshot", data=archive)
    assert (answer.status, answer.body) == (200, b""), answer.text


def _verified(archive: bytes) -> dict[str, object]:
    """Checks an archive as Consul's clients do, with nothing of raftreg; gives its meta.json."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        files = {}
        for member in tar:
            data = tar.extractfile(member)
            assert data is not None
            files[member.name] = data.read()
    sums = dict(line.split("  ")[::-1] for line in files.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    meta = json.loads(files["meta.json"])
    assert meta["Size"] == len(files["state.bin"])
    assert isinstance(meta, dict)
    return meta


async def _fill(ask: Ask, cluster: Cluster, mark: str) -> str:
    """A key, a lock that nobody will renew, an instance; gives the session."""
    agent = cluster.agents[0]
    assert await ask.kv_put(agent, f"{mark}/key", mark.encode())
    session = (await ask.put(agent, "/v1/session/create", {"LockDelay": "0s"})).json()["ID"]
    assert await ask.kv_put(agent, f"{mark}/lock", b"held", f"?acquire={session}")
    await ask.register(agent, f"{mark}-web")
    return str(session)


async def _index(ask: Ask, member: Member, path: str) -> int:
    return (await ask.get(member, path)).index


async def _taken_over(ask: Ask, cluster: Cluster, mark: str, own: str) -> None:
    """The cluster holds what the snapshot did, and its own hosts as they are."""
    for server in cluster.servers:
        assert await ask.kv_tree(server, f"{mark}/") == {
            f"{mark}/key": mark.encode(),
            f"{mark}/lock": b"held",
        }
    agent = cluster.agents[0]

    async def own_instance_is_back() -> bool:
        views = [await ask.passing(member, f"{own}-web") for member in cluster.members]
        views.append(await ask.passing(agent, f"{own}-web", "&cached"))
        return all(view == {f"{own}-web-at-{agent.name}"} for view in views)

    async def nothing_foreign_is_passing() -> bool:
        answers = [await ask.passing(member, f"{mark}-web") for member in cluster.members]
        return not any(answers)

    async def the_lock_is_free() -> bool:
        row = (await ask.get(agent, f"/v1/kv/{mark}/lock")).json()[0]
        return "Session" not in row

    await until("own instances back", own_instance_is_back)
    await until("foreign instances out of discovery", nothing_foreign_is_passing)
    await until("locks of foreign hosts given up", the_lock_is_free)


async def test_a_snapshot_of_another_cluster_is_taken_over(
    new_cluster: NewCluster, ask: Ask
) -> None:
    """Of a smaller and of a larger one, whose hosts bear the same names.

    What the snapshot holds is there on all servers, under indexes above all that were seen.
    Watchers are woken. Hosts of this cluster come back with what runs on them, agents' views
    follow, and what hosts of the other one held, nobody holds.
    """
    small, large = new_cluster(servers=1, agents=1), new_cluster(servers=3, agents=1)
    await asyncio.gather(ask.settled(small), ask.settled(large))
    await asyncio.gather(_fill(ask, small, "small"), _fill(ask, large, "large"))
    for number in range(50):  # one registry is further ahead than the other
        await ask.kv_put(small.servers[0], f"ahead/{number}", b"")
    archives = [await _save(ask, cluster.agents[0]) for cluster in (small, large)]
    for archive in archives:
        _verified(archive)
    peers = (await ask.get(large.servers[0], "/v1/status/peers")).json()
    for cluster, archive, mark, own in (
        (large, archives[0], "small", "large"),
        (small, archives[1], "large", "small"),
    ):
        agent = cluster.agents[0]
        before = await _index(ask, agent, "/v1/catalog/services?consistent")
        key = await _index(ask, agent, f"/v1/kv/{own}/key")
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(ask.get(agent, f"/v1/kv/{own}/key?index={key}&wait=1m"))
            await until("the watch waits", partial(_is_watched, ask, agent))
            await _restore(ask, agent, archive)
        assert watch.result().status == 404
        assert watch.result().index > max(before, key)
        assert await _index(ask, agent, "/v1/catalog/services") > before
        await _taken_over(ask, cluster, mark, own)
        assert await ask.kv_put(agent, f"{own}/again", b"1")
    assert (await ask.get(large.servers[0], "/v1/status/peers")).json() == peers


async def _is_watched(ask: Ask, agent: Member) -> bool:
    return await ask.metric(agent, "raftreg_agent_proxied_watches") >= 1
