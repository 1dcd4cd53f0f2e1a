"""/v1/agent/* as clients of Consul's API know it."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import aiohttp
import pytest

from raftreg.config import HttpLimits
from raftreg.core.commands import NodeSync, SetLiveness
from raftreg.model import Node, ServiceInstance
from tests.agent.mesh import running, servers, settings_for

WEB = {
    "ID": "web/1",
    "Name": "web",
    "Port": 80,
    "Checks": [{"TTL": "30s"}, {"CheckID": "own", "Name": "mine", "TTL": "30s", "Notes": "n"}],
}


class Answer:
    """An answer that was read."""

    def __init__(self, answer: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.content_type = answer.content_type
        self.body = body

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Agent:
    """An agent with a client."""

    def __init__(self, app: Any, server: Any, session: aiohttp.ClientSession) -> None:
        self.app = app
        self.server = server
        self._session = session

    async def ask(self, method: str, path: str, body: Any = None, data: Any = None) -> Answer:
        """Sends one request; the answer's body is read."""
        url = f"http://{self.app.http_address}{path}"
        async with self._session.request(method, url, json=body, data=data) as answer:
            return Answer(answer, await answer.read())

    async def get(self, path: str) -> Any:
        """The JSON of a path."""
        return (await self.ask("GET", path)).json

    async def put(self, path: str, body: Any = None) -> None:
        """A mutation: 200 with an empty body."""
        answer = await self.ask("PUT", path, body)
        assert (answer.status, answer.body) == (200, b""), answer.text


@pytest.fixture(params=[True, False], ids=["short", "plain"])
async def agent(request: pytest.FixtureRequest) -> Any:
    """An agent of a mesh with one server, on either road."""
    async with (
        aiohttp.ClientSession() as session,
        servers() as (server,),
        running(settings_for(server, http=HttpLimits(short_way=request.param))) as app,
    ):
        yield Agent(app, server, session)


async def test_services_and_checks_are_maps_by_id(agent: Agent) -> None:
    """Tags and Meta are never null here; check ids and names have their defaults."""
    await agent.put("/v1/agent/service/register", WEB)
    services = await agent.get("/v1/agent/services")
    assert services == {
        "web/1": {
            "ID": "web/1",
            "Service": "web",
            "Tags": [],
            "Meta": {},
            "Port": 80,
            "Address": "",
            "Weights": {"Passing": 1, "Warning": 1},
            "EnableTagOverride": False,
        }
    }
    checks = await agent.get("/v1/agent/checks")
    assert sorted(checks) == ["own", "service:web/1:1"]
    first = checks["service:web/1:1"]
    assert (first["Name"], first["Status"]) == ("Service 'web' check", "critical")
    assert (first["ServiceID"], first["ServiceName"], first["Type"]) == ("web/1", "web", "ttl")
    assert checks["own"]["Notes"] == "n"
    await agent.put("/v1/agent/service/deregister/web/1")
    assert await agent.get("/v1/agent/checks") == {}


async def test_registering_again_replaces_checks_only_when_asked(agent: Agent) -> None:
    """`?replace-existing-checks` removes what the new definition does not name."""
    await agent.put("/v1/agent/service/register", WEB)
    await agent.put("/v1/agent/service/register", WEB | {"Checks": []})
    assert len(await agent.get("/v1/agent/checks")) == 2
    path = "/v1/agent/service/register?replace-existing-checks=true"
    await agent.put(path, WEB | {"Checks": [{"CheckID": "own", "TTL": "30s", "Name": "x"}]})
    assert list(await agent.get("/v1/agent/checks")) == ["own"]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("service/register", {"Name": "web", "Prot": 1}, 400, 'unknown field "Prot"'),
        ("service/register", {"Port": 1}, 400, "Missing service name"),
        ("service/register", [], 400, "Request decode failed"),
        ("service/register", {"Name": "x", "Check": {"HTTP": "http://a"}}, 400, "Interval"),
        (
            "service/register",
            {"Name": "x", "Check": {"Args": ["true"], "Interval": "9s"}},
            400,
            "--enable-script-checks",
        ),
        ("check/register", {"TTL": "9s"}, 400, "Missing check name"),
        (
            "check/register",
            {"Name": "c", "TTL": "9s", "ServiceID": "no"},
            500,
            'ServiceID "no" does not exist',
        ),
        ("check/pass/no", None, 500, 'CheckID "no" does not have associated TTL'),
        ("check/update/c", {"Status": "fine"}, 400, "Invalid check status: 'fine'"),
        ("maintenance", None, 400, "Missing value for enable"),
        ("maintenance?enable=perhaps", None, 400, "enable"),
        ("service/maintenance/no?enable=true", None, 404, 'Unknown service ID "no"'),
        ("service/maintenance/?enable=true", None, 400, "Missing service ID"),
        ("service/deregister/", None, 400, "Missing service ID"),
    ],
)
async def test_bad_input_is_refused_in_plain_text(
    agent: Agent, path: str, body: Any, status: int, says: str
) -> None:
    """Status and words are what clients expect, and nothing happens."""
    answer = await agent.ask("PUT", f"/v1/agent/{path}", body)
    assert answer.status == status
    assert answer.content_type == "text/plain"
    assert says in answer.text
    assert await agent.get("/v1/agent/services") == {}


