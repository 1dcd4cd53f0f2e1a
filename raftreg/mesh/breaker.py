"""Circuit breaker: stops calls to what fails, and finds out with a few whether it has recovered.

The pattern is M. Nygard's (Release It!, 2nd ed., ch. 5); the ways to trip over a sliding window are
resilience4j's (https://resilience4j.readme.io/docs/circuitbreaker); consecutive failures are
Envoy's and Finagle's. Three states and four edges between them:

    CLOSED ──trips──▶ OPEN ──its time is up──▶ HALF_OPEN ──trials went well──▶ CLOSED
                       ▲─────────a trial failed────┘

Each state that is entered has a number of its own, the permit of the calls that it let through. A
call that ends under another number says how things were before, and is not counted: a slow failure
from before the trip is no failed trial.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Final, NewType

import msgspec

from raftreg.mesh.checked import within
from raftreg.mesh.nouns import MeshConfigError, Outcome, Randomness
from raftreg.mesh.window import CountWindow, TimeWindow, Window

#: Which state let a call through; handed back with what became of the call.
Permit = NewType("Permit", int)


class State(enum.Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"  #: lets all through and watches what becomes of them
    OPEN = "open"  #: refuses all at once
    HALF_OPEN = "half-open"  #: lets a few through as trials


#: Looking a member up in its class costs more than all the rest of `admit`.
_CLOSED: Final = State.CLOSED


class Cause(enum.Enum):
    """Why a breaker changed its state."""

    CONSECUTIVE_FAILURES = "consecutive-failures"
    ERROR_RATE = "error-rate"
    SLOW_RATE = "slow-rate"
    WAITED = "waited"  #: the time to stay open is up
    TRIAL_FAILED = "trial-failed"
    TRIAL_SLOW = "trial-slow"
    TRIALS_HUNG = "trials-hung"  #: all trials are out and none came back in time
    RECOVERED = "recovered"  #: enough trials went well


#: Every legal change of state, with what can cause it.
EDGES: dict[tuple[State, State], frozenset[Cause]] = {
    (State.CLOSED, State.OPEN): frozenset(
        {Cause.CONSECUTIVE_FAILURES, Cause.ERROR_RATE, Cause.SLOW_RATE}
    ),
    (State.OPEN, State.HALF_OPEN): frozenset({Cause.WAITED}),
    (State.HALF_OPEN, State.OPEN): frozenset(
        {Cause.TRIAL_FAILED, Cause.TRIAL_SLOW, Cause.TRIALS_HUNG}
    ),
    (State.HALF_OPEN, State.CLOSED): frozenset({Cause.RECOVERED}),
}


class WindowKind(enum.Enum):
    """What the sliding window covers."""

    TIME = "time"
    COUNT = "count"


class BreakerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker trips, and how it recovers. A threshold of 0 turns its rule off.

    Attributes:
        consecutive_failures_max: Failures in a row that trip it, whatever the volume.
        error_rate_max: Share of failures among the calls of the window that trips it, 0 to 1.
        slow_rate_max: Share of slow calls that trips it, 0 to 1; needs `slow_call_s`.
        slow_call_s: A call that takes at least this long is slow; 0: none is.
        volume_min: Calls in the window below which no rate is looked at.
        window: Whether the window covers the last seconds or the last calls.
        window_s: Seconds that a window by time covers.
        window_buckets: In how many parts it forgets them.
        window_calls: Calls that a window by count covers.
        open_s: How long it stays open at the first trip.
        open_factor: By how much each trip that follows without health lengthens that.
        open_s_max: Longest time to stay open.
        open_jitter: Share of that time taken off at random, 0 to 1, so that callers part.
        health_s: How long it must have been closed for the next trip to be a first one.
        trials_max: Calls under way at one time while half-open.
        trial_successes_min: Trials that must go well, with none failing, to close it.
        trial_patience_s: After so long with all trials out and none back, they have failed.

    Raises:
        MeshConfigError: A value is out of bounds, or no window could hold the minimum volume.
    """

    consecutive_failures_max: int = 5
    error_rate_max: float = 0.5
    slow_rate_max: float = 0.0
    slow_call_s: float = 0.0
    volume_min: int = 20
    window: WindowKind = WindowKind.TIME
    window_s: float = 10.0
    window_buckets: int = 10
    window_calls: int = 100
    open_s: float = 5.0
    open_factor: float = 2.0
    open_s_max: float = 60.0
    open_jitter: float = 0.2
    health_s: float = 60.0
    trials_max: int = 3
    trial_successes_min: int = 3
    trial_patience_s: float = 30.0

    def __post_init__(self) -> None:
        """Checks each value, and those that depend on each other."""
        within("consecutive_failures_max", self.consecutive_failures_max, 0, 1_000_000)
        within("error_rate_max", self.error_rate_max, 0, 1)
        within("slow_rate_max", self.slow_rate_max, 0, 1)
        within("slow_call_s", self.slow_call_s, 0, 3600)
        within("volume_min", self.volume_min, 1, 1_000_000)
        within("window_s", self.window_s, 0.1, 3600)
        within("window_buckets", self.window_buckets, 1, 360)
        within("window_calls", self.window_calls, 1, 100_000)
        within("open_s", self.open_s, 0.001, 3600)
        within("open_factor", self.open_factor, 1, 100)
        within("open_s_max", self.open_s_max, self.open_s, 86_400)
        within("open_jitter", self.open_jitter, 0, 1)
        within("health_s", self.health_s, 0, 86_400)
        within("trials_max", self.trials_max, 1, 1000)
        within("trial_successes_min", self.trial_successes_min, 1, 1000)
        within("trial_patience_s", self.trial_patience_s, 0.001, 3600)
        self._check_pairs()

    def _check_pairs(self) -> None:
        if self.slow_rate_max and not self.slow_call_s:
            raise MeshConfigError("slow_call_s: must be set where slow_rate_max is")
        if self.window is WindowKind.COUNT and self.volume_min > self.window_calls:
            raise MeshConfigError(
                f"volume_min: must not exceed window_calls ({self.window_calls}), "
                f"for a window never holds more; it is {self.volume_min}"
            )

    def make_window(self) -> Window:
        """An empty window of the kind that is set."""
        if self.window is WindowKind.COUNT:
            return CountWindow(self.window_calls)
        return TimeWindow(self.window_s, self.window_buckets)


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """A change of state, for metrics and timelines.

    Attributes:
        breaker: Name of the breaker.
        at_s: When, in monotonic seconds.
        before: State until then.
        after: State from then on.
        cause: Why.
        open_s: How long it stays open; 0 unless it opened.
        calls: Calls that the window held then.
        failures: Those of them that failed.
        slow: Those of them that were slow.
    """

    breaker: str
    at_s: float
    before: State
    after: State
    cause: Cause
    open_s: float = 0.0
    calls: int = 0
    failures: int = 0
    slow: int = 0


