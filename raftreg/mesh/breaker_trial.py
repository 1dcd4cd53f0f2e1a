"""Tests the thresholds of a breaker: a planned failure goes through it, in simulated time.

A plan says how an upstream behaves, one segment after the other (so many errors, so slow), and how
many calls arrive. The breaker is the real one; only calls and time are simulated. What comes out is
when it tripped and recovered, and what callers met, beside what they would have met without it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from itertools import count

import msgspec

from raftreg.mesh.breaker import Breaker, BreakerSettings, Permit, State, Transition
from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Failure, MeshConfigError, Outcome, Randomness

CALLS_MAX = 1_000_000
_SEGMENTS_MAX = 100
_STEPS_MAX = 10_000


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """How the upstream behaves for a while.

    Attributes:
        lasts_s: For so long.
        error_rate: Share of calls that fail, 0 to 1.
        latency_s: What a call takes at least.
        latency_spread_s: And up to so much more, drawn evenly.
        hangs: Share of calls that are never answered, 0 to 1: they run into the timeout.
    """

    lasts_s: float
    error_rate: float = 0.0
    latency_s: float = 0.05
    latency_spread_s: float = 0.0
    hangs: float = 0.0

    def __post_init__(self) -> None:
        """Checks each value."""
        within("lasts_s", self.lasts_s, 0.001, 86_400)
        within("error_rate", self.error_rate, 0, 1)
        within("latency_s", self.latency_s, 0, 3600)
        within("latency_spread_s", self.latency_spread_s, 0, 3600)
        within("hangs", self.hangs, 0, 1)


class TrialPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A planned failure.

    Attributes:
        segments: How the upstream behaves, one after the other.
        calls_per_s: Calls that arrive, evenly spaced.
        timeout_s: A call that takes longer fails then.
        step_s: Length of a step of the timeline.

    Raises:
        MeshConfigError: A value is out of bounds, or the whole would be too long to simulate.
    """

    segments: tuple[Segment, ...]
    calls_per_s: float = 50.0
    timeout_s: float = 1.0
    step_s: float = 1.0

    def __post_init__(self) -> None:
        """Checks each value, and the whole."""
        within("segments", len(self.segments), 1, _SEGMENTS_MAX)
        within("calls_per_s", self.calls_per_s, 0.01, 100_000)
        within("timeout_s", self.timeout_s, 0.001, 3600)
        within("step_s", self.step_s, 0.001, 86_400)
        if self.lasts_s * self.calls_per_s > CALLS_MAX:
            raise MeshConfigError(f"calls_per_s: must make at most {CALLS_MAX:,} calls in all")
        if self.lasts_s / self.step_s > _STEPS_MAX:
            raise MeshConfigError(f"step_s: must make at most {_STEPS_MAX:,} steps in all")

    @property
    def lasts_s(self) -> float:
        """Length of all segments, in seconds."""
        return sum(segment.lasts_s for segment in self.segments)


