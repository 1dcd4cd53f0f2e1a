"""When what is due: a heap of deadlines by key, pure."""

from __future__ import annotations

import heapq


class Schedule:
    """At most one deadline a key; setting it again moves it."""

    def __init__(self) -> None:
        self._due_s: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __contains__(self, key: str) -> bool:
        return key in self._due_s

    def __len__(self) -> int:
        return len(self._due_s)

    def set(self, key: str, due_s: float) -> None:
        """Sets or moves the deadline of a key."""
        self._due_s[key] = due_s
        heapq.heappush(self._heap, (due_s, key))
        if len(self._heap) > 2 * len(self._due_s) + 64:
            self._heap = [(due, name) for name, due in self._due_s.items()]
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
        while self._heap and self._heap[0][0] <= now_s:
            due_s, key = heapq.heappop(self._heap)
            if self._due_s.get(key) == due_s:
                del self._due_s[key]
                keys.append(key)
        return keys

    def next_due_s(self) -> float | None:
        """The earliest deadline."""
        while self._heap and self._due_s.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
