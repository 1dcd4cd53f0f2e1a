"""Proposals on their way: batched while a batch is in flight, repeated until their fate is known.

A repetition is safe since the replicated state remembers what was applied (`dedup.py`). Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from raftreg.errors import NotProposed, RaftregError, UnknownOutcome
from raftreg.raft.api import RequestId
from raftreg.raft.entries import BATCH_BYTES_MAX, BATCH_PROPOSALS_MAX, Proposal

Key = tuple[str, int]
#: Takes (result, None) or (None, error).
ProposalDone = Callable[[Any, RaftregError | None], None]

WAITING_MAX = 20_000
WAITING_BYTES_MAX = 128 * 1024 * 1024


class _Batch:
    __slots__ = ("remaining", "sent_at")

    def __init__(self, size: int, sent_at: float) -> None:
        self.remaining = size
        self.sent_at = sent_at


class Pending:
    """One proposal whose caller waits."""

    __slots__ = ("batch", "command", "done", "in_term", "key", "low", "proposed")

    def __init__(
        self, key: Key, low: int, command: bytes, in_term: int | None, done: ProposalDone
    ) -> None:
        self.key = key
        self.low = low
        self.command = command
        self.in_term = in_term
        self.done: list[ProposalDone] = [done]
        self.batch: _Batch | None = None
        self.proposed = False  #: was it ever handed to the engine?

    def finish(self, result: Any, error: RaftregError | None) -> None:
        """Tells everyone who waits."""
        for done in self.done:
            done(result, error)


class ProposalQueue:
    """The proposals of one server.

    Args:
        proposer: Name of this server's incarnation; must never be used twice.
        retry_s: Seconds after which a forwarded batch is repeated.
        in_flight_max: Batches on their way at once; what comes meanwhile forms the next one.
    """

    def __init__(self, proposer: str, retry_s: float, in_flight_max: int = 1) -> None:
        self._proposer = proposer
        self._retry_s = retry_s
        self._in_flight_max = in_flight_max
        self._sequence = 0
        self._own: dict[int, None] = {}  # sequences not answered yet, ascending
        self._by_key: dict[Key, Pending] = {}
        self._waiting: deque[Pending] = deque()
        self._waiting_bytes = 0
        self._in_flight: set[_Batch] = set()

    def __len__(self) -> int:
        return len(self._by_key)

    def add(
        self,
        command: bytes,
        request_id: RequestId | None,
        in_term: int | None,
        done: ProposalDone,
    ) -> Key:
        """Queues a proposal; gives the key with which it can be abandoned.

        Raises:
            NotProposed: Too much is waiting.
        """
        if len(self._by_key) >= WAITING_MAX or self._waiting_bytes >= WAITING_BYTES_MAX:
            raise NotProposed("too many writes are waiting; nothing was proposed: try again later")
        if request_id is None:
            self._sequence += 1
            self._own[self._sequence] = None
            key, low = (self._proposer, self._sequence), 0
        else:
            key, low = (request_id.proposer, request_id.sequence), request_id.low
            known = self._by_key.get(key)
            if known is not None:
                known.done.append(done)
                return key
        pending = Pending(key, low, command, in_term, done)
        self._by_key[key] = pending
        self._waiting.append(pending)
        self._waiting_bytes += len(command)
        return key

    @property
    def ready(self) -> bool:
        """True when a batch could be made now."""
        return bool(self._waiting) and len(self._in_flight) < self._in_flight_max

    def take_batch(self, now: float, leads_term: int | None) -> list[Proposal]:
        """Makes the next batch out of what waits.

        Args:
            now: Present time in seconds.
            leads_term: The term that this server leads, None when it does not lead.
        """
        batch = _Batch(0, now)
        proposals: list[Proposal] = []
        low = next(iter(self._own), 0)
        size = 0
        while self._waiting and len(proposals) < BATCH_PROPOSALS_MAX and size < BATCH_BYTES_MAX:
            pending = self._waiting.popleft()
            self._waiting_bytes -= len(pending.command)
            if self._by_key.get(pending.key) is not pending:
                continue  # abandoned while it waited
            if pending.in_term is not None and pending.in_term != leads_term:
                self._finish(pending, None, NotProposed("this server no longer leads that term"))
                continue
            own = pending.key[0] == self._proposer
            proposals.append(Proposal(*pending.key, low if own else pending.low, pending.command))
            size += len(pending.command)
            pending.batch, pending.proposed = batch, True
        batch.remaining = len(proposals)
        if proposals:
            self._in_flight.add(batch)
        return proposals

    def applied(self, proposer: str, sequence: int) -> Pending | None:
        """A proposal was applied: gives it when somebody here waits for it."""
        pending = self._by_key.get((proposer, sequence))
        if pending is not None:
            self._forget(pending)
        return pending

    def abandon(self, key: Key) -> bool:
        """Its caller no longer waits; True when it was handed to the engine at some time."""
        pending = self._by_key.get(key)
        if pending is None:
            return True
        self._forget(pending)
        return pending.proposed

    def waits_unproposed(self, key: Key) -> bool:
        """True while the proposal waits and was never handed to the engine."""
        pending = self._by_key.get(key)
        return pending is not None and not pending.proposed

    def retry_due(self) -> float | None:
        """When the oldest batch is to be repeated; None when none is out."""
        if not self._in_flight:
            return None
        return min(batch.sent_at for batch in self._in_flight) + self._retry_s

    def requeue(self) -> None:
        """Puts everything that is on its way back into the queue, in its order.

        Proposals bound to a term are not repeated: whether they will commit is unknown.
        """
        again = [p for p in self._by_key.values() if p.batch is not None]
        self._in_flight.clear()
        for pending in reversed(again):
            pending.batch = None
            if pending.in_term is not None:
                self._finish(pending, None, UnknownOutcome("leadership was lost; it may commit"))
                continue
            self._waiting.appendleft(pending)
            self._waiting_bytes += len(pending.command)

    def fail_all(self, reason: str) -> None:
        """The server stops: tells everyone what is known of their proposal."""
        for pending in list(self._by_key.values()):
            error: RaftregError = NotProposed(f"{reason}; nothing was proposed")
            if pending.proposed:
                error = UnknownOutcome(f"{reason}; the write may still commit")
            self._finish(pending, None, error)
        self._waiting.clear()
        self._waiting_bytes = 0

    def _finish(self, pending: Pending, result: Any, error: RaftregError | None) -> None:
        self._forget(pending)
        pending.finish(result, error)

    def _forget(self, pending: Pending) -> None:
        del self._by_key[pending.key]
        if pending.key[0] == self._proposer:
            self._own.pop(pending.key[1], None)
        batch = pending.batch
        if batch is not None:
            batch.remaining -= 1
            if batch.remaining == 0:
                self._in_flight.discard(batch)
