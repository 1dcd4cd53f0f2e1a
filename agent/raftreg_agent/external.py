"""Checks of hosts without an agent, run by the servers together, each by one of them.

Whose turn a check is, every server works out by itself: among the servers that live (their hosts'
leases say so), the one with the highest hash over its name and the check's has it (rendezvous
hashing, Thaler and Ravishankar 1998). When a server dies, its checks alone move, to the others in
equal shares, as soon as its lease has ended. For a moment two servers, or none, may think that a
check is theirs; that does no harm, because nothing but a change of a check's status is written, on
the condition that its row is still the one that was judged.

A server that has not heard of a leader for a while stops probing: its answers could not be written,
and the others have taken over. Who takes over begins with the status that the registry shows.

Probes leave the server, to wherever the catalog says: `[external_checks]` turns them on. Scripts
are never run here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from hashlib import blake2b
from random import Random
from typing import Any, Protocol

import msgspec
import structlog

from raftreg.clock import Clock
from raftreg.config import ExternalCheckSettings
from raftreg.core.catalog import Catalog
from raftreg.core.changes import ALL, Topic
from raftreg.core.commands import CatalogVerb, CheckOp, Command, Deregister, ServiceOp, Txn
from raftreg.core.delta import CatalogDelta
from raftreg.errors import RaftregError
from raftreg.http.decode import CheckDefinition, CheckKind
from raftreg.http.external import (
    HOST_CHECK,
    HOST_CHECK_NAME,
    external_definition,
    host_definition,
    is_external,
)
from raftreg.model import Check, Node, ServiceInstance, Status
from raftreg_agent.checks.machine import CheckMachine, CheckResult, Thresholds
from raftreg_agent.checks.runners import Runner
from raftreg_agent.checks.scheduler import CheckScheduler

TICK_S = 0.5
WRITES_MAX = 32  #: edges on their way at once

_log = structlog.get_logger(__name__)


class ExternalRegistry(Protocol):
    """What this server is, and the way to the registry."""

    def me(self) -> str:
        """Name of this server."""
        ...

    def members(self) -> frozenset[str]:
        """Names of the servers that live, as far as this one knows; empty when it is cut off."""
        ...

    def catalog(self) -> Catalog:
        """The catalog as this server has it."""
        ...

    def on_change(
        self,
        changed: Callable[[tuple[Topic, ...], tuple[CatalogDelta, ...], int], None],
    ) -> None:
        """Adds a listener for changes of the catalog."""
        ...

    async def write(self, command: Command) -> bool:
        """Writes; False when a condition did not hold. Raises RaftregError."""
        ...


def owner_of(key: str, members: Iterable[str]) -> str:
    """The member that a check belongs to.

    Args:
        key: Names the check.
        members: At least one.
    """
    return max(members, key=lambda member: (_weight(member, key), member))


def _weight(member: str, key: str) -> bytes:
    return blake2b(f"{member}\0{key}".encode(), digest_size=8).digest()


class _Held:
    """A check that this server runs."""

    __slots__ = ("definition", "machine", "node", "writing")

    def __init__(self, node: str, definition: CheckDefinition, machine: CheckMachine) -> None:
        self.node = node
        self.definition = definition
        self.machine = machine
        self.writing = False


class ExternalChecks:
    """This server's share of the checks of all hosts without an agent.

    Args:
        registry: The way to the registry.
        runners: What probes each kind of check.
        settings: Limits.
        clock: Source of time.
        rng: Source of jitter.
        forget_after_s: Seconds after which a host that stayed unreachable is deregistered.
    """

    def __init__(
        self,
        registry: ExternalRegistry,
        runners: Mapping[CheckKind, Runner],
        settings: ExternalCheckSettings,
        clock: Clock,
        rng: Random,
        *,
        forget_after_s: float,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self._forget_after_s = forget_after_s
        pacer = _Pacer(clock, settings.probes_per_s_max)
        self._kinds = _PROBED & runners.keys()
        self._scheduler = CheckScheduler(
            {kind: _Paced(runners[kind], pacer) for kind in self._kinds},
            clock,
            rng,
            observed=self._observed,
            expired=lambda _: None,
            in_flight_max=settings.in_flight_max,
        )
        self._members: frozenset[str] = frozenset()
        #: Hosts without an agent, and the checks that run here of each of them.
        self._nodes: dict[str, set[str]] = {}
        self._held: dict[str, _Held] = {}
        self._dirty: set[str] = set()
        self._look_at_all = True
        self._full = False
        self._wake = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._writes = asyncio.Semaphore(WRITES_MAX)
        self.edges_total = 0
        registry.on_change(self._changed)

    @property
    def count(self) -> int:
        """Checks that run here now."""
        return len(self._held)

    @property
    def probes_total(self) -> int:
        """Probes that have ended."""
        return self._scheduler.probes_total

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Probes until it is cancelled.

        Args:
            tasks: Owns probes and writes.
        """
        self._tasks = tasks
        scheduling = tasks.create_task(self._scheduler.run(tasks), name="external checks")
        try:
            while True:
                self.step()
                self._wake.clear()
                try:
                    async with asyncio.timeout(TICK_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            for key in list(self._held):
                self._drop(key)
            scheduling.cancel()

    def look(self) -> None:
        """Looks at the clock again: it was moved by hand (tests, the simulator)."""
        self.step()
        self._scheduler.step()

    def step(self) -> None:
        """Takes and gives up checks, and deregisters what has been critical for too long."""
        members = self._registry.members()
        if members != self._members:
            self._members = members
            self._dirty |= self._nodes.keys()
        if self._look_at_all:
            self._look_at_all = False
            nodes = self._registry.catalog().nodes
            found = {name for name, node in nodes.items() if is_external(node)}
            self._dirty |= found | self._nodes.keys()
        for name in sorted(self._dirty):
            self._assign(name)
        self._dirty.clear()
        self._deregister_due()

    # -- whose turn it is ------------------------------------------------------------------------

    def _changed(
        self, topics: tuple[Topic, ...], deltas: tuple[CatalogDelta, ...], index: int
    ) -> None:
        del index
        if ALL in topics:
            self._look_at_all = True
            self._wake.set()
            return
        for delta in deltas:
            known = delta.node in self._nodes
            if known or (isinstance(delta.row, Node) and is_external(delta.row)):
                self._dirty.add(delta.node)
                self._wake.set()

    def _assign(self, name: str) -> None:
        """Takes what is this server's turn on a host, and gives up all else."""
        node = self._registry.catalog().nodes.get(name)
        wanted: dict[str, CheckDefinition] = {}
        if node is not None and is_external(node):
            self._nodes.setdefault(name, set())
            if self._registry.me() in self._members:
                wanted = self._turns(node)
        for key in sorted(self._nodes.get(name, set()) - wanted.keys()):
            self._drop(key)
        for key, definition in wanted.items():
            self._take(key, name, definition)
        if not is_external(node):
            self._nodes.pop(name, None)

    def _turns(self, node: Node) -> dict[str, CheckDefinition]:
        catalog = self._registry.catalog()
        found = [external_definition(check) for check in catalog.checks_of(node.name)]
        found.append(host_definition(node, catalog))
        keyed = {
            f"{node.name}\0{one.check_id}": one
            for one in found
            if one is not None and one.kind in self._kinds
        }
        me = self._registry.me()
        return {key: one for key, one in keyed.items() if owner_of(key, self._members) == me}

    def _take(self, key: str, node: str, definition: CheckDefinition) -> None:
        held = self._held.get(key)
        if held is None:
            if len(self._held) >= self._settings.checks_max:
                self._refuse(key)
                return
            row = self._row(node, definition.check_id)
            machine = CheckMachine(
                _thresholds(definition),
                self._clock.monotonic(),
                status=Status.CRITICAL if row is None else row.status,
                output="" if row is None else row.output,
            )
            self._held[key] = _Held(node, definition, machine)
            self._nodes[node].add(key)
        elif held.definition != definition:
            held.definition = definition
            held.machine.reconfigure(_thresholds(definition), 0.0, self._clock.monotonic())
        self._scheduler.put(msgspec.structs.replace(definition, check_id=key))

    def _refuse(self, key: str) -> None:
        if not self._full:
            self._full = True
            limit = self._settings.checks_max
            _log.warning("too_many_external_checks", limit=limit, first=key.replace("\0", "/"))

    def _drop(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._scheduler.remove(key)
            self._nodes[held.node].discard(key)
            self._full = False

    def _row(self, node: str, check_id: str) -> Check | None:
        return self._registry.catalog().check(node, check_id)

    # -- what was seen ---------------------------------------------------------------------------

    def _observed(self, key: str, result: CheckResult) -> None:
        """Judges a probe; the registry is told where it shows something else."""
        held = self._held.get(key)
        if held is None:
            return
        held.machine.observe(result, self._clock.monotonic())
        row = self._row(held.node, held.definition.check_id)
        if row is not None and row.status is held.machine.status:
            return
        if row is None and held.definition.check_id != HOST_CHECK:
            return  # deregistered meanwhile
        self._spawn(held, self._tell(held, row))

    async def _tell(self, held: _Held, row: Check | None) -> None:
        """Writes an edge, if the row is still the one that was judged."""
        machine = held.machine
        if row is None:
            row = Check(node=held.node, check_id=HOST_CHECK, name=HOST_CHECK_NAME)
        shown = msgspec.structs.replace(row, status=machine.status, output=machine.output)
        op = CheckOp(verb=CatalogVerb.CAS, check=shown, index=row.modify_index)
        if await self._write(Txn(operations=(op,)), held):
            self.edges_total += 1
            _log.info(
                "external_check_changed",
                node=held.node,
                check=row.check_id,
                status=machine.status.value,
            )

    def _deregister_due(self) -> None:
        now_s = self._clock.monotonic()
        for held in list(self._held.values()):
            is_host = held.definition.check_id == HOST_CHECK
            after_s = self._forget_after_s if is_host else held.definition.deregister_after_s
            if not held.writing and held.machine.deregister_due(after_s, now_s):
                row = self._row(held.node, held.definition.check_id)
                if row is not None and row.status is Status.CRITICAL:
                    self._spawn(held, self._deregister(held, row))

    async def _deregister(self, held: _Held, row: Check) -> None:
        """Removes an instance, or a host, whose check has been critical for too long."""
        if row.check_id == HOST_CHECK:
            if await self._write(Deregister(node=held.node), held):
                _log.warning("external_host_forgotten", node=held.node)
            return
        if not row.service_id:
            return
        still = CheckOp(verb=CatalogVerb.CAS, check=row, index=row.modify_index)
        instance = ServiceInstance(node=row.node, id=row.service_id, name=row.service_name)
        gone = ServiceOp(verb=CatalogVerb.DELETE, service=instance)
        if await self._write(Txn(operations=(still, gone)), held):
            _log.warning("external_service_deregistered", node=row.node, service=row.service_id)

    async def _write(self, command: Command, held: _Held) -> bool:
        async with self._writes:
            try:
                return await self._registry.write(command)
            except RaftregError as error:
                # The next probe finds whether it is still to be told.
                _log.info("external_check_not_told", node=held.node, reason=error.message)
                return False

    def _spawn(self, held: _Held, work: Coroutine[Any, Any, None]) -> None:
        """One write of a check at a time: what comes meanwhile the next probe tells."""
        if held.writing or self._tasks is None:
            work.close()
            return
        held.writing = True

        async def written() -> None:
            try:
                await work
            finally:
                held.writing = False

        self._tasks.create_task(written(), name=f"external check of {held.node}")


_PROBED = frozenset({CheckKind.HTTP, CheckKind.TCP, CheckKind.UDP, CheckKind.GRPC})


class _Pacer:
    """Spreads the beginnings of probes: at most so many a second."""

    def __init__(self, clock: Clock, per_s_max: int) -> None:
        self._clock = clock
        self._gap_s = 1 / per_s_max
        self._next_s = float("-inf")

    async def turn(self) -> None:
        now_s = self._clock.monotonic()
        at_s = max(now_s, self._next_s)
        self._next_s = at_s + self._gap_s
        if at_s > now_s:
            await asyncio.sleep(at_s - now_s)


class _Paced:
    """A runner that takes its turn first."""

    def __init__(self, runner: Runner, pacer: _Pacer) -> None:
        self._runner = runner
        self._pacer = pacer

    async def run(self, check: CheckDefinition) -> CheckResult:
        """See `Runner`."""
        await self._pacer.turn()
        return await self._runner.run(check)


def _thresholds(definition: CheckDefinition) -> Thresholds:
    return Thresholds(
        success_before_passing=definition.success_before_passing,
        failures_before_warning=definition.failures_before_warning,
        failures_before_critical=definition.failures_before_critical,
    )
