"""Prepared queries at an agent: by HTTP, and for its name service."""

from __future__ import annotations

import asyncio
from typing import Any

import consul
import pytest

from raftreg.client.api import RegistryClient
from raftreg.errors import RaftregError
from raftreg_agent import queries
from raftreg_agent.queries import QueryDoor
from tests.agent.mesh import running
from tests.agent.test_with_server import agent_of, registry
from tests.client.rigs import client_of, fails, says
from tests.client.rigs import running as scripted

FOUND = {
    "Service": "web",
    "Nodes": [
        {
            "Node": {"Node": "n1", "Address": "10.0.0.1"},
            "Service": {"ID": "w", "Service": "web", "Port": 80},
            "Checks": [
                {"Node": "n1", "CheckID": "c", "Status": "warning"},
            ],
        }
    ],
    "DNS": {"TTL": "1m30s"},
    "Datacenter": "dc1",
    "Failovers": 0,
}


async def test_a_server_executes_and_learns_who_asks() -> None:
    """The name, this host, and where the question came from."""
    async with scripted(says(FOUND)) as server, client_of(server.address) as client:
        answer = await QueryDoor(client, "nöde")("a.b/c", "10.1.1.1")
    assert answer is not None
    assert (answer.service, answer.ttl_s, answer.datacenter) == ("web", 90, "dc1")
    (row,) = answer.rows
    assert (row.node.name, row.instance.port, row.status.value) == ("n1", 80, "warning")
    (_, path, headers, _) = server.requests[0]
    assert path == "/v1/query/a.b%2Fc/execute?stale="
    assert (headers["X-Raftreg-Agent"], headers["X-Forwarded-For"]) == ("n%C3%B6de", "10.1.1.1")


async def test_what_does_not_exist_is_none() -> None:
    """Neither an unknown name nor the id of a template."""
    for failure in (fails(404, "Query not found"), fails(400, "only be resolved by name")):
        async with scripted(failure) as server, client_of(server.address) as client:
            assert await QueryDoor(client, "n1")("x", "") is None


async def test_the_last_answer_outlives_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name's own; a name that was never asked for fails."""
    monkeypatch.setattr(queries, "DEADLINE_S", 1.0)
    async with (
        scripted(says(FOUND), fails(500, "No cluster leader")) as server,
        client_of(server.address) as client,
    ):
        door = QueryDoor(client, "n1")
        answer = await door("web", "")
        assert answer is not None
        assert await door("web", "") == answer
        with pytest.raises(RaftregError):
            await door("other", "")


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that was not asked for longest is forgotten first."""
    monkeypatch.setattr(queries, "KEPT_MAX", 2)
    async with scripted(says(FOUND)) as server, client_of(server.address) as client:
        door = QueryDoor(client, "n1")
        for name in ("a", "b", "a", "c"):
            await door(name, "")
    assert list(door._kept) == ["a", "c"]


async def test_a_stock_client_through_an_agent(eventually: Any) -> None:
    """py-consul creates, lists, changes, executes, explains and deletes at an agent."""
    async with registry() as found, running(agent_of(found)) as app:
        await eventually(lambda: found.status("n1") is not None)
        host, _, port = app.http_address.partition(":")
        client = consul.Consul(host=host, port=int(port))

        async def call(function: Any, *args: Any, **options: Any) -> Any:
            return await asyncio.to_thread(function, *args, **options)

        await call(client.agent.service.register, "web", port=80)
        query_id = (await call(client.query.create, "web", "near", ttl="10s"))["ID"]
        assert [row["ID"] for row in await call(client.query.list)] == [query_id]
        assert await call(client.query.update, query_id, "web", "nearer") is True
        (row,) = await call(client.query.get, query_id)
        assert (row["Name"], row["Service"]["Service"]) == ("nearer", "web")
        done = await call(client.query.execute, "nearer", near="_agent", limit=1)
        assert [entry["Node"]["Node"] for entry in done["Nodes"]] == ["n1"]
        assert (await call(client.query.explain, "nearer"))["Query"]["ID"] == query_id
        assert await call(client.query.delete, query_id) is True
        assert await call(client.query.list) == []


async def test_the_client_has_queries() -> None:
    """The same with our own client."""
    definition = {"Name": "q", "Service": {"Service": "consul"}, "DNS": {"TTL": "5s"}}
    async with registry() as found, RegistryClient([found.address]) as client:
        query_id = await client.query.create(definition)
        await client.query.update(query_id, {"Service": {"Service": "other"}})
        row = await client.query.get(query_id)
        assert row is not None
        assert (row["Name"], row["Service"]["Service"]) == ("q", "other")
        await client.query.update(query_id, definition)
        result = await client.query.execute("q", near="s1", limit=1)
        assert result is not None
        assert (result.service, result.dns_ttl, result.datacenter) == ("consul", "5s", "dc1")
        assert [entry.node.name for entry in result.entries] == ["s1"]
        explained = await client.query.explain("q")
        assert explained is not None
        assert explained["ID"] == query_id
        assert [row["ID"] for row in await client.query.list()] == [query_id]
        await client.query.delete(query_id)
        assert await client.query.get(query_id) is None
        assert await client.query.execute("q") is None
        assert await client.query.explain("q") is None
