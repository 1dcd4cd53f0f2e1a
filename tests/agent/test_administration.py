"""What steers an agent, and what it tells of its host and its log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import aiohttp.web
import pytest

from raftreg.core.commands import NodeSync, SetLiveness
from raftreg.model import Node
from raftreg_agent.app import AgentApp
from raftreg_agent.monitor import Monitors, as_json, as_text
from tests.agent.mesh import Server, running, servers, settings_for

log = logging.getLogger("raftreg.test")


class Rig:
    """An agent, a server, and a client of the agent."""

    def __init__(self, app: AgentApp, server: Server, http: aiohttp.ClientSession) -> None:
        self.app = app
        self.server = server
        self.http = http

    def url(self, path: str) -> str:
        """Of a path at the agent."""
        return f"http://{self.app.http_address}/v1/agent/{path}"

    async def put(self, path: str, **options: Any) -> tuple[int, str]:
        """Status and text of a PUT."""
        async with self.http.put(self.url(path), **options) as answer:
            return answer.status, await answer.text()

    async def get(self, path: str) -> Any:
        """The JSON of a GET."""
        async with self.http.get(self.url(path)) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """An agent of a mesh with one server."""
    async with (
        aiohttp.ClientSession() as http,
        servers() as (server,),
        running(settings_for(server)) as app,
    ):
        yield Rig(app, server, http)


# -- the log ---------------------------------------------------------------------------------------


@asynccontextmanager
async def _following(rig: Rig, query: str = "") -> AsyncIterator[aiohttp.StreamReader]:
    async with rig.http.get(rig.url(f"monitor{query}")) as answer:
        assert answer.status == 200
        yield answer.content


async def _line_with(stream: aiohttp.StreamReader, text: str) -> str:
    while True:
        line = (await stream.readline()).decode()
        assert line, "the stream ended"
        if text in line:
            return line


async def test_the_log_is_streamed_as_it_is_written(rig: Rig) -> None:
    """From the level that was asked for on; what the process itself leaves out too."""
    async with _following(rig, "?loglevel=debug") as stream:
        log.debug("a fine %s", "detail")
        assert (await _line_with(stream, "a fine detail")).split()[1:] == [
            "[DEBUG]",
            "raftreg.test:",
            "a",
            "fine",
            "detail",
        ]
    async with _following(rig) as stream:
        log.debug("too fine")
        log.warning("enough")
        assert "[WARN]" in await _line_with(stream, "enough")


async def test_the_log_is_streamed_as_json(rig: Rig) -> None:
    """With the names that Consul's JSON log has."""
    async with _following(rig, "?logjson&loglevel=warn") as stream:
        log.info("left out")
        log.error("broken: %d", 7)
        line = json.loads(await _line_with(stream, "broken"))
    assert line.pop("@timestamp").endswith("Z")
    assert line == {"@level": "error", "@message": "broken: 7", "@module": "raftreg.test"}


async def test_no_secret_is_streamed(rig: Rig) -> None:
    """Neither the token of an address nor that of a header."""
    async with _following(rig) as stream:
        log.info(
            "GET /v1/kv/a?token=s3cret&raw X-Consul-Token: s3cret Authorization: Bearer s3cret"
        )
        line = await _line_with(stream, "/v1/kv/a")
    assert "s3cret" not in line
    assert "&raw" in line


async def test_the_stream_ends_with_the_agent() -> None:
    """Nobody waits for a client that follows the log."""
    async with aiohttp.ClientSession() as http, servers() as (server,):
        async with running(settings_for(server)) as app:
            answer = await http.get(f"http://{app.http_address}/v1/agent/monitor?loglevel=err")
            assert answer.status == 200
        assert await answer.content.read() == b""


async def test_an_unknown_level_is_refused(rig: Rig) -> None:
    """With Consul's text."""
    async with rig.http.get(rig.url("monitor?loglevel=loud")) as answer:
        assert (answer.status, await answer.text()) == (400, "Unknown log level: loud")


async def test_a_slow_client_loses_lines_and_is_told() -> None:
    """The queue is bounded; whoever logs never waits."""
    with Monitors(lines_max=2).tap(logging.INFO, as_text) as tap:
        for number in range(5):
            log.warning("line %d", number)
        tap.end()
        text = b"".join([batch async for batch in tap.batches()]).decode()
    assert [f"line {n}" in text for n in range(5)] == [True, True, False, False, False]
    assert "[3 lines were dropped" in text


async def test_lines_of_other_threads_arrive() -> None:
    """Probes and disks log from threads."""
    with Monitors().tap(logging.INFO, as_text) as tap:
        await asyncio.to_thread(log.warning, "from a thread")
        batch = await anext(aiter(tap.batches()))
    assert b"from a thread" in batch


async def test_the_level_of_the_process_comes_back() -> None:
    """It is lower only while somebody follows."""
    root = logging.getLogger()
    before = root.level
    monitors = Monitors()
    with monitors.tap(logging.DEBUG, as_text), monitors.tap(logging.ERROR, as_text):
        assert root.level == min(before, logging.DEBUG)
    assert (root.level, len(root.handlers)) == (before, len(root.handlers))


