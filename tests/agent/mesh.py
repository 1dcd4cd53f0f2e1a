"""A registry for the agent's tests: the server's own parts behind a small, unkind HTTP face.

It keeps a real state, a real view feed and real catalog reads. On request it hangs, refuses,
breaks connections, lags behind, or is a follower that has lost its leader.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from aiohttp import web

from raftreg.clock import Clock, SystemClock
from raftreg.config import AgentSettings
from raftreg.core import commands
from raftreg.core.catalog import Catalog
from raftreg.core.commands import Command, Deregister, NodeSync
from raftreg.core.digest import node_digest
from raftreg.core.results import Refused
from raftreg.errors import RaftregError
from raftreg.http import json
from raftreg.http.discovery import ReadHead, discovery_routes
from raftreg.http.middleware import Handler
from raftreg.http.params import ReadOptions
from raftreg.http.problems import problem, text_response
from raftreg.http.watch import RenderedCache, WatchHub
from raftreg.server.machine import RegistryMachine
from raftreg.server.viewfeed import ViewFeed, frame
from raftreg_agent.app import AgentApp

BEAT_S = 0.05
#: Two incarnations never draw the same ids.
_seeds = itertools.count(1)


class Mood(enum.Enum):
    """How a server treats what arrives."""

    KIND = "kind"
    HANGING = "hanging"  #: takes requests and never answers
    LEADERLESS = "leaderless"  #: refuses with `No cluster leader`
    FORGETFUL = "forgetful"  #: applies writes, and breaks the connection instead of answering


class History:
    """What all servers of a test share: one state, as if replication took no time."""

    def __init__(self) -> None:
        self.machine = RegistryMachine()
        self.hub = WatchHub()
        self.epoch = "e1"
        self.feed = ViewFeed(self.machine, self.hub, lambda: self.epoch)
        self.machine.on_change(lambda topics, deltas, index: self.hub.publish(topics))
        self.applied: dict[str, object] = {}
        self.syncs: list[NodeSync] = []
        self.renewed: list[str] = []
        self.puts: list[str] = []

    @property
    def catalog(self) -> Catalog:
        """The present catalog."""
        return self.machine.state.catalog

    def apply(self, command: Command, request_id: str = "") -> object:
        """Applies a command once, however often it is sent under one request id."""
        name = request_id.rpartition("/")[0]
        if name and name in self.applied:
            return self.applied[name]
        result = self.machine.apply(commands.encode(command), 0).result
        self.machine.entry_applied(0)
        if name:
            self.applied[name] = result
        return result


class Server:
    """One server of the mesh; an async context manager."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.mood = Mood.KIND
        self.last_contact_ms: int | None = 0
        self.silent = False
        self.port = 0
        self.views = 0
        self.requests: list[str] = []
        self.datacenter = "dc1"
        self.hub = history.hub
        self.rendered = RenderedCache()
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        """Where it listens, as "host:port"."""
        return f"127.0.0.1:{self.port}"

    # -- a CatalogSource -------------------------------------------------------------------------

    async def ready(self, options: ReadOptions) -> None:
        """Always."""
        del options

    def catalog(self) -> Catalog:
        """The present catalog."""
        return self.history.catalog

    def head(self, options: ReadOptions) -> ReadHead:
        """As a leader or a cut-off follower says it."""
        del options
        return ReadHead(known_leader=self.last_contact_ms is not None)

    def now(self) -> float:
        """Monotonic seconds."""
        return SystemClock().monotonic()

    def jitter(self) -> float:
        """None."""
        return 0.0

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listens, after a stop at the same port."""
        app = web.Application(middlewares=[self._treat])
        app.add_routes(discovery_routes(self))
        app.router.add_put("/v1/internal/node-sync", self._node_sync)
        app.router.add_put("/v1/internal/renew", self._renew)
        app.router.add_get("/v1/internal/view", self._view)
        app.router.add_put("/v1/catalog/deregister", self._deregister)
        app.router.add_put("/v1/kv/{key:.*}", self._put)
        app.router.add_get("/v1/kv/{key:.*}", self._get)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Breaks all connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _treat(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        if self.mood is Mood.HANGING:
            await asyncio.Event().wait()
        if self.mood is Mood.LEADERLESS and "view" not in request.path:
            return text_response("No cluster leader", 500)
        try:
            response = await handler(request)
        except RaftregError as error:
            return problem(error)
        if self.mood is Mood.FORGETFUL and request.method == "PUT":
            assert request.transport is not None
            request.transport.abort()
        return response

    # -- handlers --------------------------------------------------------------------------------

    async def _write(self, request: web.Request, command: Command) -> web.Response:
        result = self.history.apply(command, request.headers.get("X-Raftreg-Request-Id", ""))
        if isinstance(result, Refused):
            return text_response(result.message, result.http_status)
        return web.Response(body=json.dumps(result))

    async def _node_sync(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/msgpack"
        command = commands.decode(await request.read())
        assert isinstance(command, NodeSync)
        self.history.syncs.append(command)
        return await self._write(request, command)

    async def _renew(self, request: web.Request) -> web.Response:
        words = {}
        for claim in json.loads(await request.read())["nodes"]:
            name = claim["name"]
            self.history.renewed.append(name)
            node = self.history.catalog.nodes.get(name)
            if node is None:
                words[name] = "unknown"
            else:
                catalog = self.history.catalog
                own = node_digest(node, catalog.services_of(name), catalog.checks_of(name))
                words[name] = "ok" if own == claim["digest"] else "sync"
        return web.Response(body=json.dumps({"nodes": words, "sessions": {}, "index": 1}))

    async def _deregister(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        return await self._write(request, Deregister(node=body["Node"]))

    async def _put(self, request: web.Request) -> web.Response:
        name = request.headers["X-Raftreg-Request-Id"].rpartition("/")[0]
        if name not in self.history.applied:
            self.history.applied[name] = True
            self.history.puts.append(f"{request.raw_path} {(await request.read()).decode()}")
        return web.Response(body=b"true", headers={"X-Odd": "kept"})

    async def _get(self, request: web.Request) -> web.Response:
        if "index" in request.query:
            await self.history.hub.wait([("kv", request.match_info["key"])], 60.0)
        known = "false" if self.last_contact_ms is None else "true"
        return web.Response(
            status=404,
            headers={
                "X-Consul-KnownLeader": known,
                "X-Consul-LastContact": str(self.last_contact_ms or 0),
                "X-Consul-Index": "7",
            },
        )

    async def _view(self, request: web.Request) -> web.StreamResponse:
        self.views += 1
        response = web.StreamResponse()
        await response.prepare(request)
        feed = self.history.feed
        index = int(request.query.get("index", "0"))
        index, frames = await feed.start(index, request.query.get("epoch", ""))
        while True:
            for data in frames:
                await response.write(data)
            if not self.silent:
                beat = {"kind": "beat", "index": index, "last_contact_ms": self.last_contact_ms}
                await response.write(frame(beat))
            await feed.wait(BEAT_S)
            found = feed.after(index)
            if found is None:
                return response
            index, frames = found


@asynccontextmanager
async def servers(count: int = 1) -> AsyncIterator[tuple[Server, ...]]:
    """Servers of one mesh."""
    history = History()
    mesh = tuple(Server(history) for _ in range(count))
    for server in mesh:
        await server.start()
    try:
        yield mesh
    finally:
        for server in mesh:
            await server.stop()


def settings_for(*mesh: Server, **fields: object) -> AgentSettings:
    """Settings of an agent of a mesh, with free ports and quick renewals."""
    given: dict[str, object] = {
        "node": "n1",
        "http_port": 0,
        "dns_port": -1,
        "join": tuple(server.address for server in mesh),
        "renew_s": 0.1,
        "lease_ttl_s": 1.0,
    }
    return AgentSettings(**{**given, **fields})  # type: ignore[arg-type]


@asynccontextmanager
async def running(
    settings: AgentSettings, *, clock: Clock | None = None, leave: bool = False
) -> AsyncIterator[AgentApp]:
    """An agent that runs within the block."""
    async with asyncio.TaskGroup() as tasks:
        app = AgentApp(settings, clock or SystemClock(), Random(next(_seeds)))
        try:
            await app.start(tasks)
            yield app
        finally:
            await app.stop(leave=leave)
