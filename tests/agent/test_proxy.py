"""What an agent hands on to servers."""

from __future__ import annotations

import asyncio
import io
import socket
from typing import Any

import aiohttp
import pytest
from yarl import URL

from raftreg.client.api import RegistryClient
from raftreg.config import HttpLimits
from raftreg.core.changes import Topic
from raftreg.http.problems import TooManyWatches
from raftreg_agent.notify import sd_notify
from raftreg_agent.proxy import WATCHES_MAX, ServerProxy
from tests.agent.mesh import Mood, running, servers, settings_for


@pytest.fixture
async def session() -> Any:
    """Connections to agents."""
    async with aiohttp.ClientSession() as found:
        yield found


async def test_requests_and_answers_pass_as_they_are(session: Any) -> None:
    """Escapes in keys, queries, bodies, statuses and headers of the registry."""
    async with servers() as (server,), running(settings_for(server)) as app:
        base = f"http://{app.http_address}"
        url = URL(f"{base}/v1/kv/a%2Fb%20c%3F?flags=7&stale", encoded=True)
        async with session.put(url, data=b"value") as answer:
            assert (answer.status, await answer.read()) == (200, b"true")
            assert answer.headers["X-Odd"] == "kept"
        assert server.history.puts == ["/v1/kv/a%2Fb%20c%3F?flags=7&stale= value"]
        async with session.get(f"{base}/v1/kv/none") as answer:
            assert (answer.status, await answer.read()) == (404, b"")
            assert answer.headers["X-Consul-Index"] == "7"
        async with session.head(f"{base}/v1/kv/none") as answer:
            assert answer.status == 404
        async with session.get(f"{base}/v1/no-such-thing") as answer:
            assert answer.status == 404
            length = answer.headers["Content-Length"]
        async with session.head(f"{base}/v1/no-such-thing") as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (404, length)


async def test_a_blocking_query_survives_the_death_of_its_server(
    session: Any, eventually: Any
) -> None:
    """It is asked again at another server, without an error seen by the client."""
    async with servers(2) as mesh, running(settings_for(*mesh)) as app:
        url = f"http://{app.http_address}/v1/kv/k?index=7&wait=60s"
        waiting: Topic = ("kv", "k")

        async def watch() -> int:
            async with session.get(url) as answer:
                return int(answer.status)

        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch())
            await eventually(lambda: any("wait=60s" in _all(server) for server in mesh))
            first = next(server for server in mesh if "wait=60s" in _all(server))
            (second,) = (server for server in mesh if server is not first)
            await first.stop()
            await eventually(lambda: "wait=60s" in _all(second))
            await eventually(lambda: app.proxy.watches == 1)
            second.hub.publish([waiting])
            assert await watching == 404


def _all(server: Any) -> str:
    return "\n".join(server.requests)


async def test_a_client_that_goes_away_is_forgotten(session: Any, eventually: Any) -> None:
    """Its blocking query ends at the agent, which holds a bounded number of them."""
    async with servers() as (server,), running(settings_for(server)) as app:
        url = f"http://{app.http_address}/v1/kv/k?index=7&wait=60s"
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(session.get(url))
            await eventually(lambda: app.proxy.watches == 1)
            watching.cancel()
        await eventually(lambda: app.proxy.watches == 0)


async def test_a_write_whose_answer_is_lost_acts_once(session: Any) -> None:
    """The agent names it, so that its repetition at another server has no further effect."""
    async with servers(2) as (bad, good), running(settings_for(bad, good)) as app:
        bad.mood = Mood.FORGETFUL
        app._asking.distrust(f"http://{good.address}")
        url = f"http://{app.http_address}/v1/kv/k"
        async with session.put(url, data=b"v") as answer:
            assert await answer.read() == b"true"
        assert [asked for asked in bad.requests if "kv" in asked]
        assert good.history.puts == ["/v1/kv/k v"]


async def test_no_leader_is_told_in_the_words_that_clients_know(session: Any) -> None:
    """After the bounded wait, with the status of a server."""
    async with servers() as (server,):
        # A last attempt of the write is begun only when there is time for its answer.
        limits = HttpLimits(read_timeout_s=0.2, write_timeout_s=3.0)
        async with running(settings_for(server, http=limits)) as app:
            server.mood = Mood.LEADERLESS
            url = f"http://{app.http_address}/v1/kv/k"
            for method in ("GET", "PUT"):
                async with session.request(method, url) as answer:
                    assert answer.status == 500
                    assert "No cluster leader" in await answer.text()


async def test_no_server_is_told_like_no_leader(session: Any) -> None:
    """Which server refuses connections is not the client's matter; nothing has happened."""
    async with servers() as (server,):
        limits = HttpLimits(read_timeout_s=0.2, write_timeout_s=0.2)
        async with running(settings_for(server, http=limits)) as app:
            await server.stop()
            url = f"http://{app.http_address}/v1/kv/k"
            for method in ("GET", "PUT"):
                async with session.request(method, url) as answer:
                    assert (answer.status, await answer.text()) == (500, "No cluster leader")


async def test_bad_options_and_large_bodies_are_refused_here(session: Any) -> None:
    """They don't reach a server."""
    async with servers() as (server,), running(settings_for(server)) as app:
        base = f"http://{app.http_address}/v1/kv/k"
        async with session.get(f"{base}?index=x") as answer:
            assert (answer.status, await answer.text()) == (400, "Invalid index")
        async with session.put(base, data=io.BytesIO(b"x" * (2 << 20))) as answer:
            assert answer.status == 413
        assert not [asked for asked in server.requests if "/v1/kv/k" in asked]


async def test_long_reads_for_many_are_bounded_too() -> None:
    """What a server is asked on behalf of waiting clients counts as theirs."""
    client = RegistryClient(["127.0.0.1:1"])
    proxy = ServerProxy(client, client, HttpLimits(), "h1")
    proxy.watches = WATCHES_MAX
    with pytest.raises(TooManyWatches):
        await proxy.read("/v1/health/service/web", {"index": "9"}, 60.0)
    assert proxy.watches == WATCHES_MAX


def test_systemd_is_told(tmp_path: Any) -> None:
    """One datagram to the socket that it names; nothing happens without one."""
    assert not sd_notify("READY=1", "")
    assert not sd_notify("READY=1", str(tmp_path / "nobody"))
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        assert sd_notify("READY=1", path)
        assert listener.recv(64) == b"READY=1"
