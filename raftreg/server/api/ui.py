"""/v1/internal/ui: what Consul's web page asks for, and some tools with it.

Consul promises nothing about these endpoints. The shapes are those of its `agent/ui_endpoint.go`.
Nothing is exported, since there are no peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypedDict

from aiohttp import web

from raftreg.core import intentions, mesh_query, query
from raftreg.core.catalog import Catalog
from raftreg.core.mesh_query import GatewayService
from raftreg.core.query import ServiceEntry
from raftreg.core.state import State
from raftreg.errors import InvalidRequest, NotFound
from raftreg.http import overview
from raftreg.http.catalog_query import CatalogQuery
from raftreg.http.config_render import IntentionJson, intention_json
from raftreg.http.discovery import answer, options_of, query_of
from raftreg.http.filter import compile_filter
from raftreg.http.filter_fields import HEALTH_ENTRY, NODE
from raftreg.http.middleware import UNTIMED
from raftreg.http.operation import Param, operation
from raftreg.http.overview import (
    CatalogOverviewJson,
    ListedServiceJson,
    NodeDumpJson,
    SummaryJson,
)
from raftreg.http.params import ReadOptions
from raftreg.http.render import health_entry_json, node_json
from raftreg.http.reply import TEXT, Reply
from raftreg.server.api.context import Context
from raftreg.server.api.reading import Reading

PREFIX = "/v1/internal/ui"
_KINDS = ("", "ingress-gateway")


class DecisionJson(TypedDict):
    """Whether a call is allowed, and what decided it."""

    DefaultAllow: bool
    Allowed: bool
    HasPermissions: bool
    ExternalSource: str
    HasExact: bool


class NeighbourJson(SummaryJson):
    """A service that calls this one, or is called by it."""

    Source: str
    Intention: DecisionJson


class TopologyJson(TypedDict):
    """Who calls a service, and whom it calls."""

    Protocol: str
    TransparentProxy: bool
    Upstreams: list[NeighbourJson]
    Downstreams: list[NeighbourJson]
    FilteredByACLs: bool


class UserInterface:
    """The endpoints.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.get(f"{PREFIX}/nodes", self.nodes),
            web.get(f"{PREFIX}/node/{{name:(?s:.*)}}", self.node),
            web.get(f"{PREFIX}/services", self.services),
            web.get(f"{PREFIX}/exported-services", self.exported),
            web.get(f"{PREFIX}/catalog-overview", self.overview),
            web.get(f"{PREFIX}/service-topology/{{name:(?s:.*)}}", self.topology),
            web.get(f"{PREFIX}/gateway-services-nodes/{{name:(?s:.*)}}", self.behind_gateway),
            web.get(f"{PREFIX}/gateway-intentions/{{name:(?s:.*)}}", self.gateway_intentions),
            web.get(f"{PREFIX}/metrics-proxy/{{path:(?s:.*)}}", self.metrics),
        ]

    @operation(
        "Lists the hosts with all that they have",
        tag="internal",
        reads=True,
        answer=list[NodeDumpJson],
    )
    async def nodes(self, request: web.Request) -> Reply:
        """All hosts."""
        options = self._options(request)
        holds = compile_filter(options.filter, NODE)

        def json(catalog: Catalog) -> list[NodeDumpJson]:
            rows = query.nodes(catalog).value
            return [overview.node_dump_json(catalog, row) for row in rows if holds(node_json(row))]

        return await self._answer(request, options, ("ui-nodes", options.filter), json)

    @operation(
        "Shows a host with all that it has",
        tag="internal",
        reads=True,
        answer=NodeDumpJson,
        also={404: "there is no such host"},
    )
    async def node(self, request: web.Request) -> Reply:
        """One host; 404 without a body when there is none."""
        name = _named(request, "node")
        reading = Reading(self._context, request)
        topics = (*query.topics_node(name), *query.topics_checks_of_node(name))

        def find(state: State) -> query.Found[NodeDumpJson | None]:
            row = state.catalog.find_node(name)
            body = None if row is None else overview.node_dump_json(state.catalog, row)
            return query.Found(state.catalog.last_change(topics), body)

        found = await reading.find(topics, find)
        if found.value is None:
            return Reply(b"", 404, TEXT, reading.head(found.index))
        return reading.reply(found.index, found.value)

    @operation(
        "Lists the services with counts of instances and checks",
        tag="internal",
        reads=True,
        answer=list[ListedServiceJson],
    )
    async def services(self, request: web.Request) -> Reply:
        """All services."""
        options = self._options(request)
        holds = compile_filter(options.filter, HEALTH_ENTRY)

        def kept(entry: ServiceEntry) -> bool:
            return holds(health_entry_json(entry.node, entry.service, entry.checks))

        def json(catalog: Catalog) -> list[ListedServiceJson]:
            found = overview.entries(catalog)
            return overview.listed_services(filter(kept, found) if options.filter else found)

        return await self._answer(request, options, ("ui-services", options.filter), json)

    @operation(
        "Lists the services exported to a peer: none",
        tag="internal",
        reads=True,
        answer=list[ListedServiceJson],
    )
    async def exported(self, request: web.Request) -> Reply:
        """There are no peers."""
        options = self._options(request)
        return await self._answer(request, options, ("ui-exported",), lambda _: [])

    @operation(
        "Counts hosts, instances and checks by their health",
        tag="internal",
        reads=True,
        answer=CatalogOverviewJson,
    )
    async def overview(self, request: web.Request) -> Reply:
        """The catalog at a glance."""
        options = self._options(request)
        return await self._answer(request, options, ("ui-overview",), overview.overview)

    @operation(
        "Tells who calls a service, and whom it calls",
        tag="internal",
        about="As the registrations of proxies name their upstreams, with the intentions that "
        "decide over the calls.",
        reads=True,
        query=(Param("kind", "of the service: nothing, or `ingress-gateway`", required=True),),
        answer=TopologyJson,
    )
    async def topology(self, request: web.Request) -> Reply:
        """Upstreams and downstreams."""
        name = _named(request, "service")
        kind = query_of(request).get("kind")
        if kind is None:
            raise InvalidRequest("Missing service kind")
        if kind not in _KINDS:
            raise InvalidRequest(f'Unsupported service kind "{kind[:64]}"')
        reading = Reading(self._context, request)
        topics = (*_ALL_TOPICS, *query.topics_config("service-intentions"))

        def find(state: State) -> query.Found[TopologyJson]:
            index = max(
                state.catalog.last_change(_ALL_TOPICS),
                query.config_list(state, "service-intentions").index,
            )
            return query.Found(index, topology_json(state, name))

        found = await reading.find(topics, find)
        return reading.reply(found.index, found.value)

    @operation(
        "Lists the services behind a gateway with counts of instances and checks",
        tag="internal",
        reads=True,
        answer=list[SummaryJson],
    )
    async def behind_gateway(self, request: web.Request) -> Reply:
        """By the gateway's configuration entry."""
        name = _named(request, "gateway")
        reading = Reading(self._context, request)
        domain = self._context.settings.dns.domain
        suffix = f"ingress.{self._datacenter}.{domain}"
        topics = (*mesh_query.topics_gateway_services(), *_ALL_TOPICS)

        def find(state: State) -> query.Found[list[SummaryJson]]:
            behind = mesh_query.gateway_services(state, name)
            index = max(behind.index, state.catalog.last_change(_ALL_TOPICS))
            return query.Found(index, gateway_json(state.catalog, behind.value, suffix))

        found = await reading.find(topics, find)
        return reading.reply(found.index, found.value)

    @operation(
        "Lists the intentions of the services behind a gateway",
        tag="internal",
        reads=True,
        answer=list[IntentionJson],
    )
    async def gateway_intentions(self, request: web.Request) -> Reply:
        """Those that decide over calls to any of them."""
        name = _named(request, "gateway")
        reading = Reading(self._context, request)
        own = query.topics_config("service-intentions")

        def find(state: State) -> query.Found[list[IntentionJson]]:
            behind = mesh_query.gateway_services(state, name)
            index = max(behind.index, query.config_list(state, "service-intentions").index)
            covering = {
                (one.source, one.destination): one
                for row in behind.value
                for one in intentions.matching_destination(state.config, row.service)
            }
            return query.Found(index, [intention_json(one) for one in covering.values()])

        found = await reading.find((*mesh_query.topics_gateway_services(), *own), find)
        return reading.reply(found.index, found.value)

    @operation(
        "Asks the metrics of the mesh: there is no backend for them",
        tag="internal",
        also={404: "Metrics proxy is not enabled"},
    )
    async def metrics(self, request: web.Request) -> Reply:
        """404, as of a Consul whose page has no metrics."""
        del request
        raise NotFound("Metrics proxy is not enabled")

    def _options(self, request: web.Request) -> ReadOptions:
        options = options_of(request, self._datacenter)
        if options.index:
            request[UNTIMED] = True
        return options

    async def _answer(
        self,
        request: web.Request,
        options: ReadOptions,
        key: tuple[str, ...],
        json: Callable[[Catalog], Any],
    ) -> Reply:
        asked = CatalogQuery(key, _ALL_TOPICS, json)
        return await answer(self._context.reads, request, options, asked)