class Step(msgspec.Struct, kw_only=True):
    """What happened to the calls that arrived in one step.

    Attributes:
        at_s: Beginning of the step.
        state: State of the breaker at its end.
        calls: Calls that arrived.
        refused: Those that the breaker refused at once.
        failed: Those that were sent and failed.
        slow: Those that were sent, went well, and were slow.
        doomed: Those that would have failed without the breaker, whether sent or refused.
    """

    at_s: float
    state: State = State.CLOSED
    calls: int = 0
    refused: int = 0
    failed: int = 0
    slow: int = 0
    doomed: int = 0


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What came out.

    Attributes:
        steps: The timeline.
        transitions: Every change of state, in order.
        calls: Calls that arrived.
        refused: Those that were refused.
        failed: Those that were sent and failed.
        doomed: Those that would have failed without the breaker.
        refused_in_vain: Those that were refused and would have gone well.
        waited_s: What callers spent on calls that failed; a refusal takes no time.
        waited_without_s: What they would have spent so without the breaker.
    """

    steps: tuple[Step, ...]
    transitions: tuple[Transition, ...]
    calls: int
    refused: int
    failed: int
    doomed: int
    refused_in_vain: int
    waited_s: float
    waited_without_s: float

    @property
    def tripped_s(self) -> float | None:
        """When it first opened; None: never."""
        return next((t.at_s for t in self.transitions if t.after is State.OPEN), None)

    @property
    def recovered_s(self) -> float | None:
        """When it last closed; None: never, or it has opened since."""
        if not self.transitions or self.transitions[-1].after is not State.CLOSED:
            return None
        return self.transitions[-1].at_s


def run_trial(
    plan: TrialPlan, settings: BreakerSettings, calls_rng: Randomness, jitter_rng: Randomness
) -> Trial:
    """Drives the planned failure through a breaker.

    Args:
        plan: The failure.
        settings: Of the breaker.
        calls_rng: What failures and latencies are drawn from: for each call alike, whether it is
            refused or not, so that trials with one seed and other settings can be compared.
        jitter_rng: What the jitter of the breaker is drawn from; not the same object.
    """
    return _Run(plan, settings, calls_rng, jitter_rng).play()


class _Tally:
    __slots__ = ("refused_in_vain", "waited_s", "waited_without_s")

    def __init__(self) -> None:
        self.refused_in_vain = 0
        self.waited_s = 0.0
        self.waited_without_s = 0.0


class _Run:
    def __init__(
        self,
        plan: TrialPlan,
        settings: BreakerSettings,
        calls_rng: Randomness,
        jitter_rng: Randomness,
    ) -> None:
        self._plan = plan
        self._slow_s = settings.slow_call_s
        self._rng = calls_rng
        self._transitions: list[Transition] = []
        self._breaker = Breaker("trial", settings, jitter_rng, self._transitions.append)
        #: Calls under way by when they end; the number breaks ties.
        self._under_way: list[tuple[float, int, Permit, Outcome]] = []
        self._number = count()
        self._tally = _Tally()
        self._steps: list[Step] = []
        self._last_step = math.ceil(plan.lasts_s / plan.step_s) - 1

    def play(self) -> Trial:
        for at_s, segment in self._arrivals():
            self._finish_until(at_s)
            self._arrive(at_s, segment)
        self._finish_until(self._plan.lasts_s)
        self._step(self._plan.lasts_s).state = self._breaker.state
        steps, tally = self._steps, self._tally
        return Trial(
            steps=tuple(steps),
            transitions=tuple(self._transitions),
            calls=sum(step.calls for step in steps),
            refused=sum(step.refused for step in steps),
            failed=sum(step.failed for step in steps),
            doomed=sum(step.doomed for step in steps),
            refused_in_vain=tally.refused_in_vain,
            waited_s=tally.waited_s,
            waited_without_s=tally.waited_without_s,
        )

    def _arrivals(self) -> Iterator[tuple[float, Segment]]:
        number, ends_s = 0, 0.0
        for segment in self._plan.segments:
            ends_s += segment.lasts_s
            while (at_s := number / self._plan.calls_per_s) < ends_s:
                yield at_s, segment
                number += 1

    def _arrive(self, at_s: float, segment: Segment) -> None:
        step, tally = self._step(at_s), self._tally
        outcome = self._drawn(segment)
        permit = self._breaker.admit(at_s)
        step.calls += 1
        if outcome.failed:
            step.doomed += 1
            tally.waited_without_s += outcome.duration_s
        if permit is None:
            step.refused += 1
            tally.refused_in_vain += not outcome.failed
            return
        if outcome.failed:
            step.failed += 1
            tally.waited_s += outcome.duration_s
        elif 0.0 < self._slow_s <= outcome.duration_s:
            step.slow += 1
        ends_s = at_s + outcome.duration_s
        heapq.heappush(self._under_way, (ends_s, next(self._number), permit, outcome))

    def _drawn(self, segment: Segment) -> Outcome:
        """What becomes of a call; always three draws, so that calls do not shift each other's."""
        hangs = self._rng.random() < segment.hangs
        fails = self._rng.random() < segment.error_rate
        latency_s = segment.latency_s + segment.latency_spread_s * self._rng.random()
        if hangs or latency_s >= self._plan.timeout_s:
            return Outcome(failure=Failure.TIMEOUT, duration_s=self._plan.timeout_s)
        return Outcome(status=503 if fails else 200, duration_s=latency_s)

    def _finish_until(self, now_s: float) -> None:
        while self._under_way and self._under_way[0][0] <= now_s:
            ends_s, _, permit, outcome = heapq.heappop(self._under_way)
            self._step(ends_s)  # so that the step before keeps the state that it ended with
            self._breaker.record(permit, outcome, ends_s)

    def _step(self, at_s: float) -> Step:
        """The step of a moment; each one before it is closed with the state as it is."""
        index = min(int(at_s / self._plan.step_s), self._last_step)
        while len(self._steps) <= index:
            if self._steps:
                self._steps[-1].state = self._breaker.state
            self._steps.append(
                Step(at_s=len(self._steps) * self._plan.step_s, state=self._breaker.state)
            )
        return self._steps[index]