async def test_malformed_and_large_bodies_are_refused(agent: Agent) -> None:
    """400 and 413, not a hang or a crash."""
    path = "/v1/agent/service/register"
    assert (await agent.ask("PUT", path, data=b"{")).status == 400
    assert (await agent.ask("PUT", path, data=b"")).status == 400
    assert (await agent.ask("PUT", path, data=io.BytesIO(b" " * (2 << 20)))).status == 413


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "check/pass/x"),
        ("GET", "service/register"),
        ("GET", "service/deregister/x"),
        ("POST", "service/register"),
        ("PUT", "self"),
        ("DELETE", "services"),
        ("GET", "leave"),
    ],
)
async def test_a_wrong_method_is_405(agent: Agent, method: str, path: str) -> None:
    """With the words that clients know; nothing is handed on to a server."""
    answer = await agent.ask(method, f"/v1/agent/{path}")
    assert (answer.status, answer.text) == (405, f"method {method} not allowed")


async def test_unknown_paths_are_404(agent: Agent) -> None:
    """Also below /v1/agent, and the servers' own doors are shut here."""
    for path in ("/v1/agent/nothing", "/v1/internal/view", "/nothing"):
        assert (await agent.ask("GET", path)).status == 404


async def test_deregistering_what_is_not_there_is_fine(agent: Agent) -> None:
    """Clients deregister to be sure."""
    await agent.put("/v1/agent/service/deregister/no")
    await agent.put("/v1/agent/check/deregister/no")


async def test_an_owners_word_is_read_back(agent: Agent) -> None:
    """pass, warn, fail with a note, and update with an output."""
    await agent.put("/v1/agent/service/register", WEB)
    for verb, status in (("warn", "warning"), ("fail", "critical"), ("pass", "passing")):
        await agent.put(f"/v1/agent/check/{verb}/own?note=why%20not")
        check = (await agent.get("/v1/agent/checks"))["own"]
        assert (check["Status"], check["Output"]) == (status, "why not")
    await agent.put("/v1/agent/check/update/own", {"Status": "warning", "Output": "long"})
    check = (await agent.get("/v1/agent/checks"))["own"]
    assert (check["Status"], check["Output"]) == ("warning", "long")
    large = "é" * 10_000
    await agent.put("/v1/agent/check/update/own", {"Status": "warning", "Output": large})
    output = (await agent.get("/v1/agent/checks"))["own"]["Output"]
    assert large.startswith(output)
    assert 4000 < len(output.encode()) <= 4096


async def test_one_service_and_its_content_hash(agent: Agent) -> None:
    """404 in text for an unknown one; with the hash the answer waits for a change."""
    missing = await agent.ask("GET", "/v1/agent/service/no")
    assert (missing.status, missing.content_type) == (404, "text/plain")
    await agent.put("/v1/agent/service/register", WEB)
    answer = await agent.ask("GET", "/v1/agent/service/web/1")
    body = answer.json
    content_hash = answer.headers["X-Consul-ContentHash"]
    assert body["ContentHash"] == content_hash
    path = f"/v1/agent/service/web/1?hash={content_hash}"
    unchanged = await agent.ask("GET", f"{path}&wait=10ms")
    assert unchanged.headers["X-Consul-ContentHash"] == content_hash

    async def change() -> None:
        await agent.put("/v1/agent/service/register", {"Name": "other"})
        await agent.put("/v1/agent/service/register", WEB | {"Port": 81})

    changed, _ = await asyncio.gather(agent.ask("GET", f"{path}&wait=60s"), change())
    assert changed.json["Port"] == 81
    assert changed.headers["X-Consul-ContentHash"] != content_hash


async def test_health_of_instances(agent: Agent) -> None:
    """200, 429, 503 and 404 with the reason in a header; `maintenance` has a word of its own."""
    path = "/v1/agent/health/service/id/web/1"
    missing = await agent.ask("GET", path)
    assert missing.status == 404
    await agent.put("/v1/agent/service/register", WEB)
    passed = await agent.ask("PUT", "/v1/agent/check/pass/own")
    assert (passed.status, passed.body) == (200, b"")
    assert "Content-Type" not in passed.headers
    for verb, status, word in (
        ("fail", 503, "critical"),
        ("warn", 429, "warning"),
        ("pass", 200, "passing"),
    ):
        await agent.put(f"/v1/agent/check/{verb}/service:web/1:1")
        answer = await agent.ask("GET", path)
        assert (answer.status, answer.headers["X-Consul-Reason"]) == (status, word)
        assert answer.json["AggregatedStatus"] == word
        text = await agent.ask("GET", f"{path}?format=text")
        assert (text.status, text.text) == (status, word)
    await agent.put("/v1/agent/service/maintenance/web/1?enable=true&reason=paint")
    assert (await agent.ask("GET", f"{path}?format=text")).text == "maintenance"
    by_name = await agent.ask("GET", "/v1/agent/health/service/name/web")
    assert by_name.status == 503
    (entry,) = by_name.json
    assert (entry["Service"]["ID"], len(entry["Checks"])) == ("web/1", 3)
    nobody = await agent.ask("GET", "/v1/agent/health/service/name/no")
    assert (nobody.status, nobody.json) == (404, [])


