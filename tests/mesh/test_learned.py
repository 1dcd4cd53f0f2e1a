"""Learned waits: the plan of the greatest worth, found from few looks, better than the default."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftreg.mesh.backoff import BackoffSettings
from raftreg.mesh.budget import BudgetSettings, RetryBudget
from raftreg.mesh.learned import LearnedRetries, LearnSettings, Plan, best_plan, expected
from raftreg.mesh.nouns import Call, MeshConfigError, Outcome
from raftreg.mesh.recovery import DELAYS, decode, delay_of, delay_s
from raftreg.mesh.retry import Again, RetryPolicy, RetrySettings

curves = st.lists(st.floats(0, 1), min_size=DELAYS, max_size=DELAYS).map(sorted)


def worth(plan: Plan, costs: LearnSettings) -> float:
    """What the plan is worth by the stated objective."""
    return (
        plan.recovered_share
        - costs.try_cost * plan.repeats_expected
        - costs.wait_cost_per_s * plan.wait_expected_s
    )


@given(curves, st.floats(0, 0.5), st.floats(0, 1))
@settings(max_examples=25)
def test_no_other_plan_is_worth_more(
    curve: list[float], try_cost: float, wait_cost_per_s: float
) -> None:
    """Of all plans of up to two repeats on the grid the best is chosen."""
    costs = LearnSettings(
        retries_max=2, horizon_s=0.05, try_cost=try_cost, wait_cost_per_s=wait_cost_per_s
    )
    grid = [at_s for at_s in map(delay_s, range(DELAYS)) if at_s * 1.1 <= 0.05]
    plans = itertools.chain([()], itertools.combinations(grid, 1), itertools.combinations(grid, 2))
    best = max(worth(expected(delays_s, curve), costs) for delays_s in plans)
    assert worth(best_plan(curve, costs), costs) == pytest.approx(best, abs=1e-9)


@given(curves, st.integers(1, 5), st.floats(0.01, 60))
@settings(max_examples=25)
def test_a_plan_keeps_its_limits(curve: list[float], retries_max: int, horizon_s: float) -> None:
    """No more repeats than allowed, ascending, and with all jitter within the horizon."""
    limits = LearnSettings(retries_max=retries_max, horizon_s=horizon_s)
    plan = best_plan(curve, limits)
    assert len(plan.delays_s) <= retries_max
    assert list(plan.delays_s) == sorted(set(plan.delays_s))
    assert all(at_s * (1 + limits.jitter) <= horizon_s * 1.000001 for at_s in plan.delays_s)
    assert 0 <= plan.recovered_share <= 1


def test_all_recover_at_one_time() -> None:
    """If failures last 300 ms, one repeat right after that is the plan."""
    curve = [0.0 if delay_s(place) < 0.3 else 1.0 for place in range(DELAYS)]
    plan = best_plan(curve, LearnSettings())
    assert plan.delays_s == (delay_s(delay_of(0.3)),)
    assert plan.repeats_expected == 1


def test_nothing_recovers() -> None:
    """If no failure ever ends within the horizon, no repeat is worth its load."""
    assert best_plan([0.0] * DELAYS, LearnSettings()).delays_s == ()


def test_a_dear_repeat_is_made_only_when_it_is_likely_to_succeed() -> None:
    """Cost decides: at a chance of 10 % a repeat for 5 % is made, one for 20 % is not."""
    curve = [0.1] * DELAYS
    assert len(best_plan(curve, LearnSettings(try_cost=0.05)).delays_s) == 1
    assert best_plan(curve, LearnSettings(try_cost=0.2)).delays_s == ()


def test_what_is_expected_of_a_plan() -> None:
    """The second repeat is made by those for whom the first failed."""
    curve = [0.6 if delay_s(place) < 1.0 else 0.9 for place in range(DELAYS)]
    plan = expected((0.1, 2.0), curve)
    assert plan.recovered_share == 0.9
    assert plan.repeats_expected == pytest.approx(1.4)
    assert plan.wait_expected_s == pytest.approx(0.1 + 0.4 * 1.9)


def fed(limits: LearnSettings, count: int) -> LearnedRetries:
    """One that saw failures that last 200 ms, and has turned."""
    found = LearnedRetries(limits)
    found.turn(0.0)
    for at in range(count):
        found.observe(0.15, 0.2 + at % 3 / 10)
    found.turn(limits.window_s)
    return found


def test_before_there_is_enough_data_the_default_counts() -> None:
    """No schedule until the least number of failures was seen; then one."""
    limits = LearnSettings(failures_min=50, explore_share=0.0)
    assert fed(limits, 49).schedule(Random(1)) is None
    schedule = fed(limits, 52).schedule(Random(1))
    assert schedule is not None
    assert 0.15 <= schedule[0] <= 0.5


def test_delays_are_spread_upwards() -> None:
    """No repeat comes before its planned delay, and those of many calls are spread."""
    found = fed(LearnSettings(explore_share=0.0, jitter=0.5), 60)
    plan = found.plan
    assert plan is not None
    rng = Random(2)
    firsts = [(found.schedule(rng) or (0.0,))[0] / plan.delays_s[0] for _ in range(500)]
    assert 1.0 <= min(firsts) < 1.05
    assert 1.45 < max(firsts) <= 1.5


def test_a_small_share_explores() -> None:
    """One call in twenty repeats at random times over all orders of magnitude to the horizon."""
    found, rng = LearnedRetries(LearnSettings(explore_share=0.05, horizon_s=10.0)), Random(3)
    schedules = [schedule for _ in range(10_000) if (schedule := found.schedule(rng))]
    delays_s = [at_s for schedule in schedules for at_s in schedule]
    assert 400 <= len(schedules) <= 600
    assert all(list(schedule) == sorted(schedule) for schedule in schedules)
    assert 0.001 <= min(delays_s) <= max(delays_s) <= 10.0
    assert 0.4 <= sum(1 for at_s in delays_s if at_s < 0.1) / len(delays_s) <= 0.6


def test_old_failures_are_forgotten() -> None:
    """When nothing fails for long, the default counts again."""
    found = fed(LearnSettings(half_life_s=60.0, explore_share=0.0), 60)
    assert found.plan is not None
    found.turn(3600.0)
    assert found.plan is None


def test_a_change_is_noticed() -> None:
    """A service that comes to take ten times longer to recover gets a later repeat."""
    found = fed(LearnSettings(half_life_s=10.0), 100)
    before = found.plan
    for window in range(2, 8):
        for at in range(100):
            found.observe(1.9, 2.0 + at % 3 / 10)
        found.turn(10.0 * window)
    assert before is not None
    assert found.plan is not None
    assert found.plan.delays_s[-1] >= 2.0 > before.delays_s[-1]


def test_many_sidecars_learn_together() -> None:
    """What each saw is sent once, and the registry's plan is that of all of it."""
    limits = LearnSettings(failures_min=50)
    registry, sidecars = LearnedRetries(limits), [LearnedRetries(limits) for _ in range(10)]
    registry.turn(0.0)
    for sidecar in sidecars:
        for _ in range(6):
            sidecar.observe(0.15, 0.3)
        registry.merge(decode(sidecar.take().encode()))
        assert sidecar.take().weight == 0
    registry.turn(10.0)
    assert registry.plan is not None
    sidecars[0].adopt(registry.plan)
    assert sidecars[0].plan == registry.plan
    sidecars[0].adopt(None)
    assert sidecars[0].plan is None


