"""Simulated time, and what is raised when the simulated world breaks a promise."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Violation(AssertionError):
    """Something that must never happen did."""


class Scheduler:
    """Simulated time: a heap of calls."""

    def __init__(self) -> None:
        self.now = 100.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def clock(self) -> float:
        """Simulated monotonic seconds."""
        return self.now

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> None:
        """Runs a call after a simulated delay."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + max(delay_s, 0.0), self._count, fn))

    def run_until(self, time_s: float) -> None:
        """Runs all that is due up to a time."""
        while self._heap and self._heap[0][0] <= time_s:
            at, _, fn = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            fn()
        self.now = time_s
