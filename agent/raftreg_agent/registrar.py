"""Anti-entropy: keeps sending until the registry holds what this host says.

One NodeSync is in flight at a time; what changes meanwhile goes into the next one together, so
that many registrations cost few log entries. A row that the registry refuses is found by halving
the batch and set aside with its reason; the others go on.
"""

from __future__ import annotations

import asyncio
from random import Random
from urllib.parse import quote

import msgspec
import structlog

from raftreg.client.api import RegistryClient
from raftreg.client.failures import transient
from raftreg.client.retry import Backoff
from raftreg.clock import Clock
from raftreg.core import commands
from raftreg.errors import RaftregError
from raftreg.model import SERF_HEALTH
from raftreg_agent.ledger import SYNC_BYTES_MAX, Batch, SyncLedger, Truth

SYNC_PATH = "/v1/internal/node-sync"
MSGPACK = {"Content-Type": "application/msgpack"}
ROWS_MAX = 4096
DEADLINE_S = 5.0
GATHER_S = 0.005
#: A batch of more rows than one registration has tells that many come at once.
CROWD_ROWS = 4
#: Retries go on for ever; the longest wait bounds how late a host shows after an outage.
BACKOFF = Backoff(first_s=0.1, max_s=3.0)

log = structlog.get_logger(__name__)


class _HeldNode(msgspec.Struct):
    """What /v1/catalog/node tells: ids are all that counts."""

    services: dict[str, object] = msgspec.field(name="Services", default_factory=dict)


class _HeldCheck(msgspec.Struct):
    """Likewise of /v1/health/node."""

    check_id: str = msgspec.field(name="CheckID")


class Registrar:
    """Sends what the ledger says.

    Args:
        client: Where servers are.
        ledger: What has to be sent.
        truth: What the agent has.
        clock: Source of time.
        rng: Source of jitter.
    """

    def __init__(
        self, client: RegistryClient, ledger: SyncLedger, truth: Truth, clock: Clock, rng: Random
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._truth = truth
        self._clock = clock
        self._rng = rng
        self._rows_max = ROWS_MAX
        self._rows_last = 0
        self._wake = asyncio.Event()
        self._waiters: dict[asyncio.Future[None], int] = {}
        self._failures = 0
        self.in_flight = False
        self.syncs_total = 0
        self.failures_total = 0

    @property
    def quiet(self) -> bool:
        """True when nothing is in flight and nothing waits: then a digest must be equal."""
        return self._ledger.settled and not self.in_flight

    def kick(self) -> None:
        """Something changed."""
        self._wake.set()

    def require_full(self) -> None:
        """Something differs: say everything."""
        self._ledger.require_full()
        self.kick()

    async def synced(self, revision: int, timeout_s: float) -> bool:
        """Waits until a revision is in the registry; False when the time is over before."""
        self.kick()
        if self._ledger.synced >= revision:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = revision
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            del self._waiters[waiter]
        return True

    async def run(self) -> None:
        """Syncs until it is cancelled."""
        while True:
            # Alone, a change is sent at once; in a crowd, a moment later and many together.
            await asyncio.sleep(GATHER_S if self._rows_last > CROWD_ROWS else 0.0)
            self._wake.clear()
            try:
                await self.step()
                self._failures = 0
            except RaftregError as error:
                await self._back_off(error)
                continue
            if self._ledger.settled:
                await self._wake.wait()

    async def step(self) -> None:
        """Sends one batch, if there is one.

        Raises:
            RaftregError: The registry could not be reached; the batch is due again.
        """
        batch = self._ledger.next_batch(self._truth, rows_max=self._rows_max)
        self._rows_last = batch.rows if batch is not None else 0
        if batch is None:
            self._tell_waiters()
            return
        self.in_flight = True
        try:
            await self._send(batch)
        finally:
            self.in_flight = False
        self._tell_waiters()

    async def _send(self, batch: Batch) -> None:
        body = commands.encode(batch.command)
        if batch.command.full and len(body) > SYNC_BYTES_MAX:
            await self._start_in_parts()
            return
        try:
            await self._client.request(
                "PUT", SYNC_PATH, data=body, headers=MSGPACK, deadline_s=DEADLINE_S
            )
        except asyncio.CancelledError:
            self._ledger.failed(batch, definite=False)
            raise
        except RaftregError as error:
            if transient(error):
                self._ledger.failed(batch, definite=error.definite)
                raise
            await self._refused(batch, error)
            return
        self.syncs_total += 1
        self._rows_max = min(ROWS_MAX, self._rows_max * 2)
        self._ledger.acknowledged(batch, self._clock.monotonic())

    async def _refused(self, batch: Batch, error: RaftregError) -> None:
        """Narrows down which row it is that the registry does not take."""
        if batch.command.full:
            self._ledger.failed(batch, definite=True)
            log.warning("full sync refused, going on row by row", error=error.message)
            await self._start_in_parts()
        elif batch.rows > 1:
            self._ledger.failed(batch, definite=True)
            self._rows_max = max(1, batch.rows // 2)
        else:
            log.error(
                "the registry refuses a row; it is left out until it changes",
                service=batch.services,
                check=batch.checks,
                error=error.message,
            )
            self._ledger.refuse(batch, error.message)

    async def _start_in_parts(self) -> None:
        """Learns what the registry has of this host; all of ours is then sent in batches."""
        name = quote(self._truth.node.name, safe="")
        try:
            answer = await self._client.request("GET", f"/v1/catalog/node/{name}")
            node: _HeldNode | None = answer.json(_HeldNode | None)
            answer = await self._client.request("GET", f"/v1/health/node/{name}")
            checks: list[_HeldCheck] = answer.json(list[_HeldCheck])
        except RaftregError:
            self._ledger.require_full()
            raise
        services = list(node.services) if node is not None else []
        check_ids = [check.check_id for check in checks if check.check_id != SERF_HEALTH]
        self._ledger.assume(self._truth, services, check_ids)

    async def _back_off(self, error: RaftregError) -> None:
        self.failures_total += 1
        if self._failures in {0, 5} or self._failures % 60 == 0:
            log.warning("sync failed, trying on", attempts=self._failures + 1, error=error.message)
        delay_s = BACKOFF.delay_s(self._failures, self._rng)
        self._failures += 1
        await asyncio.sleep(delay_s)

    def _tell_waiters(self) -> None:
        for waiter, revision in self._waiters.items():
            if revision <= self._ledger.synced and not waiter.done():
                waiter.set_result(None)
