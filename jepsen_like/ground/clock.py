"""The wall clock of one process, moved while the process runs.

A small library (`wallclock.c`, built on the spot) is preloaded into the process and answers its
questions for the time by a setting that both map. It is relative to the system's monotonic clock,
so a process that is started again goes on with the same wrong clock. The monotonic clock and all
waits stay true, as on a host whose wall clock is set.

libfaketime was tried first. Version 0.9.10 breaks `time.sleep` of Python 3.11
(https://github.com/wolfcw/libfaketime/issues/426), stretches waits along with rates, and stands
before pthread_cond_timedwait, of which CPython makes its interpreter lock: a server's answers took
ten to a hundred times as long, which is another fault than the one that was asked for.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

from raftreg.clock import Clock as Time
from raftreg.clock import SystemClock

_SOURCE: Final = Path(__file__).with_name("wallclock.c")
_LIBRARY_NAME: Final = "wallclock.so"
_COMPILE_S_MAX: Final = 60.0
_SECOND_NS: Final = 1e9
_PERIOD_S_MIN: Final = 0.001
_SETTING: Final = struct.Struct("=qqdqq")
_WORDS: Final = struct.Struct("=5Q")
_CHECK: Final = struct.Struct("=Q")


class ClockUnavailable(OSError):
    """Clocks can't be moved on this machine; the text says why."""


def available() -> str | None:
    """Tells why clocks can't be moved here; None if they can."""
    if sys.platform != "linux":
        return "moving the clock of one process needs Linux"
    if shutil.which("cc") is None:
        return "there is no C compiler (cc) to build the library that moves a clock"
    return None


class Clock:
    """Implements `ClockControl` for the processes that are started with `environment`.

    Args:
        file: Belongs to this clock; it is made. The library is built beside it, once a folder. The
            processes must see both under the same paths.
        time: The true time.

    Attributes:
        environment: What the process needs in its environment.

    Raises:
        ClockUnavailable: See `available`; or the library can't be built.
    """

    def __init__(self, file: Path, time: Time | None = None) -> None:
        self._file = file
        self._time = time or SystemClock()
        self.environment: dict[str, str] = {
            "LD_PRELOAD": str(_built(file.with_name(_LIBRARY_NAME))),
            "JEPSEN_LIKE_CLOCK": str(file),
        }
        self._write(0, 0, 1.0, 0, 0)

    async def set(self, *, offset_s: float = 0.0, rate: float = 1.0) -> None:
        """See `ClockControl.set`.

        Raises:
            ValueError: The rate is not positive.
        """
        if rate <= 0:
            raise ValueError(f"a clock runs forward: rate {rate}")
        if rate == 1.0 and not offset_s:
            self._write(0, 0, 1.0, 0, 0)
        else:
            self._write(*self._now(offset_s), rate, 0, 0)

    async def strobe(self, *, offset_s: float, period_s: float) -> None:
        """Jumps by `offset_s` and back, each after `period_s`, until the next `set`.

        Raises:
            ValueError: The period is shorter than a millisecond.
        """
        if period_s < _PERIOD_S_MIN:
            raise ValueError(f"a period of {period_s} s is shorter than {_PERIOD_S_MIN} s")
        self._write(*self._now(0.0), 1.0, int(offset_s * _SECOND_NS), int(period_s * _SECOND_NS))

    def close(self) -> None:
        """Processes that still run see the true time."""
        if self._file.exists():
            self._write(0, 0, 1.0, 0, 0)

    def _now(self, offset_s: float) -> tuple[int, int]:
        """An instant of the monotonic clock, and what the moved clock shows then."""
        wall_s, since_s = self._time.wall() + offset_s, self._time.monotonic()
        return int(since_s * _SECOND_NS), int(wall_s * _SECOND_NS)

    def _write(
        self, since_ns: int, wall_ns: int, rate: float, strobe_ns: int, period_ns: int
    ) -> None:
        """Overwrites the setting in place, for it is mapped; the check tells if it is whole."""
        words = _SETTING.pack(since_ns, wall_ns, rate, strobe_ns, period_ns)
        check = 0
        for word in _WORDS.unpack(words):
            check ^= word
        fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(fd, words + _CHECK.pack(check), 0)
        finally:
            os.close(fd)


def _built(target: Path) -> Path:
    """The library; built unless it is there."""
    why_not = available()
    if why_not is not None:
        raise ClockUnavailable(why_not)
    if target.exists():
        return target
    aside = target.with_name(f"{target.name}.{os.getpid()}")
    command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(aside), str(_SOURCE), "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_S_MAX, text=True)
    except subprocess.CalledProcessError as error:
        raise ClockUnavailable(f"{_SOURCE.name} can't be built: {error.stderr}") from error
    aside.replace(target)
    return target
