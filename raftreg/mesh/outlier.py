"""Outlier ejection: instances that fail while others do not are left out for a while.

What is watched, and the defaults, are Envoy's:
https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier

* failures in a row, of any kind (5xx) or of the gateway kind (no answer, 502, 503, 504);
* the success rate over an interval, against mean - factor * standard deviation of all;
* the share of failures over an interval, against a fixed bound.

An ejection lasts base * times, where times goes up with each ejection and down with each interval
in which the instance was in use. No more than a share of the instances is out at a time, and never
all of them.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from raftreg.mesh.checked import within
from raftreg.mesh.nouns import MeshConfigError, Outcome

_DAY_S: Final = 86_400.0
_COUNT_MAX: Final = 1_000_000
_GATEWAY: Final = frozenset({502, 503, 504})


class OutlierSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When an instance is ejected, and for how long.

    Attributes:
        consecutive_5xx: Failures in a row that eject; 0 for never.
        consecutive_gateway: Gateway failures in a row (no answer, 502, 503, 504) that eject; 0 for
            never.
        interval_s: Seconds over which rates are counted.
        base_ejection_s: How long the first ejection lasts.
        max_ejection_s: How long an ejection lasts at most.
        max_ejected: Share of the instances, 0 to 1, that may be out at a time. One may be even
            where that is less than one, but never the last; 0 turns ejection off.
        success_rate_factor: Standard deviations below the mean that eject; 0 for never.
        success_rate_instances: Instances with enough calls that the mean needs.
        success_rate_calls: Calls in the interval that an instance needs to be counted.
        failure_share: Share of failures in an interval, 0 to 1, that ejects; 0 for never.
        failure_share_instances: Instances with enough calls that this needs.
        failure_share_calls: Calls in the interval that an instance needs for it.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    consecutive_5xx: int = 5
    consecutive_gateway: int = 0
    interval_s: float = 10.0
    base_ejection_s: float = 30.0
    max_ejection_s: float = 300.0
    max_ejected: float = 0.1
    success_rate_factor: float = 1.9
    success_rate_instances: int = 5
    success_rate_calls: int = 100
    failure_share: float = 0.0
    failure_share_instances: int = 5
    failure_share_calls: int = 50

    def __post_init__(self) -> None:
        within("consecutive_5xx", self.consecutive_5xx, 0, _COUNT_MAX)
        within("consecutive_gateway", self.consecutive_gateway, 0, _COUNT_MAX)
        within("interval_s", self.interval_s, 0.001, _DAY_S)
        within("base_ejection_s", self.base_ejection_s, 0.001, _DAY_S)
        within("max_ejection_s", self.max_ejection_s, 0.001, _DAY_S)
        within("max_ejected", self.max_ejected, 0.0, 1.0)
        within("success_rate_factor", self.success_rate_factor, 0.0, 100.0)
        within("success_rate_instances", self.success_rate_instances, 2, _COUNT_MAX)
        within("success_rate_calls", self.success_rate_calls, 1, _COUNT_MAX)
        within("failure_share", self.failure_share, 0.0, 1.0)
        within("failure_share_instances", self.failure_share_instances, 1, _COUNT_MAX)
        within("failure_share_calls", self.failure_share_calls, 1, _COUNT_MAX)
        if self.max_ejection_s < self.base_ejection_s:
            raise MeshConfigError(
                f"max_ejection_s: must not be below base_ejection_s ({self.base_ejection_s:g}), "
                f"is {self.max_ejection_s:g}"
            )


class Cause(enum.Enum):
    """Why an instance was ejected."""

    CONSECUTIVE_5XX = "consecutive-5xx"
    CONSECUTIVE_GATEWAY = "consecutive-gateway-failure"
    SUCCESS_RATE = "success-rate"
    FAILURE_SHARE = "failure-percentage"


class Ejection(msgspec.Struct, frozen=True):
    """An instance is left out.

    Attributes:
        key: Key of the instance.
        cause: Why.
        until_s: When it returns, in monotonic seconds.
        times: Ejections that its length was reckoned by.
    """

    key: str
    cause: Cause
    until_s: float
    times: int


class Swept(msgspec.Struct, frozen=True):
    """What a sweep changed.

    Attributes:
        ejected: Those that are left out from now on.
        returned: Keys of those that are back.
    """

    ejected: Sequence[Ejection] = ()
    returned: Sequence[str] = ()


class _Record:
    """What is known of one instance."""

    __slots__ = ("calls", "failures", "in_row", "in_row_gateway", "times", "until_s")

    def __init__(self) -> None:
        self.in_row = 0
        self.in_row_gateway = 0
        self.calls = 0
        self.failures = 0
        self.times = 0
        #: When it returns; None while it is in use.
        self.until_s: float | None = None

    def count(self, outcome: Outcome) -> None:
        """Takes in what became of a call."""
        self.calls += 1
        if not outcome.failed:
            self.in_row = self.in_row_gateway = 0
            return
        self.failures += 1
        self.in_row += 1
        gateway = outcome.failure is not None or outcome.status in _GATEWAY
        self.in_row_gateway = self.in_row_gateway + 1 if gateway else 0

    @property
    def failure_share(self) -> float:
        """Share of this interval's calls that failed; it had one at least."""
        return self.failures / self.calls


