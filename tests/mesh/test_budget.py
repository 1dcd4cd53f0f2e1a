"""Retry budgets: repeats stay below their share of the calls, in every window."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.budget import BudgetSettings, RetryBudget
from raftreg.mesh.nouns import MeshConfigError

moves = st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=300)


@given(moves, st.floats(0, 2), st.floats(0, 5))
def test_no_window_has_more_repeats_than_were_earned(
    steps: list[tuple[bool, float]], ratio: float, per_second_min: float
) -> None:
    """At each repeat, the repeats of the last window are paid for by its calls and the reserve."""
    budget = RetryBudget(BudgetSettings(ratio=ratio, per_second_min=per_second_min, window_s=10.0))
    now_s = 0.0
    calls: list[float] = []
    repeats: list[float] = []
    for is_call, pause_s in steps:
        now_s += pause_s
        began_s = math.floor(now_s) - 9  # ten slots of a second
        if is_call:
            budget.deposit(now_s)
            calls.append(now_s)
        elif budget.withdraw(now_s):
            repeats.append(now_s)
            earned = ratio * sum(1 for at_s in calls if at_s >= began_s) + 10 * per_second_min
            # Thousandths are rounded, each call by half of one at most.
            assert sum(1 for at_s in repeats if at_s >= began_s) <= earned + 0.0005 * (
                len(calls) + 1
            )


def test_a_fifth_of_the_calls_may_be_repeated() -> None:
    """A thousand calls earn two hundred repeats, and not one more."""
    budget = RetryBudget(BudgetSettings(ratio=0.2, per_second_min=0.0))
    for _ in range(1000):
        budget.deposit(5.0)
    assert budget.balance(5.0) == 200
    assert sum(budget.withdraw(5.0) for _ in range(1000)) == 200
    assert budget.refused == 800


def test_what_was_earned_expires() -> None:
    """Calls of long ago pay for nothing."""
    budget = RetryBudget(BudgetSettings(ratio=1.0, per_second_min=0.0, window_s=10.0))
    for _ in range(100):
        budget.deposit(0.0)
    assert budget.balance(9.9) == 100
    assert budget.balance(10.0) == 0
    assert not budget.withdraw(1e9)


def test_the_reserve_comes_back() -> None:
    """Who calls seldom may still repeat: the reserve is there again after a window."""
    budget = RetryBudget(BudgetSettings(ratio=0.0, per_second_min=1.0, window_s=10.0))
    assert sum(budget.withdraw(100.0) for _ in range(50)) == 10
    assert not budget.withdraw(105.0)
    assert sum(budget.withdraw(110.0) for _ in range(50)) == 10


def test_time_that_steps_back_does_no_harm() -> None:
    """An earlier time counts as the present."""
    budget = RetryBudget(BudgetSettings(ratio=1.0, per_second_min=0.0))
    budget.deposit(50.0)
    assert budget.withdraw(1.0)
    assert not budget.withdraw(50.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("ratio", -0.1), ("ratio", math.nan), ("per_second_min", -1), ("window_s", 0.5)],
)
def test_bad_settings_are_refused(field: str, value: float) -> None:
    """A field out of its bounds is named."""
    with pytest.raises(MeshConfigError, match=field):
        BudgetSettings(**{field: value})
