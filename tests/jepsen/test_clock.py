"""The wall clock of a process is moved while it runs; its monotonic clock is not."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock

import pytest

from jepsen_like.ground.clock import Clock, ClockUnavailable, available
from raftreg.clock import SystemClock

TELL = """
import datetime, sys, time
for _ in sys.stdin:
    time.sleep(0.001)
    print(time.time(), datetime.datetime.now().timestamp(), time.monotonic(), flush=True)
"""
#: Readings are compared over a pipe to a process on a busy machine.
NEAR_S = 5.0


class Teller:
    """A process that tells its clocks when asked, as differences to the true ones."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ahead_s(self) -> tuple[float, float, float]:
        """How far `time`, `datetime` and the monotonic clock are ahead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        told = [float(word) for word in (await self._process.stdout.readline()).split()]
        true = SystemClock()
        wall_s = true.wall()
        return told[0] - wall_s, told[1] - wall_s, told[2] - true.monotonic()


@asynccontextmanager
async def teller(moved: Clock) -> AsyncIterator[Teller]:
    """Starts one."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", TELL),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **moved.environment},
    )
    try:
        yield Teller(process)
    finally:
        process.kill()
        await process.communicate()


def a_clock(folder: Path) -> Clock | None:
    """A clock; None where none can be moved, and then asking for one was refused."""
    why_not = available()
    if why_not is None:
        return Clock(folder / "clock")
    with pytest.raises(ClockUnavailable) as refused:
        Clock(folder / "clock")
    assert why_not in str(refused.value)
    return None


async def test_jumps_are_seen_at_once_and_only_by_the_wall_clock(tmp_path: Path) -> None:
    """Forward, back, and true again; `time` and `datetime` agree, the monotonic clock is true."""
    moved = a_clock(tmp_path)
    if moved is None:
        return
    async with teller(moved) as process:
        for offset_s in (0.0, 86_400.0, -3600.5, 0.0):
            await moved.set(offset_s=offset_s)
            time_s, datetime_s, monotonic_s = await process.ahead_s()
            assert time_s == pytest.approx(offset_s, abs=NEAR_S)
            assert datetime_s == pytest.approx(offset_s, abs=NEAR_S)
            assert monotonic_s == pytest.approx(0.0, abs=NEAR_S)


async def test_a_rate_counts_from_the_instant_at_which_it_was_set(tmp_path: Path) -> None:
    """A clock that runs a thousand times as fast is soon ahead, and more so later."""
    moved = a_clock(tmp_path)
    if moved is None:
        return
    async with teller(moved) as process:
        await moved.set(rate=1000.0)
        first_s, _, _ = await process.ahead_s()
        second_s, _, monotonic_s = await process.ahead_s()
        assert 0.0 < first_s < second_s
        assert monotonic_s == pytest.approx(0.0, abs=NEAR_S)


async def test_a_process_that_is_started_later_has_the_same_wrong_clock(tmp_path: Path) -> None:
    """A restart does not set a host's clock right."""
    moved = a_clock(tmp_path)
    if moved is None:
        return
    await moved.set(offset_s=1e6)
    async with teller(moved) as process:
        assert (await process.ahead_s())[0] == pytest.approx(1e6, abs=NEAR_S)
        moved.close()
        assert (await process.ahead_s())[0] == pytest.approx(0.0, abs=NEAR_S)


async def test_a_strobe_shows_both_times(tmp_path: Path) -> None:
    """It goes on until the clock is set."""
    moved = a_clock(tmp_path)
    if moved is None:
        return
    async with teller(moved) as process:
        await moved.strobe(offset_s=5000.0, period_s=0.005)
        seen: set[int] = set()
        while seen < {0, 5}:
            seen.add(round((await process.ahead_s())[0] / 1000))
        assert seen == {0, 5}
        await moved.set()
        assert (await process.ahead_s())[0] == pytest.approx(0.0, abs=NEAR_S)


async def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    """A clock that stands or runs back is no skew; a strobe needs a period."""
    moved = a_clock(tmp_path)
    if moved is None:
        return
    with pytest.raises(ValueError, match="rate 0"):
        await moved.set(rate=0)
    with pytest.raises(ValueError, match="period"):
        await moved.strobe(offset_s=1.0, period_s=0.0)


def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    """No clock, and a sentence why."""
    with mock.patch("shutil.which", return_value=None):
        assert "C compiler" in (available() or "") or sys.platform != "linux"
        with pytest.raises(ClockUnavailable):
            Clock(tmp_path / "clock")
