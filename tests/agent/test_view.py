"""The view of the catalog, and what is answered from it while servers are away."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from raftreg.core.commands import Deregister, NodeSync, Register
from raftreg.model import Node, ServiceInstance
from tests.agent.mesh import Server, running, servers, settings_for


def put(server: Server, service_id: str, *, name: str = "web") -> None:
    """Registers an instance on another host."""
    row = ServiceInstance(node="far", id=service_id, name=name, port=80)
    node = Node(name="far", address="10.1.1.1", datacenter="dc1")
    server.history.apply(Register(node=node, service=row))


def ids(app: Any) -> set[str]:
    """Instances of a host as the view has them."""
    return {row.id for row in app.view.catalog.services_of("far")}


@pytest.fixture
async def session() -> Any:
    """Connections to agents."""
    async with aiohttp.ClientSession() as found:
        yield found


async def test_the_view_follows_the_registry(eventually: Any) -> None:
    """What was there before comes as a whole, what changes comes as it changes."""
    async with servers() as (server,):
        put(server, "before")
        async with running(settings_for(server)) as app:
            await app.view.ready.wait()
            assert ids(app) == {"before"}
            put(server, "after")
            await eventually(lambda: ids(app) == {"before", "after"})
            server.history.apply(Deregister(node="far"))
            await eventually(lambda: ids(app) == set())


async def test_the_view_resumes_at_another_server(eventually: Any) -> None:
    """A server that dies is replaced without loading everything anew, and nothing is missed."""
    async with servers(2) as mesh, running(settings_for(*mesh)) as app:
        await app.view.ready.wait()
        first = next(server for server in mesh if server.views)
        (second,) = (server for server in mesh if server is not first)
        await first.stop()
        put(second, "meanwhile")
        await eventually(lambda: ids(app) == {"meanwhile"})
        assert app.view.resets_total == 1


async def test_a_silent_server_is_left(eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No beat for some seconds: the next server is asked."""
    monkeypatch.setattr("raftreg_agent.view.SILENCE_S", 0.3)
    async with servers(2) as mesh, running(settings_for(*mesh)) as app:
        await app.view.ready.wait()
        first = next(server for server in mesh if server.views)
        (second,) = (server for server in mesh if server is not first)
        first.silent = True
        await eventually(lambda: second.views)
        await eventually(lambda: app.view.address.endswith(str(second.port)))


async def test_a_server_that_lost_the_leader_is_left_for_a_better_one(eventually: Any) -> None:
    """A follower that is cut off from the leader goes on beating; its view grows old."""
    async with servers(2) as mesh, running(settings_for(*mesh)) as app:
        await app.view.ready.wait()
        first = next(server for server in mesh if server.views)
        (second,) = (server for server in mesh if server is not first)
        first.last_contact_ms = None
        await eventually(lambda: app.view.address.endswith(str(second.port)))


async def test_a_lagging_server_is_kept_when_there_is_no_better_one(eventually: Any) -> None:
    """Old answers are better than none, and their age is told."""
    async with servers(2) as mesh, running(settings_for(*mesh)) as app:
        await app.view.ready.wait()
        for server in mesh:
            server.last_contact_ms = 60_000
        await eventually(lambda: (app.view.age_s or 0) >= 60.0)
        address = app.view.address
        first = next(server for server in mesh if address.endswith(str(server.port)))
        await eventually(lambda: any("kv" in asked for server in mesh for asked in server.requests))
        put(first, "new")
        await eventually(lambda: ids(app) == {"new"})
        assert app.view.address == address


