"""/v1/agent/*: what is registered and checked on this host."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from aiohttp import web

from raftreg.core.catalog import Catalog
from raftreg.errors import InvalidRequest, NotFound, Rejected
from raftreg.http import json, render
from raftreg.http.bodies import CheckBody, CheckUpdateBody, ServiceBody
from raftreg.http.coordinate_body import coord_json
from raftreg.http.decode import check_definition, service_definition
from raftreg.http.discovery import options_of, query_of
from raftreg.http.fields import Fields
from raftreg.http.filter import compile_filter
from raftreg.http.filter_fields import CHECK, SERVICE
from raftreg.http.operation import DATACENTER, PLAIN, Duration, Flag, Param, operation
from raftreg.http.params import parse_bool
from raftreg.http.problems import method_not_allowed, text_response
from raftreg.http.reply import header_value
from raftreg.http.shapes import AgentHealthJson, AgentServiceHashJson, AgentServiceJson, CheckJson
from raftreg.http.watch import Topic, WatchHub
from raftreg.model import Check, ServiceInstance, Status
from raftreg.version import build
from raftreg_agent.administration import Administration
from raftreg_agent.connect import ConnectRoutes
from raftreg_agent.identity import BUILD_DATE, debug_config, member_stats, program_stats
from raftreg_agent.local import LocalAgent
from raftreg_agent.members import member_json, members
from raftreg_agent.state import Source

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Json = dict[str, Any]

LOCAL_CHANGE: Topic = ("agent-services", "")
CHECK_VERBS = {"pass": Status.PASSING, "warn": Status.WARNING, "fail": Status.CRITICAL}
_HTTP_STATUS = {"passing": 200, "warning": 429, "critical": 503, "maintenance": 503}
_WORST = ("maintenance", "critical", "warning", "passing")

_FILTER = (DATACENTER, Param("filter", "an expression that chooses among the rows"))
_FORMAT = (Param("format", "`text`: the status alone, as plain text", Literal["text", ""]),)
_INSTANCE_HEALTH = (AgentHealthJson, PLAIN)
_SERVICE_HEALTH = (list[AgentHealthJson], PLAIN)
_MAINTENANCE = (
    Param("enable", "`true` takes it out, `false` back", Literal["true", "false"], required=True),
    Param("reason", "why: becomes the output of its check"),
)


def agent_routes(
    local: LocalAgent,
    catalog: Callable[[], Catalog],
    *,
    stats: Callable[[], dict[str, dict[str, str]]] | None = None,
    watches_max: int = 10_000,
    join: Callable[[str], Awaitable[None]] | None = None,
) -> list[web.RouteDef]:
    """The routes of an agent, to be mounted in its own app or in a server's.

    Args:
        local: The agent.
        catalog: What it knows of the other hosts.
        stats: Further groups of `Stats` in /v1/agent/self.
        watches_max: Requests that wait for a change of a local service at once.
        join: Takes the address of one more server; None on a server.
    """
    agent = AgentRoutes(local, catalog, stats or dict, WatchHub(watches_max))
    table: list[tuple[str, str, Handler]] = [
        ("GET", "self", agent.self_),
        ("GET", "members", agent.members),
        ("GET", "services", agent.services),
        ("GET", "checks", agent.checks),
        ("PUT", "service/register", agent.register_service),
        ("PUT", "service/deregister/{id:(?s:.*)}", agent.deregister_service),
        ("PUT", "service/maintenance/{id:(?s:.*)}", agent.service_maintenance),
        ("GET", "service/{id:(?s:.*)}", agent.service),
        ("PUT", "check/register", agent.register_check),
        ("PUT", "check/deregister/{id:(?s:.*)}", agent.deregister_check),
        ("PUT", "check/{verb:pass|warn|fail}/{id:(?s:.*)}", agent.assert_check),
        ("PUT", "check/update/{id:(?s:.*)}", agent.update_check),
        ("PUT", "maintenance", agent.maintenance),
        ("GET", "health/service/id/{id:(?s:.*)}", agent.health_by_id),
        ("GET", "health/service/name/{name:(?s:.*)}", agent.health_by_name),
    ]
    table += Administration(local, catalog, join).table()
    settings = local.settings
    table += ConnectRoutes(local.certificates, local.client, settings.datacenter).table()
    return [route for method, path, handler in table for route in _endpoint(method, path, handler)]


def _endpoint(method: str, path: str, handler: Handler) -> Iterable[web.RouteDef]:
    """A handler for its method; every other method gets 405 here, whatever is mounted behind."""
    allowed = {"GET", "HEAD"} if method == "GET" else {method}

    async def refuse(request: web.Request) -> web.StreamResponse:
        return method_not_allowed(request.method, allowed)

    path = f"/v1/agent/{path}"
    yield web.route(method, path, handler)  # GET brings HEAD with it
    yield web.route("*", path, refuse)


class AgentRoutes:
    """Handlers over a `LocalAgent`.

    Args:
        local: The agent.
        catalog: What it knows of the other hosts.
        stats: Further groups of `Stats`.
        hub: Wakes requests that wait for a change.
    """

    def __init__(
        self,
        local: LocalAgent,
        catalog: Callable[[], Catalog],
        stats: Callable[[], dict[str, dict[str, str]]],
        hub: WatchHub,
    ) -> None:
        self._local = local
        self._catalog = catalog
        self._stats = stats
        self._hub = hub
        local.on_change(lambda: hub.publish([LOCAL_CHANGE]))

    # -- this agent --------------------------------------------------------------------------

    @operation("Tells this agent's configuration and identity", tag="agent", answer=dict[str, Any])
    async def self_(self, request: web.Request) -> web.Response:
        """Configuration and identity."""
        settings, node = self._local.settings, self._local.node
        config = {
            "Datacenter": settings.datacenter,
            "PrimaryDatacenter": settings.datacenter,
            "NodeName": node.name,
            "NodeID": node.id,
            "Revision": "",
            "BuildDate": BUILD_DATE,
            "Server": settings.server,
            "Version": build(),
        }
        body = {
            "Config": config,
            "DebugConfig": debug_config(settings, node),
            "Coord": coord_json(self._local.coordinates.coordinate),
            "Member": self._own_member(),
            "Stats": self._agent_stats() | self._stats(),
            "Meta": node.meta,
            "xDS": None,
        }
        return _answer(request, body)

    @operation(
        "Lists the hosts with a lease",
        tag="agent",
        query=(
            Param("wan", "the servers alone", Flag),
            Param("segment", "`_all` or nothing: there are no network segments"),
        ),
        answer=list[dict[str, Any]],
    )
    async def members(self, request: web.Request) -> web.Response:
        """Hosts with a lease; this one is always among them."""
        if query_of(request).get("segment", "") not in {"", "_all"}:
            raise Rejected("Network segments are not supported in this version of Consul")
        listed = self._all_members()
        if "wan" in query_of(request):
            listed = [
                row | {"Name": f"{row['Name']}.{row['Tags']['dc']}"}
                for row in listed
                if row["Tags"]["role"] == "consul"
            ]
        return _answer(request, listed)

    # -- services ----------------------------------------------------------------------------

    @operation(
        "Lists the instances of this host by id",
        tag="agent",
        query=_FILTER,
        answer=dict[str, AgentServiceJson],
    )
    async def services(self, request: web.Request) -> web.Response:
        """All instances by id."""
        options = options_of(request, self._local.settings.datacenter)
        holds = compile_filter(options.filter, SERVICE)
        rows = {row.id: render.agent_service_json(row) for row in self._visible()}
        return _answer(request, {id_: row for id_, row in rows.items() if holds(row)})

    @operation(
        "Shows an instance of this host",
        tag="agent",
        query=(
            DATACENTER,
            Param("hash", "wait until the content differs from that with this hash"),
            Param("wait", "how long to wait at most", Duration),
        ),
        answer=AgentServiceHashJson,
        also={404: "there is no such instance"},
    )
    async def service(self, request: web.Request) -> web.Response:
        """One instance; with `?hash=` it waits until the content differs."""
        options = options_of(request, self._local.settings.datacenter)
        service_id = _id(request, "service ID")
        known = query_of(request).get("hash", "")
        body, content_hash = self._service_body(service_id)
        if known:
            until_s = self._local.now() + options.wait_s
            while content_hash == known:
                if not await self._hub.wait([LOCAL_CHANGE], until_s - self._local.now()):
                    break
                body, content_hash = self._service_body(service_id)
        return _answer(request, body, headers={"X-Consul-ContentHash": content_hash})

    @operation(
        "Registers an instance; answers when the catalog has it",
        tag="agent",
        query=(Param("replace-existing-checks", "checks that are not given again go", Flag),),
        body=ServiceBody,
    )
    async def register_service(self, request: web.Request) -> web.Response:
        """Registers an instance; the answer comes when the catalog has it."""
        definition = service_definition(
            json.loads(await request.read()), node=self._local.node.name
        )
        replace = "replace-existing-checks" in request.query and parse_bool(
            request.query["replace-existing-checks"] or "true", "replace-existing-checks"
        )
        await self._local.register_service(definition, replace_checks=replace)
        return web.Response()

    @operation("Removes an instance", tag="agent", also={404: "there is no such instance"})
    async def deregister_service(self, request: web.Request) -> web.Response:
        """Removes an instance."""
        await self._local.deregister_service(_id(request, "service ID"))
        return web.Response()

    @operation(
        "Takes an instance out of discovery, or back",
        tag="agent",
        query=_MAINTENANCE,
        also={404: "there is no such instance"},
    )
    async def service_maintenance(self, request: web.Request) -> web.Response:
        """Takes an instance out of discovery, or back."""
        service_id = _id(request, "service ID")
        enable = _enable(request)
        await self._local.set_maintenance(service_id, enable, request.query.get("reason", ""))
        return web.Response()

    @operation("Takes this host out of discovery, or back", tag="agent", query=_MAINTENANCE)
    async def maintenance(self, request: web.Request) -> web.Response:
        """Takes the host out of discovery, or back."""
        enable = _enable(request)
        await self._local.set_maintenance("", enable, request.query.get("reason", ""))
        return web.Response()

    # -- checks ------------------------------------------------------------------------------

    @operation(
        "Lists the checks of this host by id",
        tag="agent",
        query=_FILTER,
        answer=dict[str, CheckJson],
    )
    async def checks(self, request: web.Request) -> web.Response:
        """All checks by id."""
        options = options_of(request, self._local.settings.datacenter)
        holds = compile_filter(options.filter, CHECK)
        state = self._local.state
        rows = (state.check_row(check_id) for check_id in state.checks)
        body = {row.check_id: render.agent_check_json(row) for row in rows if row is not None}
        return _answer(request, {id_: row for id_, row in body.items() if holds(row)})

    @operation(
        "Registers a check", tag="agent", body=CheckBody, also={404: "there is no such service"}
    )
    async def register_check(self, request: web.Request) -> web.Response:
        """Registers a check."""
        await self._local.register_check(check_definition(json.loads(await request.read())))
        return web.Response()

    @operation("Removes a check", tag="agent", also={404: "there is no such check"})
    async def deregister_check(self, request: web.Request) -> web.Response:
        """Removes a check."""
        await self._local.deregister_check(_id(request, "check ID"))
        return web.Response()

    @operation(
        "Renews a TTL check with a status",
        tag="agent",
        query=(
            Param("verb", "the status", Literal["pass", "warn", "fail"]),
            Param("note", "why: becomes the check's output"),
        ),
        also={404: "there is no such check"},
    )
    async def assert_check(self, request: web.Request) -> web.Response:
        """Takes the word of a TTL check's owner."""
        status = CHECK_VERBS[request.match_info["verb"]]
        note = request.query.get("note", "")
        await self._local.assert_check(_id(request, "check ID"), status, note)
        return web.Response()

    @operation(
        "Renews a TTL check with the status and output of the body",
        tag="agent",
        body=CheckUpdateBody,
        also={404: "there is no such check"},
    )
    async def update_check(self, request: web.Request) -> web.Response:
        """Likewise, with status and output in the body."""
        status, output = check_update(await request.read())
        await self._local.assert_check(_id(request, "check ID"), status, output)
        return web.Response()

    # -- health of instances -----------------------------------------------------------------

    @operation(
        "Judges an instance; the HTTP status says how it is",
        tag="agent",
        query=_FORMAT,
        answer=_INSTANCE_HEALTH,
        also=dict.fromkeys((404, 429, 503), _INSTANCE_HEALTH),
    )
    async def health_by_id(self, request: web.Request) -> web.Response:
        """Judges one instance; the HTTP status says how it is."""
        service_id = _id(request, "service ID")
        try:
            info = self._judge(self._row(service_id))
        except NotFound:
            reason = f"ServiceId {service_id} not found"
            empty = {"AggregatedStatus": "critical", "Service": None, "Checks": None}
            return _judged(request, empty, reason, 404, text=reason)
        status = str(info["AggregatedStatus"])
        return _judged(request, info, status, _HTTP_STATUS[status], text=status)

    @operation(
        "Judges all instances of a name here; the worst decides the HTTP status",
        tag="agent",
        query=_FORMAT,
        answer=_SERVICE_HEALTH,
        also=dict.fromkeys((404, 429, 503), _SERVICE_HEALTH),
    )
    async def health_by_name(self, request: web.Request) -> web.Response:
        """Judges all instances of a name here; the worst decides the HTTP status."""
        name = request.match_info["name"]
        if not name:
            raise InvalidRequest("Missing service Name")
        infos = [self._judge(row) for row in self._visible() if row.name == name]
        if not infos:
            reason = f"ServiceName {name} Not Found"
            return _judged(request, [], reason, 404, text=reason)
        seen = {info["AggregatedStatus"] for info in infos}
        status = next(status for status in _WORST if status in seen)
        return _judged(request, infos, status, _HTTP_STATUS[status], text=status)

    # -- inside ------------------------------------------------------------------------------

    def _visible(self) -> list[ServiceInstance]:
        services = self._local.state.services.values()
        return [service.row for service in services if service.source is not Source.BUILTIN]

    def _row(self, service_id: str) -> ServiceInstance:
        service = self._local.state.services.get(service_id)
        if service is None or service.source is Source.BUILTIN:
            raise NotFound(f"unknown service ID: {service_id}")
        return service.row

    def _service_body(self, service_id: str) -> tuple[Json, str]:
        row = self._row(service_id)
        body = render.agent_service_json(row, datacenter=self._local.settings.datacenter)
        content_hash = hashlib.sha256(json.dumps(body)).hexdigest()[:16]
        return body | {"ContentHash": content_hash}, content_hash

    def _judge(self, row: ServiceInstance) -> Json:
        status, checks, in_maintenance = self._local.state.health_of(row.id)
        return {
            "AggregatedStatus": "maintenance" if in_maintenance else status.value,
            "Service": render.agent_service_json(row),
            "Checks": _check_list(checks),
        }

    def _all_members(self) -> list[Json]:
        known = [row for row in members(self._catalog()) if row["Name"] != self._local.node.name]
        return sorted([*known, self._own_member()], key=lambda row: str(row["Name"]))

    def _own_member(self) -> Json:
        settings = self._local.settings
        port = settings.raft_port if settings.server else 0
        return member_json(self._local.node, raft_port=port, alive=True)

    def _agent_stats(self) -> dict[str, dict[str, str]]:
        state = self._local.state
        own = {
            "agent": {
                "check_monitors": str(self._local.scheduler.running),
                "check_ttls": str(sum(c.definition.ttl_s > 0 for c in state.checks.values())),
                "checks": str(len(state.checks)),
                "services": str(len(state.services)),
                "lease_held": str(self._local.lease.held).lower(),
                "synced": str(self._local.ledger.settled).lower(),
            }
        }
        return own | program_stats() | member_stats(self._all_members())


