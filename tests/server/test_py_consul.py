"""The stock Python client of Consul against a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import consul
import pytest

from tests.server.conftest import Running

_T = TypeVar("_T")
SERF = {"Name": "Serf Health Status", "CheckID": "serfHealth", "Status": "passing"}


@pytest.fixture
def client(api: Running) -> consul.Consul:
    """A client of the running server; it blocks, so calls go through a thread."""
    return consul.Consul(host="127.0.0.1", port=api.server.port)


async def _call(function: Callable[..., _T], *args: Any, **options: Any) -> _T:
    return await asyncio.to_thread(function, *args, **options)


async def test_kv(client: consul.Consul) -> None:
    """Put, get, cas, recurse, keys, delete."""
    assert await _call(client.kv.put, "a/b", "value", flags=3) is True
    index, entry = await _call(client.kv.get, "a/b")
    assert (entry["Value"], entry["Flags"]) == (b"value", 3)
    assert int(index) == entry["ModifyIndex"]
    assert await _call(client.kv.put, "a/b", "other", cas=0) is False
    _, entries = await _call(client.kv.get, "a/", recurse=True)
    assert [entry["Key"] for entry in entries] == ["a/b"]
    _, keys = await _call(client.kv.get, "a", keys=True, separator="/")
    assert keys == ["a/"]
    assert (await _call(client.kv.get, "none"))[1] is None
    assert await _call(client.kv.delete, "a", recurse=True) is True
    assert (await _call(client.kv.get, "a/b"))[1] is None


async def test_a_watch(client: consul.Consul, api: Running) -> None:
    """Index and wait block, as everywhere in the client."""
    index, _ = await _call(client.kv.get, "k")
    async with asyncio.TaskGroup() as tasks:
        blocked = tasks.create_task(_call(client.kv.get, "k", index=index, wait="30s"))
        await api.waiting(1)
        await api.json("PUT", "/v1/kv/k", data=b"1")
    assert blocked.result()[1]["Value"] == b"1"


async def test_sessions_and_locks(client: consul.Consul, api: Running) -> None:
    """Create, renew, acquire, release, destroy."""
    await api.register("n1", Check=SERF)
    session = await _call(client.session.create, name="s", node="n1", ttl=20, lock_delay=5)
    assert await _call(client.kv.put, "lock", "me", acquire=session) is True
    _, entry = await _call(client.kv.get, "lock")
    assert entry["Session"] == session
    assert (await _call(client.session.renew, session))["ID"] == session
    assert [row["ID"] for row in (await _call(client.session.list))[1]] == [session]
    assert (await _call(client.session.info, session))[1]["TTL"] == "20s"
    assert [row["ID"] for row in (await _call(client.session.node, "n1"))[1]] == [session]
    assert await _call(client.kv.put, "lock", "me", release=session) is True
    assert await _call(client.session.destroy, session) is True


async def test_catalog_and_health(client: consul.Consul) -> None:
    """Register, discover, deregister."""
    service = {"service": "web", "id": "web1", "port": 80, "tags": ["v1"]}
    check = {"name": "alive", "checkid": "c1", "serviceid": "web1", "status": "passing"}
    assert await _call(client.catalog.register, "n1", "10.0.0.1", service=service, check=check)
    assert await _call(client.catalog.datacenters) == ["dc1"]
    assert [row["Node"] for row in (await _call(client.catalog.nodes))[1]] == ["n1"]
    assert (await _call(client.catalog.services))[1] == {"web": ["v1"]}
    assert (await _call(client.catalog.service, "web", tag="v1"))[1][0]["ServicePort"] == 80
    assert "web1" in (await _call(client.catalog.node, "n1"))[1]["Services"]
    _, entries = await _call(client.health.service, "web", passing=True)
    assert [entry["Service"]["ID"] for entry in entries] == ["web1"]
    assert len((await _call(client.health.checks, "web"))[1]) == 1
    assert len((await _call(client.health.state, "passing"))[1]) == 1
    assert len((await _call(client.health.node, "n1"))[1]) == 1
    assert await _call(client.catalog.deregister, "n1", service_id="web1") is True
    assert (await _call(client.health.service, "web"))[1] == []


async def test_a_transaction(client: consul.Consul) -> None:
    """The client sends and reads the transaction form."""
    operation = {"KV": {"Verb": "set", "Key": "k", "Value": "MQ=="}}
    answer = await _call(client.txn.put, [operation])
    assert answer["Results"][0]["KV"]["Key"] == "k"


async def test_status(client: consul.Consul) -> None:
    """Leader and peers."""
    assert await _call(client.status.leader) == "127.0.0.1:8300"
    assert await _call(client.status.peers) == ["127.0.0.1:8300"]