def test_a_foreign_plan_keeps_the_limits_of_here() -> None:
    """Delays that the sidecar's own settings forbid are left out."""
    found = LearnedRetries(LearnSettings(retries_max=2, horizon_s=1.0))
    wild = Plan(
        delays_s=(9.0, -1.0, math.nan, 0.3, 0.2, 0.1),
        recovered_share=1.0,
        repeats_expected=1.0,
        wait_expected_s=0.0,
    )
    found.adopt(wild)
    assert found.plan is not None
    assert found.plan.delays_s == (0.1, 0.2)


def test_what_is_shown() -> None:
    """People see the plan, what the default would do, and the curve; all of it as JSON."""
    shown = fed(LearnSettings(), 60).shown("api", BackoffSettings())
    assert shown.plan is not None
    assert shown.default is not None
    assert shown.plan.recovered_share > shown.default.recovered_share
    assert 58 < shown.failures <= 60
    assert shown.curve[-1].delay_s <= 5.0
    assert msgspec.json.decode(msgspec.json.encode(shown))["service"] == "api"
    empty = LearnedRetries(LearnSettings()).shown("api", BackoffSettings())
    assert (empty.plan, empty.default, empty.curve) == (None, None, ())


class Tally:
    """What became of the calls that failed at first."""

    def __init__(self) -> None:
        self.failed = 0
        self.recovered = 0
        self.repeats = 0

    @property
    def recovered_share(self) -> float:
        """Share of the calls that a repeat saved."""
        return self.recovered / self.failed