def check_update(body: bytes) -> tuple[Status, str]:
    """Status and output in the body of a check's update.

    Raises:
        InvalidRequest: The body is malformed.
    """
    fields = Fields(json.loads(body))
    text = fields.text("Status")
    try:
        return Status(text), fields.text("Output")
    except ValueError as error:
        raise InvalidRequest(f"Invalid check status: {text[:64]!r}") from error


def _id(request: web.Request, what: str) -> str:
    found = request.match_info["id"]
    if not found:
        raise InvalidRequest(f"Missing {what}")
    return found


def _enable(request: web.Request) -> bool:
    if "enable" not in request.query:
        raise InvalidRequest("Missing value for enable")
    return parse_bool(request.query["enable"], "enable")


def _check_list(checks: Iterable[Check]) -> list[CheckJson]:
    return [render.agent_check_json(check) for check in checks]


def _answer(
    request: web.Request, body: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=json.dumps(body, pretty="pretty" in request.query),
        status=status,
        content_type="application/json",
        headers={"Vary": "Accept-Encoding"} | (headers or {}),
    )


def _judged(
    request: web.Request, body: object, reason: str, status: int, *, text: str
) -> web.Response:
    headers = {"X-Consul-Reason": header_value(reason)}
    if request.query.get("format") == "text":
        return text_response(text, status, headers)
    return _answer(request, body, status=status, headers=headers)
