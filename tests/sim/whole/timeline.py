"""Simulated time for whole processes: one heap of what is due, one queue of what runs now."""

from __future__ import annotations

import heapq
from asyncio import Handle
from asyncio.events import _set_running_loop
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim.scheduler import Violation

if TYPE_CHECKING:
    from tests.sim.whole.loop import ProcessLoop

#: So many steps in a tenth of a simulated second are an endless loop, or one that would keep a
#: processor busy for nothing.
STEPS_MAX = 20_000
_WINDOW_S = 0.1


class Timeline:
    """Runs the callbacks of all processes, one after the other, in simulated time.

    Attributes:
        now: Simulated seconds; the same for everyone, unlike the clocks of the processes.
        steps: Callbacks that were run.
        violation: The first broken promise. Code under test may catch what is raised, so it is
            kept here and ends the run.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.steps = 0
        self.violation: Violation | None = None
        self._heap: list[tuple[float, int, ProcessLoop | None, Handle | Callable[[], None]]] = []
        self._ready: deque[tuple[ProcessLoop, Handle]] = deque()
        self._count = 0
        self._window_ends = 0.0
        self._window_steps = 0

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> None:
        """Runs a call of the world itself (a delivery, a fault) after a simulated delay."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + max(delay_s, 0.0), self._count, None, fn))

    def timer(self, at: float, loop: ProcessLoop, handle: Handle) -> None:
        """Hands a timer to its loop at a simulated time."""
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, loop, handle))

    def soon(self, loop: ProcessLoop, handle: Handle) -> None:
        """Runs a callback of a process after those that wait already."""
        self._ready.append((loop, handle))

    def violate(self, text: str) -> None:
        """Notes a broken promise; only the first counts.

        Raises:
            Violation: Always, so that whoever broke it stops here.
        """
        violation = Violation(text)
        if self.violation is None:
            self.violation = violation
        raise violation

    def run_until(self, time_s: float) -> None:
        """Lets time pass.

        Raises:
            Violation: A promise was broken meanwhile.
        """
        heap = self._heap
        try:
            while True:
                self._run_ready()
                if not heap or heap[0][0] > time_s:
                    break
                at, _, loop, what = heapq.heappop(heap)
                self.now = max(self.now, at)
                if loop is not None:
                    assert isinstance(what, Handle)
                    if not what._cancelled:
                        self._ready.append((loop, what))
                else:
                    assert not isinstance(what, Handle)
                    what()
                    self._check()
        finally:
            _set_running_loop(None)
        self.now = time_s

    def _run_ready(self) -> None:
        ready = self._ready
        if not ready:
            return
        current: ProcessLoop | None = None
        while ready:
            loop, handle = ready.popleft()
            if handle._cancelled or not loop.admits(handle):
                continue
            if loop is not current:
                _set_running_loop(loop)
                current = loop
            handle._run()
            self.steps += 1
            if self.violation is not None:
                raise self.violation
            if self.steps - self._window_steps > STEPS_MAX:
                self._check_pace(loop, handle)
        _set_running_loop(None)

    def _check_pace(self, loop: ProcessLoop, handle: Handle) -> None:
        if self.now < self._window_ends:
            raise Violation(f"{loop.name} runs in circles: {STEPS_MAX} steps; last {handle!r}")
        self._window_ends, self._window_steps = self.now + _WINDOW_S, self.steps

    def _check(self) -> None:
        if self.violation is not None:
            raise self.violation