#: Tells of an attempt so many seconds after the failure whether it succeeds.
Success = Callable[[float], bool]


def called(policy: RetryPolicy, succeeds: Success, tally: Tally) -> None:
    """One call whose first attempt fails."""
    now_s = 0.0
    tries = policy.begin(Call(method="GET"), now_s, 30.0)
    tally.failed += 1
    for attempt in range(20):
        tries.began(str(attempt), now_s)
        well = attempt > 0 and succeeds(now_s)
        verdict = tries.ended(Outcome(status=200 if well else 503), now_s)
        if not isinstance(verdict, Again):
            tally.recovered += well
            return
        tally.repeats += 1
        now_s += verdict.wait_s
    raise AssertionError("a call without end")


def compared(failure: Callable[[Random], Success]) -> tuple[Tally, Tally]:
    """The default and, taught by 2,000 failures from nothing, the learned waits."""
    rng, learned = Random(11), LearnedRetries(LearnSettings())
    rules, plenty = RetrySettings(retries_max=2), BudgetSettings(per_second_min=1e6)
    plain = RetryPolicy(rules, RetryBudget(plenty), rng)
    taught = RetryPolicy(rules, RetryBudget(plenty), rng, learned)
    for window in range(40):
        learned.turn(10.0 * window)
        for _ in range(50):
            called(taught, failure(rng), Tally())
    default, better = Tally(), Tally()
    for _ in range(3000):
        called(plain, failure(rng), default)
        called(taught, failure(rng), better)
    return default, better


def over_after(length_s: float) -> Success:
    """An outage that lasts this long."""
    return lambda at_s: at_s >= length_s


OUTAGES: dict[str, Callable[[Random], float]] = {
    "exponential, 0.4 s": lambda rng: rng.expovariate(2.5),
    "lognormal around 0.15 s": lambda rng: rng.lognormvariate(math.log(0.15), 0.6),
    "always 1 s": lambda rng: 1.0,
    "a restart or a blip": lambda rng: rng.choice([0.01, 2.0]),
}


@pytest.mark.parametrize("name", OUTAGES)
def test_learned_waits_recover_more_at_no_more_load(name: str) -> None:
    """From nothing known, the learned plan recovers far more calls by no more repeats than the
    default does, whatever the distribution of the outages: exploration included.
    """
    default, better = compared(lambda rng: over_after(OUTAGES[name](rng)))
    assert better.repeats <= default.repeats
    assert better.recovered_share >= default.recovered_share + 0.3
    assert better.recovered_share >= 0.85


def test_what_never_recovers_gets_next_to_no_repeats() -> None:
    """A service that is gone is left alone but for those who look whether it is back."""
    default, better = compared(lambda rng: over_after(math.inf))
    assert default.repeats == 2 * default.failed
    assert better.repeats <= 0.2 * better.failed


def test_where_time_plays_no_part_nothing_is_lost() -> None:
    """If nine attempts of ten succeed by chance, about as many calls are saved as by default."""
    default, better = compared(lambda rng: lambda _at_s: rng.random() < 0.9)
    assert better.recovered_share >= default.recovered_share - 0.02
    assert better.repeats <= 1.05 * default.repeats


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retries_max", 0),
        ("horizon_s", 61.0),
        ("try_cost", -0.1),
        ("wait_cost_per_s", math.nan),
        ("failures_min", 0.0),
        ("half_life_s", 0.0),
        ("window_s", 0.0),
        ("explore_share", 0.6),
        ("jitter", 1.1),
    ],
)
def test_bad_settings_are_refused(field: str, value: float) -> None:
    """A field out of its bounds is named."""
    with pytest.raises(MeshConfigError, match=field):
        LearnSettings(**{field: value})  # type: ignore[arg-type]
