"""The machine that figures belong to, and how busy others keep it."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psutil


def describe() -> dict[str, str]:
    """What the figures belong to; no names, no dates."""
    return {
        "cores": str(os.cpu_count()),
        "processor": _processor(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "event loop": _event_loop(),
        "aiohttp": version("aiohttp"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _event_loop() -> str:
    try:
        return f"uvloop {version('uvloop')}"
    except ImportError:
        return "asyncio"


#: Time of all cores below which shares of it are noise.
TELLING_S = 1.0


class Bystanders:
    """Tells how much of the machine other programs took, from now on.

    Args:
        ours_s: Gives the processor seconds of the clusters that are measured.
    """

    def __init__(self, ours_s: Callable[[], float]) -> None:
        self._ours_s = ours_s
        self.load_average = os.getloadavg()[0]
        self._start = self._now()

    def share(self) -> float | None:
        """Share of all cores' time since the start that neither we used nor nobody, 0 to 1.

        None when the time is too short to tell: the kernel counts in hundredths of seconds.
        """
        busy, idle, ours = (now - then for now, then in zip(self._now(), self._start, strict=True))
        total = busy + idle
        return min(1.0, max(0.0, (busy - ours) / total)) if total >= TELLING_S else None

    def _now(self) -> tuple[float, float, float]:
        """Busy seconds and idle seconds of all cores, and ours of the busy ones."""
        times = psutil.cpu_times()
        idle = float(times.idle + getattr(times, "iowait", 0.0))
        busy = float(sum(times)) - idle - float(getattr(times, "guest", 0.0))
        return busy, idle, self._ours_s() + _own_s()


def _own_s() -> float:
    """Of this process and of the generators that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
