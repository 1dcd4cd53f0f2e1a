"""What of this host's registrations goes to disk, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from raftreg.http.decode import ServiceDefinition
from raftreg.model import Status
from raftreg_agent.state import KnownStatus, LocalState, Source
from raftreg_agent.store import Shelf, Store

RETRY_S = 30.0

log = structlog.get_logger(__name__)


class Memory:
    """Notes changes for the store.

    A service that was registered by API has a file with all its checks; a check of the host, or of
    a service from a definition file, has one of its own.

    Args:
        store: Takes the files.
        state: This host's tables.
    """

    def __init__(self, store: Store, state: LocalState) -> None:
        self._store = store
        self._state = state
        self._kept: set[str] = set()
        self._changed = asyncio.Event()
        state.on_edge(self._edge)

    def recall(self, statuses: Iterable[KnownStatus]) -> None:
        """Takes what the store held of statuses."""
        statuses = tuple(statuses)
        self._kept.update(known.check_id for known in statuses)
        self._state.recall(statuses)

    def forget_lost(self) -> None:
        """Drops statuses of checks that are not there any more."""
        for check_id in self._kept - self._state.checks.keys():
            self._edge(check_id)

    def put_service(self, service_id: str) -> None:
        """Notes an instance of the API with all checks it has now."""
        service = self._state.services.get(service_id)
        if service is None or service.source is not Source.API:
            return
        ids = [row.check_id for row in self._state.checks_of(service_id)]
        checks = tuple(self._state.checks[check_id].definition for check_id in ids)
        definition = ServiceDefinition(service.row, checks, service.sidecar_of)
        self._store.put(Shelf.SERVICES, service_id, definition)

    def put_check(self, check_id: str) -> None:
        """Notes a check: in the file of its instance, or in one of its own."""
        check = self._state.checks[check_id]
        service = self._state.services.get(check.definition.service_id)
        if service is not None and service.source is Source.API:
            self.put_service(check.definition.service_id)
        else:
            self._store.put(Shelf.CHECKS, check_id, check.definition)

    def drop_service(self, service_id: str) -> None:
        """Notes that an instance is gone."""
        self._store.remove(Shelf.SERVICES, service_id)

    def drop_check(self, check_id: str) -> None:
        """Notes that a check has no file of its own any more."""
        self._store.remove(Shelf.CHECKS, check_id)

    async def flush(self) -> OSError | None:
        """Returns when all that was noted is on disk, or with what went wrong."""
        try:
            await self._store.flush()
        except OSError as error:
            log.error("registrations not written", error=str(error))  # noqa: TRY400  # the disk says why
            return error
        return None

    async def run(self) -> None:
        """Writes statuses until it is cancelled; nobody waits for them."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if await self.flush() is not None:
                await asyncio.sleep(RETRY_S)
                self._changed.set()

    def _edge(self, check_id: str) -> None:
        """A check came, went or changed: its status is kept where a restart would guess wrong."""
        check = self._state.checks.get(check_id)
        if check is None:
            if check_id in self._kept:
                self._kept.discard(check_id)
                self._store.remove(Shelf.STATUSES, check_id)
                self._changed.set()
            return
        status = check.machine.status
        if status is (check.definition.status or Status.CRITICAL) and check_id not in self._kept:
            return
        self._kept.add(check_id)
        known = KnownStatus(check_id, status, check.machine.output)
        self._store.put(Shelf.STATUSES, check_id, known)
        self._changed.set()
