"""/v1/operator/keyring: the keys of Consul's gossip, of which there is none here.

https://developer.hashicorp.com/consul/api-docs/operator/keyring. Servers authenticate each other by
a shared key or by certificates (docs/configuration.md), which no request changes. So each of these
answers as a Consul cluster that runs without encryption: 500, with the errors of all its servers.
"""

from __future__ import annotations

from typing import TypedDict

from aiohttp import web

from raftreg.errors import InvalidRequest, Rejected
from raftreg.http import json
from raftreg.http.discovery import options_of, query_of
from raftreg.http.fields import Fields
from raftreg.http.operation import DATACENTER, Param, operation
from raftreg.http.params import parse_bool, parse_uint
from raftreg.server.api.context import Context

PATH = "/v1/operator/keyring"
RELAY_FACTOR_MAX = 5
_EMPTY = "Keyring is empty (encryption not enabled)"
_NOTHING_TO_CHANGE = "No keyring to modify (encryption not enabled)"
_QUERY = (DATACENTER, Param("relay-factor", "0 to 5; means nothing here"))


class KeyBody(TypedDict):
    """The key in question, in base64."""

    Key: str


class Keyring:
    """The keyring that is empty.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.get(PATH, self.list_keys),
            web.post(PATH, self.change),
            web.put(PATH, self.change),
            web.delete(PATH, self.change),
        ]

    @operation(
        "Lists the keys of the gossip: refused, there is no gossip",
        tag="operator",
        query=(*_QUERY, Param("local-only", "of this datacenter alone: `true` or `false`")),
    )
    async def list_keys(self, request: web.Request) -> web.Response:
        """Says that there is none."""
        self._check(request)
        raise self._failed(_EMPTY)

    @operation(
        "Installs (POST), uses (PUT) or removes (DELETE) a key of the gossip: refused",
        tag="operator",
        query=_QUERY,
        body=KeyBody,
    )
    async def change(self, request: web.Request) -> web.Response:
        """Says that there is nothing to change; the key is not repeated."""
        self._check(request)
        if "local-only" in query_of(request):
            raise InvalidRequest(
                "Invalid use of local-only: local-only can only be set for GET requests"
            )
        Fields(json.loads(await request.read())).text("Key")
        raise self._failed(_NOTHING_TO_CHANGE)

    def _check(self, request: web.Request) -> None:
        options_of(request, self._context.settings.datacenter)
        params = query_of(request)
        wrong = "Error parsing relay factor: it must be a number from 0 to 5"
        if parse_uint(params.get("relay-factor", "") or "0", wrong) > RELAY_FACTOR_MAX:
            raise InvalidRequest("Invalid relay-factor: relay factor must be in range: [0, 5]")
        if params.get("local-only", ""):
            parse_bool(params["local-only"], "local-only")

    def _failed(self, why: str) -> Rejected:
        """The errors of all servers, as Consul gathers them."""
        names = [server.name for server in self._context.replica.status().servers]
        errors = [
            f"{self._context.settings.datacenter} (LAN) error: "
            f"{len(names)}/{len(names)} nodes reported failure",
            *(f"{name}: {why}" for name in names),
        ]
        listed = "".join(f"\t* {error}\n" for error in errors)
        return Rejected(f"{len(errors)} errors occurred:\n{listed}\n")
