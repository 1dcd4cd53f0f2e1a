"""/v1/discovery-chain: https://developer.hashicorp.com/consul/api-docs/discovery-chain."""

from __future__ import annotations

from typing import Literal, TypedDict

from aiohttp import web

from raftreg.core import query
from raftreg.core.chain import Overrides, compile_chain
from raftreg.core.chain_graph import Chain, ChainError
from raftreg.core.entries.common import Duration, MeshGateway
from raftreg.core.query import Found
from raftreg.core.state import State
from raftreg.errors import InvalidRequest
from raftreg.http import json
from raftreg.http.config_body import typed
from raftreg.http.discovery import query_of
from raftreg.http.operation import Param, operation
from raftreg.http.params import Consistency
from raftreg.http.problems import check_datacenter
from raftreg.http.reply import Reply
from raftreg.server.api.context import Context
from raftreg.server.api.reading import Reading
from raftreg.server.authority import AuthorityDesk
from raftreg.server.writes import read_body

_COMPILE_DC = Param("compile-dc", "the datacenter to compile for: this one's name, or nothing")


class ChainBody(TypedDict, total=False):
    """What the caller wants to be otherwise than the entries say."""

    OverrideConnectTimeout: Duration
    OverrideProtocol: Literal["", "tcp", "http", "http2", "grpc"]
    OverrideMeshGateway: MeshGateway


class ChainJson(TypedDict):
    """A compiled chain."""

    Chain: Chain


class DiscoveryChains:
    """The endpoint of compiled chains.

    Args:
        context: The collaborators.
        desk: Names the trust domain.
    """

    def __init__(self, context: Context, desk: AuthorityDesk) -> None:
        self._context = context
        self._desk = desk
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        path = "/v1/discovery-chain/{service:(?s:.+)}"
        return [web.get(path, self.show), web.post(path, self.compile)]

    @operation(
        "Compiles the discovery chain of a service",
        tag="discovery-chain",
        reads=True,
        query=(_COMPILE_DC,),
        answer=ChainJson,
    )
    async def show(self, request: web.Request) -> Reply:
        """The chain as the entries have it."""
        return await self._answer(request, Overrides())

    @operation(
        "Compiles the discovery chain of a service, some things otherwise",
        tag="discovery-chain",
        reads=True,
        query=(_COMPILE_DC,),
        body=ChainBody,
        body_required=False,
        answer=ChainJson,
    )
    async def compile(self, request: web.Request) -> Reply:
        """The chain with the caller's overrides."""
        data = await read_body(request, self._context.settings.http.body_bytes_max)
        body = typed(ChainBody, json.loads(data) if data.strip() else {})
        timeout = body.get("OverrideConnectTimeout", "")
        if timeout.startswith("-"):
            raise InvalidRequest(f"OverrideConnectTimeout must not be negative: {timeout}")
        overrides = Overrides(
            protocol=body.get("OverrideProtocol", ""),
            connect_timeout="" if timeout == "0s" else timeout,
            mesh_gateway=body.get("OverrideMeshGateway", {}).get("Mode", ""),
        )
        return await self._answer(request, overrides)

    async def _answer(self, request: web.Request, overrides: Overrides) -> Reply:
        service = request.match_info["service"]
        check_datacenter(query_of(request).get("compile-dc", ""), self._datacenter)
        reading = Reading(self._context, request)
        if reading.options.consistency is not Consistency.STALE:
            await self._desk.ensure()  # the trust domain is part of the answer

        def compiled(state: State) -> Found[Chain]:
            chain = compile_chain(
                state.config,
                service,
                datacenter=self._datacenter,
                trust_domain=state.connect.trust_domain,
                overrides=overrides,
            )
            return Found(query.chain_index(state), chain)

        try:
            found = await reading.find(query.topics_chain(), compiled)
        except ChainError as error:
            raise InvalidRequest(str(error)) from error
        return reading.reply(found.index, ChainJson(Chain=found.value))
