"""What the leader does for the registry itself: its identity, and the end of old tombstones."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from raftreg.clock import Clock
from raftreg.core import commands
from raftreg.core.changes import ALL, Topic
from raftreg.core.commands import ConfigSet, ReapTombstones
from raftreg.core.identity import identity_entry, identity_of
from raftreg.errors import RaftregError
from raftreg.raft.api import ReplicaAPI, Role
from raftreg.server.machine import RegistryMachine

TOMBSTONE_AGE_S = 15 * 60.0
MARK_EVERY_S = 60.0
RETRY_S = 1.0

_log = structlog.get_logger(__name__)


class Upkeep:
    """Runs on every server; does something only on the leader.

    Args:
        replica: Takes proposals.
        machine: Holds the state.
        clock: Source of time.
        new_id: Makes a random UUID.
    """

    def __init__(
        self,
        replica: ReplicaAPI,
        machine: RegistryMachine,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._replica = replica
        self._machine = machine
        self._clock = clock
        self._new_id = new_id
        self._term: int | None = None
        self._wake = asyncio.Event()
        #: (time, index then): how far back each index lies.
        self._marks: deque[tuple[float, int]] = deque()
        self._reaped = 0
        replica.on_role_change(self._role_changed)
        machine.on_change(self._changed)

    def epoch(self) -> str:
        """Names the history that the registry's indexes belong to; "" before there is one."""
        return identity_of(self._machine.state)

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            self._wake.clear()
            try:
                await self._step()
                wait_s = MARK_EVERY_S
            except RaftregError as error:
                _log.info("upkeep_later", reason=error.message)
                wait_s = RETRY_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _step(self) -> None:
        term = self._term
        if term is None:
            self._marks.clear()
            return
        if not self.epoch():
            entry = identity_entry(self._new_id())
            await self._propose(ConfigSet(entry=entry, cas=0), term)
        await self._reap(term)

    async def _reap(self, term: int) -> None:
        """Forgets tombstones that are older than any watch could last."""
        now = self._clock.monotonic()
        if not self._marks or now - self._marks[-1][0] >= MARK_EVERY_S:
            self._marks.append((now, self._machine.state.index))
        up_to = 0
        while self._marks and self._marks[0][0] <= now - TOMBSTONE_AGE_S:
            up_to = self._marks.popleft()[1]
        if up_to > self._reaped and self._machine.state.kv.tombstones:
            self._reaped = up_to
            await self._propose(ReapTombstones(up_to_index=up_to), term)

    async def _propose(self, command: commands.Command, term: int) -> None:
        await self._replica.propose(commands.encode(command), timeout_s=5.0, in_term=term)

    def _role_changed(self, role: Role, term: int) -> None:
        self._term = term if role is Role.LEADER else None
        self._wake.set()

    def _changed(self, topics: tuple[Topic, ...], *_: object) -> None:
        if ALL in topics:
            self._reaped = 0
            self._wake.set()
