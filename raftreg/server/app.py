"""A server's HTTP process: the wiring of replica, state machine, leases and API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from random import Random

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from raftreg.clock import Clock, new_id
from raftreg.config import ServerSettings
from raftreg.core.commands import Command
from raftreg.core.results import Outcome
from raftreg.errors import ConfigurationError, InvalidRequest, NotProposed
from raftreg.http.delta_queries import catalog_follower
from raftreg.http.delta_streams import DeltaStreams, Followed
from raftreg.http.discovery import discovery_routes
from raftreg.http.express import express
from raftreg.http.figures import MetricsPage
from raftreg.http.meter import HttpMeter
from raftreg.http.middleware import answer_errors
from raftreg.http.openapi import OpenApi
from raftreg.http.service_pages import service_pages_routes
from raftreg.http.watch import WatchHub
from raftreg.http.wire.listener import HttpListener
from raftreg.raft.api import ReplicaAPI
from raftreg.server.api.acl import AccessControl
from raftreg.server.api.autopilot import Autopilot
from raftreg.server.api.catalog import Catalog
from raftreg.server.api.chain import DiscoveryChains
from raftreg.server.api.config_entry import ConfigEntries
from raftreg.server.api.connect import ConnectAuthority
from raftreg.server.api.context import Context
from raftreg.server.api.coordinate import CoordinateRoutes
from raftreg.server.api.events import Events
from raftreg.server.api.external import ExternalBeats
from raftreg.server.api.gateway import Gateways
from raftreg.server.api.intention import Intentions
from raftreg.server.api.internal import Internal
from raftreg.server.api.keyring import Keyring
from raftreg.server.api.kv import KV
from raftreg.server.api.kv import PREFIX as KV_PREFIX
from raftreg.server.api.kv import ROUTE as KV_ROUTE
from raftreg.server.api.query import PreparedQueries
from raftreg.server.api.session import Sessions
from raftreg.server.api.snapshot import Snapshots
from raftreg.server.api.status import STATUS_QUESTION, Operator, encode_status
from raftreg.server.api.txn import Transactions
from raftreg.server.api.ui import UserInterface
from raftreg.server.authority import AuthorityDesk
from raftreg.server.coordinates import CoordinateQueue
from raftreg.server.expiry import KeyExpiry
from raftreg.server.external_ttl import QUESTION as TTL_QUESTION
from raftreg.server.external_ttl import ExternalTtls
from raftreg.server.leases import Leases
from raftreg.server.machine import RegistryMachine
from raftreg.server.metrics import ServerCollector
from raftreg.server.nearness import NearSorter
from raftreg.server.queries import QueryRunner
from raftreg.server.reads import Reads
from raftreg.server.renewals import RenewalQueue
from raftreg.server.short import MoreHot, server_road
from raftreg.server.upkeep import Upkeep
from raftreg.server.viewfeed import ViewFeed
from raftreg.server.writes import Writes
from raftreg.version import build

_log = structlog.get_logger(__name__)


class RegistryServer:
    """HTTP API, leases and view feed over a replica.

    Args:
        settings: Addresses and limits.
        replica: Replicates `machine`; started and stopped by the caller.
        machine: The registry.
        clock: Source of time.
        rng: Source of jitter and of ids.
        extra_routes: More to mount in the same application (the embedded agent's).
        extra_hot: More for the short way, likewise.

    Attributes:
        hub: Wakes blocking queries of this process.
        metrics: Takes the collectors of other parts of the process.
        queries: Executes prepared queries.
        authority: Signs certificates of the mesh.
        port: The HTTP port, once started (settings may ask for any free one).
    """

    def __init__(
        self,
        settings: ServerSettings,
        replica: ReplicaAPI,
        machine: RegistryMachine,
        clock: Clock,
        rng: Random,
        *,
        extra_routes: Iterable[web.RouteDef] = (),
        extra_hot: Sequence[MoreHot] = (),
    ) -> None:
        self.settings = settings
        self.hub = WatchHub(settings.http.watchers_max)
        self.metrics = CollectorRegistry()
        self.port = settings.http_port
        self.meter = HttpMeter()
        self.leases = Leases(
            replica,
            machine,
            clock,
            node_ttl_s=settings.lease_ttl_s,
            reap_after_s=settings.reap_after_s,
        )
        self.reads = Reads(
            replica,
            machine,
            self.hub,
            clock,
            rng,
            datacenter=settings.datacenter,
            timeout_s=settings.http.read_timeout_s,
        )

        def make_id() -> str:
            return new_id(rng)

        self.queries = QueryRunner(machine, rng, datacenter=settings.datacenter, node=settings.node)
        self._replica = replica
        self._clock = clock
        self.expiry = KeyExpiry(replica, machine, clock)
        self.external_ttls = ExternalTtls(
            replica, machine, clock, enabled=settings.external_checks.enabled
        )
        writes = Writes(replica, settings.http.write_timeout_s)
        self.authority = AuthorityDesk(
            replica,
            machine,
            writes,
            clock,
            make_id,
            datacenter=settings.datacenter,
            timeout_s=settings.http.read_timeout_s,
        )
        self._upkeep = Upkeep(replica, machine, clock, make_id)
        self._context = Context(
            settings=settings,
            replica=replica,
            machine=machine,
            reads=self.reads,
            writes=writes,
            renewals=RenewalQueue(replica),
            leases=self.leases,
            feed=ViewFeed(machine, self.hub, self._upkeep.epoch),
            streams=DeltaStreams(
                Followed(
                    hub=self.hub,
                    ready=self.reads.ready,
                    epoch=self._upkeep.epoch,
                    newest=lambda: machine.state.index,
                ),
                settings.http.watchers_max,
            ),
            clock=clock,
            new_id=make_id,
        )
        self._near = NearSorter(machine, settings.node)
        self._coordinates = CoordinateQueue(self._context.writes)
        self._extra_routes = list(extra_routes)
        self._extra_hot = tuple(extra_hot)
        self._work: asyncio.Task[None] | None = None
        self._http: HttpListener | None = None
        self.metrics.register(self.meter)
        self.metrics.register(ServerCollector(replica, machine, self.hub, self.leases, self.expiry))
        replica.on_question(self._answer)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Listens, and begins to work.

        Args:
            tasks: Owns the server's tasks; `stop` ends them.

        Raises:
            ConfigurationError: The address can't be listened on.
        """
        self._work = tasks.create_task(self._run(), name="registry server")
        settings = self.settings
        road = server_road(self._context, self.meter, tasks.create_task, self._extra_hot)
        self._http = HttpListener(
            self.application(),
            road if settings.http.short_way else None,
            self._clock.monotonic,
            settings.http.keepalive_s,
        )
        await self._http.setup()
        self._open_express()
        host, port = settings.client, settings.http_port
        try:
            await self._http.listen(host, port)
        except OSError as error:
            await self.stop()
            raise ConfigurationError(
                f"can't listen on {host}:{port} for HTTP: {error.strerror or error}"
            ) from error
        self.port = self._http.port
        _log.info("http_listening", address=host, port=self.port)

    def _open_express(self) -> None:
        """Lets requests for keys, the most frequent ones, around the router."""
        assert self._http is not None
        web_server = self._http.server
        web_server.request_handler = express(
            KV_PREFIX,
            KV_ROUTE,
            KV(self._context).by_method(),
            web_server.request_handler,
            self.meter,
            self._clock.monotonic,
        )

    async def write(self, command: Command) -> Outcome:
        """Proposes a command of another part of this process; see `Writes.propose`."""
        return await self._context.writes.propose(command)

    async def stop(self) -> None:
        """Answers what waits, closes the listener, ends the server's tasks."""
        self.hub.close(NotProposed("this server is stopping: ask another one"))
        if self._http is not None:
            await self._http.stop()
            self._http = None
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait((self._work,))
            self._work = None

    async def _run(self) -> None:
        """The server's own tasks, and those that they start."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.leases.run(tasks), name="leases")
            tasks.create_task(self._context.renewals.run(tasks), name="renewals")
            tasks.create_task(self._upkeep.run(), name="upkeep")
            tasks.create_task(self._coordinates.run(), name="coordinates")
            tasks.create_task(self.expiry.run(), name="key expiry")
            tasks.create_task(self.external_ttls.run(tasks), name="external TTLs")

    def application(self) -> web.Application:
        """All routes of this server."""
        app = web.Application(
            middlewares=[answer_errors(self.meter, self._clock.monotonic)],
            client_max_size=self.settings.http.body_bytes_max,
        )
        context = self._context
        for part in (
            KV(context),
            Catalog(context),
            Sessions(context),
            PreparedQueries(context, self.queries),
            CoordinateRoutes(context, self._coordinates),
            Transactions(context),
            Operator(context),
            Autopilot(context),
            Keyring(context),
            AccessControl(context),
            Snapshots(context),
            Events(context),
            UserInterface(context),
            ConfigEntries(context),
            Intentions(context),
            DiscoveryChains(context, self.authority),
            Gateways(context),
            ConnectAuthority(context, self.authority),
            Internal(context),
            ExternalBeats(context, self.external_ttls),
            MetricsPage(self.metrics, self._clock),
            OpenApi(build()),
        ):
            app.router.add_routes(part.routes())
        follow = catalog_follower(context.streams, self.reads)
        app.router.add_routes(discovery_routes(self.reads, follow, self._near))
        app.router.add_routes(service_pages_routes(self.reads))
        app.router.add_routes(self._extra_routes)
        return app

    async def _answer(self, payload: bytes) -> bytes:
        """Answers another server's question, as the leader."""
        if payload == STATUS_QUESTION:
            return encode_status(self._replica.status())
        try:
            if payload.startswith(TTL_QUESTION):
                return await self.external_ttls.answer(payload)
            return await self.leases.answer(payload)
        except InvalidRequest as error:
            # From a server of another version; the text goes no further than its log.
            raise NotProposed(error.message) from error
