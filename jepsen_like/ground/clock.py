"""The wall clock of one process, moved by libfaketime while the process runs.

libfaketime is preloaded and reads a file at each call for the time; that file is replaced as a
whole. The monotonic clock stays true, as it does on a host whose wall clock is set, and so do
waits: a rate is not given to libfaketime (it would stretch waits as well) but written as a
stream of absolute times, a staircase with steps of 10 ms.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from raftreg.clock import Clock as Time
from raftreg.clock import SystemClock

STEP_S: Final = 0.01
_FOLDERS: Final = (
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib/faketime",
    "/usr/lib64/faketime",
    "/usr/local/lib/faketime",
)
_SITE: Final = Path(__file__).with_name("faked")


def library() -> Path | None:
    """The build of libfaketime for programs with threads; None if it is not installed."""
    for folder in _FOLDERS:
        path = Path(folder) / "libfaketimeMT.so.1"
        if path.exists():
            return path
    return None


def available() -> str | None:
    """Tells why clocks can't be moved here; None if they can."""
    if library() is None:
        return "libfaketime is not installed (Debian: faketime)"
    return None


class ClockUnavailable(OSError):
    """There is no libfaketime on this machine."""


class Clock:
    """Implements `ClockControl` for the processes that are started with `environment`.

    The file is written anew by every change, and holds over restarts of the process.

    Args:
        file: Belongs to this clock; it is made. The processes must see it under this path.
        time: The true time.

    Attributes:
        environment: What the process needs in its environment.

    Raises:
        ClockUnavailable: See `available`.
    """

    def __init__(self, file: Path, time: Time | None = None) -> None:
        preload = library()
        if preload is None:
            raise ClockUnavailable(available())
        self._file = file
        self._time = time or SystemClock()
        self._ticking: threading.Thread | None = None
        self._stop = threading.Event()
        python_path = [str(_SITE), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        self.environment: dict[str, str] = {
            "LD_PRELOAD": str(preload),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # its name in older versions
            "NO_FAKE_STAT": "1",
            "FAKETIME_FMT": "%s",
            "PYTHONPATH": os.pathsep.join(python_path),
        }
        self._write("+0")

    async def set(self, *, offset_s: float = 0.0, rate: float = 1.0) -> None:
        """See `ClockControl.set`.

        Raises:
            ValueError: The rate is not positive.
        """
        if rate <= 0:
            raise ValueError(f"a clock runs forward: rate {rate}")
        await asyncio.to_thread(self._halt)
        if rate == 1.0:
            self._write(f"{offset_s:+.6f}")
            return
        wall_s, since_s = self._time.wall() + offset_s, self._time.monotonic()
        self._tick(lambda: _absolute(wall_s + (self._time.monotonic() - since_s) * rate), STEP_S)

    async def strobe(self, *, offset_s: float, period_s: float) -> None:
        """Jumps by `offset_s` and back, each after `period_s`, until the next `set`.

        Raises:
            ValueError: The period is shorter than a millisecond.
        """
        if period_s < 0.001:
            raise ValueError(f"a period of {period_s} s is too short")
        await asyncio.to_thread(self._halt)
        since_s = self._time.monotonic()

        def text() -> str:
            odd = int((self._time.monotonic() - since_s) / period_s) % 2
            return f"{0.0 if odd else offset_s:+.6f}"

        self._tick(text, period_s)

    def close(self) -> None:
        """Ends what `set` and `strobe` began. The process then sees the clock as it stands."""
        self._halt()

    def _tick(self, text: Callable[[], str], every_s: float) -> None:
        self._stop.clear()
        self._write(text())
        self._ticking = threading.Thread(
            target=self._keep_writing, args=(text, every_s), name=f"clock {self._file}", daemon=True
        )
        self._ticking.start()

    def _keep_writing(self, text: Callable[[], str], every_s: float) -> None:
        while not self._stop.wait(every_s):
            try:
                self._write(text())
            except OSError:  # its folder is gone: the run has ended
                return

    def _halt(self) -> None:
        ticking, self._ticking = self._ticking, None
        if ticking is not None:
            self._stop.set()
            ticking.join()

    def _write(self, text: str) -> None:
        """Replaces the file whole: the process may read it at any moment."""
        aside = self._file.with_name(self._file.name + ".new")
        aside.write_text(text + "\n", encoding="ascii")
        aside.replace(self._file)


def _absolute(wall_s: float) -> str:
    return f"{wall_s:.6f}"
