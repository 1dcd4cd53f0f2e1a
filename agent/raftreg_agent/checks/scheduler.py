"""Runs checks when they are due: jitter at start, a bounded number at once, TTLs ended in time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from random import Random

import structlog

from raftreg.clock import Clock
from raftreg.http.decode import CheckDefinition, CheckKind
from raftreg_agent.checks.machine import CheckResult
from raftreg_agent.checks.runners import Runner, critical, reason
from raftreg_agent.checks.schedule import Schedule

IN_FLIGHT_MAX = 64
#: The first probe comes within this time: spread enough for a host's own services, and a new
#: service is not unknown for a whole interval.
FIRST_WITHIN_S = 1.0

log = structlog.get_logger(__name__)


class CheckScheduler:
    """Decides what runs when, and hands results on.

    Args:
        runners: A runner for each kind that is probed; TTL and alias checks have none.
        clock: Source of time.
        rng: Source of the jitter.
        observed: Takes (check id, result).
        expired: Takes the id of a TTL check whose term may be over.
        in_flight_max: Probes at once.
    """

    def __init__(
        self,
        runners: Mapping[CheckKind, Runner],
        clock: Clock,
        rng: Random,
        *,
        observed: Callable[[str, CheckResult], None],
        expired: Callable[[str], None],
        in_flight_max: int = IN_FLIGHT_MAX,
    ) -> None:
        self._runners = runners
        self._clock = clock
        self._rng = rng
        self._observed = observed
        self._expired = expired
        self._in_flight_max = in_flight_max
        self._definitions: dict[str, CheckDefinition] = {}
        self._schedule = Schedule()
        self._waiting: deque[str] = deque()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._wake = asyncio.Event()
        self._next_s: float | None = None  # when the loop looks again by itself
        self.probes_total = 0

    @property
    def running(self) -> int:
        """Probes in flight."""
        return len(self._running)

    def put(self, check: CheckDefinition) -> None:
        """Schedules a check; the same definition again does not move its next probe."""
        if check.kind in self._runners:
            before = self._definitions.get(check.check_id)
            self._definitions[check.check_id] = check
            if before == check:
                return
            self.remove(check.check_id)
            self._definitions[check.check_id] = check
            within_s = min(check.interval_s, FIRST_WITHIN_S)
            self._set(check.check_id, self._clock.monotonic() + self._rng.uniform(0, within_s))
        else:
            self.remove(check.check_id)

    def expect(self, check_id: str, deadline_s: float | None) -> None:
        """Sets the end of a TTL check's term."""
        if deadline_s is not None:
            self._set(check_id, deadline_s)

    def remove(self, check_id: str) -> None:
        """Forgets a check and ends its probe."""
        self._definitions.pop(check_id, None)
        self._schedule.remove(check_id)
        probe = self._running.pop(check_id, None)
        if probe is not None:
            probe.cancel()

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Runs until it is cancelled; probes live in the group that is given."""
        self._tasks = tasks
        while True:
            self.step()
            self._wake.clear()
            due_s = self._next_s = self._schedule.next_due_s()
            wait_s = None if due_s is None else max(0.0, due_s - self._clock.monotonic())
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def step(self) -> None:
        """Starts and ends what is due now."""
        for check_id in self._schedule.pop_due(self._clock.monotonic()):
            if check_id in self._definitions:
                self._waiting.append(check_id)
            else:
                self._expired(check_id)
        while self._waiting and len(self._running) < self._in_flight_max:
            self._start(self._waiting.popleft())

    def _start(self, check_id: str) -> None:
        check = self._definitions.get(check_id)
        # Registered anew while it waited: it is scheduled anew too.
        if check is None or check_id in self._running or check_id in self._schedule:
            return
        if self._tasks is None:
            raise RuntimeError("probes run only within run()")
        probe = self._tasks.create_task(self._probe(check), name=f"check {check_id}")
        self._running[check_id] = probe

    async def _probe(self, check: CheckDefinition) -> None:
        started_s = self._clock.monotonic()
        try:
            result = await self._runners[check.kind].run(check)
        except Exception as error:
            log.exception("check failed in an unforeseen way", check=check.check_id)
            result = critical(reason(error), check)
        if self._running.get(check.check_id) is not asyncio.current_task():
            return
        del self._running[check.check_id]
        self.probes_total += 1
        self._observed(check.check_id, result)
        if check.check_id in self._definitions:
            now_s = self._clock.monotonic()
            self._set(check.check_id, max(now_s, started_s + check.interval_s))
        self._wake.set()

    def _set(self, key: str, due_s: float) -> None:
        self._schedule.set(key, due_s)
        if self._next_s is None or due_s < self._next_s:
            self._wake.set()
