"""Health of one check as a pure state machine: results and time in, edges out.

Three rules stand between what a probe saw and what the registry is told:

1. **Thresholds** (Consul's `SuccessBeforePassing`, `FailuresBeforeWarning`,
   `FailuresBeforeCritical`): a change needs that many results of its kind in a row. A warning
   result counts as a success, as in Consul.
2. **Flap damping** after RFC 2439 (BGP route flap damping): each fall of what rule 1 lets through
   adds to a penalty (1 for critical, 1/2 for warning) that halves every `half_life_s`. Above
   `suppress_over` the check is held at the worst status seen: bad news always travels at once,
   good news waits until the penalty has decayed to `reuse_under`. Falls while it is held count on.
   The penalty is capped so that nothing is held longer than `hold_max_s` after its last fall. One
   outage, or four in a minute, hold nothing.
3. **TTL**: a TTL check whose owner says nothing for its TTL becomes critical (`TTL expired`).
   Words of an owner (pass, warn, fail) are taken as they are: no threshold, no damping.

A check starts critical unless its definition says otherwise, or a status from before is known
(the check was registered again, or the agent restarted).
"""

from __future__ import annotations

import math

import msgspec

from raftreg.model import Status

DEREGISTER_AFTER_MIN_S = 60.0
TTL_EXPIRED = "TTL expired"

_SEVERITY = {Status.PASSING: 0, Status.WARNING: 1, Status.CRITICAL: 2}
_FALL_PENALTY = {Status.PASSING: 0.0, Status.WARNING: 0.5, Status.CRITICAL: 1.0}


class CheckResult(msgspec.Struct, frozen=True):
    """What one probe saw."""

    status: Status
    output: str = ""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """How many results in a row a change needs; 0 counts as 1.

    Attributes:
        success_before_passing: Passing or warning results before leaving critical.
        failures_before_warning: Critical results before warning is shown; 0: never shown, as
            critical comes first.
        failures_before_critical: Critical results before critical is shown.
    """

    success_before_passing: int = 0
    failures_before_warning: int = 0
    failures_before_critical: int = 0


