"""Updates of coordinates on their way into the log: the last one of each node, a few at a time.

They are worth little one by one and come from every host, so they are gathered: a batch at once
when none was sent lately, then at most `BATCHES_MAX` a period. What is not written in the end is
sent again by the host itself, which learns from its next measurement that it is not known.
"""

from __future__ import annotations

import asyncio

import structlog

from raftreg.core.commands import CoordinateUpdate
from raftreg.errors import NotProposed, RaftregError
from raftreg.model import NodeCoordinate
from raftreg.server.writes import Writes

PERIOD_S = 1.0
BATCH_ROWS_MAX = 128
BATCHES_MAX = 4
PENDING_MAX = 16_384

_log = structlog.get_logger(__name__)


class CoordinateQueue:
    """Gathers updates and proposes them.

    Args:
        writes: Proposes.

    Attributes:
        dropped: Updates that could not be written.
    """

    def __init__(self, writes: Writes) -> None:
        self.dropped = 0
        self._writes = writes
        self._pending: dict[tuple[str, str], NodeCoordinate] = {}
        self._wake = asyncio.Event()

    def put(self, row: NodeCoordinate) -> None:
        """Takes an update; it replaces one of the same node that still waits.

        Raises:
            NotProposed: Too many wait.
        """
        key = (row.node, row.segment)
        if key not in self._pending and len(self._pending) >= PENDING_MAX:
            raise NotProposed("too many coordinate updates are waiting: try again later")
        self._pending[key] = row
        self._wake.set()

    async def run(self) -> None:
        """Proposes what comes, until it is cancelled."""
        while True:
            self._wake.clear()
            if not self._pending:
                await self._wake.wait()
            for _ in range(BATCHES_MAX):
                await self._propose(self._take())
            await asyncio.sleep(PERIOD_S)

    def _take(self) -> tuple[NodeCoordinate, ...]:
        keys = list(self._pending)[:BATCH_ROWS_MAX]
        return tuple(self._pending.pop(key) for key in keys)

    async def _propose(self, rows: tuple[NodeCoordinate, ...]) -> None:
        if not rows:
            return
        try:
            await self._writes.propose(CoordinateUpdate(rows=rows))
        except RaftregError as error:
            self.dropped += len(rows)
            _log.info("coordinates_not_written", count=len(rows), reason=error.message)
