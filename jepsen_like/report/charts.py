"""Throughput and latency over time, as shapes in the units of an SVG; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from jepsen_like.report import words
from jepsen_like.report.axis import BOTTOM, TOP, Band, Tick, TimeAxis
from jepsen_like.report.bins import OUTCOMES, STEPS_PER_DECADE, Bin, middle_ns
from jepsen_like.report.survey import Survey

HEIGHT: Final = 250.0
COLUMNS_MAX: Final = 120  #: of the throughput
LINE_POINTS_MAX: Final = 80  #: of each quantile
DOT_COLUMNS_MAX: Final = 240
DOT_STEPS: Final = 2  #: steps of the histogram that share a dot
QUANTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
_S: Final = 1_000_000_000
_GAP: Final = 0.6


class Shape(msgspec.Struct, frozen=True):
    """An SVG path; its colour follows from its name."""

    name: str
    path: str


class Chart(msgspec.Struct, frozen=True):
    """One diagram: everything in units of its view box, `WIDTH` by `height`.

    Attributes:
        name: For element ids.
        title, unit: What is drawn, in which unit.
        height: Of the view box.
        x_ticks, y_ticks: The grid.
        bands: The faults.
        dots, lines: What is drawn as dots, as areas (throughput) or lines (latency).
    """

    name: str
    title: str
    unit: str
    height: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    bands: list[Band]
    dots: list[Shape]
    lines: list[Shape]


class _Scale:
    """Values to heights: linear, from `low` at the bottom to `high` at the top."""

    def __init__(self, low: float, high: float) -> None:
        self._low = low
        self._per_unit = (HEIGHT - BOTTOM - TOP) / (high - low)

    def __call__(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - self._low) * self._per_unit, 2)


def throughput(survey: Survey) -> Chart:
    """Operations that ended a second, stacked by outcome."""
    axis = TimeAxis(survey.end_ns)
    width_ns, bins = survey.bins.coarse(COLUMNS_MAX)
    rates = [[count * _S / width_ns for count in one.ended] for one in bins]
    highest = max((sum(rate) for rate in rates), default=0.0) or 1.0
    step = words.steps(highest, 4)
    top = step * math.ceil(highest / step)
    y = _Scale(0.0, top)
    return Chart(
        name="throughput",
        title="Throughput",
        unit=f"operations a second by outcome, when they ended; a column is "
        f"{words.duration(width_ns)}",
        height=HEIGHT,
        x_ticks=axis.ticks(),
        y_ticks=[Tick(y(k * step), words.number(k * step)) for k in range(round(top / step) + 1)],
        bands=axis.bands(survey.windows),
        dots=[],
        lines=[
            Shape(outcome.value, "".join(_columns(axis, rates, width_ns, place, y)))
            for place, outcome in enumerate(OUTCOMES)
        ],
    )


def _columns(
    axis: TimeAxis,
    rates: Sequence[Sequence[float]],
    width_ns: int,
    place: int,
    y: Callable[[float], float],
) -> Iterator[str]:
    for number, rate in enumerate(rates):
        if not rate[place]:
            continue
        below = sum(rate[:place])
        left, right = axis.x(number * width_ns), axis.x((number + 1) * width_ns)
        gap = _GAP if right - left > 3 * _GAP else 0.0
        yield f"M{left:g} {y(below):g}H{right - gap:.2f}V{y(below + rate[place]):g}H{left:g}Z"


def latency(survey: Survey) -> Chart:
    """Latency by the time at which operations began, on a logarithmic scale."""
    axis = TimeAxis(survey.end_ns)
    low, high = _decades(survey)
    y = _Scale(low, high)
    width_ns, bins = survey.bins.coarse(LINE_POINTS_MAX)
    dot_width_ns, dot_bins = survey.bins.coarse(DOT_COLUMNS_MAX)
    return Chart(
        name="latency",
        title="Latency",
        unit="of each operation by the time it began, logarithmic; lines are quantiles of the "
        f"acknowledged ones over {words.duration(width_ns)}, right within 3 %",
        height=HEIGHT,
        x_ticks=axis.ticks(),
        y_ticks=[Tick(y(power), words.duration(10**power)) for power in range(low, high + 1)],
        bands=axis.bands(survey.windows),
        dots=[
            Shape(outcome.value, "".join(_dots(axis, dot_bins, dot_width_ns, place, y)))
            for place, outcome in enumerate(OUTCOMES)
        ],
        lines=[
            Shape(name, "".join(_line(axis, bins, width_ns, share, y))) for name, share in QUANTILES
        ],
    )


def _decades(survey: Survey) -> tuple[int, int]:
    """The powers of ten, in nanoseconds, between which all latencies are."""
    steps = [
        step for one in survey.bins.bins for latencies in one.begun for step in latencies.steps
    ]
    if not steps:
        return 6, 9
    low = min(steps) // STEPS_PER_DECADE
    high = max(steps) // STEPS_PER_DECADE + 1
    return low, max(high, low + 1)


def _dots(
    axis: TimeAxis,
    bins: Sequence[Bin],
    width_ns: int,
    place: int,
    y: Callable[[float], float],
) -> Iterator[str]:
    """A dot for each cell of time and latency in which an operation was."""
    for number, one in enumerate(bins):
        x = axis.x((number + 0.5) * width_ns)
        for cell in sorted({step // DOT_STEPS for step in one.begun[place].steps}):
            middle = middle_ns(cell * DOT_STEPS) * middle_ns(cell * DOT_STEPS + DOT_STEPS - 1)
            yield f"M{x:g} {y(math.log10(middle) / 2):g}h0"


def _line(
    axis: TimeAxis, bins: Sequence[Bin], width_ns: int, share: float, y: Callable[[float], float]
) -> Iterator[str]:
    """A line through the quantile of each bin, broken where nothing was acknowledged."""
    pen = "M"
    for number, one in enumerate(bins):
        acknowledged = one.begun[0]
        if not acknowledged.count:
            pen = "M"
            continue
        quantile_ns = max(acknowledged.quantile_ns(share), 1)
        yield f"{pen}{axis.x((number + 0.5) * width_ns):g} {y(math.log10(quantile_ns)):g}"
        if pen == "M":
            yield "h0"  # a single point is seen, too
        pen = "L"