async def test_wish_08_a_server_that_is_behind_does_not_set_the_view_back(
    eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view never shows an older catalog than before, unless the registry itself was set back."""
    async with servers() as (server,), servers() as (behind,):
        for number in range(5):
            put(server, f"s{number}")
        behind.history.epoch = "e2"
        await behind.stop()
        async with running(settings_for(server, behind)) as app:
            await eventually(lambda: len(ids(app)) == 5)
            index = app.view.catalog.index
            await behind.start()
            await server.stop()
            await eventually(lambda: behind.views >= 2)
            assert len(ids(app)) == 5
            assert app.view.catalog.index >= index
            monkeypatch.setattr("raftreg_agent.view.BEHIND_MAX_S", 0.0)
            await eventually(lambda: ids(app) == set())


async def test_cached_and_stale_reads_are_answered_here(session: Any, eventually: Any) -> None:
    """They say how old they are; without the words, a server is asked."""
    async with servers() as (server,), running(settings_for(server)) as app:
        put(server, "a")
        await eventually(lambda: ids(app) == {"a"})
        base = f"http://{app.http_address}/v1/health/service/web"
        server.requests.clear()
        async with session.get(f"{base}?cached") as answer:
            assert [row["Service"]["ID"] for row in await answer.json()] == ["a"]
            assert (answer.headers["X-Cache"], answer.headers["Age"]) == ("HIT", "0")
        async with session.get(f"{base}?stale") as answer:
            assert len(await answer.json()) == 1
            assert answer.headers["X-Consul-KnownLeader"] == "true"
            assert int(answer.headers["X-Consul-Index"]) >= 1
        assert not [asked for asked in server.requests if "health" in asked]
        async with session.get(base) as answer:
            assert len(await answer.json()) == 1
        assert [asked for asked in server.requests if "health" in asked]


async def test_a_blocking_read_of_the_view_wakes(session: Any, eventually: Any) -> None:
    """A watcher with ?cached or ?stale is told of a change, and of no other service's."""
    async with servers() as (server,), running(settings_for(server)) as app:
        put(server, "a")
        await eventually(lambda: ids(app) == {"a"})
        base = f"http://{app.http_address}/v1/catalog/service/web?stale"
        async with session.get(base) as answer:
            index = answer.headers["X-Consul-Index"]

        async def watch() -> list[str]:
            async with session.get(f"{base}&index={index}&wait=30s") as answer:
                return [row["ServiceID"] for row in await answer.json()]

        watching = asyncio.ensure_future(watch())  # noqa: TID251 - a client beside the test
        await eventually(lambda: app.view.hub.count == 1)
        put(server, "x", name="other")
        await eventually(lambda: len(ids(app)) == 2)
        assert app.view.hub.count == 1
        put(server, "b")
        assert sorted(await watching) == ["a", "b"]


async def test_wish_11_dns_keeps_answering(session: Any, eventually: Any) -> None:
    """With all servers away, names and ?stale reads are answered from the last view."""
    async with servers() as (server,), running(settings_for(server, dns_port=0)) as app:
        row = ServiceInstance(node="n1", id="web", name="web", port=80)
        server.history.apply(NodeSync(node=app.local.node, services=(row,)))
        put(server, "a")
        await app.dns_ready.wait()
        await eventually(lambda: "a" in ids(app))
        await server.stop()
        await eventually(lambda: app.local.lease.failing)
        query = dns.message.make_query("web.service.consul", "A")
        for _ in range(5):
            answer = await dns.asyncquery.udp(query, "127.0.0.1", port=app.dns_port, timeout=5)
            assert answer.rcode() == dns.rcode.NOERROR
            assert any("10.1.1.1" in str(found) for found in answer.answer)
        url = f"http://{app.http_address}/v1/catalog/service/web?stale"
        async with session.get(url) as reply:
            assert "a" in [found["ServiceID"] for found in await reply.json()]
        age_s = app.view.age_s
        assert age_s is not None
        await eventually(lambda: (app.view.age_s or 0.0) > age_s)


async def test_wish_11_no_name_is_denied_before_the_view_is_there(eventually: Any) -> None:
    """An agent that has not seen the catalog yet does not say that a name does not exist."""
    async with servers() as (server,):
        await server.stop()
        async with running(settings_for(server, dns_port=0)) as app:
            await eventually(lambda: app.local.lease.failing)
            assert not app.dns_ready.is_set()
            await server.start()
            await app.dns_ready.wait()
