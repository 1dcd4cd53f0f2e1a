"""Rows of the table, beside what other systems did."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

#: Where a document holds the table.
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


class Published(msgspec.Struct, frozen=True):
    """A figure that somebody published, or a range.

    Attributes:
        low, high: The range; equal when it is one figure.
        note: What belongs to it.
    """

    low: float
    high: float
    note: str = ""

    def best(self, *, more_is_better: bool) -> float:
        """The end of the range that is harder to beat."""
        return self.high if more_is_better else self.low

    def __str__(self) -> str:
        text = number(self.low)
        if self.high != self.low:
            text += f" to {number(self.high)}"
        return f"{text} ({self.note})" if self.note else text


def published(low: float, high: float | None = None, note: str = "") -> Published:
    """A published figure, or a range of them."""
    return Published(low, low if high is None else high, note)


class Goal(msgspec.Struct, frozen=True, tag="value"):
    """What the median is to reach.

    Attributes:
        value: In the row's unit.
        worst: Limit for the worst sample, None when there is none.
    """

    value: float
    worst: float | None = None

    def __str__(self) -> str:
        worst = "" if self.worst is None else f", worst {number(self.worst)}"
        return f"{number(self.value)}{worst}"


class Times(msgspec.Struct, frozen=True, tag="times"):
    """So many times better than Consul: the one beside us, else the published one."""

    factor: float

    def __str__(self) -> str:
        return f"{self.factor:g} x Consul"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement.

    Attributes:
        name: What was measured.
        unit: Of the samples.
        samples: Each repetition.
        more_is_better: True for rates, False for times and sizes.
        consul_samples: What the Consul beside us did, interleaved with our samples.
        consul, etcd: Published figures of Consul 1.8 and etcd 3.5 with three servers on loopback of
            a two-core machine, fsync on.
        goal: What is to be reached, None for rows that are published only.
        note: Anything else that belongs to the figure.
        consul_note: The same of Consul's.
        load_average: Of the last minute, when the measurement began.
        others: Share of the machine's processor time that other programs took meanwhile, 0 to 1.
    """

    name: str
    unit: str
    samples: list[float]
    more_is_better: bool = False
    consul_samples: list[float] = []
    consul: Published | None = None
    etcd: Published | None = None
    goal: Goal | Times | None = None
    note: str = ""
    consul_note: str = ""
    load_average: float | None = None
    others: float | None = None

    def under(self, load_average: float, others: float | None) -> Row:
        """The same, with how busy the machine was."""
        return msgspec.structs.replace(self, load_average=load_average, others=others)

    @property
    def median(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples)

    @property
    def reference(self) -> float | None:
        """What Consul did: beside us if it was there, else as published."""
        if self.consul_samples:
            return statistics.median(self.consul_samples)
        if self.consul is None:
            return None
        return self.consul.best(more_is_better=self.more_is_better)

    @property
    def ratio(self) -> float | None:
        """How many times better than Consul; None when one of the two is not there or is zero."""
        reference, median = self.reference, self.median
        if not reference or not median:
            return None
        return median / reference if self.more_is_better else reference / median

    @property
    def reached(self) -> bool | None:
        """Tells whether the goal is reached; None when nobody can tell."""
        match self.goal:
            case Goal(value, worst):
                if self.more_is_better:
                    return self.median >= value
                return self.median <= value and (worst is None or max(self.samples) <= worst)
            case Times(factor):
                return None if self.ratio is None else self.ratio >= factor
            case None:
                return None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    machine: dict[str, str]
    load_before: float
    load_after: float
    rows: list[Row]
    consul: str = ""


def number(value: float) -> str:
    """Three digits or so."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def span(samples: Sequence[float]) -> str:
    """Smallest to largest."""
    return f"{number(min(samples))} to {number(max(samples))}"


def consul_text(row: Row) -> str:
    """Consul's column: measured beside us, or published."""
    if row.consul_samples:
        return number(statistics.median(row.consul_samples))
    return "" if row.consul is None else f"{row.consul} published"


def goal_text(row: Row) -> str:
    """The goal, with the direction."""
    if row.goal is None:
        return ""
    if isinstance(row.goal, Times):
        return str(row.goal)
    return f"{'>=' if row.more_is_better else '<='} {row.goal}"


def ratio_text(row: Row) -> str:
    """How many times better than Consul."""
    return "" if row.ratio is None else f"{row.ratio:.3g}"


def notes_text(row: Row) -> str:
    """What else belongs to the row."""
    return "; ".join(
        part for part in (row.note, row.consul_note and f"Consul: {row.consul_note}") if part
    )


def busy_text(row: Row) -> str:
    """How busy the machine was: load average, and the share that other programs took."""
    if row.load_average is None:
        return ""
    others = "" if row.others is None else f", {row.others:.0%}"
    return f"{row.load_average:.1f}{others}"


_COLUMNS = (
    ("what", "left"),
    ("median", "right"),
    ("min to max", "right"),
    ("unit", "left"),
    ("goal", "right"),
    ("Consul", "right"),
    ("times better", "right"),
    ("etcd 3.5", "right"),
    ("load, others", "right"),
    ("", "left"),
)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        number(row.median),
        span(row.samples),
        row.unit,
        goal_text(row),
        consul_text(row),
        ratio_text(row),
        "" if row.etcd is None else str(row.etcd),
        busy_text(row),
        notes_text(row),
    )


def heading(report: Report) -> str:
    """What the figures belong to."""
    machine = ", ".join(f"{key} {value}" for key, value in report.machine.items())
    beside = report.consul or "none; figures marked 'published' are of Consul 1.8"
    return (
        f"{machine}\n"
        f"Consul beside us: {beside}\n"
        f"load average before {report.load_before:.1f}, after {report.load_after:.1f}; "
        "figures of a machine that others use too are too low"
    )


def show(report: Report, console: Console) -> None:
    """Prints the table for people at a terminal."""
    console.print(heading(report), markup=False)
    table = Table(title="three servers on loopback, fsync on, load from another process")
    for name, justify in _COLUMNS:
        table.add_column(name, justify="right" if justify == "right" else "left")
    for row in report.rows:
        cells = [escape(cell) for cell in _cells(row)]
        cells[1] = f"[{_style(row)}]{cells[1]}[/]"
        table.add_row(*cells)
    console.print(table)


def markdown(report: Report) -> str:
    """The table as `docs/performance.md` holds it."""
    lines = [
        "| " + " | ".join(name or "notes" for name, _ in _COLUMNS) + " |",
        "|" + "|".join("---:" if justify == "right" else "---" for _, justify in _COLUMNS) + "|",
    ]
    for row in report.rows:
        cells = [cell.replace("|", "\\|") for cell in _cells(row)]
        if row.reached is False:
            cells[4] += " (missed)"
        lines.append("| " + " | ".join(cells) + " |")
    text = heading(report).replace("\n", "  \n")
    return f"{text}\n\n" + "\n".join(lines) + "\n"


def put_into(document: str, table: str) -> str:
    """Puts a table where a document holds one: between two comments.

    Raises:
        ValueError: The document has no such place.
    """
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"there is no {BEGIN} … {END}")
    return f"{head}{begin}\n\n{table}\n{end}{tail}"


def _style(row: Row) -> str:
    if row.reached is None:
        return "bold"
    return "bold green" if row.reached else "bold red"
