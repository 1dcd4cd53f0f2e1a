"""The client against a real server (a replica without a disk): every noun, watches, locks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from raftreg.client import Consistency, LockLost, LockOptions, Read, RegistryClient, kv_op
from raftreg.clock import SystemClock
from raftreg.model import Status
from tests.server.conftest import running

STALE = Read(consistency=Consistency.STALE)
NODE = {
    "Node": "h1",
    "Address": "10.0.0.1",
    "NodeMeta": {"rack": "r1"},
    "Service": {"ID": "web-1", "Service": "web", "Port": 80, "Tags": ["v1"], "Meta": {"a": "b"}},
    "Check": {"CheckID": "c1", "Name": "c", "Status": "passing", "ServiceID": "web-1"},
}


@pytest.fixture
async def client() -> AsyncIterator[RegistryClient]:
    """A client of a server of its own."""
    async with running(SystemClock()) as server, RegistryClient([server.url]) as found:
        yield found


async def test_kv(client: RegistryClient) -> None:
    """What is written is read back, typed; cas and delete say what they did."""
    key = "dir/a b?ü"
    assert await client.kv.put(key, b"\0\xff", flags=3)
    entry = await client.kv.get(key)
    assert entry is not None
    assert (entry.key, entry.value, entry.flags) == (key, b"\0\xff", 3)
    assert await client.kv.cas(key, b"new", entry.modify_index)
    assert not await client.kv.cas(key, b"late", entry.modify_index)
    assert await client.kv.keys("dir/", read=STALE) == [key]
    assert [one.value for one in await client.kv.list("dir/")] == [b"new"]
    assert await client.kv.delete_tree("dir/")
    assert await client.kv.get(key) is None
    assert await client.kv.keys("dir/") == []


async def test_catalog_and_health(client: RegistryClient) -> None:
    """A registration is read back by every discovery read, as the registry's own nouns."""
    assert await client.catalog.register(NODE)
    assert "web" in await client.catalog.services()
    assert [node.name for node in await client.catalog.nodes()] == ["h1"]
    (found,) = await client.catalog.service("web", tags=["v1"])
    assert (found.address, found.service.port, found.service.meta) == ("10.0.0.1", 80, {"a": "b"})
    (entry,) = await client.health.service("web", passing=True)
    assert (entry.node.meta, entry.status) == ({"rack": "r1"}, Status.PASSING)
    node = await client.catalog.node("h1")
    assert node is not None
    assert [one.id for one in node.services] == ["web-1"]
    assert await client.catalog.node("nobody") is None
    for checks in (
        await client.health.node("h1"),
        await client.health.checks("web"),
        await client.health.state(Status.PASSING),
        await client.health.state(None),
    ):
        assert [check.check_id for check in checks] == ["c1"]
    assert await client.catalog.deregister("h1")
    assert await client.health.service("web") == []


async def test_txn_and_status(client: RegistryClient) -> None:
    """A transaction tells its results or why it was rolled back; the leader is told."""
    done = await client.txn.run([kv_op("set", "a", b"1"), kv_op("get", "a")])
    assert done.ok
    refused = await client.txn.run([kv_op("set", "a", b"2"), kv_op("cas", "a", b"3", index=1)])
    assert [index for index, _ in refused.errors] == [1]
    assert await client.kv.value("a") == b"1"
    assert await client.status.leader()
    assert [server.leader for server in await client.operator.raft_configuration()] == [True]


async def test_watch(client: RegistryClient) -> None:
    """A watch sees a key come, change and go."""
    async with aclosing(client.kv.watch("k")) as changes:
        assert (await anext(changes)).value is None
        seen = []
        for value in (b"1", b"2"):
            await client.kv.put("k", value)
            change = await anext(changes)
            seen.append(None if change.value is None else change.value.value)
        await client.kv.delete("k")
        assert (await anext(changes)).value is None
        assert seen == [b"1", b"2"]


async def test_lock(client: RegistryClient) -> None:
    """A lock is taken in turn, with growing tokens, and lost when its session is destroyed."""
    assert await client.catalog.register(NODE)
    options = LockOptions(node="h1", checks=(), lock_delay_s=0.0)
    async with client.lock("leader", options) as first:
        session = await client.session.info(first.session)
        assert session is not None
        assert session.ttl_s == 15.0
        assert (await client.session.renew(first.session)) is not None
    async with client.lock("leader", options) as second:
        assert second.fencing_token > first.fencing_token
        assert second.lock_index > first.lock_index

    async def lose() -> None:
        async with (
            client.lock("leader", options) as lock,
            aclosing(client.kv.watch("nothing ever comes here")) as changes,
        ):
            await client.session.destroy(lock.session)
            async for _ in changes:
                pass

    with pytest.raises(LockLost):
        await lose()
    assert await client.session.list() == []


async def test_snapshot(client: RegistryClient) -> None:
    """A snapshot that is saved and restored brings back what was there."""
    await client.kv.put("kept", b"1")
    async with client.snapshot.save() as stream:
        archive = b"".join([chunk async for chunk in stream])
    await client.kv.delete("kept")
    await client.snapshot.restore(archive)
    assert await client.kv.value("kept") == b"1"