#: Anything of any host, instance or check.
_ALL_TOPICS = (*query.topics_instances(), *query.topics_checks_in_state(query.ANY_STATE))


def topology_json(state: State, service: str) -> TopologyJson:
    """Who calls a service, and whom it calls."""
    upstreams, downstreams = overview.neighbours(state.catalog, service)

    def neighbour(summary: SummaryJson, source: str, destination: str) -> NeighbourJson:
        decision = decision_json(state, source, destination)
        return NeighbourJson(**summary, Source="proxy-registration", Intention=decision)

    own = overview.summarize(overview.entries(state.catalog)).get(service)
    return {
        "Protocol": "tcp",
        "TransparentProxy": own is not None and own.json()["TransparentProxy"],
        "Upstreams": [
            neighbour(summary, service, summary["Name"])
            for summary in overview.summaries_of(state.catalog, upstreams)
        ],
        "Downstreams": [
            neighbour(summary, summary["Name"], service)
            for summary in overview.summaries_of(state.catalog, downstreams)
        ],
        "FilteredByACLs": False,
    }


def gateway_json(
    catalog: Catalog, behind: Iterable[GatewayService], suffix: str
) -> list[SummaryJson]:
    """Summaries of the services behind a gateway, also of those without an instance.

    Args:
        catalog: Where instances are.
        behind: What the gateway's entry names.
        suffix: Ends the names under which DNS gives ingress gateways.
    """
    addresses: dict[str, dict[str, None]] = {}
    for row in behind:
        hosts = row.hosts or (f"{row.service}.{suffix}",)
        known = addresses.setdefault(row.service, {})
        if row.port:
            known.update(dict.fromkeys(f"{host}:{row.port}" for host in hosts))
    summaries = overview.summarize(overview.entries(catalog))
    found = []
    for name in sorted(addresses):
        summary = summaries.get(name, overview.Summary(name)).json()
        if addresses[name]:
            summary["GatewayConfig"] = {"Addresses": list(addresses[name])}
        found.append(summary)
    return found


def decision_json(state: State, source: str, destination: str) -> DecisionJson:
    """What decides over calls from one service to another."""
    deciding = intentions.deciding(state.config, source, destination)
    return {
        "DefaultAllow": True,
        "Allowed": intentions.is_allowed(deciding),
        "HasPermissions": deciding is not None and bool(deciding.permissions),
        "ExternalSource": "" if deciding is None else deciding.meta.get("external-source", ""),
        "HasExact": deciding is not None
        and (deciding.source, deciding.destination) == (source, destination),
    }


def _named(request: web.Request, what: str) -> str:
    name = request.match_info["name"]
    if not name:
        raise InvalidRequest(f"Missing {what} name")
    return name
