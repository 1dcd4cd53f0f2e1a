"""/v1/internal: what agents say about their hosts, and what their views follow."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
from aiohttp import web

from raftreg.core import commands
from raftreg.core.commands import NodeSync
from raftreg.decoding import JsonDecoder
from raftreg.errors import InvalidRequest, NoLeader
from raftreg.http.discovery import query_of
from raftreg.http.json import dumps
from raftreg.http.middleware import BEGUN, UNTIMED
from raftreg.http.params import parse_uint
from raftreg.http.reply import TRUE, Reply
from raftreg.server.api.context import Context
from raftreg.server.renewals import BATCH_CLAIMS_MAX, Renewal
from raftreg.server.viewfeed import frame
from raftreg.server.writes import read_body

BEAT_S = 1.0
CONFIRM_S = 1.0  #: how long a new view waits for a majority to confirm this state
SEND_TIMEOUT_S = 30.0  #: a client that takes nothing for so long is cut off
MSGPACK = "application/msgpack"

_json_renewals = JsonDecoder[Renewal](Renewal)
_json_commands: JsonDecoder[commands.Command] = JsonDecoder(commands.Command)


class Internal:
    """The agents' endpoints.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.put("/v1/internal/renew", self.renew),
            web.put("/v1/internal/node-sync", self.node_sync),
            web.get("/v1/internal/view", self.view, allow_head=False),
            web.get("/v1/internal/view-index", self.view_index, allow_head=False),
        ]

    async def renew(self, request: web.Request) -> Reply:
        """Renews leases of hosts and sessions."""
        body = await read_body(request, self._context.settings.http.body_bytes_max)
        try:
            renewal = Renewal.decode(body) if _is_msgpack(request) else _json_renewals.decode(body)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"Request decode failed: {error}") from error
        if len(renewal) > BATCH_CLAIMS_MAX:
            raise InvalidRequest(f"at most {BATCH_CLAIMS_MAX} renewals a request")
        answer = await self._context.renewals.renew(renewal)
        # The answer may cover more than was asked: renewals travel together.
        unknown = "unknown"
        body_out = {
            "nodes": {claim.name: answer.nodes.get(claim.name, unknown) for claim in renewal.nodes},
            "sessions": {name: answer.sessions.get(name, False) for name in renewal.sessions},
            "index": answer.index,
        }
        return Reply(dumps(body_out))

    async def node_sync(self, request: web.Request) -> Reply:
        """Takes an agent's word about its own host."""
        body = await read_body(request, self._context.settings.http.body_bytes_max)
        try:
            command = commands.decode(body) if _is_msgpack(request) else _json_commands.decode(body)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"Request decode failed: {error}") from error
        if not isinstance(command, NodeSync):
            raise InvalidRequest("Request decode failed: the body must be a node-sync")
        await self._context.writes.run(request, command)
        return Reply(TRUE)

    async def view(self, request: web.Request) -> web.StreamResponse:
        """Streams the catalog (see `raftreg.server.viewfeed`)."""
        request[UNTIMED] = True
        params = query_of(request)
        index = parse_uint(params.get("index", "0"), "Invalid index")
        await self._be_new_enough(index, params.get("epoch", ""))
        response = web.StreamResponse()
        response.content_type = "application/octet-stream"
        await response.prepare(request)
        request[BEGUN] = response
        with contextlib.suppress(ConnectionError):  # the agent is gone: so ends every feed
            await _Stream(self._context, response).run(index, params.get("epoch", ""))
        return response

    async def view_index(self, request: web.Request) -> Reply:
        """How far a view has to have come to hold all that was written before this request."""
        del request
        await self._context.replica.read_index(self._context.settings.http.read_timeout_s)
        return Reply(dumps({"index": self._context.feed.newest}))

    async def _be_new_enough(self, index: int, epoch: str) -> None:
        """Lets no server replace a view by less, as one that has just been restarted has.

        Raises:
            NoLeader: The view is to be replaced, and nobody can say how new this state is.
        """
        if self._context.feed.can_resume(index, epoch):
            return
        try:
            await self._context.replica.read_index(CONFIRM_S)
        except NoLeader:
            if epoch:
                raise
            # An agent that has nothing yet is better off with what there is.


class _Stream:
    """One view being fed.

    Args:
        context: The collaborators.
        response: Takes the frames.
    """

    def __init__(self, context: Context, response: web.StreamResponse) -> None:
        self._context = context
        self._feed = context.feed
        self._response = response
        self._beat_at_s = context.clock.monotonic()

    async def run(self, index: int, epoch: str) -> None:
        """Feeds it until the client goes or this handler is cancelled."""
        index, frames = await self._feed.start(index, epoch)
        await self._write(frames)
        while True:
            following = self._feed.after(index)
            if following is None:  # it fell behind what is kept: once more from the start
                index, frames = await self._feed.start(0, "")
                await self._write(frames)
                continue
            index, frames = following
            if not frames:
                index = max(index, self._feed.index)
            now = self._context.clock.monotonic()
            if now >= self._beat_at_s:
                self._beat_at_s = now + BEAT_S
                frames.append(self._beat(index))
            if frames:
                await self._write(frames)
            else:
                await self._feed.wait(self._beat_at_s - now)

    def _beat(self, index: int) -> bytes:
        status = self._context.replica.status()
        age_s = status.leader_contact_age_s
        return frame(
            {
                "kind": "beat",
                "index": index,
                "leader": status.leader_id is not None,
                "last_contact_ms": None if age_s is None else round(age_s * 1000),
            }
        )

    async def _write(self, frames: list[bytes]) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            for start in range(0, len(frames), 64):
                await self._response.write(b"".join(frames[start : start + 64]))


def _is_msgpack(request: web.Request) -> bool:
    return request.content_type == MSGPACK