class Breaker:
    """The breaker of one upstream, or of one instance.

    Each call that `admit` lets through is handed back once, by `record` or by `release`.

    Args:
        name: What its transitions are told under.
        settings: When it trips, and how it recovers.
        rng: What the jitter is drawn from.
        sink: Is told each transition at once; must not raise.
    """

    __slots__ = (
        "_closed_since_s",
        "_failures_in_row",
        "_last_trial_s",
        "_open_s",
        "_open_until_s",
        "_permit",
        "_rng",
        "_sink",
        "_slow_s",
        "_successes",
        "_trials",
        "_window",
        "name",
        "settings",
        "state",
    )

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        rng: Randomness,
        sink: Callable[[Transition], None] | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.state = State.CLOSED
        self._rng = rng
        self._sink = sink
        self._slow_s = settings.slow_call_s
        self._window = settings.make_window()
        self._permit = Permit(1)
        self._failures_in_row = 0
        self._closed_since_s = -math.inf
        self._open_s = 0.0
        self._open_until_s = 0.0
        self._trials = 0
        self._successes = 0
        self._last_trial_s = 0.0

    def admit(self, now_s: float) -> Permit | None:
        """Whether a call may be made now; takes one of the trials while half-open.

        Returns:
            What to hand back when the call has ended, or None: it is refused.
        """
        if self.state is _CLOSED:
            return self._permit
        return self._try(now_s)

    def would_admit(self, now_s: float) -> bool:
        """Whether it is worth asking `admit`; changes nothing, for those who choose.

        Also when trials hang past their patience: `admit` must be asked to find that out.
        """
        if self.state is State.OPEN:
            return now_s >= self._open_until_s
        if self.state is State.CLOSED or self._trials < self.settings.trials_max:
            return True
        return now_s - self._last_trial_s >= self.settings.trial_patience_s

    def retry_after_s(self, now_s: float) -> float:
        """Seconds until it lets a call through for all it knows; 0 unless it is open."""
        return max(0.0, self._open_until_s - now_s) if self.state is State.OPEN else 0.0

    def record(self, permit: Permit, outcome: Outcome, now_s: float) -> None:
        """Takes what became of a call that was let through."""
        if permit != self._permit:
            return  # of a state before this one
        slow = 0.0 < self._slow_s <= outcome.duration_s
        if self.state is _CLOSED:
            self._count(outcome.failed, slow, now_s)
        else:
            self._judge(outcome.failed, slow, now_s)

    def release(self, permit: Permit) -> None:
        """Takes back a call of which nothing was learned: it was not sent, or its caller left."""
        if permit == self._permit and self.state is State.HALF_OPEN:
            self._trials -= 1

    def _count(self, failed: bool, slow: bool, now_s: float) -> None:
        window = self._window
        window.add(failed, slow, now_s)
        self._failures_in_row = self._failures_in_row + 1 if failed else 0
        if window.failures or window.slow:  # All is well most of the time: then no rule is asked.
            cause = self._tripped()
            if cause is not None:
                self._trip(cause, now_s)

    def _tripped(self) -> Cause | None:
        """The rule that is broken, if one is."""
        settings, window = self.settings, self._window
        if 0 < settings.consecutive_failures_max <= self._failures_in_row:
            return Cause.CONSECUTIVE_FAILURES
        if window.calls < settings.volume_min:
            return None
        # As quotients: 3 of 30 is 0.1 exactly, while 0.1 * 30 is a little more than 3.
        if 0 < settings.error_rate_max <= window.failures / window.calls:
            return Cause.ERROR_RATE
        if 0 < settings.slow_rate_max <= window.slow / window.calls:
            return Cause.SLOW_RATE
        return None

    def _try(self, now_s: float) -> Permit | None:
        """Lets a trial through if one is free; goes half-open first when the time is up."""
        if self.state is State.OPEN:
            if now_s < self._open_until_s:
                return None
            self._successes = self._trials = 0
            self._go(State.HALF_OPEN, Cause.WAITED, now_s)
        elif self._trials >= self.settings.trials_max:
            # Trials that never come back must not keep it half-open for ever.
            if now_s - self._last_trial_s >= self.settings.trial_patience_s:
                self._trip(Cause.TRIALS_HUNG, now_s)
            return None
        self._trials += 1
        self._last_trial_s = now_s
        return self._permit

    def _judge(self, failed: bool, slow: bool, now_s: float) -> None:
        """Takes the end of a trial; a slow one fails only where slow calls can trip."""
        self._trials -= 1
        if failed:
            self._trip(Cause.TRIAL_FAILED, now_s)
        elif slow and self.settings.slow_rate_max:
            self._trip(Cause.TRIAL_SLOW, now_s)
        else:
            self._successes += 1
            if self._successes >= self.settings.trial_successes_min:
                self._closed_since_s = now_s
                self._go(State.CLOSED, Cause.RECOVERED, now_s)

    def _trip(self, cause: Cause, now_s: float) -> None:
        settings = self.settings
        healthy = self.state is State.CLOSED and now_s - self._closed_since_s >= settings.health_s
        grown_s = settings.open_s if healthy else self._open_s * settings.open_factor
        self._open_s = min(settings.open_s_max, grown_s)
        wait_s = self._open_s * (1.0 - settings.open_jitter * self._rng.random())
        self._open_until_s = now_s + wait_s
        self._go(State.OPEN, cause, now_s, wait_s)

    def _go(self, after: State, cause: Cause, now_s: float, open_s: float = 0.0) -> None:
        """Enters a state: the one door for every change, so each has its number and is told."""
        before, window = self.state, self._window
        told = Transition(
            breaker=self.name,
            at_s=now_s,
            before=before,
            after=after,
            cause=cause,
            open_s=open_s,
            calls=window.calls,
            failures=window.failures,
            slow=window.slow,
        )
        self.state = after
        self._permit = Permit(self._permit + 1)
        self._failures_in_row = 0
        window.clear()
        if self._sink is not None:
            self._sink(told)
