"""What is registered on this host: services, checks and their health. Pure.

Time comes as an argument. Every mutation tells the ledger what it touched; the caller persists and
sends.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from raftreg.errors import NotFound, Rejected
from raftreg.http.decode import CheckDefinition, ServiceDefinition
from raftreg.http.proxies import sidecar_id
from raftreg.model import (
    NODE_MAINTENANCE,
    SERVICE_MAINTENANCE_PREFIX,
    Check,
    Node,
    ServiceInstance,
    Status,
)
from raftreg_agent.checks.machine import CheckMachine, CheckResult, Damping, Thresholds
from raftreg_agent.ledger import SyncLedger

SERVICES_MAX = 100_000
CHECKS_MAX = 200_000
NOTE_BYTES_MAX = 4096


class Source(enum.Enum):
    """Who registered something: a client, a file (replaced by a reload), or the agent itself."""

    API = "api"
    BUILTIN = "builtin"
    CONFIG = "config"


class KnownStatus(msgspec.Struct, frozen=True):
    """A status from before a restart."""

    check_id: str
    status: Status
    output: str = ""


class LocalService(msgspec.Struct, frozen=True):
    """An instance of this host."""

    row: ServiceInstance
    source: Source
    #: The instance with which it came and goes, as its sidecar; "" for none.
    sidecar_of: str = ""


class LocalCheck:
    """A check of this host with its health.

    Attributes:
        definition: What is run.
        source: Who registered it.
        machine: Its health. Maintenance checks have one too, which nothing ever moves.
        row: The row as last built.
    """

    __slots__ = ("definition", "machine", "row", "source")

    def __init__(self, definition: CheckDefinition, source: Source, machine: CheckMachine) -> None:
        self.definition = definition
        self.source = source
        self.machine = machine
        self.row: Check | None = None


def thresholds(definition: CheckDefinition) -> Thresholds:
    """The thresholds of a definition."""
    return Thresholds(
        success_before_passing=definition.success_before_passing,
        failures_before_warning=definition.failures_before_warning,
        failures_before_critical=definition.failures_before_critical,
    )


class LocalState:
    """The agent's own tables.

    Args:
        node: Row of this host.
        ledger: Learns what was touched.
        damping: Figures of flap damping for all checks.
    """

    def __init__(self, node: Node, ledger: SyncLedger, damping: Damping | None = None) -> None:
        self.node = node
        self.services: dict[str, LocalService] = {}
        self.checks: dict[str, LocalCheck] = {}
        self._ledger = ledger
        self._damping = damping or Damping()
        self._of_service: dict[str, dict[str, None]] = {}
        self._known: dict[str, KnownStatus] = {}
        self._edge: list[Callable[[str], None]] = []

    def on_edge(self, told: Callable[[str], None]) -> None:
        """Adds a callback for ids of checks whose status changed, or that came or went."""
        self._edge.append(told)

    def recall(self, known: Iterable[KnownStatus]) -> None:
        """Takes statuses from before a restart, for checks that are registered after this."""
        self._known.update((status.check_id, status) for status in known)

    # -- what the ledger reads ---------------------------------------------------------------

    def service_rows(self) -> Mapping[str, ServiceInstance]:
        """Instances by id."""
        return _Rows(self.services)

    def sidecar(self, service_id: str) -> str:
        """Id of the sidecar that came with an instance; "" when there is none."""
        found = self.services.get(sidecar_id(service_id))
        return found.row.id if found is not None and found.sidecar_of == service_id else ""

    def check_ids(self) -> Iterable[str]:
        """Ids of all checks."""
        return self.checks.keys()

    def check_row(self, check_id: str) -> Check | None:
        """The row of a check as it is now."""
        check = self.checks.get(check_id)
        if check is None:
            return None
        row = check.row
        machine = check.machine
        if row is None or row.status is not machine.status or row.output != machine.output:
            row = check.row = self._build_row(check)
        return row

    def checks_of(self, service_id: str) -> Iterator[Check]:
        """Rows of the checks of an instance."""
        for check_id in self._of_service.get(service_id, ()):
            row = self.check_row(check_id)
            if row is not None:
                yield row

    def node_checks(self) -> Iterator[Check]:
        """Rows of the checks of the host itself."""
        return self.checks_of("")

    # -- registrations -----------------------------------------------------------------------

    def put_service(
        self,
        definition: ServiceDefinition,
        source: Source,
        now_s: float,
        *,
        replace_checks: bool = False,
    ) -> list[str]:
        """Registers an instance with its checks; present health stays (wish 5).

        Args:
            definition: What to register.
            source: Who registers it.
            now_s: Present time of the agent's clock, in seconds.
            replace_checks: Remove checks of the instance that the definition does not name.

        Returns:
            Ids of checks that were removed.

        Raises:
            Rejected: The host has as many services or checks as it may have.
        """
        row = msgspec.structs.replace(definition.service, node=self.node.name)
        self._refuse_overflow(row.id, definition.checks)
        before = self.services.get(row.id)
        self.services[row.id] = LocalService(row, source, definition.sidecar_of)
        if before is None or before.row != row:
            self._ledger.touch_service(row.id)
            for check_id in self._of_service.get(row.id, ()):
                self._changed(check_id)
        for check in definition.checks:
            self._put(check, source, now_s)
        if not replace_checks:
            return []
        named = {check.check_id for check in definition.checks}
        kept = {SERVICE_MAINTENANCE_PREFIX + row.id}
        # A reload replaces what files said; what clients added to a service of a file stays.
        gone = [
            key
            for key in self._of_service.get(row.id, ())
            if key not in named | kept
            and (source is Source.API or self.checks[key].source is source)
        ]
        for check_id in gone:
            self.remove_check(check_id)
        return gone

    def remove_service(self, service_id: str) -> list[str] | None:
        """Removes an instance and its checks; gives the checks' ids, None when it is not there."""
        if self.services.pop(service_id, None) is None:
            return None
        gone = list(self._of_service.get(service_id, ()))
        for check_id in gone:
            self.remove_check(check_id)
        self._ledger.touch_service(service_id)
        return gone

    def put_check(self, check: CheckDefinition, source: Source, now_s: float) -> None:
        """Registers a check of the host or of one of its instances.

        Raises:
            Rejected: The instance is unknown, or there are too many checks.
        """
        if check.service_id and check.service_id not in self.services:
            raise Rejected(f'ServiceID "{check.service_id}" does not exist')
        if check.check_id not in self.checks and len(self.checks) >= CHECKS_MAX:
            raise Rejected(f"this host has {CHECKS_MAX} checks; it may not have more")
        self._put(check, source, now_s)

    def remove_check(self, check_id: str) -> bool:
        """Removes a check; False when it is not there."""
        check = self.checks.pop(check_id, None)
        if check is None:
            return False
        self._unlink(check)
        self._changed(check_id)
        return True

    # -- health ------------------------------------------------------------------------------

    def observe(self, check_id: str, result: CheckResult, now_s: float) -> bool:
        """Takes the result of a probe; True on an edge."""
        check = self.checks.get(check_id)
        if check is None:
            return False
        edge = check.machine.observe(result, now_s)
        if edge:
            self._changed(check_id)
        return edge

    def mirror(self, check_id: str, result: CheckResult, now_s: float) -> bool:
        """Takes what an alias check sees: as it is, without thresholds or damping."""
        check = self.checks.get(check_id)
        if check is None:
            return False
        return self._asserted(check_id, check, result.status, result.output, now_s)

    def assert_ttl(self, check_id: str, status: Status, output: str, now_s: float) -> bool:
        """Takes the word of a TTL check's owner; True on an edge.

        Raises:
            Rejected: There is no such check, or it is no TTL check.
        """
        check = self.checks.get(check_id)
        if check is None or check.definition.ttl_s <= 0:
            raise Rejected(f'CheckID "{check_id}" does not have associated TTL')
        clipped = output.encode("utf-8", "replace")[:NOTE_BYTES_MAX].decode("utf-8", "ignore")
        return self._asserted(check_id, check, status, clipped, now_s)

    def expire(self, check_id: str, now_s: float) -> bool:
        """Ends the term of a TTL check when it is over; True on an edge."""
        check = self.checks.get(check_id)
        if check is None or not check.machine.expire(now_s):
            return False
        self._changed(check_id)
        return True

    def critical_too_long(self, now_s: float) -> list[str]:
        """Instances to be removed by `DeregisterCriticalServiceAfter`."""
        return sorted(
            {
                check.definition.service_id
                for check in self.checks.values()
                if check.definition.service_id
                and check.machine.deregister_due(check.definition.deregister_after_s, now_s)
            }
        )

    def health_of(self, service_id: str) -> tuple[Status, list[Check], bool]:
        """Health of an instance: the worst of its checks and of its host's.

        Returns:
            The status, the checks that count, and whether maintenance is on.

        Raises:
            NotFound: There is no such instance.
        """
        if service_id not in self.services:
            raise NotFound(f"ServiceId {service_id} not found")
        checks = [*self.checks_of(service_id), *self.node_checks()]
        maintenance = {NODE_MAINTENANCE, SERVICE_MAINTENANCE_PREFIX + service_id}
        in_maintenance = any(check.check_id in maintenance for check in checks)
        return worst(checks), checks, in_maintenance

    # -- inside ------------------------------------------------------------------------------

    def _put(self, definition: CheckDefinition, source: Source, now_s: float) -> None:
        present = self.checks.get(definition.check_id)
        if present is None:
            self.checks[definition.check_id] = self._new_check(definition, source, now_s)
        else:
            self._unlink(present)
            present.machine.reconfigure(thresholds(definition), definition.ttl_s, now_s)
            present.definition, present.source, present.row = definition, source, None
        self._of_service.setdefault(definition.service_id, {})[definition.check_id] = None
        self._changed(definition.check_id)

    def _new_check(self, definition: CheckDefinition, source: Source, now_s: float) -> LocalCheck:
        known = self._known.pop(definition.check_id, None)
        status = known.status if known else definition.status or Status.CRITICAL
        machine = CheckMachine(
            thresholds(definition),
            now_s,
            status=status,
            output=known.output if known else "",
            ttl_s=definition.ttl_s,
            damping=self._damping,
        )
        return LocalCheck(definition, source, machine)

    def _asserted(
        self, check_id: str, check: LocalCheck, status: Status, output: str, now_s: float
    ) -> bool:
        edge = check.machine.assert_status(status, output, now_s)
        if edge:
            self._changed(check_id)
        return edge

    def _changed(self, check_id: str) -> None:
        check = self.checks.get(check_id)
        if check is not None:
            check.row = None
        self._ledger.touch_check(check_id)
        for told in self._edge:
            told(check_id)

    def _unlink(self, check: LocalCheck) -> None:
        siblings = self._of_service.get(check.definition.service_id)
        if siblings is not None:
            siblings.pop(check.definition.check_id, None)
            if not siblings:
                del self._of_service[check.definition.service_id]

    def _refuse_overflow(self, service_id: str, checks: tuple[CheckDefinition, ...]) -> None:
        if service_id not in self.services and len(self.services) >= SERVICES_MAX:
            raise Rejected(f"this host has {SERVICES_MAX} services; it may not have more")
        new = sum(check.check_id not in self.checks for check in checks)
        if len(self.checks) + new > CHECKS_MAX:
            raise Rejected(f"this host may not have more than {CHECKS_MAX} checks")

    def _build_row(self, check: LocalCheck) -> Check:
        definition = check.definition
        service = self.services.get(definition.service_id)
        return Check(
            node=self.node.name,
            check_id=definition.check_id,
            name=definition.name,
            status=check.machine.status,
            notes=definition.notes,
            output=check.machine.output,
            service_id=definition.service_id,
            service_name=service.row.name if service else "",
            service_tags=service.row.tags if service else (),
            type=check_type(definition),
        )


def check_type(definition: CheckDefinition) -> str:
    """`Type` of a check as clients know it; maintenance checks have their own."""
    if is_maintenance(definition.check_id):
        return "maintenance"
    return definition.kind.value


def is_maintenance(check_id: str) -> bool:
    """Tells whether a check is a maintenance mark."""
    return check_id == NODE_MAINTENANCE or check_id.startswith(SERVICE_MAINTENANCE_PREFIX)


def worst(checks: Iterable[Check]) -> Status:
    """The worst status; passing when there is no check."""
    statuses = {check.status for check in checks}
    for status in (Status.CRITICAL, Status.WARNING):
        if status in statuses:
            return status
    return Status.PASSING


class _Rows(Mapping[str, ServiceInstance]):
    """The rows of instances, without a copy."""

    def __init__(self, services: dict[str, LocalService]) -> None:
        self._services = services

    def __getitem__(self, key: str) -> ServiceInstance:
        return self._services[key].row

    def __iter__(self) -> Iterator[str]:
        return iter(self._services)

    def __len__(self) -> int:
        return len(self._services)