class Damping(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of flap damping; see the head of this module."""

    half_life_s: float = 60.0
    suppress_over: float = 4.0
    reuse_under: float = 1.0
    hold_max_s: float = 180.0

    @property
    def ceiling(self) -> float:
        """Largest penalty: it decays to `reuse_under` in `hold_max_s`."""
        return self.reuse_under * math.exp2(self.hold_max_s / self.half_life_s)


class FlapMeter:
    """Decaying penalty of one check.

    Args:
        damping: The figures.
        now_s: Present time, in seconds of any monotonic clock.
    """

    def __init__(self, damping: Damping, now_s: float) -> None:
        self._damping = damping
        self._penalty = 0.0
        self._at_s = now_s
        self._suppressed = False

    def penalty(self, now_s: float) -> float:
        """The penalty as decayed to now."""
        return self._penalty * math.exp2(-(now_s - self._at_s) / self._damping.half_life_s)

    def fell(self, to: Status, now_s: float) -> None:
        """Counts a fall, shown or held."""
        grown = self.penalty(now_s) + _FALL_PENALTY[to]
        self._penalty = min(grown, self._damping.ceiling)
        self._at_s = now_s
        if self._penalty > self._damping.suppress_over:
            self._suppressed = True

    def suppressed(self, now_s: float) -> bool:
        """Tells whether good news has to wait."""
        if self._suppressed and self.penalty(now_s) <= self._damping.reuse_under:
            self._suppressed = False
        return self._suppressed

    def held_for_s(self, now_s: float) -> float:
        """Seconds until good news is let through, if nothing falls again."""
        if not self.suppressed(now_s):
            return 0.0
        ratio = self.penalty(now_s) / self._damping.reuse_under
        return self._damping.half_life_s * math.log2(ratio)


class CheckMachine:
    """The status of one check.

    Args:
        thresholds: Results in a row that a change needs.
        now_s: Present time, in seconds of the clock that all later calls use.
        status: Status to start from.
        output: Output to start from.
        ttl_s: TTL in seconds for TTL checks; 0 for others. The first term starts now.
        damping: Figures of flap damping.
    """

    def __init__(
        self,
        thresholds: Thresholds,
        now_s: float,
        *,
        status: Status = Status.CRITICAL,
        output: str = "",
        ttl_s: float = 0.0,
        damping: Damping | None = None,
    ) -> None:
        self.status = status
        self.output = output
        self.critical_since_s = now_s if status is Status.CRITICAL else None
        self.ttl_deadline_s = now_s + ttl_s if ttl_s > 0 else None
        self._thresholds = thresholds
        self._ttl_s = ttl_s
        self._meter = FlapMeter(damping or Damping(), now_s)
        self._successes = 0
        self._failures = 0
        self._settled = status  # after thresholds, before damping
        self._worst_held = Status.PASSING

    def reconfigure(self, thresholds: Thresholds, ttl_s: float, now_s: float) -> None:
        """Takes a new definition and keeps status, counters and penalty (wish 5)."""
        self._thresholds = thresholds
        self._ttl_s = ttl_s
        self.ttl_deadline_s = now_s + ttl_s if ttl_s > 0 else None

    def observe(self, result: CheckResult, now_s: float) -> bool:
        """Takes the result of a probe; True when the published status changed."""
        settled, pending = self._by_thresholds(result.status)
        if _SEVERITY[settled] > _SEVERITY[self._settled]:
            self._meter.fell(settled, now_s)
        self._settled = settled
        target, held = self._by_damping(settled, now_s)
        self.output = result.output + pending + held
        return self._publish(target, now_s)

    def assert_status(self, status: Status, output: str, now_s: float) -> bool:
        """Takes the word of a check's owner and starts a new TTL; True on a change."""
        self.output = output
        self._settled = status
        if self._ttl_s > 0:
            self.ttl_deadline_s = now_s + self._ttl_s
        return self._publish(status, now_s)

    def expire(self, now_s: float) -> bool:
        """Makes a TTL check critical when its term is over; True on a change."""
        if self.ttl_deadline_s is None or now_s < self.ttl_deadline_s:
            return False
        self.ttl_deadline_s = None
        self.output = TTL_EXPIRED
        self._settled = Status.CRITICAL
        return self._publish(Status.CRITICAL, now_s)

    def deregister_due(self, after_s: float, now_s: float) -> bool:
        """Tells whether the check has been critical for `after_s` (at least a minute)."""
        if after_s <= 0 or self.critical_since_s is None:
            return False
        return now_s - self.critical_since_s >= max(after_s, DEREGISTER_AFTER_MIN_S)

    def _by_thresholds(self, seen: Status) -> tuple[Status, str]:
        """The status that thresholds allow, and a note when a change still waits."""
        if seen is Status.CRITICAL:
            self._successes, self._failures = 0, self._failures + 1
            return self._after_failure()
        self._successes, self._failures = self._successes + 1, 0
        needed = max(1, self._thresholds.success_before_passing)
        if self._successes >= needed or self._settled is seen:
            return seen, ""
        return self._settled, f" (success {self._successes} of {needed} before {seen.value})"

    def _after_failure(self) -> tuple[Status, str]:
        """Where a run of failures leads; it never improves what is published."""
        needed = max(1, self._thresholds.failures_before_critical)
        if self._failures >= needed or self._settled is Status.CRITICAL:
            return Status.CRITICAL, ""
        note = f" (failure {self._failures} of {needed} before critical)"
        warn_at = self._thresholds.failures_before_warning
        if 0 < warn_at <= self._failures:
            return Status.WARNING, note
        return self._settled, note

    def _by_damping(self, target: Status, now_s: float) -> tuple[Status, str]:
        """Holds good news back while the check flaps."""
        if not self._meter.suppressed(now_s):
            self._worst_held = Status.PASSING
            return target, ""
        self._worst_held = max(self._worst_held, self.status, target, key=_SEVERITY.__getitem__)
        if self._worst_held is target:
            return target, ""
        wait_s = math.ceil(self._meter.held_for_s(now_s))
        return self._worst_held, f" (flapping: held {self._worst_held.value} for {wait_s}s)"

    def _publish(self, status: Status, now_s: float) -> bool:
        if status is self.status:
            return False
        self.status = status
        self.critical_since_s = now_s if status is Status.CRITICAL else None
        return True
