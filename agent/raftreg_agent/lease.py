"""The host's lease: renewed at any server, every `renew_s`, with a digest of what is registered."""

from __future__ import annotations

import asyncio

import structlog

from raftreg.client.api import RegistryClient
from raftreg.client.failures import BadAnswer
from raftreg.clock import Clock
from raftreg.errors import RaftregError
from raftreg_agent.ledger import SyncLedger, Truth
from raftreg_agent.registrar import Registrar

RENEW_PATH = "/v1/internal/renew"

log = structlog.get_logger(__name__)


class LeaseKeeper:
    """Renews the lease of this host.

    Args:
        client: Where servers are; it should give up on one of several within a third of `ttl_s`.
        ledger: Gives the digest.
        truth: Gives the node's name and id.
        registrar: Is told when the registry holds something else.
        clock: Source of time.
        renew_s: Seconds between renewals.
        ttl_s: Seconds that the lease lasts.
    """

    def __init__(
        self,
        client: RegistryClient,
        ledger: SyncLedger,
        truth: Truth,
        registrar: Registrar,
        clock: Clock,
        *,
        renew_s: float,
        ttl_s: float,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._truth = truth
        self._registrar = registrar
        self._clock = clock
        self._renew_s = renew_s
        self._ttl_s = ttl_s
        self.renewed_at_s: float | None = None
        self.renewals_total = 0
        self.failures_total = 0
        self.failing = False

    @property
    def held(self) -> bool:
        """True while the last renewal is younger than the lease."""
        if self.renewed_at_s is None:
            return False
        return self._clock.monotonic() - self.renewed_at_s < self._ttl_s

    async def run(self) -> None:
        """Renews until it is cancelled."""
        while True:
            started_s = self._clock.monotonic()
            try:
                await self.renew()
            except RaftregError as error:
                self._failed(error)
            spent_s = self._clock.monotonic() - started_s
            await asyncio.sleep(max(self._renew_s - spent_s, 0.05 * self._renew_s))

    async def renew(self) -> str:
        """Renews once; gives the registry's word: ok, sync or unknown.

        Raises:
            RaftregError: It did not work, and may have.
        """
        node = self._truth.node
        quiet = self._registrar.quiet
        revision, syncs = self._ledger.revision, self._registrar.syncs_total
        claim = {
            "name": node.name,
            "id": node.id,
            # Hashing everything pays only when the answer says something.
            "digest": (self._ledger.digest() or "") if quiet else "",
            "ttl_s": self._ttl_s,
        }
        answer = await self._client.request(
            "PUT",
            RENEW_PATH,
            json={"nodes": [claim], "sessions": []},
            # A server that hangs must not eat the lease: the client's own limit for one attempt
            # (`attempt_timeout_s`) sends it to another one well before.
            deadline_s=0.75 * self._ttl_s,
        )
        word = _word(answer.json(dict), node.name)
        self.renewed_at_s = self._clock.monotonic()
        self.renewals_total += 1
        self.failing = False
        unchanged = (revision, syncs) == (self._ledger.revision, self._registrar.syncs_total)
        # While something is on its way, a digest that differs says nothing.
        if word != "ok" and quiet and unchanged and self._registrar.quiet:
            log.info("the registry holds something else of this host", word=word)
            self._registrar.require_full()
        return word

    def _failed(self, error: RaftregError) -> None:
        self.failures_total += 1
        if not self.failing or self.failures_total % 60 == 0:
            log.warning("lease not renewed", error=error.message, held=self.held)
        self.failing = True


def _word(body: dict[str, object], name: str) -> str:
    nodes = body.get("nodes")
    word = nodes.get(name) if isinstance(nodes, dict) else None
    if word not in {"ok", "sync", "unknown"}:
        raise BadAnswer("the answer to a renewal does not name this host")
    return str(word)
