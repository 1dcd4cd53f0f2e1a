"""The trial of thresholds: what a planned failure makes of a breaker."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.breaker import BreakerSettings, State
from raftreg.mesh.breaker_trial import CALLS_MAX, Segment, Trial, TrialPlan, run_trial
from raftreg.mesh.nouns import MeshConfigError

OUTAGE = TrialPlan(
    segments=(
        Segment(lasts_s=10.0, latency_s=0.01),
        Segment(lasts_s=10.0, error_rate=1.0, latency_s=0.5),
        Segment(lasts_s=20.0, latency_s=0.01),
    ),
    calls_per_s=20.0,
)
RULES = BreakerSettings(consecutive_failures_max=5, open_s=2.0, open_jitter=0.0)
#: It never trips, so callers meet the failure as it is.
NEVER = BreakerSettings(consecutive_failures_max=0, error_rate_max=0.0)


def run(plan: TrialPlan, rules: BreakerSettings = RULES, seed: int = 1) -> Trial:
    """A trial with a seed."""
    return run_trial(plan, rules, random.Random(seed), random.Random(seed + 1))


def test_an_outage_trips_it_and_its_end_lets_it_recover() -> None:
    """It opens when the fifth failure ends, opens again while the outage lasts, then closes."""
    trial = run(OUTAGE)
    # Failures arrive from 10.0 on each 50 ms and take half a second: the fifth ends at 10.7.
    assert trial.tripped_s == pytest.approx(10.7)
    assert trial.recovered_s is not None
    assert 20.0 < trial.recovered_s < 30.0
    opened = [t.open_s for t in trial.transitions if t.after is State.OPEN]
    assert opened == sorted(opened)
    assert len(opened) >= 2
    assert [step.state for step in trial.steps[:10]] == [State.CLOSED] * 10
    assert trial.steps[11].state is State.OPEN
    assert trial.steps[11].refused == trial.steps[11].calls == 20
    assert trial.steps[-1].state is State.CLOSED
    assert trial.steps[-1].refused == 0


def test_it_spares_callers_the_waiting_and_says_what_that_costs() -> None:
    """With the breaker callers wait less for failures; calls refused in vain are told."""
    trial, without = run(OUTAGE), run(OUTAGE, NEVER)
    assert without.transitions == ()
    assert without.tripped_s is None
    assert (without.refused, without.failed) == (0, without.doomed)
    assert without.doomed == trial.doomed == 200  # the same calls, whatever the breaker does
    assert trial.waited_without_s == without.waited_s == pytest.approx(100.0)
    assert trial.waited_s < 0.2 * trial.waited_without_s
    assert trial.refused_in_vain > 0
    assert trial.failed + trial.refused - trial.refused_in_vain == trial.doomed


def test_slow_calls_and_hanging_ones_trip_it_too() -> None:
    """A slow upstream trips by the rate of slow calls; one that hangs, by its timeouts."""
    slow = TrialPlan(segments=(Segment(lasts_s=20.0, latency_s=0.6),), calls_per_s=20.0)
    rules = BreakerSettings(error_rate_max=0.0, slow_rate_max=0.5, slow_call_s=0.5)
    trial = run(slow, rules)
    assert trial.tripped_s is not None
    assert trial.failed == 0
    assert sum(step.slow for step in trial.steps) > 0
    hanging = TrialPlan(segments=(Segment(lasts_s=20.0, hangs=1.0),), calls_per_s=20.0)
    assert run(hanging).tripped_s == pytest.approx(1.0 + 4 / 20)


def test_a_failure_that_stays_keeps_it_from_recovering() -> None:
    """While the upstream fails, the breaker never closes, and lets few calls through."""
    plan = TrialPlan(segments=(Segment(lasts_s=60.0, error_rate=1.0),), calls_per_s=100.0)
    trial = run(plan)
    assert trial.recovered_s is None
    assert trial.refused > 0.98 * trial.calls


def test_trials_of_one_seed_compare_settings_over_the_same_calls() -> None:
    """What would become of each call depends on the plan and the seed, not on the breaker."""
    plan = TrialPlan(
        segments=(Segment(lasts_s=60.0, error_rate=0.4, latency_spread_s=2.0),), calls_per_s=20.0
    )
    jittery = BreakerSettings(consecutive_failures_max=3, open_s=0.5, open_jitter=1.0)
    trials = [run(plan, rules) for rules in (NEVER, RULES, jittery)]
    assert len({trial.refused for trial in trials}) == 3
    for step in range(60):
        assert len({trial.steps[step].doomed for trial in trials}) == 1


@given(
    segments=st.lists(
        st.builds(
            Segment,
            lasts_s=st.floats(0.1, 10),
            error_rate=st.floats(0, 1),
            latency_s=st.floats(0, 2),
            latency_spread_s=st.floats(0, 1),
            hangs=st.floats(0, 1),
        ),
        min_size=1,
        max_size=4,
    ),
    step_s=st.floats(0.05, 5),
    seed=st.integers(0, 2**32),
)
def test_every_call_is_counted_once_and_a_seed_replays_the_trial(
    segments: list[Segment], step_s: float, seed: int
) -> None:
    """Sums agree over all steps, states follow the transitions, and the run can be repeated."""
    plan = TrialPlan(segments=tuple(segments), calls_per_s=10.0, step_s=step_s)
    trial = run(plan, seed=seed)
    assert trial == run(plan, seed=seed)
    assert trial.failed + trial.refused - trial.refused_in_vain == trial.doomed
    assert trial.waited_s <= trial.waited_without_s + 1e-9
    assert abs(trial.calls - plan.lasts_s * plan.calls_per_s) <= 1
    for number, step in enumerate(trial.steps):
        assert step.at_s == pytest.approx(number * step_s)
        assert step.refused + step.failed + step.slow <= step.calls
        end_s = (number + 1) * step_s
        # One that happens at the very edge may count for either side.
        near = any(abs(t.at_s - end_s) < 1e-6 for t in trial.transitions)
        before = [t.after for t in trial.transitions if t.at_s < end_s]
        assert near or step.state is (before[-1] if before else State.CLOSED)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"segments": ()}, "segments"),
        ({"calls_per_s": CALLS_MAX / 40 + 1.0}, "calls_per_s"),
        ({"step_s": 0.001}, "step_s"),
        ({"timeout_s": 0.0}, "timeout_s"),
    ],
)
def test_a_plan_too_long_to_simulate_is_refused(fields: dict[str, object], named: str) -> None:
    """A plan has bounds, so that a trial always ends; the error names the field."""
    values = {name: getattr(OUTAGE, name) for name in OUTAGE.__struct_fields__} | fields
    with pytest.raises(MeshConfigError, match=named):
        TrialPlan(**values)
