"""When what is due: a heap of deadlines by key, pure.

A deadline that moves later, as each heartbeat of a TTL check moves it, is only noted: its entry
stays where it is in the heap, and goes back in with the later time when it comes to the top. So a
heartbeat costs one write to a dict, and the heap one operation a term.
"""

from __future__ import annotations

import heapq


class Schedule:
    """At most one deadline a key; setting it again moves it."""

    def __init__(self) -> None:
        self._due_s: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        #: Of each key the time of its entry in the heap, never later than its deadline; entries of
        #: other times are left over.
        self._queued_s: dict[str, float] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._due_s

    def __len__(self) -> int:
        return len(self._due_s)

    def set(self, key: str, due_s: float) -> None:
        """Sets or moves the deadline of a key."""
        self._due_s[key] = due_s
        queued_s = self._queued_s.get(key)
        if queued_s is not None and queued_s <= due_s:
            return
        self._queue(key, due_s)
        if len(self._heap) > 2 * len(self._due_s) + 64:
            self._heap = [(due, name) for name, due in self._due_s.items()]
            self._queued_s = self._due_s.copy()
            heapq.heapify(self._heap)

    def remove(self, key: str) -> None:
        """Forgets a key; nothing happens when it is not there."""
        self._due_s.pop(key, None)

    def due_s(self, key: str) -> float | None:
        """The deadline of a key, if it has one."""
        return self._due_s.get(key)

    def pop_due(self, now_s: float) -> list[str]:
        """Takes the keys whose deadline is reached, oldest first."""
        keys = []
        while (due_s := self.next_due_s()) is not None and due_s <= now_s:
            _, key = heapq.heappop(self._heap)
            del self._due_s[key], self._queued_s[key]
            keys.append(key)
        return keys

    def next_due_s(self) -> float | None:
        """The earliest deadline."""
        while self._heap:
            queued_s, key = self._heap[0]
            due_s = self._due_s.get(key)
            if due_s == queued_s == self._queued_s.get(key):
                return due_s
            heapq.heappop(self._heap)
            if queued_s != self._queued_s.get(key):
                continue
            del self._queued_s[key]
            if due_s is not None:
                self._queue(key, due_s)
        return None

    def _queue(self, key: str, due_s: float) -> None:
        self._queued_s[key] = due_s
        heapq.heappush(self._heap, (due_s, key))
