"""What the registry knows of the traffic of late: reports of all sidecars, added up by time.

`raftreg mesh top` and `GET /v1/mesh/traffic` show it. Time is that of the registry: a report counts
for the slot in which it came.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import Final

import msgspec

from raftreg.mesh.checked import within
from raftreg.mesh.traffic import KEYS_MAX, Report, Sums, Traffic

#: Sidecars whose last report is remembered; the one that was silent for longest is forgotten.
REPORTERS_MAX: Final = 10_000


class TrafficSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the past is kept.

    Attributes:
        slot_s: Seconds that are added up.
        slots: How many of them are kept.
        keys_max: Keys that are kept apart in each, see `Traffic`.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    slot_s: float = 10.0
    slots: int = 6
    keys_max: int = KEYS_MAX

    def __post_init__(self) -> None:
        within("slot_s", self.slot_s, 0.1, 3600.0)
        within("slots", self.slots, 1, 1000)
        within("keys_max", self.keys_max, 1, KEYS_MAX)


class TrafficShown(msgspec.Struct, frozen=True, kw_only=True):
    """The traffic of one key of late, for people.

    Attributes:
        source, destination, route, code: The key, see `traffic.Key`; "*" for what was folded.
            In `edges` the last two are "": all of them.
        per_second: Calls a second.
        count: Calls.
        error_share: Share that failed or was answered by 5xx, 0 to 1.
        retries: Repeats that they took.
        p50_s, p99_s: Quantiles of their durations, in seconds, within 5 %.
    """

    source: str
    destination: str
    route: str
    code: str
    per_second: float
    count: int
    error_share: float
    retries: int
    p50_s: float
    p99_s: float


class TrafficView:
    """Sums of the last slots.

    Args:
        settings: How much of the past is kept.
    """

    __slots__ = ("_last", "_settings", "_slots")

    def __init__(self, settings: TrafficSettings) -> None:
        self._settings = settings
        self._slots: deque[tuple[int, Traffic]] = deque()
        self._last: OrderedDict[str, int] = OrderedDict()

    def add(self, reporter: str, report: Report, now_s: float) -> bool:
        """Adds a report; one that was added before is not added again.

        Args:
            reporter: Names the sidecar's present life; a new one begins its sequence anew.
            report: As it was decoded.
            now_s: Monotonic time in seconds.

        Returns:
            Whether it was new.
        """
        if report.sequence <= self._last.get(reporter, -1):
            return False
        self._last[reporter] = report.sequence
        self._last.move_to_end(reporter)
        if len(self._last) > REPORTERS_MAX:
            self._last.popitem(last=False)
        self._slot(now_s).merge(report.sums())
        return True

    def recent(self, now_s: float, rows_max: int = KEYS_MAX) -> list[TrafficShown]:
        """The traffic of the slots that are kept, the present one included, the largest first.

        Args:
            now_s: Monotonic time in seconds.
            rows_max: Most rows.
        """
        total = self._total(now_s)
        span_s = self._span_s(now_s)
        return [
            _shown((key.source, key.destination, key.route, key.code.value), sums, span_s)
            for key, sums in total.largest(rows_max)
        ]

    def edges(self, now_s: float, rows_max: int = KEYS_MAX) -> list[TrafficShown]:
        """As `recent`, all routes and classes of a caller and a service it calls in one row.

        Args:
            now_s: Monotonic time in seconds.
            rows_max: Most rows.
        """
        whole: dict[tuple[str, str], Sums] = {}
        for key, sums in self._total(now_s):
            whole.setdefault((key.source, key.destination), Sums()).merge(sums)
        span_s = self._span_s(now_s)
        rows = [_shown((*ends, "", ""), sums, span_s) for ends, sums in whole.items()]
        return sorted(rows, key=lambda row: (-row.count, row.source, row.destination))[:rows_max]

    def _total(self, now_s: float) -> Traffic:
        self._forget(now_s)
        total = Traffic(self._settings.keys_max)
        for _, traffic in self._slots:
            total.merge(traffic)
        return total

    def _span_s(self, now_s: float) -> float:
        """Seconds from the beginning of the oldest slot to now, a whole slot at least."""
        if not self._slots:
            return self._settings.slot_s
        began_s = self._slots[0][0] * self._settings.slot_s
        return max(now_s - began_s, self._settings.slot_s)

    def _slot(self, now_s: float) -> Traffic:
        number = self._forget(now_s)
        # A time that steps back counts as the present.
        if not self._slots or self._slots[-1][0] < number:
            self._slots.append((number, Traffic(self._settings.keys_max)))
        return self._slots[-1][1]

    def _forget(self, now_s: float) -> int:
        number = math.floor(now_s / self._settings.slot_s)
        while self._slots and self._slots[0][0] <= number - self._settings.slots:
            self._slots.popleft()
        return number


def _shown(names: tuple[str, str, str, str], sums: Sums, span_s: float) -> TrafficShown:
    source, destination, route, code = names
    return TrafficShown(
        source=source,
        destination=destination,
        route=route,
        code=code,
        per_second=sums.count / span_s,
        count=sums.count,
        error_share=sums.errors / max(sums.count, 1),
        retries=sums.retries,
        p50_s=sums.latency.quantile_s(0.5),
        p99_s=sums.latency.quantile_s(0.99),
    )
