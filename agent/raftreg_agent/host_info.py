"""/v1/agent/host: what this host is made of, as psutil tells it, in the names of gopsutil.

Consul gives what its library gives (https://developer.hashicorp.com/consul/api-docs/agent#view-host-information).
What one source can't tell is left out, and said in `Errors`.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import psutil

_CPU_FILE = Path("/proc/cpuinfo")
_CPU_FILE_BYTES_MAX = 1 << 20


class HostJson(TypedDict):
    """This host."""

    Memory: dict[str, Any] | None
    CPU: list[dict[str, Any]] | None
    Host: dict[str, Any] | None
    Disk: dict[str, Any] | None
    CollectionTime: int
    Errors: list[str] | None


def host_json(directory: str, wall_s: float) -> HostJson:
    """Gathers it all; blocking work for a thread.

    Args:
        directory: Whose disk is told of.
        wall_s: Seconds since the epoch.
    """
    errors: list[str] = []

    def gathered(what: str, gather: Callable[[], Any]) -> Any:
        try:
            return gather()
        except (OSError, psutil.Error) as error:
            errors.append(f"{what}: {error}")
            return None

    return {
        "Memory": gathered("memory", _memory),
        "CPU": gathered("cpu", _cpus),
        "Host": gathered("host", lambda: _host(wall_s)),
        "Disk": gathered("disk", lambda: _disk(directory)),
        "CollectionTime": int(wall_s * 1e9),
        "Errors": errors or None,
    }


def _memory() -> dict[str, Any]:
    memory = psutil.virtual_memory()
    named = {name: getattr(memory, name, 0) for name in ("active", "inactive", "buffers", "cached")}
    return {
        "total": memory.total,
        "available": memory.available,
        "used": memory.used,
        "usedPercent": memory.percent,
        "free": memory.free,
        **named,
    }


def _cpus() -> list[dict[str, Any]]:
    # None in some containers, whatever its type says.
    mhz = getattr(psutil.cpu_freq(), "max", 0.0)
    model = _cpu_model()
    return [
        {
            "cpu": number,
            "modelName": model,
            "cores": 1,
            "mhz": mhz,
        }
        for number in range(psutil.cpu_count() or 1)
    ]


def _cpu_model() -> str:
    """The name of the processor; the kernel knows it better than `platform`."""
    if not _CPU_FILE.exists():
        return platform.processor()
    with _CPU_FILE.open(encoding="utf-8", errors="replace") as file:
        for line in file.read(_CPU_FILE_BYTES_MAX).splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor()


def _host(wall_s: float) -> dict[str, Any]:
    booted_s = psutil.boot_time()
    return {
        "hostname": socket.gethostname(),
        "uptime": max(0, int(wall_s - booted_s)),
        "bootTime": int(booted_s),
        "procs": len(psutil.pids()),
        "os": platform.system().lower(),
        "platform": platform.system().lower(),
        "platformVersion": platform.version(),
        "kernelVersion": platform.release(),
        "kernelArch": platform.machine(),
    }


def _disk(directory: str) -> dict[str, Any]:
    usage = psutil.disk_usage(directory)
    return {
        "path": directory,
        "total": usage.total,
        "free": usage.free,
        "used": usage.used,
        "usedPercent": usage.percent,
    }
