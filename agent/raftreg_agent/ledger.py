"""What the registry is believed to hold of this host, and what has to be sent next. Pure.

Anti-entropy in two words, as in Consul's `agent/ae`: *full* says everything at once and removes
what is not named; *changes* sends only rows that differ from what was acknowledged. An outcome
that is unknown makes the next one full, since a row may be there that nobody believes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from raftreg.core.commands import NodeSync
from raftreg.core.digest import node_digest
from raftreg.model import Check, Node, ServiceInstance

#: Below the body limit of a server (1 MiB) and of a log entry (1.5 MiB), with room for framing.
SYNC_BYTES_MAX = 700_000


class Truth(Protocol):
    """What the agent has; the ledger compares it with what was acknowledged."""

    @property
    def node(self) -> Node:
        """The row of this host."""
        ...

    def service_rows(self) -> Mapping[str, ServiceInstance]:
        """Instances by id."""
        ...

    def check_ids(self) -> Iterable[str]:
        """Ids of all checks."""
        ...

    def check_row(self, check_id: str) -> Check | None:
        """The row of a check as it is now."""
        ...


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One NodeSync on its way.

    Attributes:
        command: What is sent.
        revision: Local changes up to this one are in it or were before, None while more wait.
        services, checks: Ids that it settles.
    """

    command: NodeSync
    revision: int | None
    services: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Number of ids that it settles."""
        return len(self.services) + len(self.checks)


class SyncLedger:
    """Counts local changes and what of them was acknowledged.

    Args:
        output_interval_s: Seconds for which a changed output alone is held back.
    """

    def __init__(self, output_interval_s: float = 300.0) -> None:
        self.full = True
        self.revision = 1
        self.synced = 0
        self.refused: dict[str, str] = {}
        self._output_interval_s = output_interval_s
        self._services: dict[str, ServiceInstance] = {}
        self._checks: dict[str, Check] = {}
        self._node: Node | None = None
        self._sent_s: dict[str, float] = {}
        # Dicts, for their order: what changed first is sent first.
        self._dirty_services: dict[str, None] = {}
        self._dirty_checks: dict[str, None] = {}
        self._digest: str | None = None

    @property
    def settled(self) -> bool:
        """True when nothing waits to be sent."""
        return not (self.full or self._dirty_services or self._dirty_checks)

    def touch_service(self, service_id: str) -> int:
        """Marks an instance as changed; gives the revision to wait for."""
        self._dirty_services[service_id] = None
        self.refused.pop("service " + service_id, None)
        self.revision += 1
        return self.revision

    def touch_check(self, check_id: str) -> int:
        """Marks a check as changed; gives the revision to wait for."""
        self._dirty_checks[check_id] = None
        self.refused.pop("check " + check_id, None)
        self.revision += 1
        return self.revision

    def require_full(self) -> None:
        """Makes the next sync a full one."""
        self.full = True

    def touch_stale_outputs(self, truth: Truth, now_s: float) -> bool:
        """Marks checks whose output alone changed and was held back long enough."""
        before = len(self._dirty_checks)
        for check_id, sent in self._checks.items():
            row = truth.check_row(check_id)
            if row is None or row.output == sent.output:
                continue
            if now_s - self._sent_s.get(check_id, now_s) >= self._output_interval_s:
                self._dirty_checks[check_id] = None
        return len(self._dirty_checks) > before

    def digest(self) -> str | None:
        """Digest of what the registry is believed to hold; None before the first full sync."""
        if self._node is None:
            return None
        if self._digest is None:
            self._digest = node_digest(self._node, self._services.values(), self._checks.values())
        return self._digest

    def next_batch(self, truth: Truth, *, rows_max: int = 4096) -> Batch | None:
        """Takes what has to be sent next; None when nothing has to be.

        Args:
            truth: What the agent has now.
            rows_max: Most rows in the batch (1 isolates a row that is refused).
        """
        if self.full:
            return self._full_batch(truth)
        batch = self._changes(truth, rows_max)
        if not batch.rows:
            self.synced = self.revision
            return None
        return batch

    def acknowledged(self, batch: Batch, now_s: float) -> None:
        """Books a batch that the registry has."""
        command = batch.command
        if command.full:
            self.full = False
            self._services.clear()
            self._checks.clear()
        for service_id in command.remove_services:
            self._services.pop(service_id, None)
        for check_id in command.remove_checks:
            self._checks.pop(check_id, None)
            self._sent_s.pop(check_id, None)
        self._services.update((service.id, service) for service in command.services)
        self._checks.update((check.check_id, check) for check in command.checks)
        self._sent_s.update((check.check_id, now_s) for check in command.checks)
        self._node = command.node
        self._digest = None
        if batch.revision is not None:
            self.synced = max(self.synced, batch.revision)

    def failed(self, batch: Batch, *, definite: bool) -> None:
        """Takes back a batch that was not acknowledged.

        Args:
            batch: What was sent.
            definite: True when it certainly had no effect.
        """
        if batch.command.full or not definite:
            self.full = True
            return
        self._dirty_services = dict.fromkeys(batch.services) | self._dirty_services
        self._dirty_checks = dict.fromkeys(batch.checks) | self._dirty_checks

    def refuse(self, batch: Batch, why: str) -> None:
        """Gives up on a row that the registry does not take, until it is changed here."""
        for service_id in batch.services:
            self.refused["service " + service_id] = why
        for check_id in batch.checks:
            self.refused["check " + check_id] = why
        if batch.revision is not None:
            self.synced = max(self.synced, batch.revision)

    def assume(self, truth: Truth, service_ids: Iterable[str], check_ids: Iterable[str]) -> None:
        """Starts anew from ids that the registry holds: everything of ours is sent in parts, and
        what is not ours is removed. For hosts that one full sync does not fit, and for those of
        which a row is refused.
        """
        self.full = False
        self._services = dict.fromkeys(service_ids, _UNKNOWN_SERVICE)
        self._checks = dict.fromkeys(check_ids, _UNKNOWN_CHECK)
        self._digest = None
        self._dirty_services = dict.fromkeys([*truth.service_rows(), *self._services])
        self._dirty_checks = dict.fromkeys([*truth.check_ids(), *self._checks])
        self.revision += 1

    def _full_batch(self, truth: Truth) -> Batch:
        rows = [truth.check_row(check_id) for check_id in truth.check_ids()]
        services = tuple(truth.service_rows().values())
        checks = tuple(row for row in rows if row is not None)
        self._dirty_services.clear()
        self._dirty_checks.clear()
        return Batch(
            command=NodeSync(node=truth.node, services=services, checks=checks, full=True),
            revision=self.revision,
            services=tuple(service.id for service in services),
            checks=tuple(check.check_id for check in checks),
        )

    def _changes(self, truth: Truth, rows_max: int) -> Batch:
        """The rows that differ, services first: a check needs its service."""
        room = _Room(rows_max)
        gone_services, services = [], []
        desired = truth.service_rows()
        for service_id in _take(self._dirty_services, room):
            service = desired.get(service_id)
            if service is None and service_id in self._services:
                gone_services.append(service_id)
            elif service is not None and service != self._services.get(service_id):
                services.append(service)
                room.use(service)
        gone_checks, checks = [], []
        for check_id in _take(self._dirty_checks, room):
            row = truth.check_row(check_id)
            if row is None and check_id in self._checks:
                gone_checks.append(check_id)
            elif row is not None and row != self._checks.get(check_id):
                checks.append(row)
                room.use(row)
        return Batch(
            command=NodeSync(
                node=truth.node,
                services=tuple(services),
                checks=tuple(checks),
                remove_services=tuple(gone_services),
                remove_checks=tuple(gone_checks),
            ),
            revision=None if self._dirty_services or self._dirty_checks else self.revision,
            services=(*(service.id for service in services), *gone_services),
            checks=(*(check.check_id for check in checks), *gone_checks),
        )


class _Room:
    """How much still fits a batch."""

    def __init__(self, rows_max: int) -> None:
        self._rows = rows_max
        self._bytes = SYNC_BYTES_MAX

    @property
    def left(self) -> bool:
        return self._rows > 0 and self._bytes > 0

    def use(self, row: ServiceInstance | Check) -> None:
        self._rows -= 1
        self._bytes -= len(msgspec.msgpack.encode(row))


def _take(dirty: dict[str, None], room: _Room) -> Iterable[str]:
    """Takes ids off the front while there is room."""
    while dirty and room.left:
        key = next(iter(dirty))
        del dirty[key]
        yield key


#: Equal to no row of a real host, so that what is there gets compared with by sending.
_UNKNOWN_SERVICE = ServiceInstance(node="", id="", name="")
_UNKNOWN_CHECK = Check(node="", check_id="")
