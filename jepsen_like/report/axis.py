"""The time axis that all diagrams of a run share, with its ticks and the faults along it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from jepsen_like.report import words
from jepsen_like.report.survey import Window

WIDTH: Final = 1000.0
LEFT: Final = 64.0
RIGHT: Final = 14.0
TOP: Final = 26.0  #: room for the names of the faults
BOTTOM: Final = 28.0
CHAR_WIDTH: Final = 6.4
DRAWN_WINDOWS_MAX: Final = 1_000
_S: Final = 1_000_000_000


class Tick(msgspec.Struct, frozen=True):
    """A line of the grid with its text."""

    at: float
    text: str


class Band(msgspec.Struct, frozen=True):
    """A fault: shaded from `x`, `width` wide; `label` is "" where there is no room for it."""

    x: float
    width: float
    label: str
    title: str


class TimeAxis:
    """Time since the run began on the width of a chart.

    Args:
        end_ns: The end of the run.
    """

    def __init__(self, end_ns: int) -> None:
        self.end_ns = max(end_ns, 1)
        self.width = WIDTH - LEFT - RIGHT

    def x(self, time_ns: float) -> float:
        """Where a time is."""
        share = min(max(time_ns / self.end_ns, 0.0), 1.0)
        return round(LEFT + share * self.width, 2)

    def ticks(self) -> list[Tick]:
        """About ten of them."""
        step = words.steps(self.end_ns / _S, 10)
        count = int(self.end_ns / _S / step)
        digits = max(0, -math.floor(math.log10(step)))
        return [Tick(self.x(k * step * _S), f"{k * step:,.{digits}f} s") for k in range(count + 1)]

    def bands(self, windows: Sequence[Window]) -> list[Band]:
        """The faults; a name only where it fits before the next one's."""
        bands: list[Band] = []
        free_from = 0.0
        for window in windows[:DRAWN_WINDOWS_MAX]:
            stop_ns = self.end_ns if window.stop_ns is None else window.stop_ns
            start = self.x(window.start_ns)
            width = max(self.x(stop_ns) - start, 1.0)
            label = self._label(window, start, free_from, windows)
            if label:
                free_from = start + len(label) * CHAR_WIDTH + 6
            bands.append(Band(start, round(width, 2), label, _title(window)))
        return bands

    def _label(
        self, window: Window, start: float, free_from: float, windows: Sequence[Window]
    ) -> str:
        """Number and name, or the number alone, or "": what fits before the next fault."""
        if start < free_from:
            return ""
        following = windows[window.number : window.number + 1]
        room = (self.x(following[0].start_ns) if following else WIDTH) - start
        for text in (f"{window.number} {window.fault}", str(window.number)):
            if len(text) * CHAR_WIDTH <= room:
                return text
        return ""


def _title(window: Window) -> str:
    stop = "the end" if window.stop_ns is None else words.moment(window.stop_ns)
    return f"{window.number} {window.fault}: {words.moment(window.start_ns)} to {stop}"
