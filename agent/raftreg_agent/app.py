"""`AgentApp`: the process of an agent, wired."""

from __future__ import annotations

import asyncio
from random import Random

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from raftreg.client.api import RegistryClient
from raftreg.clock import Clock
from raftreg.config import AgentSettings
from raftreg.dns.query import Doors
from raftreg.dns.server import DnsServer
from raftreg.errors import ConfigurationError, NotProposed
from raftreg.http.figures import MetricsPage
from raftreg.http.meter import HttpMeter
from raftreg.http.middleware import answer_errors
from raftreg.http.problems import path_not_found
from raftreg.http.wire.listener import HttpListener
from raftreg_agent.discovery import ViewSource, agent_discovery_routes
from raftreg_agent.freshness import ViewFreshness
from raftreg_agent.ingress import IngressDoor
from raftreg_agent.joining import check_server, http_address
from raftreg_agent.local import LocalAgent
from raftreg_agent.metrics import AgentCollector
from raftreg_agent.proxy import WATCHES_MAX, ServerProxy
from raftreg_agent.queries import QueryDoor
from raftreg_agent.routes import agent_routes
from raftreg_agent.short import agent_road
from raftreg_agent.view import CatalogView

#: A server that does not answer a sync in this time is passed over.
ATTEMPT_S = 1.0

log = structlog.get_logger(__name__)


class AgentApp:
    """An agent with its listeners.

    Args:
        settings: Settings of the process; `join` names servers.
        clock: Source of time.
        rng: Source of jitter and of ids.

    Raises:
        ConfigurationError: No server is named, or the data directory can't be used.
    """

    def __init__(self, settings: AgentSettings, clock: Clock, rng: Random) -> None:
        if not settings.join:
            raise ConfigurationError("an agent needs the address of a server: --join HOST[:PORT]")
        self.settings = settings
        # Proxied load, blocking queries and the agent's own word must not wait for each other.
        self._own = RegistryClient(settings.join, attempt_timeout_s=ATTEMPT_S, clock=clock, rng=rng)
        self._renewing = RegistryClient(
            settings.join, attempt_timeout_s=settings.lease_ttl_s / 3, clock=clock, rng=rng
        )
        self._asking = RegistryClient(settings.join, clock=clock, rng=rng)
        self._watching = RegistryClient(
            settings.join, connections_max=WATCHES_MAX, clock=clock, rng=rng
        )
        self._clients = (self._own, self._renewing, self._asking, self._watching)
        self.view = CatalogView(self._own, clock, rng)
        self.local = LocalAgent(
            settings,
            self._own,
            clock,
            rng,
            lease_client=self._renewing,
            catalog=lambda: self.view.catalog,
        )
        self.proxy = ServerProxy(self._asking, self._watching, settings.http, settings.node)
        self.metrics = CollectorRegistry()
        self._meter = HttpMeter()
        self.metrics.register(self._meter)
        self.metrics.register(AgentCollector(self.local, self.view, self.proxy))
        self._source = ViewSource(self.view, settings.datacenter, clock, rng)
        self._clock = clock
        self._http: HttpListener | None = None
        self._dns = DnsServer(
            lambda: self.view.catalog,
            settings.dns,
            host=settings.client,
            port=max(settings.dns_port, 0),
            clock=clock,
            rng=rng,
            registry=self.metrics,
            doors=Doors(
                queries=QueryDoor(self._asking, settings.node),
                ingress=IngressDoor(self._asking, settings.node),
                freshness=ViewFreshness(self.view, self._asking, settings.http.read_timeout_s),
            ),
        )
        self.dns_ready = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    @property
    def dns_port(self) -> int:
        """Port of the DNS listener; it opens once the view is there."""
        return self._dns.port

    @property
    def http_port(self) -> int:
        """Port of the HTTP listener (useful when the settings ask for any free one)."""
        assert self._http is not None
        return self._http.port

    @property
    def http_address(self) -> str:
        """Where HTTP is served, as "host:port"."""
        return f"{self.settings.client}:{self.http_port}"

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Opens the listeners, registers, and follows the catalog.

        Raises:
            ConfigurationError: A definition file can't be used, or an address is taken.
        """
        await self.local.start(tasks)
        await self._listen(tasks)
        self._loops.append(tasks.create_task(self.view.run()))
        if self.settings.dns_port >= 0:
            self._loops.append(tasks.create_task(self._serve_dns()))
        log.info("agent started", node=self.settings.node, http=self.http_address)

    async def _listen(self, tasks: asyncio.TaskGroup) -> None:
        settings = self.settings
        road = agent_road(
            self.local, self.view, self._source, self.proxy, self._meter, tasks.create_task
        )
        self._http = HttpListener(
            self._web_app(self._source, self._clock),
            road if settings.http.short_way else None,
            self._clock.monotonic,
            settings.http.keepalive_s,
        )
        await self._http.setup()
        try:
            await self._http.listen(settings.client, settings.http_port)
        except OSError as error:
            where = f"{settings.client}:{settings.http_port}"
            raise ConfigurationError(f"can't listen on {where}: {error.strerror}") from error

    async def stop(self, *, leave: bool) -> None:
        """Closes the listeners and ends all tasks.

        Args:
            leave: Deregister the host first, so that it is gone at once.
        """
        if leave and not self.local.left.is_set():
            await self.local.leave()
        else:
            await self.local.stop()
        self.view.hub.close(NotProposed("the agent is stopping"))
        if self._http is not None:
            await self._http.stop()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for client in self._clients:
            await client.close()

    async def _serve_dns(self) -> None:
        """Serves names once there is a view: before, every name would seem not to exist."""
        await self.view.ready.wait()
        try:
            await self._dns.start()
        except OSError as error:
            where = f"{self.settings.client}:{self.settings.dns_port}"
            raise ConfigurationError(f"can't listen on {where}: {error.strerror}") from error
        self.dns_ready.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self._dns.stop()

    def _web_app(self, source: ViewSource, clock: Clock) -> web.Application:
        app = web.Application(
            middlewares=[answer_errors(self._meter, clock.monotonic)],
            client_max_size=self.settings.http.body_bytes_max,
        )
        app.add_routes(agent_routes(self.local, lambda: self.view.catalog, join=self._join))
        app.add_routes(MetricsPage(self.metrics, clock).routes())
        app.router.add_route("*", "/v1/internal/ui/{tail:(?s:.*)}", self.proxy.handle)
        app.router.add_route("*", "/v1/agent/{tail:(?s:.*)}", _unknown)
        app.router.add_route("*", "/v1/internal/{tail:(?s:.*)}", _unknown)
        app.add_routes(
            agent_discovery_routes(
                self.view, source, self.proxy.handle, self.settings.http.watchers_max
            )
        )
        app.router.add_route("*", "/v1/{tail:(?s:.*)}", self.proxy.handle)
        return app

    async def _join(self, address: str) -> None:
        """Learns of one more server, after it has shown that it is one of this datacenter."""
        await check_server(address, self.settings.datacenter)
        for client in self._clients:
            client.add(http_address(address))


async def _unknown(request: web.Request) -> web.StreamResponse:
    del request
    return path_not_found()
