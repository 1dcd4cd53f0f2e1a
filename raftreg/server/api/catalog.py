"""Writes of /v1/catalog; its reads are in `raftreg.http.discovery`."""

from __future__ import annotations

from aiohttp import web

from raftreg.http import json
from raftreg.http.bodies import CatalogDeregistrationBody, CatalogRegistrationBody
from raftreg.http.discovery import query_of
from raftreg.http.operation import DATACENTER, operation
from raftreg.http.problems import check_datacenter
from raftreg.http.reply import TRUE, Reply
from raftreg.http.rows import catalog_deregistration, catalog_registration, datacenter_of
from raftreg.server.api.context import Context
from raftreg.server.writes import read_body, write_head


class Catalog:
    """Registration from outside, for hosts without an agent.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.put("/v1/catalog/register", self.register),
            web.put("/v1/catalog/deregister", self.deregister),
        ]

    @operation(
        "Registers a node, and with it an instance and checks",
        tag="catalog",
        query=(DATACENTER,),
        body=CatalogRegistrationBody,
        answer=bool,
    )
    async def register(self, request: web.Request) -> Reply:
        """Writes a node, and with it an instance and checks."""
        command = catalog_registration(await self._body(request), datacenter=self._datacenter)
        outcome = await self._context.writes.run(request, command)
        return Reply(TRUE, head=write_head(outcome))

    @operation(
        "Removes an instance, a check, or a node with all it has",
        tag="catalog",
        query=(DATACENTER,),
        body=CatalogDeregistrationBody,
        answer=bool,
    )
    async def deregister(self, request: web.Request) -> Reply:
        """Removes an instance, a check, or a node with all it has; what is not there is fine."""
        command = catalog_deregistration(await self._body(request))
        outcome = await self._context.writes.run(request, command)
        return Reply(TRUE, head=write_head(outcome))

    async def _body(self, request: web.Request) -> object:
        limits = self._context.settings.http
        body = json.loads(await read_body(request, limits.body_bytes_max))
        check_datacenter(datacenter_of(body), self._datacenter)
        check_datacenter(query_of(request).get("dc", ""), self._datacenter)
        return body