def test_a_structured_event_keeps_its_fields() -> None:
    """Those of structlog arrive as a dictionary; secrets among them are hidden by their names."""
    event = {"event": "synced", "level": "info", "services": 3, "token": "s3cret", "why": "a b"}
    record = logging.LogRecord("raftreg", logging.INFO, "", 0, event, (), None)
    assert as_text(record).endswith(
        '[INFO]  raftreg: synced: services=3 token=<redacted> why="a b"'
    )
    assert json.loads(as_json(record))["services"] == 3


# -- the host --------------------------------------------------------------------------------------


async def test_host_and_version(rig: Rig) -> None:
    """What this machine has, in the names that Consul's own library gives."""
    host = await rig.get("host")
    assert host["Memory"]["total"] > 0
    assert host["CPU"][0]["cpu"] == 0
    assert host["Host"]["os"] == "linux"
    assert host["Disk"]["total"] > 0
    assert (host["Errors"], host["CollectionTime"] > 0) == (None, True)
    assert (await rig.get("version"))["HumanVersion"]


async def test_metrics_have_consuls_json_form(rig: Rig) -> None:
    """Gauges with a value, counters with a count, samples with sum and mean."""
    await rig.get("services")
    metrics = await rig.get("metrics")
    assert metrics["Timestamp"].endswith("+0000 UTC")
    assert metrics["Points"] == []
    gauges = {row["Name"]: row["Value"] for row in metrics["Gauges"]}
    assert gauges["raftreg_agent_services"] == 0.0
    counters = {row["Name"] for row in metrics["Counters"]}
    assert "raftreg_agent_lease_renewals_total" in counters
    sample = next(row for row in metrics["Samples"] if row["Count"])
    assert sample["Sum"] == pytest.approx(sample["Mean"] * sample["Count"])
    assert sample["Min"] <= sample["Max"]
    async with rig.http.get(rig.url("metrics?format=statsd")) as answer:
        assert answer.status == 400


# -- members ---------------------------------------------------------------------------------------


async def test_force_leave_removes_a_dead_host_only(rig: Rig, eventually: Any) -> None:
    """One that is alive stays; an unknown one is an error, with Consul's text."""
    apply, catalog = rig.server.history.apply, rig.server.history.catalog
    for name in ("alive", "dead"):
        apply(NodeSync(node=Node(name=name, address="10.0.0.9")))
    apply(SetLiveness(node="dead", alive=False))
    await eventually(lambda: "dead" in rig.app.view.catalog.nodes)
    assert await rig.put("force-leave/alive") == (200, "")
    assert await rig.put("force-leave/dead?prune") == (200, "")
    assert {"alive", "dead"} & catalog.nodes.keys() == {"alive"}
    assert await rig.put("force-leave/nobody") == (
        500,
        "agent: No node found with name 'nobody'",
    )


async def test_join_teaches_an_agent_a_server(rig: Rig) -> None:
    """It is asked who it is first; then it is used like one named at the start."""
    async with _somebody(server=True) as address:
        assert await rig.put(f"join/{address}") == (200, "")
        assert f"http://{address}" in rig.app.local.client._pool._urls
    async with _somebody(server=False) as address:
        status, text = await rig.put(f"join/{address}")
        assert (status, text) == (500, f"Failed to join {address}: it is no server")
    status, text = await rig.put(f"join/{address}")
    assert (status, text.startswith(f"Failed to join {address}: ")) == (500, True)
    assert (await rig.put("join/127.0.0.1?wan=1"))[0] == 500
    assert (await rig.put("join/a%20b"))[0] == 500


@asynccontextmanager
async def _somebody(*, server: bool) -> AsyncIterator[str]:
    """Answers /v1/agent/self at an address."""

    async def self_(request: aiohttp.web.Request) -> aiohttp.web.Response:
        del request
        return aiohttp.web.json_response({"Config": {"Server": server, "Datacenter": "dc1"}})

    app = aiohttp.web.Application()
    app.router.add_get("/v1/agent/self", self_)
    runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_tokens_are_refused_and_not_repeated(rig: Rig) -> None:
    """Access control is disabled, and so is this, as with Consul."""
    for kind in ("default", "agent", "acl_agent_token", "nonsense"):
        answer = await rig.put(f"token/{kind}", json={"Token": "s3cret"})
        assert answer == (401, "ACL support disabled")


async def test_self_tells_what_tools_look_for(rig: Rig) -> None:
    """Role, version, members; no xDS, no access control."""
    body = await rig.get("self")
    assert (body["Config"]["Server"], body["xDS"]) == (False, None)
    assert body["Config"]["BuildDate"]
    assert body["DebugConfig"]["ACLsEnabled"] is False
    assert body["Stats"]["build"]["version"] == body["Config"]["Version"]
    assert body["Stats"]["serf_lan"]["members"] == "1"
    assert body["Stats"]["consul"] == {"server": "false", "known_servers": "0"}


async def test_there_are_no_network_segments(rig: Rig) -> None:
    """As in Consul's open edition; all of them together are the members."""
    assert len(await rig.get("members?segment=_all")) == 1
    async with rig.http.get(rig.url("members?segment=alpha")) as answer:
        assert (answer.status, "Network segments" in await answer.text()) == (500, True)
