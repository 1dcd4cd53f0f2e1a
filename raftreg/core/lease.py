"""Leases of hosts and sessions: pure bookkeeping of the leader, outside the log.

Renewals are frequent, so a renewal only moves a deadline in a dict; the heap holds one entry a key
and is corrected when that entry comes up (the scheme of etcd's lessor, `server/lease/lessor.go`).
A new leader gives everything a full term (`promote`). `now` is any monotonic clock, in seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping


class LeaseTable:
    """Deadlines by key.

    A key that `due` has named is pending: its expiry is being proposed. Renewals of it are refused
    until the proposal's fate is known: `forget` it when it was applied, `reopen` it when not.
    """

    def __init__(self) -> None:
        self._deadlines: dict[str, float] = {}
        #: (time to look at the key, key); never later than the key's deadline.
        self._heap: list[tuple[float, str]] = []
        #: The time at which each key is looked at first; heap entries of other times are stale.
        self._looked_at: dict[str, float] = {}
        self.pending: set[str] = set()

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, key: str) -> bool:
        return key in self._deadlines

    def renew(self, key: str, ttl_s: float, now: float) -> bool:
        """Gives a key (known or new) a full term from now; False while its expiry is pending."""
        if key in self.pending:
            return False
        deadline = now + ttl_s
        self._deadlines[key] = deadline
        if deadline < self._looked_at.get(key, float("inf")):
            self._schedule(key, deadline)
        return True

    def forget(self, key: str) -> None:
        """Drops a key; an unknown one is fine."""
        self.pending.discard(key)
        self._deadlines.pop(key, None)
        self._looked_at.pop(key, None)
        if len(self._heap) > 64 + 2 * len(self._deadlines):
            self._compact()

    def reopen(self, key: str, ttl_s: float, now: float) -> None:
        """Gives a pending key another term, since its expiry did not take place."""
        if key in self.pending:
            self.pending.discard(key)
            self.renew(key, ttl_s, now)

    def due(self, now: float) -> list[str]:
        """Gives the keys whose term is over, oldest deadline first, and makes them pending."""
        keys: list[tuple[float, str]] = []
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._looked_at.get(key) != at:
                continue
            del self._looked_at[key]
            deadline = self._deadlines[key]
            if deadline > now:
                self._schedule(key, deadline)
            else:
                keys.append((deadline, key))
                self.pending.add(key)
        return [key for _, key in sorted(keys)]

    def next_due(self) -> float | None:
        """When to call `due` again, at the latest; None when nothing is waiting.

        It may be early: a renewed key is looked at once at its former deadline.
        """
        while self._heap and self._looked_at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def promote(self, ttls_s: Mapping[str, float], now: float) -> None:
        """Replaces the content: each of these keys gets a full term, nothing is pending."""
        self.pending.clear()
        self._deadlines = {key: now + ttl_s for key, ttl_s in ttls_s.items()}
        self._looked_at = dict(self._deadlines)
        self._compact()

    def _schedule(self, key: str, at: float) -> None:
        self._looked_at[key] = at
        heapq.heappush(self._heap, (at, key))

    def _compact(self) -> None:
        self._heap = [(at, key) for key, at in self._looked_at.items()]
        heapq.heapify(self._heap)
