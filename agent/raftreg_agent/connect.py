"""/v1/agent/connect: certificates for services of this host, and who may call them.

See https://developer.hashicorp.com/consul/api-docs/agent/connect.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict

import msgspec
from aiohttp import web

from raftreg.client.api import RegistryClient
from raftreg.core.spiffe import ServiceIdentity, parse_service
from raftreg.errors import InvalidRequest, RaftregError
from raftreg.http import json
from raftreg.http.config_body import typed
from raftreg.http.connect_shapes import AuthorizeJson, LeafJson, RootsJson
from raftreg.http.discovery import options_of
from raftreg.http.fields import name_of
from raftreg.http.operation import operation
from raftreg.http.params import ReadOptions
from raftreg_agent.certificates import DEADLINE_S, MeshCertificates

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MATCH_PATH = "/v1/connect/intentions/match"
TARGETS_MAX = 1024  #: services whose intentions are kept for when no server can be asked


class AuthorizeBody(TypedDict, total=False):
    """A caller's certificate, and whom it wants to call."""

    Target: str
    ClientCertURI: str
    ClientCertSerial: str
    Namespace: str
    Partition: str


class MatchedIntention(msgspec.Struct, frozen=True, rename="pascal"):
    """What of an intention decides over a connection."""

    source_name: str
    destination_name: str
    precedence: int
    action: str = ""
    id: str = msgspec.field(default="", name="ID")


class ConnectRoutes:
    """Handlers of an agent.

    Args:
        certificates: Roots and leaves.
        client: Where servers are.
        datacenter: This one.
    """

    def __init__(
        self, certificates: MeshCertificates, client: RegistryClient, datacenter: str
    ) -> None:
        self._certificates = certificates
        self._client = client
        self._datacenter = datacenter
        self._known: OrderedDict[str, list[MatchedIntention]] = OrderedDict()

    def table(self) -> list[tuple[str, str, Handler]]:
        """(method, path under /v1/agent, handler)."""
        return [
            ("GET", "connect/ca/roots", self.roots),
            ("GET", "connect/ca/leaf/{service:(?s:.*)}", self.leaf),
            ("POST", "connect/authorize", self.authorize),
        ]

    @operation(
        "Lists the root certificates, from this agent's memory",
        tag="agent",
        reads=True,
        answer=RootsJson,
    )
    async def roots(self, request: web.Request) -> web.Response:
        """Roots as this agent follows them."""
        options = options_of(request, self._datacenter)
        found = await self._certificates.roots(options.index, _wait_s(options))
        return _answer(found.json, found.index, options)

    @operation(
        "Gives the certificate of a service, with its key",
        tag="agent",
        about="The agent makes the key, keeps it in memory, and renews in time; `index` waits for "
        "the next certificate.",
        reads=True,
        answer=LeafJson,
    )
    async def leaf(self, request: web.Request) -> web.Response:
        """The leaf of one service."""
        service = request.match_info["service"]
        if not service:
            raise InvalidRequest("Missing service name")
        name_of(service, "service name")
        options = options_of(request, self._datacenter)
        leaf = await self._certificates.leaf(service, options.index, _wait_s(options))
        return _answer(leaf, leaf["ModifyIndex"], options)

    @operation(
        "Tells whether the owner of a certificate may connect to a service",
        tag="agent",
        body=AuthorizeBody,
        answer=AuthorizeJson,
    )
    async def authorize(self, request: web.Request) -> web.Response:
        """Decides by the intentions of the target."""
        options = options_of(request, self._datacenter)
        body = typed(AuthorizeBody, json.loads(await request.read()))
        target = body.get("Target", "")
        if not target:
            raise InvalidRequest("Target service must be specified")
        name_of(target, "target")
        try:
            caller = parse_service(body.get("ClientCertURI", ""))
        except ValueError as error:
            raise InvalidRequest("ClientCertURI not a valid Connect identifier") from error
        roots = await self._certificates.roots()
        domain = roots.json["TrustDomain"]
        if caller.trust_domain != domain:
            reason = f"Identity from an external trust domain: {caller.trust_domain}"
            return _answer(AuthorizeJson(Authorized=False, Reason=reason), roots.index, options)
        judged = judge(caller, target, await self._intentions(target))
        return _answer(judged, roots.index, options)

    async def _intentions(self, target: str) -> list[MatchedIntention]:
        """Intentions that cover calls to a service; the last known ones when nobody can be asked.

        Raises:
            RaftregError: None are known, and no server can be asked.
        """
        params = {"by": "destination", "name": target}
        try:
            answer = await self._client.request(
                "GET", MATCH_PATH, params=params, deadline_s=DEADLINE_S
            )
        except RaftregError:
            if target not in self._known:
                raise
            return self._known[target]
        found: list[MatchedIntention] = answer.json(dict[str, list[MatchedIntention]])[target]
        self._known[target] = found
        self._known.move_to_end(target)
        if len(self._known) > TARGETS_MAX:
            self._known.popitem(last=False)
        return found


def judge(caller: ServiceIdentity, target: str, covering: list[MatchedIntention]) -> AuthorizeJson:
    """Decides over a connection.

    Args:
        caller: Whose certificate it is.
        target: The service that is called.
        covering: Intentions of the target, those that decide first at the head.
    """
    for each in covering:
        if each.source_name in (caller.service, "*"):
            pair = f"default/{each.source_name} => default/{each.destination_name}"
            what = each.action.upper() or "by PERMISSIONS, which decide request by request"
            reason = f"Matched intention: {what} {pair} (ID: {each.id}, Precedence: "
            return AuthorizeJson(
                Authorized=each.action == "allow", Reason=f"{reason}{each.precedence})"
            )
    return AuthorizeJson(
        Authorized=True, Reason=f"Default behavior configured by ACLs: no intention of {target}"
    )


def _wait_s(options: ReadOptions) -> float:
    return options.wait_s if options.index else 0.0


def _answer(body: Any, index: int, options: ReadOptions) -> web.Response:
    return web.Response(
        body=json.dumps(body, pretty=options.pretty),
        content_type="application/json",
        headers={
            "X-Consul-Index": str(index),
            "X-Consul-KnownLeader": "true",
            "X-Consul-LastContact": "0",
            "X-Cache": "HIT",
        },
    )
