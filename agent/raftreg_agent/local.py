"""`LocalAgent`: what is registered on this host, checked, remembered, and told to the registry.

It is the same inside `raftreg agent` and inside a server process, where the client points at the
server's own HTTP address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from random import Random
from typing import Any

import structlog

from raftreg.client.api import RegistryClient
from raftreg.clock import Clock
from raftreg.config import AgentSettings
from raftreg.core.catalog import Catalog
from raftreg.errors import (
    ConfigurationError,
    InvalidRequest,
    NotFound,
    NotProposed,
    RaftregError,
    Rejected,
)
from raftreg.http.decode import CheckDefinition, CheckKind, ServiceDefinition
from raftreg.model import (
    NODE_MAINTENANCE,
    SERVICE_MAINTENANCE_PREFIX,
    Node,
    ServiceInstance,
    Status,
)
from raftreg_agent import definitions
from raftreg_agent.aliases import Aliases
from raftreg_agent.certificates import MeshCertificates
from raftreg_agent.checks.grpc import GrpcRunner, require_grpc
from raftreg_agent.checks.http import HttpRunner
from raftreg_agent.checks.machine import CheckResult, Damping
from raftreg_agent.checks.runners import Runner
from raftreg_agent.checks.scheduler import CheckScheduler
from raftreg_agent.checks.script import ScriptRunner
from raftreg_agent.checks.tcp import TcpRunner, UdpRunner
from raftreg_agent.coordinates import HTTP_META, CoordinateKeeper, HttpProber, servers_of
from raftreg_agent.lease import LeaseKeeper
from raftreg_agent.ledger import SyncLedger
from raftreg_agent.memory import Memory
from raftreg_agent.registrar import Registrar
from raftreg_agent.sidecars import placed
from raftreg_agent.state import LocalState, Source
from raftreg_agent.store import Remembered, Store

REAP_EVERY_S = 30.0
#: How long a registration waits to be in the catalog before it is answered all the same.
SYNC_WAIT_S = 5.0
#: The same while the lease is lost and can't be renewed.
CUT_OFF_WAIT_S = 0.25
LEAVE_DEADLINE_S = 5.0
SERVER_SERVICE = "consul"

log = structlog.get_logger(__name__)


def default_runners() -> dict[CheckKind, Runner]:
    """A runner for each kind of check that is probed."""
    return {
        CheckKind.HTTP: HttpRunner(),
        CheckKind.TCP: TcpRunner(),
        CheckKind.UDP: UdpRunner(),
        CheckKind.GRPC: GrpcRunner(),
        CheckKind.SCRIPT: ScriptRunner(),
    }


class LocalAgent:
    """The agent of this host.

    Args:
        settings: Names, addresses, directories, times.
        client: Where servers are.
        clock: Source of time.
        rng: Source of jitter and of ids.
        lease_client: For renewals, with short attempts (see `LeaseKeeper`); None: `client`.
        catalog: Gives the catalog for alias checks of other hosts; None: they can't be found.
        runners: What probes each kind of check.
        damping: Figures of flap damping.
    """

    def __init__(
        self,
        settings: AgentSettings,
        client: RegistryClient,
        clock: Clock,
        rng: Random,
        *,
        lease_client: RegistryClient | None = None,
        catalog: Callable[[], Catalog] | None = None,
        runners: Mapping[CheckKind, Runner] | None = None,
        damping: Damping | None = None,
    ) -> None:
        self.settings = settings
        self.client = client
        self.left = asyncio.Event()
        self._clock = clock
        self._store = Store(Path(settings.data_dir) if settings.data_dir else None)
        self._remembered = self._store.open()
        self.ledger = SyncLedger()
        self.state = LocalState(
            node_row(settings, self._store.node_id(rng)), self.ledger, damping=damping
        )
        self.registrar = Registrar(client, self.ledger, self.state, clock, rng)
        self.lease = LeaseKeeper(
            lease_client or client,
            self.ledger,
            self.state,
            self.registrar,
            clock,
            renew_s=settings.renew_s,
            ttl_s=settings.lease_ttl_s,
        )
        self.scheduler = CheckScheduler(
            default_runners() if runners is None else runners,
            clock,
            rng,
            observed=self._observed,
            expired=self._expired,
        )
        self._from_files = definitions.Definitions()
        self._loops: list[asyncio.Task[None]] = []
        self._stopped = False
        self._memory = Memory(self._store, self.state)
        self._aliases = Aliases(self.state, catalog or Catalog, clock.monotonic, self._edge)
        self._catalog = catalog or Catalog
        self.coordinates = CoordinateKeeper(
            settings.node, client, self._servers, HttpProber(settings.node, clock, rng), clock, rng
        )
        self.certificates = MeshCertificates(client, settings.datacenter, clock, rng)
        self._changed: list[Callable[[], None]] = []
        self._stopping: list[Callable[[], None]] = []

    @property
    def node(self) -> Node:
        """The row of this host."""
        return self.state.node

    def now(self) -> float:
        """Monotonic seconds of the agent's clock."""
        return self._clock.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch, for people."""
        return self._clock.wall()

    def on_stop(self, told: Callable[[], None]) -> None:
        """Adds a callback for the moment when the agent begins to stop."""
        self._stopping.append(told)

    def on_change(self, told: Callable[[], None]) -> None:
        """Adds a callback for any change of services or of a check's status."""
        self._changed.append(told)

    # -- life --------------------------------------------------------------------------------

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Registers what is known from before and from files, and starts to check and sync.

        Args:
            tasks: Owns the agent's tasks; `stop` ends them.

        Raises:
            ConfigurationError: A definition file can't be used.
        """
        if self.settings.config_dir:
            self._from_files = await self._load_files()
        self._restore(self._remembered, self._from_files)
        self._remembered = Remembered()
        self._adopt_files(self._from_files)
        self._memory.forget_lost()
        if self.settings.server:
            row = ServiceInstance(
                node=self.node.name,
                id=SERVER_SERVICE,
                name=SERVER_SERVICE,
                port=self.settings.raft_port,
                meta={HTTP_META: self.settings.public_http},
            )
            self.state.put_service(ServiceDefinition(row), Source.BUILTIN, self._clock.monotonic())
        for loop in self._all_loops(tasks):
            self._loops.append(tasks.create_task(loop))

    def _all_loops(self, tasks: asyncio.TaskGroup) -> list[Coroutine[Any, Any, None]]:
        return [
            self.scheduler.run(tasks),
            self.registrar.run(),
            self.lease.run(),
            self._aliases.run(),
            self._memory.run(),
            self.coordinates.run(),
            self.certificates.run(),
            self._keep_house(),
        ]

    def _servers(self) -> list[str]:
        """HTTP addresses of the servers: those joined, and of a server its fellows."""
        fellows = servers_of(self._catalog()) if self.settings.server else []
        return list(dict.fromkeys((*self.settings.join, *fellows)))

    async def stop(self) -> None:
        """Ends checks, sync and lease; the registration stays until the lease runs out."""
        self._stopped = True
        self.certificates.hub.close(NotProposed("the agent is stopping"))
        for told in self._stopping:
            told()
        for check_id in list(self.state.checks):
            self.scheduler.remove(check_id)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops.clear()
        await self._store.close()

    async def leave(self) -> None:
        """Deregisters this host with all it has, at once, then stops."""
        await self.stop()
        try:
            await self.client.request(
                "PUT",
                "/v1/catalog/deregister",
                json={"Node": self.node.name},
                deadline_s=LEAVE_DEADLINE_S,
            )
            log.info("left the registry", node=self.node.name)
        except RaftregError as error:
            log.warning("left without a word: the lease will run out", error=error.message)
        self.left.set()

    async def reload(self) -> None:
        """Reads the definition files again: what changed is registered, what vanished goes.

        Raises:
            ConfigurationError: A file can't be used; everything stays as it was.
        """
        if not self.settings.config_dir:
            return
        fresh = await self._load_files()
        before, self._from_files = self._from_files, fresh
        for service_id in before.services.keys() - fresh.services.keys():
            self._remove_service(service_id)
        for check_id in before.checks.keys() - fresh.checks.keys():
            self._remove_check(check_id)
        self._adopt_files(fresh)
        self.registrar.kick()
        log.info("definitions reloaded", services=len(fresh.services), checks=len(fresh.checks))

    # -- registrations -----------------------------------------------------------------------

    async def register_service(
        self, definition: ServiceDefinition, *, replace_checks: bool = False
    ) -> None:
        """Registers an instance by API; returns when the catalog has it.

        When no server can be reached it returns after a bounded wait: the registration holds
        here, and the sync follows.

        Raises:
            InvalidRequest: A check of it can't run on this host.
            Rejected: The registry refuses it, or it could not be written to disk.
        """
        service_id = definition.service.id
        sidecar = self._placed_sidecar(definition)
        for check in (*definition.checks, *(sidecar.checks if sidecar else ())):
            self._admit(check)
        self._refuse_builtin(service_id)
        for each in (definition, sidecar):
            if each is not None:
                self._put_service(each, Source.API, replace_checks=replace_checks)
                self._memory.put_service(each.service.id)
        await self._settle(f"service {service_id}")

    async def deregister_service(self, service_id: str) -> None:
        """Removes an instance with its checks; returns when the catalog has it no more.

        One that is not there is fine: clients deregister to be sure.
        """
        self._refuse_builtin(service_id)
        if self._remove_service(service_id):
            await self._settle()

    async def register_check(self, check: CheckDefinition) -> None:
        """Registers a check by API; see `register_service`."""
        self._admit(check)
        self._put_check(check, Source.API)
        self._memory.put_check(check.check_id)
        await self._settle(f"check {check.check_id}")

    async def deregister_check(self, check_id: str) -> None:
        """Removes a check; one that is not there is fine."""
        if self._remove_check(check_id):
            await self._settle()

    async def assert_check(self, check_id: str, status: Status, output: str) -> None:
        """Takes the word of a TTL check's owner.

        Raises:
            Rejected: There is no such check, or it is no TTL check.
        """
        change = self.take_word(check_id, status, output)
        if change is not None:
            await change

    def take_word(
        self, check_id: str, status: Status, output: str
    ) -> Coroutine[Any, Any, None] | None:
        """As `assert_check`, at once.

        Returns:
            What ends when the change is in the catalog; None when nothing changes there.
        """
        edge = self.state.assert_ttl(check_id, status, output, self._clock.monotonic())
        machine = self.state.checks[check_id].machine
        self.scheduler.expect(check_id, machine.ttl_deadline_s)
        return self._settle() if edge else None

    async def set_maintenance(self, service_id: str, enable: bool, reason: str) -> None:
        """Takes the host (`service_id` empty) or an instance out of discovery, or back.

        Raises:
            NotFound: There is no such instance.
        """
        if service_id and service_id not in self.state.services:
            raise NotFound(f'Unknown service ID "{service_id}"')
        check = maintenance_check(service_id, reason)
        if enable:
            self._put_check(check, Source.API)
            self._memory.put_check(check.check_id)
        elif not self._remove_check(check.check_id):
            return
        await self._settle()

    # -- inside: one step each, without waiting ------------------------------------------------

    def _put_service(
        self, definition: ServiceDefinition, source: Source, *, replace_checks: bool
    ) -> None:
        now_s = self._clock.monotonic()
        gone = self.state.put_service(definition, source, now_s, replace_checks=replace_checks)
        for check_id in gone:
            self._check_gone(check_id)
        for check in definition.checks:
            self._schedule(check)
        self._tell()

    def _placed_sidecar(self, definition: ServiceDefinition) -> ServiceDefinition | None:
        """The sidecar that a definition brings, with a port.

        Raises:
            Rejected: No port is left.
        """
        sidecar = definition.sidecar
        return None if sidecar is None else placed(sidecar, self.state.service_rows())

    def _remove_service(self, service_id: str) -> bool:
        if sidecar := self.state.sidecar(service_id):
            self._remove_service(sidecar)
        checks = self.state.remove_service(service_id)
        if checks is None:
            return False
        for check_id in checks:
            self._check_gone(check_id)
        self._memory.drop_service(service_id)
        self._tell()
        return True

    def _put_check(self, check: CheckDefinition, source: Source) -> None:
        self.state.put_check(check, source, self._clock.monotonic())
        self._schedule(check)
        self._tell()

    def _remove_check(self, check_id: str) -> bool:
        check = self.state.checks.get(check_id)
        if check is None:
            return False
        self.state.remove_check(check_id)
        self._check_gone(check_id)
        self._memory.put_service(check.definition.service_id)
        self._tell()
        return True

    def _check_gone(self, check_id: str) -> None:
        self._aliases.remove(check_id)
        self.scheduler.remove(check_id)
        self._memory.drop_check(check_id)

    def _schedule(self, check: CheckDefinition) -> None:
        self.scheduler.put(check)
        machine = self.state.checks[check.check_id].machine
        self.scheduler.expect(check.check_id, machine.ttl_deadline_s)
        self._aliases.put(check)

    async def _settle(self, what: str = "") -> None:
        """Waits for disk and catalog, side by side.

        Raises:
            NotProposed: The agent is stopping: the catalog will not have it.
            Rejected: The registry refuses it, or it could not be written to disk.
        """
        if self._stopped:
            raise NotProposed("this agent is stopping")
        revision = self.ledger.revision
        cut_off = self.lease.failing and not self.lease.held
        wait_s = CUT_OFF_WAIT_S if cut_off else SYNC_WAIT_S
        # Both go on by themselves from here: waiting for one and then for the other takes no longer
        # than waiting for both, and needs no task for either.
        self.registrar.kick()
        written = await self._memory.flush()
        await self.registrar.synced(revision, wait_s)
        if written is not None:
            raise Rejected(f"registered, but not written to {self.settings.data_dir}: {written}")
        refused = self.ledger.refused.get(what)
        if refused is not None:
            raise Rejected(f"the registry refuses {what}: {refused}")

    def _admit(self, check: CheckDefinition) -> None:
        """Refuses checks that this host does not run.

        Raises:
            InvalidRequest: Scripts are not enabled, or a library is missing.
        """
        if check.kind is CheckKind.SCRIPT and not self.settings.enable_script_checks:
            raise InvalidRequest(
                "Scripts are disabled on this agent; to enable, start it with "
                "--enable-script-checks"
            )
        if check.kind is CheckKind.GRPC:
            require_grpc()

    def _refuse_builtin(self, service_id: str) -> None:
        known = self.state.services.get(service_id)
        if known is not None and known.source is Source.BUILTIN:
            raise InvalidRequest(f"service {service_id!r} is the server itself")

    # -- files -------------------------------------------------------------------------------

    async def _load_files(self) -> definitions.Definitions:
        directory = Path(self.settings.config_dir)
        loaded = await asyncio.to_thread(definitions.load, directory, self.node.name)
        for check in [
            *loaded.checks.values(),
            *(check for service in loaded.services.values() for check in service.checks),
        ]:
            try:
                self._admit(check)
            except InvalidRequest as error:
                raise ConfigurationError(
                    f"{directory}: check {check.check_id!r}: {error.message}"
                ) from error
        return loaded

    def _adopt_files(self, loaded: definitions.Definitions) -> None:
        for service in loaded.services.values():
            self._put_service(service, Source.CONFIG, replace_checks=True)
            self._adopt_sidecar(service)
        for check in loaded.checks.values():
            try:
                self._put_check(check, Source.CONFIG)
            except Rejected as error:
                log.warning("check definition left out", check=check.check_id, error=error.message)

    def _adopt_sidecar(self, definition: ServiceDefinition) -> None:
        """Registers the sidecar of a definition; one that the file does not name any more goes."""
        try:
            sidecar = self._placed_sidecar(definition)
        except Rejected as error:
            log.warning("sidecar left out", of=definition.service.id, error=error.message)
            return
        if sidecar is not None:
            self._put_service(sidecar, Source.CONFIG, replace_checks=True)
        elif gone := self.state.sidecar(definition.service.id):
            self._remove_service(gone)

    def _restore(self, remembered: Remembered, files: definitions.Definitions) -> None:
        """Brings back what was there before a restart; definition files take precedence."""
        self._memory.recall(remembered.statuses)
        for service in remembered.services:
            if service.service.id in files.services:
                self._memory.drop_service(service.service.id)
            else:
                checks = tuple(check for check in service.checks if self._runs_here(check))
                kept = ServiceDefinition(service.service, checks, service.sidecar_of)
                self._put_service(kept, Source.API, replace_checks=False)
        for check in remembered.checks:
            if check.check_id in files.checks or not self._runs_here(check):
                continue
            if check.service_id in files.services:
                self._put_service(
                    files.services[check.service_id], Source.CONFIG, replace_checks=False
                )
            try:
                self._put_check(check, Source.API)
            except Rejected as error:
                log.warning("remembered check left out", check=check.check_id, error=error.message)
                self._memory.drop_check(check.check_id)

    def _runs_here(self, check: CheckDefinition) -> bool:
        try:
            self._admit(check)
        except InvalidRequest as error:
            log.warning("remembered check left out", check=check.check_id, error=error.message)
            return False
        return True

    # -- events ------------------------------------------------------------------------------

    def _observed(self, check_id: str, result: CheckResult) -> None:
        if self.state.observe(check_id, result, self._clock.monotonic()):
            self._edge()

    def _expired(self, check_id: str) -> None:
        check = self.state.checks.get(check_id)
        if check is None:
            return
        if self.state.expire(check_id, self._clock.monotonic()):
            self._edge()
        # Its owner may have spoken since: then there is a later deadline.
        self.scheduler.expect(check_id, check.machine.ttl_deadline_s)

    def _edge(self) -> None:
        self.registrar.kick()
        self._tell()

    def _tell(self) -> None:
        for told in self._changed:
            told()

    # -- loops -------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(REAP_EVERY_S)
            await self.keep_house_once()

    async def keep_house_once(self) -> None:
        """Removes instances that were critical for too long, and sends outputs held back."""
        now_s = self._clock.monotonic()
        for service_id in self.state.critical_too_long(now_s):
            log.warning("service critical for too long, deregistered", service=service_id)
            self._remove_service(service_id)
        self.ledger.touch_stale_outputs(self.state, now_s)
        self.registrar.kick()
        await self._memory.flush()


def node_row(settings: AgentSettings, node_id: str) -> Node:
    """The row of this host, as it goes into the catalog."""
    address = settings.address
    kind = "ipv6" if ":" in address else "ipv4"
    places = dict.fromkeys(("lan", "wan"), address)
    return Node(
        name=settings.node,
        id=node_id,
        address=address,
        datacenter=settings.datacenter,
        tagged_addresses=places | {f"{place}_{kind}": address for place in places},
        meta={"consul-network-segment": ""},
    )


def maintenance_check(service_id: str, reason: str) -> CheckDefinition:
    """The critical check that marks maintenance; nothing runs it."""
    what = "service" if service_id else "node"
    return CheckDefinition(
        check_id=SERVICE_MAINTENANCE_PREFIX + service_id if service_id else NODE_MAINTENANCE,
        name=f"{what.title()} Maintenance Mode",
        kind=CheckKind.TTL,
        service_id=service_id,
        notes=reason
        or f"Maintenance mode is enabled for this {what}, but no reason was provided. "
        "This is a default message.",
        status=Status.CRITICAL,
    )
