"""PUT /v1/health/external/{verb}/{node}/{check}: heartbeats for hosts without an agent."""

from __future__ import annotations

from aiohttp import web

from raftreg.errors import NotFound
from raftreg.http.decode import OUTPUT_BYTES_MAX
from raftreg.http.discovery import options_of
from raftreg.http.operation import DATACENTER, Param, operation
from raftreg.http.reply import TRUE, Reply
from raftreg.model import Status
from raftreg.server.api.context import Context
from raftreg.server.external_ttl import Beat, ExternalTtls

_VERBS = {"pass": Status.PASSING, "warn": Status.WARNING, "fail": Status.CRITICAL}


class ExternalBeats:
    """The word of the owners of TTL checks.

    Args:
        context: The collaborators.
        ttls: Takes it to the leader.
    """

    def __init__(self, context: Context, ttls: ExternalTtls) -> None:
        self._datacenter = context.settings.datacenter
        self._ttls = ttls

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.put("/v1/health/external/{verb}/{node}/{check:(?s:.+)}", self.beat)]

    @operation(
        "Tells the status of a TTL check of a host without an agent",
        tag="health",
        about=(
            "Ours. The check was registered through the catalog with a `Definition` that has a "
            "`TTL`, on a node with `external-node: true` in its metadata. While its owner says "
            "nothing for that long, it becomes critical. Only a change of the status is written."
        ),
        query=(
            DATACENTER,
            Param("verb", "`pass`, `warn` or `fail`", where="path"),
            Param("note", "the check's output, told with a change of its status"),
        ),
        answer=bool,
        also={404: "no such check"},
    )
    async def beat(self, request: web.Request) -> Reply:
        """Takes a heartbeat."""
        options_of(request, self._datacenter)
        status = _VERBS.get(request.match_info["verb"])
        if status is None:
            raise NotFound("404 page not found")
        note = request.query.get("note", "")[:OUTPUT_BYTES_MAX]
        beat = Beat(request.match_info["node"], request.match_info["check"], status, note)
        await self._ttls.beat(beat)
        return Reply(TRUE)
