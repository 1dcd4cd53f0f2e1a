"""Rows of the table, beside what other systems did on such a machine."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
import psutil
from rich.console import Console
from rich.table import Table


class Goal(msgspec.Struct, frozen=True):
    """What the median is to reach.

    Attributes:
        value: In the row's unit.
        at_least: True when more is better.
        worst: Limit for the worst sample, None when there is none.
    """

    value: float
    at_least: bool = False
    worst: float | None = None

    def reached(self, samples: Sequence[float]) -> bool:
        """Tells whether the samples reach it."""
        median = statistics.median(samples)
        if self.at_least:
            return median >= self.value
        return median <= self.value and (self.worst is None or max(samples) <= self.worst)

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        worst = "" if self.worst is None else f", worst {number(self.worst)}"
        return f"{sign} {number(self.value)}{worst}"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement.

    Attributes:
        name: What was measured.
        unit: Of the samples.
        samples: Each repetition.
        consul, etcd: Figures of Consul 1.8 and etcd 3.5 with three servers on loopback of a
            two-core machine, fsync on; "" when there is none.
        goal: What is to be reached, None for rows that are published only.
        note: Anything else that belongs to the figure.
    """

    name: str
    unit: str
    samples: list[float]
    consul: str = ""
    etcd: str = ""
    goal: Goal | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    machine: dict[str, str]
    load_before: float
    load_after: float
    rows: list[Row]


def machine() -> dict[str, str]:
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


def number(value: float) -> str:
    """Three digits or so."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def show(report: Report, console: Console) -> None:
    """Prints the table."""
    console.print(", ".join(f"{key} {value}" for key, value in report.machine.items()))
    console.print(
        f"load average before {report.load_before:.1f}, after {report.load_after:.1f}: "
        "figures of a busy machine are too low"
    )
    table = Table(title="three servers on loopback, fsync on, load from another process")
    for name, justify in (
        ("what", "left"),
        ("median", "right"),
        ("min to max", "right"),
        ("unit", "left"),
        ("goal", "right"),
        ("Consul 1.8", "right"),
        ("etcd 3.5", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify="right" if justify == "right" else "left")
    for row in report.rows:
        table.add_row(
            row.name,
            f"[{_style(row)}]{number(row.median)}[/]",
            f"{number(min(row.samples))} to {number(max(row.samples))}",
            row.unit,
            "" if row.goal is None else str(row.goal),
            row.consul,
            row.etcd,
            row.note,
        )
    console.print(table)


def _style(row: Row) -> str:
    if row.goal is None:
        return "bold"
    return "bold green" if row.goal.reached(row.samples) else "bold red"
