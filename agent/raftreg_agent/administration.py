"""/v1/agent/*: the endpoints that steer an agent, and tell of its host and its log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypedDict

from aiohttp import web

from raftreg.core.catalog import Catalog
from raftreg.errors import InvalidRequest, Rejected
from raftreg.http import json
from raftreg.http.discovery import options_of, query_of
from raftreg.http.middleware import BEGUN, UNTIMED
from raftreg.http.operation import PLAIN, Flag, Param, operation
from raftreg.http.problems import AclDisabled
from raftreg.model import SERF_HEALTH, Status
from raftreg.version import build
from raftreg_agent.host_info import HostJson, host_json
from raftreg_agent.identity import BUILD_DATE
from raftreg_agent.local import LocalAgent
from raftreg_agent.monitor import Monitors, as_json, as_text, level_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
FORCE_LEAVE_DEADLINE_S = 5.0


class VersionJson(TypedDict):
    """Which program this is."""

    SHA: str
    BuildDate: str
    HumanVersion: str
    FIPS: str


async def refuse_join(address: str) -> None:
    """What a server does: membership of the cluster is a matter of consensus.

    Raises:
        Rejected: Always.
    """
    raise Rejected(
        f"Failed to join {address[:128]}: a server joins a cluster when it starts, by --join; "
        "an agent takes this call"
    )


class Administration:
    """Handlers over a `LocalAgent`.

    Args:
        local: The agent.
        catalog: What it knows of the other hosts.
        join: Takes the address of one more server; None refuses.
    """

    def __init__(
        self,
        local: LocalAgent,
        catalog: Callable[[], Catalog],
        join: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._local = local
        self._catalog = catalog
        self._join = join or refuse_join
        self._monitors = Monitors()
        local.on_stop(self._monitors.close)

    def table(self) -> list[tuple[str, str, Handler]]:
        """(method, path below /v1/agent/, handler)."""
        return [
            ("GET", "monitor", self.monitor),
            ("GET", "host", self.host),
            ("GET", "version", self.version),
            ("PUT", "reload", self.reload),
            ("PUT", "leave", self.leave),
            ("PUT", "force-leave/{node:(?s:.*)}", self.force_leave),
            ("PUT", "join/{address:(?s:.*)}", self.join),
            ("PUT", "token/{kind:(?s:.*)}", self.token),
        ]

    @operation(
        "Streams the log of this process as it is written",
        tag="agent",
        about="One line an event, until the client goes or the agent stops. Lines that a slow "
        "client has no room for are dropped, and their number is said.",
        query=(
            Param(
                "loglevel",
                "lowest level: info by default",
                Literal["", "trace", "debug", "info", "warn", "err", "error"],
            ),
            Param("logjson", "JSON objects instead of text", Flag),
        ),
        answer=PLAIN,
        also={429: "too many clients follow the log already"},
    )
    async def monitor(self, request: web.Request) -> web.StreamResponse:
        """The log, line by line."""
        params = query_of(request)
        level = level_of(params.get("loglevel", ""))
        with self._monitors.tap(level, as_json if "logjson" in params else as_text) as tap:
            response = web.StreamResponse()
            response.content_type = "application/json" if "logjson" in params else "text/plain"
            request[UNTIMED] = True
            await response.prepare(request)
            request[BEGUN] = response
            if request.method == "HEAD":
                return response
            async for lines in tap.batches():
                await response.write(lines)
            await response.write_eof()
            return response

    @operation("Tells what this host is made of", tag="agent", answer=HostJson)
    async def host(self, request: web.Request) -> web.Response:
        """Memory, processors, system and disk."""
        directory = self._local.settings.data_dir or "/"
        return _json(request, await asyncio.to_thread(host_json, directory, self._local.wall()))

    @operation("Tells the version of this agent", tag="agent", answer=VersionJson)
    async def version(self, request: web.Request) -> web.Response:
        """Which program this is."""
        body: VersionJson = {
            "SHA": "",
            "BuildDate": BUILD_DATE,
            "HumanVersion": build(),
            "FIPS": "",
        }
        return _json(request, body)

    @operation("Reads the definition files again", tag="agent")
    async def reload(self, request: web.Request) -> web.Response:
        """Reads the definition files again."""
        del request
        await self._local.reload()
        return web.Response()

    @operation("Deregisters this host and ends its agent", tag="agent")
    async def leave(self, request: web.Request) -> web.Response:
        """Deregisters this host; the process ends afterwards."""
        del request
        await self._local.leave()
        return web.Response()

    @operation(
        "Takes a host that is gone out of the registry",
        tag="agent",
        about="Only a host whose lease has run out goes, with all that it had; one that is alive "
        "stays, as with Consul, whose members contradict what is said of them.",
        query=(
            Param("prune", "forget it altogether: it always is here", Flag),
            Param("wan", "its name ends with its datacenter", Flag),
        ),
    )
    async def force_leave(self, request: web.Request) -> web.Response:
        """Removes a dead host now, not after 72 hours."""
        name = request.match_info["node"]
        if not name:
            raise InvalidRequest("Missing node name")
        if "wan" in query_of(request):
            name = name.removesuffix(f".{self._local.settings.datacenter}")
        lease = self._catalog().check(name, SERF_HEALTH)
        if lease is None:
            raise Rejected(f"agent: No node found with name '{name[:128]}'")
        if lease.status is Status.CRITICAL:
            await self._local.client.request(
                "PUT",
                "/v1/catalog/deregister",
                json={"Node": name},
                deadline_s=FORCE_LEAVE_DEADLINE_S,
            )
        return web.Response()

    @operation(
        "Tells this agent of one more server",
        tag="agent",
        about="The address is that of its HTTP API (port 8500 unless it is given; Consul's gossip "
        "port 8301 counts as that). It is kept until the agent stops. A server refuses: it joins "
        "a cluster when it starts.",
        query=(Param("wan", "refused: datacenters are not joined", Flag),),
    )
    async def join(self, request: web.Request) -> web.Response:
        """Adds the address of a server."""
        options_of(request, self._local.settings.datacenter)
        address = request.match_info["address"]
        if not address:
            raise InvalidRequest("Missing address")
        if "wan" in query_of(request):
            raise Rejected("WAN join is not possible: this registry is of one datacenter")
        await self._join(address)
        return web.Response()

    @operation(
        "Sets a token of this agent: refused, since access control is disabled",
        tag="agent",
        body=dict[str, Any],
        body_required=False,
        also={401: "ACL support disabled"},
    )
    async def token(self, request: web.Request) -> web.Response:
        """Nothing is read of the body: it holds a secret."""
        del request
        raise AclDisabled


def _json(request: web.Request, body: object) -> web.Response:
    return web.Response(
        body=json.dumps(body, pretty="pretty" in request.query),
        content_type="application/json",
        headers={"Vary": "Accept-Encoding"},
    )