class OutlierDetector:
    """Watches what becomes of calls to the instances of one upstream.

    Args:
        settings: When an instance is ejected, and for how long.
        now_s: Monotonic seconds, when the first interval begins.
    """

    def __init__(self, settings: OutlierSettings, now_s: float) -> None:
        self._settings = settings
        self._records: dict[str, _Record] = {}
        self._ejected: set[str] = set()
        #: Those that were out at some time of this interval.
        self._absent: set[str] = set()
        self._interval_ends_s = now_s + settings.interval_s

    @property
    def ejected(self) -> frozenset[str]:
        """Keys of those that are out."""
        return frozenset(self._ejected)

    def update(self, keys: Iterable[str]) -> Sequence[str]:
        """Replaces the instances that are watched; what left is forgotten.

        Returns:
            Keys of those that return early, as fewer may be out among fewer instances.
        """
        before = self._records
        self._records = {key: before.get(key) or _Record() for key in keys}
        self._ejected &= self._records.keys()
        self._absent &= self._records.keys()
        early: list[str] = []
        soonest = sorted(self._ejected, key=lambda key: (self._records[key].until_s or 0.0, key))
        for key in soonest[: max(0, len(self._ejected) - self._ejected_max())]:
            self._return(key)
            early.append(key)
        return early

    def record(self, key: str, outcome: Outcome, now_s: float) -> Ejection | None:
        """Takes in what became of a call.

        Returns:
            The ejection, when this failure was one too many in a row.
        """
        record = self._records.get(key)
        if record is None:
            return None
        record.count(outcome)
        if not record.in_row:
            return None
        settings = self._settings
        if settings.consecutive_gateway and record.in_row_gateway >= settings.consecutive_gateway:
            return self._eject(key, Cause.CONSECUTIVE_GATEWAY, now_s)
        if settings.consecutive_5xx and record.in_row >= settings.consecutive_5xx:
            return self._eject(key, Cause.CONSECUTIVE_5XX, now_s)
        return None

    def due_s(self) -> float:
        """When `sweep` has something to do next, in monotonic seconds."""
        ends = (self._records[key].until_s for key in self._ejected)
        return min([self._interval_ends_s, *(end for end in ends if end is not None)])

    def sweep(self, now_s: float) -> Swept:
        """Lets those return whose time is over; at the end of an interval, looks at rates."""
        returned: list[str] = []
        for key in sorted(self._ejected):
            until_s = self._records[key].until_s
            if until_s is not None and until_s <= now_s:
                self._return(key)
                returned.append(key)
        if now_s < self._interval_ends_s:
            return Swept((), returned)
        ejected = self._judge(now_s)
        self._begin_interval(now_s)
        return Swept(ejected, returned)

    def _judge(self, now_s: float) -> list[Ejection]:
        """Ejects those whose rates stand out, the worst first, as only some may be."""
        found = self._by_success_rate() | self._by_failure_share()
        worst = sorted(found, key=lambda key: (-self._records[key].failure_share, key))
        ejections = (self._eject(key, found[key], now_s) for key in worst)
        return [each for each in ejections if each is not None]

    def _counted(self, calls_min: int, instances_min: int) -> dict[str, _Record]:
        """Those in use that had enough calls; none when they are too few."""
        counted = {
            key: record
            for key, record in self._records.items()
            if record.until_s is None and record.calls >= calls_min
        }
        return counted if len(counted) >= instances_min else {}

    def _by_success_rate(self) -> dict[str, Cause]:
        """Those whose success rate is below mean - factor * standard deviation."""
        settings = self._settings
        if not settings.success_rate_factor:
            return {}
        counted = self._counted(settings.success_rate_calls, settings.success_rate_instances)
        if not counted:
            return {}
        rates = {key: 1.0 - record.failure_share for key, record in counted.items()}
        mean = math.fsum(rates.values()) / len(rates)
        variance = math.fsum((rate - mean) ** 2 for rate in rates.values()) / len(rates)
        bound = mean - settings.success_rate_factor * math.sqrt(variance)
        # What differs by rounding alone is no outlier.
        return {key: Cause.SUCCESS_RATE for key, rate in rates.items() if rate < bound - 1e-9}

    def _by_failure_share(self) -> dict[str, Cause]:
        """Those whose share of failures reached the bound."""
        settings = self._settings
        if not settings.failure_share:
            return {}
        counted = self._counted(settings.failure_share_calls, settings.failure_share_instances)
        return {
            key: Cause.FAILURE_SHARE
            for key, record in counted.items()
            if record.failure_share >= settings.failure_share
        }

    def _begin_interval(self, now_s: float) -> None:
        """Counts from 0, and forgives one ejection of each that was in use all the time."""
        for key, record in self._records.items():
            record.calls = record.failures = 0
            if key not in self._absent:
                record.times = max(0, record.times - 1)
        self._absent = set(self._ejected)
        self._interval_ends_s = now_s + self._settings.interval_s

    def _ejected_max(self) -> int:
        """How many may be out at a time."""
        if not self._settings.max_ejected:
            return 0
        count = len(self._records)
        # A share such as 0.29 of 100 must not become 28 by rounding.
        allowed = max(1, math.floor(count * self._settings.max_ejected + 1e-9))
        return min(allowed, count - 1)

    def _eject(self, key: str, cause: Cause, now_s: float) -> Ejection | None:
        """Ejects one that is in use, if one more may be."""
        record = self._records[key]
        if record.until_s is not None or len(self._ejected) >= self._ejected_max():
            return None
        settings = self._settings
        # Times that make it no longer are not counted, so that they are forgiven in bounded time.
        if settings.base_ejection_s * record.times < settings.max_ejection_s:
            record.times += 1
        record.until_s = now_s + min(
            settings.base_ejection_s * record.times, settings.max_ejection_s
        )
        self._ejected.add(key)
        self._absent.add(key)
        return Ejection(key, cause, record.until_s, record.times)

    def _return(self, key: str) -> None:
        """Takes one back, with failures counted from 0; how often it was out is remembered."""
        record = self._records[key]
        record.until_s = None
        record.in_row = record.in_row_gateway = 0
        record.calls = record.failures = 0
        self._ejected.discard(key)
