"""What `raftreg server` and `raftreg dev` share: a replica, and all that runs around it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import Any

import structlog

from raftreg.client.api import RegistryClient
from raftreg.clock import Clock
from raftreg.config import ServerSettings
from raftreg.core.catalog import Catalog
from raftreg.dns.query import Doors
from raftreg.dns.server import DnsServer
from raftreg.errors import ConfigurationError, RaftregError
from raftreg.raft.api import ReplicaAPI
from raftreg.server.app import RegistryServer
from raftreg.server.freshness import StateFreshness
from raftreg.server.ingress import IngressDoor
from raftreg.server.machine import RegistryMachine
from raftreg_agent.local import LocalAgent
from raftreg_agent.metrics import AgentCollector
from raftreg_agent.notify import READY, RELOADING, STOPPING, sd_notify
from raftreg_agent.routes import agent_routes
from raftreg_agent.short import check_hot
from raftreg_cli.external import external_checks
from raftreg_cli.process import stop_on_signals

_log = structlog.get_logger(__name__)


class ServerFailed(RaftregError):
    """The server stopped by itself, because going on would have broken a promise."""

    code = "server_failed"


def _nothing() -> None:
    """There is nothing to reload."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host:
    """The parts of a server process.

    Attributes:
        settings: Settings of the process.
        replica: Not started yet.
        machine: What it replicates.
        clock: Source of time.
        rng: Source of chance.
        reload: Is called on SIGHUP, besides the agent's definitions.
        failed: Gives a future that is done when the replica had to stop by itself.
    """

    settings: ServerSettings
    replica: ReplicaAPI
    machine: RegistryMachine
    clock: Clock
    rng: Random
    reload: Callable[[], None] = _nothing
    failed: Callable[[], asyncio.Future[BaseException]] | None = None

    def catalog(self) -> Catalog:
        """The catalog as this server has it now."""
        return self.machine.state.catalog


async def serve(host: Host) -> None:
    """Runs all parts until the process is to end, then stops them in order.

    Raises:
        RaftregError: A part could not start, or the replica failed; the text says why.
    """
    settings = host.settings
    async with (
        RegistryClient([settings.local_http], clock=host.clock, rng=host.rng) as client,
        asyncio.TaskGroup() as tasks,
        AsyncExitStack() as parts,
    ):
        local = LocalAgent(settings.agent(), client, host.clock, host.rng, catalog=host.catalog)
        hangup = asyncio.Event()
        with stop_on_signals(hangup.set) as stop:
            await _start(parts, host, local, tasks)
            reloading = tasks.create_task(_reload_on(hangup, host, local))
            parts.callback(reloading.cancel)
            sd_notify(READY)
            _log.info("server_started", node=settings.node, http=settings.local_http)
            fault = await _end_of(stop, local, host.failed)
            sd_notify(STOPPING)
            # The host stays registered: a restart, as of an upgrade, must cost no session and show
            # no gap. A server that is gone for good is told so (`/v1/agent/leave`), or its lease
            # runs out.
            await parts.aclose()
    if fault is not None:
        raise ServerFailed(f"the server had to stop: {fault}") from fault


async def _start(
    parts: AsyncExitStack, host: Host, local: LocalAgent, tasks: asyncio.TaskGroup
) -> None:
    """Starts the parts, each before those that need it; they are stopped in reverse."""
    settings = host.settings
    # Made before the replica starts: it hears of every change of role from the first one on.
    server = RegistryServer(
        settings,
        host.replica,
        host.machine,
        host.clock,
        host.rng,
        extra_routes=agent_routes(local, host.catalog, stats=lambda: raft_stats(host.replica)),
        extra_hot=(check_hot(local),),
    )
    server.metrics.register(AgentCollector(local))
    await _started(parts, host.replica.start, host.replica.stop)
    await _started(parts, partial(server.start, tasks), server.stop)
    await local.start(tasks)
    parts.push_async_callback(_stop_unless_left, local)
    if settings.external_checks.enabled:
        checking = tasks.create_task(external_checks(host, server).run(tasks))
        parts.callback(checking.cancel)
    if settings.dns_port >= 0:
        dns = DnsServer(
            host.catalog,
            settings.dns,
            host=settings.client,
            port=settings.dns_port,
            clock=host.clock,
            rng=host.rng,
            registry=server.metrics,
            doors=Doors(
                queries=server.queries.answer,
                ingress=IngressDoor(host.machine),
                freshness=StateFreshness(host.replica, settings.http.read_timeout_s),
            ),
        )
        await _started(parts, _listening(dns), dns.stop)


async def _stop_unless_left(local: LocalAgent) -> None:
    if not local.left.is_set():  # leaving has stopped it already
        await local.stop()


async def _started(
    parts: AsyncExitStack,
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
) -> None:
    await start()
    parts.push_async_callback(stop)


def _listening(dns: DnsServer) -> Callable[[], Awaitable[None]]:
    async def start() -> None:
        try:
            await dns.start()
        except OSError as error:
            raise ConfigurationError(f"DNS can't listen: {error.strerror or error}") from error

    return start


async def _end_of(
    stop: asyncio.Event,
    local: LocalAgent,
    failed: Callable[[], asyncio.Future[BaseException]] | None,
) -> BaseException | None:
    """Waits for a signal, a request to leave, or a fault; gives the fault."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(stop.wait()), group.create_task(local.left.wait())]
        fault = failed() if failed else None
        everything: list[asyncio.Future[Any]] = [*waits]
        if fault is not None:
            everything.append(fault)
        await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    return fault.result() if fault is not None and fault.done() else None


async def _reload_on(hangup: asyncio.Event, host: Host, local: LocalAgent) -> None:
    """Reads certificates and definitions again on SIGHUP; what is bad changes nothing."""
    while True:
        await hangup.wait()
        hangup.clear()
        sd_notify(RELOADING)
        try:
            host.reload()
            await local.reload()
        except RaftregError as error:
            _log.error("reload_refused", reason=error.message)  # it says it all
        sd_notify(READY)


def raft_stats(replica: ReplicaAPI) -> dict[str, dict[str, str]]:
    """The group `raft` of `Stats` in /v1/agent/self, with Consul's names."""
    status = replica.status()
    contact_s = status.leader_contact_age_s
    return {
        "raft": {
            "state": status.role.value.capitalize(),
            "term": str(status.term),
            "commit_index": str(status.commit_index),
            "applied_index": str(status.applied_index),
            "last_log_index": str(status.last_log_index),
            "last_snapshot_index": str(status.last_snapshot_index),
            "last_contact": "never" if contact_s is None else f"{contact_s * 1000:.0f}ms",
            "num_peers": str(max(0, len(status.servers) - 1)),
        },
        "consul": {
            "server": "true",
            "leader": str(status.leader_id == status.id).lower(),
            "leader_addr": next(
                (one.address for one in status.servers if one.id == status.leader_id), ""
            ),
        },
    }
