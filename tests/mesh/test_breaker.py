"""The breaker: its table of rules, and a stateful comparison with a model that recounts all."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from raftreg.mesh.breaker import (
    EDGES,
    Breaker,
    BreakerSettings,
    Cause,
    Permit,
    State,
    Transition,
    WindowKind,
)
from raftreg.mesh.breaker_table import InstanceBreakers
from raftreg.mesh.nouns import Failure, MeshConfigError, Outcome
from raftreg.mesh.window import CountWindow, TimeWindow

GOOD = Outcome(status=200, duration_s=0.01)
BAD = Outcome(status=503, duration_s=0.01)
LATE = Outcome(status=200, duration_s=2.0)
LOST = Outcome(failure=Failure.TIMEOUT, duration_s=2.0)
#: Only the rule that a test turns on trips; no jitter, so times are exact.
QUIET = BreakerSettings(consecutive_failures_max=0, error_rate_max=0.0, open_jitter=0.0)


def changed(base: BreakerSettings, **fields: object) -> BreakerSettings:
    """The settings with some fields replaced, checked anew."""
    values = {name: getattr(base, name) for name in base.__struct_fields__} | fields
    return BreakerSettings(**values)


def a_breaker(told: list[Transition] | None = None, **fields: object) -> Breaker:
    """A breaker with only the given rules on."""
    sink = None if told is None else told.append
    return Breaker("api", changed(QUIET, **fields), random.Random(1), sink)


def call(breaker: Breaker, outcome: Outcome, now_s: float) -> bool:
    """Makes one call at one moment; False when it was refused."""
    permit = breaker.admit(now_s)
    if permit is None:
        return False
    breaker.record(permit, outcome, now_s)
    return True


@pytest.mark.parametrize(
    ("fields", "outcomes", "cause"),
    [
        ({"consecutive_failures_max": 3}, [BAD, LOST, BAD], Cause.CONSECUTIVE_FAILURES),
        ({"consecutive_failures_max": 3}, [BAD, BAD, GOOD, BAD, BAD], None),
        ({"error_rate_max": 0.5, "volume_min": 4}, [BAD, GOOD, BAD, GOOD], Cause.ERROR_RATE),
        ({"error_rate_max": 0.5, "volume_min": 4}, [BAD, BAD, BAD], None),
        ({"error_rate_max": 0.1, "volume_min": 30}, [BAD] * 3 + [GOOD] * 27, Cause.ERROR_RATE),
        ({"error_rate_max": 0.1, "volume_min": 30}, [BAD] * 2 + [GOOD] * 28, None),
        (
            {"slow_rate_max": 0.5, "slow_call_s": 1.0, "volume_min": 2},
            [GOOD, LATE],
            Cause.SLOW_RATE,
        ),
        ({"slow_rate_max": 0.5, "slow_call_s": 3.0, "volume_min": 2}, [LATE, LATE], None),
        ({}, [BAD] * 100, None),
    ],
)
def test_each_rule_trips_at_its_threshold_and_not_before(
    fields: dict[str, object], outcomes: list[Outcome], cause: Cause | None
) -> None:
    """A breaker trips by the rule that is set, at the threshold exactly, and names the rule."""
    told: list[Transition] = []
    breaker = a_breaker(told, **fields)
    for outcome in outcomes[:-1]:
        assert call(breaker, outcome, 100.0)
        assert breaker.state is State.CLOSED
    call(breaker, outcomes[-1], 100.0)
    assert [transition.cause for transition in told] == ([cause] if cause else [])


def test_rates_forget_what_left_the_window() -> None:
    """Failures older than the window do not trip; those inside it do."""
    by_time = a_breaker(error_rate_max=0.5, volume_min=4, window_s=10.0)
    by_count = a_breaker(error_rate_max=0.5, volume_min=4, window=WindowKind.COUNT, window_calls=4)
    for breaker, gap_s in ((by_time, 11.0), (by_count, 0.0)):
        for outcome in (BAD, GOOD, GOOD):
            call(breaker, outcome, 100.0)
        for outcome in (GOOD, GOOD, GOOD, BAD):
            call(breaker, outcome, 100.0 + gap_s)
        assert breaker.state is State.CLOSED
        call(breaker, BAD, 100.0 + gap_s)
    assert by_count.state is State.OPEN
    assert by_time.state is State.CLOSED  # 2 of 5


def test_open_refuses_until_its_time_then_lets_few_trials_through() -> None:
    """Open fails at once and says for how long; half-open lets no more than its trials out."""
    breaker = a_breaker(consecutive_failures_max=1, open_s=5.0, trials_max=2)
    call(breaker, BAD, 100.0)
    assert not breaker.would_admit(104.9)
    assert breaker.admit(104.9) is None
    assert breaker.retry_after_s(104.0) == pytest.approx(1.0)
    assert breaker.would_admit(105.0)
    trials = [breaker.admit(105.0) for _ in range(4)]
    assert [trial is not None for trial in trials] == [True, True, False, False]
    assert breaker.state is State.HALF_OPEN
    assert not breaker.would_admit(105.0)
    assert breaker.retry_after_s(105.0) == 0.0
    assert trials[0] is not None
    breaker.release(trials[0])
    assert breaker.admit(105.0) is not None  # a trial that taught nothing is free again


def test_recovery_takes_longer_with_each_trip_and_resets_after_health() -> None:
    """Time to stay open grows by the factor up to its cap; after health it begins anew."""
    told: list[Transition] = []
    breaker = a_breaker(
        told,
        consecutive_failures_max=1,
        open_s=1.0,
        open_factor=3.0,
        open_s_max=10.0,
        trial_successes_min=1,
        health_s=30.0,
    )
    now_s = 0.0
    for _ in range(4):
        call(breaker, BAD, now_s)
        now_s += breaker.retry_after_s(now_s)
    call(breaker, GOOD, now_s)
    assert breaker.state is State.CLOSED
    call(breaker, BAD, now_s + 29.0)  # not yet healthy: still the cap
    now_s += 29.0 + breaker.retry_after_s(now_s + 29.0)
    call(breaker, GOOD, now_s)
    call(breaker, BAD, now_s + 30.0)
    assert [t.open_s for t in told if t.after is State.OPEN] == [1.0, 3.0, 9.0, 10.0, 10.0, 1.0]


def test_a_failed_or_slow_trial_opens_again_and_hung_trials_count_as_failed() -> None:
    """One bad trial is enough, and trials that never come back do not hold it half-open."""
    for outcome, cause in ((BAD, Cause.TRIAL_FAILED), (LATE, Cause.TRIAL_SLOW)):
        told: list[Transition] = []
        breaker = a_breaker(
            told, consecutive_failures_max=1, slow_rate_max=0.5, slow_call_s=1.0, open_s=1.0
        )
        call(breaker, BAD, 0.0)
        call(breaker, GOOD, 1.0)
        call(breaker, outcome, 1.0)
        assert told[-1].cause is cause
        assert breaker.state is State.OPEN
    told = []
    breaker = a_breaker(
        told, consecutive_failures_max=1, open_s=1.0, trials_max=1, trial_patience_s=10.0
    )
    call(breaker, BAD, 0.0)
    lost = breaker.admit(1.0)
    assert lost is not None
    assert breaker.admit(10.9) is None
    assert told[-1].after is State.HALF_OPEN
    assert breaker.would_admit(11.0)
    assert breaker.admit(11.0) is None
    assert told[-1].cause is Cause.TRIALS_HUNG
    breaker.record(lost, GOOD, 20.0)  # late: of a state before this one
    assert breaker.state is State.OPEN


def test_trials_still_out_when_it_opens_again_take_no_room_later() -> None:
    """Each time it is half-open all its trials are free, and only their own ends count."""
    breaker = a_breaker(consecutive_failures_max=1, open_s=1.0, open_factor=1.0, trials_max=2)
    call(breaker, BAD, 0.0)
    first, lost = breaker.admit(1.0), breaker.admit(1.0)
    assert first is not None
    assert lost is not None
    breaker.record(first, BAD, 1.0)
    assert [breaker.admit(2.0) is not None for _ in range(3)] == [True, True, False]
    breaker.release(lost)
    assert breaker.admit(2.0) is None


def test_calls_from_before_a_trip_say_nothing_of_the_recovery() -> None:
    """What began while closed and ends half-open is neither a failed nor a good trial."""
    breaker = a_breaker(consecutive_failures_max=1, open_s=1.0, trial_successes_min=1)
    old = breaker.admit(0.0)
    assert old is not None
    call(breaker, BAD, 0.0)
    trial = breaker.admit(1.0)
    assert trial is not None
    breaker.record(old, GOOD, 1.0)
    breaker.record(old, BAD, 1.0)
    assert breaker.would_admit(1.0)
    breaker.record(trial, GOOD, 1.0)
    assert breaker.retry_after_s(1.0) == 0.0
    assert breaker.state is State.CLOSED


@given(seed=st.integers(0, 2**32), jitter=st.floats(0, 1))
def test_jitter_shortens_by_at_most_its_share(seed: int, jitter: float) -> None:
    """Time to stay open lies between (1 - jitter) of it and all of it."""
    told: list[Transition] = []
    fields = changed(QUIET, consecutive_failures_max=1, open_s=4.0, open_jitter=jitter)
    call(Breaker("api", fields, random.Random(seed), told.append), BAD, 0.0)
    assert 4.0 * (1 - jitter) <= told[0].open_s <= 4.0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"error_rate_max": 1.5}, "error_rate_max"),
        ({"error_rate_max": float("nan")}, "error_rate_max"),
        ({"open_s": 10.0, "open_s_max": 5.0}, "open_s_max"),
        ({"slow_rate_max": 0.5}, "slow_call_s"),
        ({"window": WindowKind.COUNT, "window_calls": 10, "volume_min": 11}, "volume_min"),
        ({"trials_max": 0}, "trials_max"),
        ({"window_s": float("inf")}, "window_s"),
    ],
)
def test_contradicting_settings_are_refused_by_field(fields: dict[str, object], named: str) -> None:
    """Settings that could never act, or are out of bounds, are refused naming the field."""
    with pytest.raises(MeshConfigError, match=named):
        changed(BreakerSettings(), **fields)


def test_instances_have_breakers_of_their_own_that_last_as_long_as_they() -> None:
    """One instance's trip leaves the others; a key that is gone and returns begins closed."""
    table = InstanceBreakers(
        "api", changed(QUIET, consecutive_failures_max=1), random.Random(1), None
    )
    table.update(["a", "b"])
    first = table.get("a")
    assert first is not None
    call(first, BAD, 0.0)
    table.update(["a", "b", "c"])
    assert table.get("a") is first
    assert [breaker.state for key in "abc" if (breaker := table.get(key)) is not None] == [
        State.OPEN,
        State.CLOSED,
        State.CLOSED,
    ]
    table.update(["b"])
    assert table.get("a") is None
    table.update(["a"])
    assert len(table) == 1
    again = table.get("a")
    assert again is not None
    assert again.state is State.CLOSED


