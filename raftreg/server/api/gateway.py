"""What stands behind gateways: /v1/catalog/gateway-services, /v1/health/ingress."""

from __future__ import annotations

from typing import TypedDict

from aiohttp import web

from raftreg.core import mesh_query
from raftreg.core.entries import INGRESS_GATEWAY, TERMINATING_GATEWAY
from raftreg.core.mesh_query import GatewayService
from raftreg.errors import InvalidRequest
from raftreg.http import render
from raftreg.http.filter import compile_filter
from raftreg.http.filter_fields import HEALTH_ENTRY
from raftreg.http.operation import Flag, Param, operation
from raftreg.http.reply import Reply
from raftreg.http.shapes import HealthEntryJson
from raftreg.server.api.context import Context
from raftreg.server.api.reading import Reading


class NamedJson(TypedDict):
    """A service by its name."""

    Name: str


class GatewayServiceJson(TypedDict, total=False):
    """A service behind a gateway; which fields are there depends on the kind of gateway."""

    Gateway: NamedJson
    Service: NamedJson
    GatewayKind: str
    Port: int
    Protocol: str
    Hosts: list[str]
    CAFile: str
    CertFile: str
    KeyFile: str
    SNI: str
    FromWildcard: bool
    CreateIndex: int
    ModifyIndex: int


class Gateways:
    """The endpoints that configuration and catalog answer together.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.get("/v1/catalog/gateway-services/{gateway:(?s:.*)}", self.services),
            web.get("/v1/health/ingress/{service:(?s:.*)}", self.ingress),
        ]

    @operation(
        "Lists the services behind a gateway",
        tag="catalog",
        reads=True,
        answer=list[GatewayServiceJson],
    )
    async def services(self, request: web.Request) -> Reply:
        """By the gateway's configuration entry."""
        gateway = request.match_info["gateway"]
        if not gateway:
            raise InvalidRequest("Missing gateway name")
        reading = Reading(self._context, request)
        found = await reading.find(
            mesh_query.topics_gateway_services(),
            lambda state: mesh_query.gateway_services(state, gateway),
        )
        return reading.reply(found.index, [_gateway_service_json(row) for row in found.value])

    @operation(
        "Lists the instances of the ingress gateways that expose a service",
        tag="health",
        reads=True,
        query=(Param("passing", "only instances whose checks all pass", Flag),),
        answer=list[HealthEntryJson],
    )
    async def ingress(self, request: web.Request) -> Reply:
        """Gateways with their checks."""
        service = request.match_info["service"]
        if not service:
            raise InvalidRequest("Missing service name")
        reading = Reading(self._context, request)
        holds = compile_filter(reading.options.filter, HEALTH_ENTRY)
        passing = reading.options.passing
        found = await reading.find(
            mesh_query.topics_ingress(),
            lambda state: mesh_query.ingress_instances(state, service, passing_only=passing),
        )
        rows = [
            render.health_entry_json(entry.node, entry.service, entry.checks)
            for entry in found.value
        ]
        return reading.reply(found.index, [row for row in rows if holds(row)])


def _gateway_service_json(row: GatewayService) -> GatewayServiceJson:
    out = GatewayServiceJson(
        Gateway=NamedJson(Name=row.gateway),
        Service=NamedJson(Name=row.service),
        GatewayKind=row.kind,
        CreateIndex=row.create_index,
        ModifyIndex=row.modify_index,
    )
    if row.kind == INGRESS_GATEWAY:
        out["Port"], out["Protocol"] = row.port, row.protocol
        if row.hosts:
            out["Hosts"] = list(row.hosts)
    if row.kind == TERMINATING_GATEWAY:
        out["CAFile"] = row.linked.get("CAFile", "")
        out["CertFile"] = row.linked.get("CertFile", "")
        out["KeyFile"] = row.linked.get("KeyFile", "")
        out["SNI"] = row.linked.get("SNI", "")
    if row.from_wildcard:
        out["FromWildcard"] = True
    return out