async def test_maintenance_is_a_critical_check(agent: Agent) -> None:
    """Of the host or of an instance, with its reason, in the catalog too, and it goes again."""
    await agent.put("/v1/agent/service/register", WEB)
    await agent.put("/v1/agent/maintenance?enable=true")
    await agent.put("/v1/agent/service/maintenance/web/1?enable=true&reason=paint")
    checks = await agent.get("/v1/agent/checks")
    assert "no reason was provided" in checks["_node_maintenance"]["Notes"]
    mark = checks["_service_maintenance:web/1"]
    assert (mark["Status"], mark["Notes"], mark["ServiceID"]) == ("critical", "paint", "web/1")
    assert agent.server.history.catalog.check("n1", "_node_maintenance") is not None
    await agent.put("/v1/agent/maintenance?enable=false")
    await agent.put("/v1/agent/maintenance?enable=false")
    await agent.put("/v1/agent/service/maintenance/web/1?enable=false")
    assert len(await agent.get("/v1/agent/checks")) == 2
    assert agent.server.history.catalog.check("n1", "_node_maintenance") is None


async def test_self_and_members(agent: Agent, eventually: Any) -> None:
    """Identity of the agent, and the hosts that hold a lease, servers among them by their role."""
    history = agent.server.history
    row = ServiceInstance(node="s1", id="consul", name="consul", port=8300)
    node = Node(name="s1", id="3c6f8a52-0f42-4b8e-9f57-0e3b6a1d5a77", address="10.0.0.9")
    history.apply(NodeSync(node=node, services=(row,)))
    history.apply(SetLiveness(node="s1", alive=False))
    await eventually(lambda: "s1" in agent.app.view.catalog.nodes)
    found = await agent.get("/v1/agent/self")
    assert found["Config"]["NodeName"] == "n1"
    assert found["Config"]["Datacenter"] == "dc1"
    assert found["Config"]["NodeID"] == found["Member"]["Tags"]["id"] == agent.app.local.node.id
    assert {"DebugConfig", "Coord", "Stats", "Meta"} <= set(found)
    members = {member["Name"]: member for member in await agent.get("/v1/agent/members")}
    assert sorted(members) == ["n1", "s1"]
    assert (members["n1"]["Tags"]["role"], members["n1"]["Status"]) == ("node", 1)
    assert (members["s1"]["Tags"]["role"], members["s1"]["Status"]) == ("consul", 4)
    assert members["s1"]["Tags"]["port"] == "8300"
    (wan,) = await agent.get("/v1/agent/members?wan")
    assert wan["Name"].startswith("s1.")


async def test_metrics_are_prometheus_text(agent: Agent) -> None:
    """HTTP by route and code, checks, lease and view."""
    await agent.put("/v1/agent/service/register", WEB)
    answer = await agent.ask("GET", "/v1/agent/metrics?format=prometheus")
    text = answer.text
    assert answer.content_type == "text/plain"
    assert 'raftreg_agent_checks{status="critical"} 2.0' in text
    assert "raftreg_agent_view_age_seconds" in text
    assert 'route="/v1/agent/service/register"' in text


async def test_leave_ends_the_agent(agent: Agent) -> None:
    """The host is gone when it is answered, and the process is told to end."""
    await agent.put("/v1/agent/service/register", WEB)
    await agent.put("/v1/agent/leave")
    assert agent.server.history.catalog.nodes == {}
    assert agent.app.local.left.is_set()


async def test_head_and_pretty(agent: Agent) -> None:
    """HEAD is answered like GET without a body; ?pretty indents."""
    head = await agent.ask("HEAD", "/v1/agent/services")
    assert (head.status, head.body) == (200, b"")
    await agent.put("/v1/agent/service/register", WEB)
    assert b"\n    " in (await agent.ask("GET", "/v1/agent/services?pretty")).body


async def test_what_is_not_supported_is_refused(agent: Agent) -> None:
    """Ignoring a filter or another datacenter would give wrong data."""
    assert (await agent.ask("GET", "/v1/agent/services?filter=x")).status == 400
    other = await agent.ask("GET", "/v1/agent/services?dc=other")
    assert (other.status, other.text) == (500, "No path to datacenter")