@given(
    calls=st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.booleans()), max_size=80),
    size=st.integers(1, 9),
)
def test_windows_hold_what_a_recount_of_the_past_holds(
    calls: list[tuple[int, bool, bool]], size: int
) -> None:
    """Running sums equal a recount of the calls covered, by count and by time."""
    by_count, by_time = CountWindow(size), TimeWindow(size * 0.5, size)
    past: list[tuple[float, bool, bool]] = []
    now_s = 0.0
    for steps, failed, slow in calls:
        now_s += steps * 0.25
        past.append((now_s, failed, slow))
        by_count.add(failed, slow, now_s)
        by_time.add(failed, slow, now_s)
        covered = [c for c in past if c[0] // 0.5 > now_s // 0.5 - size]
        for window, seen in ((by_count, past[-size:]), (by_time, covered)):
            assert (window.calls, window.failures, window.slow) == (
                len(seen),
                sum(c[1] for c in seen),
                sum(c[2] for c in seen),
            )


class PlainBreaker:
    """A breaker that keeps all calls and recounts them each time: slow, and plain to see."""

    def __init__(self, rules: BreakerSettings) -> None:
        self.rules = rules
        self.state = State.CLOSED
        self.epoch = 0
        self.calls: list[tuple[float, bool, bool]] = []
        self.opened_s = self.open_s = 0.0
        self.closed_s: float | None = None
        self.out: list[float] = []
        self.good_trials = 0

    def enter(self, state: State) -> None:
        """Begins a state with an empty past."""
        self.state, self.epoch, self.calls = state, self.epoch + 1, []

    def trip(self, now_s: float) -> None:
        """Opens for a time that grows unless it was healthy."""
        rules = self.rules
        first = self.state is State.CLOSED and (
            self.closed_s is None or now_s - self.closed_s >= rules.health_s
        )
        self.open_s = min(
            rules.open_s_max, rules.open_s if first else self.open_s * rules.open_factor
        )
        self.opened_s = now_s
        self.enter(State.OPEN)

    def admit(self, now_s: float) -> bool:
        """Whether a call goes through."""
        if self.state is State.OPEN and now_s - self.opened_s >= self.open_s:
            self.out, self.good_trials = [], 0
            self.enter(State.HALF_OPEN)
        if self.state is State.HALF_OPEN:
            if len(self.out) < self.rules.trials_max:
                self.out.append(now_s)
                return True
            if now_s - self.last_out_s >= self.rules.trial_patience_s:
                self.trip(now_s)
            return False
        return self.state is State.CLOSED

    @property
    def last_out_s(self) -> float:
        """When the last trial left."""
        return max(self.out)

    def record(self, failed: bool, slow: bool, now_s: float) -> None:
        """Takes the end of a call of the present state."""
        if self.state is State.HALF_OPEN:
            self.trial(failed or slow, now_s)
        else:
            self.calls.append((now_s, failed, slow))
            if self.broken(now_s):
                self.trip(now_s)

    def trial(self, bad: bool, now_s: float) -> None:
        """Takes the end of a trial."""
        # Which of them came back does not matter; only the last to leave is looked at again.
        self.out.remove(min(self.out))
        self.good_trials += not bad
        if bad:
            self.trip(now_s)
        elif self.good_trials == self.rules.trial_successes_min:
            self.closed_s = now_s
            self.enter(State.CLOSED)

    def broken(self, now_s: float) -> bool:
        """Recounts all calls of this state."""
        rules = self.rules
        row = [failed for _, failed, _ in self.calls[-rules.consecutive_failures_max :]]
        if len(row) == rules.consecutive_failures_max and all(row):
            return True
        if rules.window is WindowKind.COUNT:
            seen = self.calls[-rules.window_calls :]
        else:
            width_s = rules.window_s / rules.window_buckets
            seen = [
                c for c in self.calls if c[0] // width_s > now_s // width_s - rules.window_buckets
            ]
        return len(seen) >= rules.volume_min and (
            sum(c[1] for c in seen) >= rules.error_rate_max * len(seen)
            or sum(c[2] for c in seen) >= rules.slow_rate_max * len(seen)
        )


class BreakerAgainstModel(RuleBasedStateMachine):
    """Any order of calls, ends and waits leaves breaker and model in the same state."""

    kind = WindowKind.TIME

    @initialize(trials=st.integers(1, 3), successes=st.integers(1, 4), row=st.integers(2, 6))
    def begin(self, trials: int, successes: int, row: int) -> None:
        """Makes both by the same settings."""
        rules = BreakerSettings(
            consecutive_failures_max=row,
            error_rate_max=0.5,
            slow_rate_max=0.75,
            slow_call_s=1.0,
            volume_min=4,
            window=self.kind,
            window_s=2.0,
            window_buckets=4,
            window_calls=8,
            open_s=1.0,
            open_factor=2.0,
            open_s_max=6.0,
            open_jitter=0.0,
            health_s=8.0,
            trials_max=trials,
            trial_successes_min=successes,
            trial_patience_s=5.0,
        )
        self.told: list[Transition] = []
        self.breaker = Breaker("api", rules, random.Random(1), self.told.append)
        self.model = PlainBreaker(rules)
        self.now_s = 64.0
        self.under_way: list[tuple[Permit, int]] = []

    @rule(quarters=st.integers(1, 30))
    def wait(self, quarters: int) -> None:
        """Lets time pass."""
        self.now_s += quarters * 0.25

    @rule()
    def begin_call(self) -> None:
        """Both let the call through, or neither."""
        would = self.breaker.would_admit(self.now_s)
        permit = self.breaker.admit(self.now_s)
        assert self.model.admit(self.now_s) is (permit is not None)
        assert would or permit is None
        if permit is not None:
            self.under_way.append((permit, self.model.epoch))

    def end(self, index: int, does: Callable[[Permit], None]) -> bool:
        """Ends one of the calls under way; True when its state is still the present one."""
        permit, epoch = self.under_way.pop(index % len(self.under_way))
        does(permit)
        return epoch == self.model.epoch

    @precondition(lambda self: self.under_way)
    @rule(index=st.integers(0, 99), failed=st.booleans(), slow=st.booleans())
    def end_call(self, index: int, failed: bool, slow: bool) -> None:
        """Ends any call that is under way."""
        outcome = Outcome(status=500 if failed else 200, duration_s=1.0 if slow else 0.5)
        if self.end(index, lambda permit: self.breaker.record(permit, outcome, self.now_s)):
            self.model.record(failed, slow, self.now_s)

    @precondition(lambda self: self.under_way)
    @rule(index=st.integers(0, 99))
    def release_call(self, index: int) -> None:
        """Takes back any call that is under way."""
        present = self.end(index, self.breaker.release)
        if present and self.model.state is State.HALF_OPEN:
            self.model.out.remove(min(self.model.out))

    @rule(failures=st.lists(st.booleans(), min_size=1, max_size=8))
    def burst(self, failures: list[bool]) -> None:
        """Makes calls one after the other, so that rules trip often."""
        for failed in failures:
            self.begin_call()
            if self.under_way:
                self.end_call(len(self.under_way) - 1, failed, False)

    @invariant()
    def same_state(self) -> None:
        """Both are in one state, and open for the same time."""
        if not hasattr(self, "breaker"):
            return
        assert self.breaker.state is self.model.state
        if self.model.state is State.OPEN:
            due_s = self.model.opened_s + self.model.open_s
            assert self.breaker.retry_after_s(self.now_s) == max(0.0, due_s - self.now_s)

    @invariant()
    def only_legal_edges(self) -> None:
        """Each change is one of the table, with a cause that it may have."""
        for transition in getattr(self, "told", []):
            assert transition.cause in EDGES[transition.before, transition.after]

    @invariant()
    def transitions_chain(self) -> None:
        """Each change begins where the one before it ended."""
        told = getattr(self, "told", [])
        states = [State.CLOSED, *(transition.after for transition in told)]
        assert [transition.before for transition in told] == states[:-1]


class CountingBreakerAgainstModel(BreakerAgainstModel):
    """The same with a window by count."""

    kind = WindowKind.COUNT


TestByTime = BreakerAgainstModel.TestCase
TestByTime.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestByCount = CountingBreakerAgainstModel.TestCase
TestByCount.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
