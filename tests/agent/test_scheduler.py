from __future__ import annotations

import asyncio
from random import Random

from raftreg.clock import ManualClock
from raftreg.http.decode import CheckDefinition, CheckKind
from raftreg.model import Status
from raftreg_agent.checks.machine import CheckResult
from raftreg_agent.checks.scheduler import FIRST_WITHIN_S, CheckScheduler


def tcp(check_id: str, interval_s: float = 10.0, target: str = "x:1") -> CheckDefinition:
    """A TCP check."""
    return CheckDefinition(
        check_id=check_id, name=check_id, kind=CheckKind.TCP, tcp=target, interval_s=interval_s
    )


class Gate:
    """A runner whose probes end when they are let through."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self._open = asyncio.Event()

    def let_through(self) -> None:
        """Lets all probes end."""
        self._open.set()

    async def run(self, check: CheckDefinition) -> CheckResult:
        """See `Runner`."""
        self.started.append(check.check_id)
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(check.check_id)
            raise
        return CheckResult(Status.PASSING, "ok")


class Broken:
    """A runner with a fault of its own."""

    async def run(self, check: CheckDefinition) -> CheckResult:
        """See `Runner`."""
        raise RuntimeError(f"no way to run {check.check_id}")


class Rig:
    """A scheduler under a clock that moves by hand."""

    def __init__(self, tasks: asyncio.TaskGroup, runner: Gate | Broken, limit: int = 64) -> None:
        self.clock = ManualClock()
        self.seen: list[tuple[str, CheckResult]] = []
        self.expired: list[str] = []
        self.scheduler = CheckScheduler(
            {CheckKind.TCP: runner},
            self.clock,
            Random(7),
            observed=lambda check_id, result: self.seen.append((check_id, result)),
            expired=self.expired.append,
            in_flight_max=limit,
        )
        self.scheduler._tasks = tasks

    async def advance(self, seconds: float) -> None:
        """Moves time and lets what is due happen."""
        self.clock.advance(seconds)
        self.scheduler.step()
        for _ in range(10):  # lets probes that can end do so; none waits for time
            await asyncio.sleep(0)


async def test_the_first_probe_comes_soon_and_then_every_interval() -> None:
    """Jitter spreads the start; afterwards the interval holds."""
    async with asyncio.TaskGroup() as tasks:
        gate = Gate()
        gate.let_through()
        rig = Rig(tasks, gate)
        rig.scheduler.put(tcp("a"))
        await rig.advance(FIRST_WITHIN_S)
        assert gate.started == ["a"]
        await rig.advance(9.9)
        assert gate.started == ["a"]
        await rig.advance(0.1)
        assert gate.started == ["a", "a"]
        assert [check_id for check_id, _ in rig.seen] == ["a", "a"]


async def test_starts_are_spread() -> None:
    """Many checks that are registered at once do not all run at the same moment."""
    async with asyncio.TaskGroup() as tasks:
        gate = Gate()
        gate.let_through()
        rig = Rig(tasks, gate)
        for number in range(100):
            rig.scheduler.put(tcp(f"c{number}"))
        await rig.advance(FIRST_WITHIN_S / 2)
        assert 20 < len(gate.started) < 80
        await rig.advance(FIRST_WITHIN_S / 2)
        assert len(gate.started) == 100


async def test_a_bounded_number_is_in_flight() -> None:
    """What is due beyond the limit waits for a place, and a slow check does not pile up."""
    async with asyncio.TaskGroup() as tasks:
        gate = Gate()
        rig = Rig(tasks, gate, limit=3)
        for number in range(10):
            rig.scheduler.put(tcp(f"c{number}"))
        await rig.advance(1.0)
        await rig.advance(100.0)
        assert rig.scheduler.running == 3
        assert len(gate.started) == 3
        gate.let_through()
        for _ in range(10):
            await rig.advance(0.0)
        assert set(gate.started) == {f"c{number}" for number in range(10)}


async def test_wish_05_registering_again_does_not_put_a_probe_off() -> None:
    """A client that registers the same check every few seconds is checked all the same."""
    async with asyncio.TaskGroup() as tasks:
        gate = Gate()
        gate.let_through()
        rig = Rig(tasks, gate)
        for _ in range(12):
            rig.scheduler.put(tcp("a"))
            await rig.advance(1.0)
        assert len(gate.started) == 2


async def test_a_new_definition_is_probed_soon() -> None:
    """The old definition's probe is given up."""
    async with asyncio.TaskGroup() as tasks:
        gate = Gate()
        rig = Rig(tasks, gate)
        rig.scheduler.put(tcp("a"))
        await rig.advance(1.0)
        rig.scheduler.put(tcp("a", target="y:1"))
        await rig.advance(1.0)
        assert gate.started == ["a", "a"]
        assert gate.cancelled == ["a"]
        gate.let_through()


async def test_a_removed_check_says_nothing_any_more() -> None:
    """A probe in flight is ended, and its result is dropped."""
    async with asyncio.TaskGroup() as tasks:
        gate = Gate()
        rig = Rig(tasks, gate)
        rig.scheduler.put(tcp("a"))
        await rig.advance(1.0)
        rig.scheduler.remove("a")
        await rig.advance(100.0)
        assert (rig.seen, gate.cancelled, rig.scheduler.running) == ([], ["a"], 0)


async def test_a_fault_in_a_runner_is_a_critical_result() -> None:
    """It neither ends the agent nor the check's schedule."""
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks, Broken())
        rig.scheduler.put(tcp("a", interval_s=1.0))
        await rig.advance(1.0)
        await rig.advance(1.0)
        assert [result.status for _, result in rig.seen] == [Status.CRITICAL] * 2
        assert "no way to run a" in rig.seen[0][1].output


async def test_the_end_of_a_ttl_is_told_when_it_is_due() -> None:
    """A deadline that moved is told at its new time alone."""
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks, Gate())
        now_s = rig.clock.monotonic()
        rig.scheduler.expect("t", now_s + 10.0)
        rig.scheduler.expect("t", now_s + 15.0)
        await rig.advance(14.0)
        assert rig.expired == []
        await rig.advance(1.0)
        assert rig.expired == ["t"]
