"""What the last calls came to: sliding windows of fixed size that keep running sums.

Two kinds, as in resilience4j (https://resilience4j.readme.io/docs/circuitbreaker): the last N
calls, or the calls of the last seconds in N buckets. Both take O(1) a call, amortised, and never
grow.
"""

from __future__ import annotations

from typing import Protocol

FAILED = 1
SLOW = 2


class Window(Protocol):
    """Counts the calls it covers, how many of them failed and how many were slow."""

    calls: int
    failures: int
    slow: int

    def add(self, failed: bool, slow: bool, now_s: float) -> None:
        """Counts a call that ended now; drops what is no longer covered."""
        ...

    def clear(self) -> None:
        """Forgets all calls."""
        ...


class CountWindow:
    """Covers the last `size` calls.

    Args:
        size: How many calls it covers, at least 1.
    """

    __slots__ = ("_marks", "_next", "calls", "failures", "slow")

    def __init__(self, size: int) -> None:
        self._marks = bytearray(size)
        self.clear()

    def clear(self) -> None:
        """Forgets all calls."""
        self.calls = self.failures = self.slow = 0
        self._next = 0

    def add(self, failed: bool, slow: bool, now_s: float) -> None:
        """Counts a call in place of the oldest one; the time does not matter."""
        marks, at = self._marks, self._next
        if self.calls == len(marks):
            self.failures -= marks[at] & FAILED
            self.slow -= marks[at] >> 1
        else:
            self.calls += 1
        marks[at] = (FAILED if failed else 0) | (SLOW if slow else 0)
        self.failures += failed
        self.slow += slow
        self._next = (at + 1) % len(marks)


class TimeWindow:
    """Covers the last seconds in buckets: from `(buckets - 1) / buckets` of the span to all of it.

    Args:
        span_s: Seconds that it covers.
        buckets: Into how many equal parts they are cut.
    """

    __slots__ = ("_at", "_calls", "_failures", "_slow", "_width_s", "calls", "failures", "slow")

    def __init__(self, span_s: float, buckets: int) -> None:
        self._width_s = span_s / buckets
        self._at = 0
        self._calls = [0] * buckets
        self._failures = [0] * buckets
        self._slow = [0] * buckets
        self.calls = self.failures = self.slow = 0

    def clear(self) -> None:
        """Forgets all calls."""
        size = len(self._calls)
        self._calls, self._failures, self._slow = [0] * size, [0] * size, [0] * size
        self.calls = self.failures = self.slow = 0

    def add(self, failed: bool, slow: bool, now_s: float) -> None:
        """Counts a call that ended now; a time before the last one counts as the last one."""
        bucket = int(now_s // self._width_s)
        if bucket > self._at:
            self._drop_until(bucket)
        slot = self._at % len(self._calls)
        self._calls[slot] += 1
        self._failures[slot] += failed
        self._slow[slot] += slow
        self.calls += 1
        self.failures += failed
        self.slow += slow

    def _drop_until(self, bucket: int) -> None:
        """Empties the buckets between the last call and this one: each holds the oldest part."""
        size = len(self._calls)
        if bucket - self._at >= size:
            self.clear()
        else:
            for passed in range(self._at + 1, bucket + 1):
                slot = passed % size
                self.calls -= self._calls[slot]
                self.failures -= self._failures[slot]
                self.slow -= self._slow[slot]
                self._calls[slot] = self._failures[slot] = self._slow[slot] = 0
        self._at = bucket
