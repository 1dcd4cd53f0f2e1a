"""TTL checks of hosts without an agent: heartbeats, their end, and what may go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import yarl

from raftreg.clock import ManualClock
from raftreg.config import ExternalCheckSettings
from tests.server.conftest import Running, running

EXTERNAL = {"external-node": "true"}


@pytest.fixture
async def beaten() -> AsyncIterator[Running]:
    """A server that looks after hosts without an agent, its clock moved by hand."""
    async with running(ManualClock()) as server:
        server.server.external_ttls._enabled = True
        yield server


async def _host(api: Running, node: str = "h1", **definition: Any) -> None:
    check = {
        "CheckID": "c",
        "Name": "c",
        "ServiceID": "web",
        "Status": "passing",
        "Definition": {"TTL": "30s"} | definition,
    }
    await api.register(node, "web", NodeMeta=EXTERNAL, Check=check)


async def _beat(api: Running, verb: str = "pass", path: str = "h1/c", note: str = "") -> None:
    query = f"?note={note}" if note else ""
    assert await api.json("PUT", f"/v1/health/external/{verb}/{path}{query}") is True


def _pass(api: Running, seconds: float) -> None:
    assert isinstance(api.clock, ManualClock)
    api.clock.advance(seconds)
    api.server.external_ttls.look()


async def _check(api: Running) -> tuple[str, str]:
    rows = await api.json("GET", "/v1/health/node/h1")
    return rows[0]["Status"], rows[0]["Output"]


async def _until(api: Running, status: str) -> str:
    """Lets time pass in small steps until the check has a status; gives its output."""
    while True:
        found, output = await _check(api)
        if found == status:
            return output
        _pass(api, 0.1)


async def test_silence_for_a_ttl_makes_the_check_critical(beaten: Running) -> None:
    """Not before; heartbeats keep it passing and write nothing; the next one brings it back."""
    await _host(beaten)
    index = beaten.machine.state.index
    for _ in range(4):
        _pass(beaten, 25)
        await _beat(beaten)
    assert beaten.machine.state.index == index
    _pass(beaten, 29.9)
    assert (await _check(beaten))[0] == "passing"
    _pass(beaten, 0.1)
    assert await _until(beaten, "critical") == "TTL expired"
    await _beat(beaten, note="back")
    assert await _check(beaten) == ("passing", "back")
    _pass(beaten, 30)
    await _until(beaten, "critical")


async def test_the_owner_decides_the_status(beaten: Running) -> None:
    """Warn and fail are taken at once; a warning that falls silent becomes critical too."""
    await _host(beaten)
    await _beat(beaten, "warn", note="hot")
    assert await _check(beaten) == ("warning", "hot")
    await _beat(beaten, "fail", note="dead")
    assert await _check(beaten) == ("critical", "dead")
    await _beat(beaten, "warn")
    _pass(beaten, 30)
    assert await _until(beaten, "critical") == "TTL expired"


async def test_a_service_that_stays_critical_is_deregistered(beaten: Running) -> None:
    """After DeregisterCriticalServiceAfter, with its checks; the host stays."""
    await _host(beaten, DeregisterCriticalServiceAfter="90s")
    await _beat(beaten, "fail")
    _pass(beaten, 89)
    assert len(await beaten.json("GET", "/v1/catalog/service/web")) == 1
    while await beaten.json("GET", "/v1/catalog/service/web"):
        _pass(beaten, 0.5)
    assert (await beaten.json("GET", "/v1/catalog/node/h1"))["Services"] == {}


async def test_a_stalled_leader_listens_before_it_expires(beaten: Running) -> None:
    """A stop of a minute ends nothing: who could not be heard gets the chance."""
    assert isinstance(beaten.clock, ManualClock)
    await _host(beaten)
    beaten.clock.advance(60)
    beaten.server.external_ttls.look()
    await _beat(beaten)
    _pass(beaten, 2.5)
    await asyncio.sleep(0)
    assert (await _check(beaten))[0] == "passing"


async def test_names_may_hold_anything(beaten: Running) -> None:
    """A slash in a node's name is escaped, one in a check's is not."""
    check = {"CheckID": "a/b", "Name": "c", "Definition": {"TTL": "30s"}}
    await beaten.register("h/1", NodeMeta=EXTERNAL, Check=check)
    url = yarl.URL(f"{beaten.url}/v1/health/external/pass/h%2F1/a/b", encoded=True)
    async with beaten.http.put(url) as answer:
        assert (answer.status, await answer.json()) == (200, True)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("pass/h1/none", 404, 'Unknown check "none" of node "h1"'),
        ("pass/none/c", 404, 'Unknown check "c" of node "none"'),
        ("pass/agents/c", 400, "is no TTL check of a host without an agent"),
        ("pass/h1/http", 400, "is no TTL check of a host without an agent"),
        ("cheer/h1/c", 404, "404 page not found"),
        ("pass/h1/c?dc=mars", 500, "No path to datacenter"),
    ],
)
async def test_what_can_not_be_told(beaten: Running, path: str, status: int, text: str) -> None:
    """The text says what is wrong with it."""
    await _host(beaten)
    ttl = {"CheckID": "c", "Name": "c", "Definition": {"TTL": "30s"}}
    await beaten.register("agents", Check=ttl)
    http = {"CheckID": "http", "Name": "c", "Definition": {"HTTP": "http://127.0.0.1:1/"}}
    await beaten.register("h1", NodeMeta=EXTERNAL, Check=http)
    found, body, _ = await beaten.ask("PUT", f"/v1/health/external/{path}")
    assert found == status
    assert text in body


async def test_it_is_off_unless_it_is_turned_on(timed: Running) -> None:
    """Nothing expires then, and a heartbeat is told so."""
    assert not ExternalCheckSettings().enabled
    await _host(timed)
    status, body, _ = await timed.ask("PUT", "/v1/health/external/pass/h1/c")
    assert status == 400
    assert "set enabled in [external_checks]" in body
    _pass(timed, 60)
    assert (await _check(timed))[0] == "passing"
