from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.balance.draw import AliasTable
from raftreg.mesh.balance.slow_start import SlowStart


class Steps:
    """Chance that goes through [0, 1) in even steps."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._at = 0

    def random(self) -> float:
        """The middle of the next step."""
        self._at += 1
        return (self._at - 0.5) / self._count

    def randrange(self, stop: int, /) -> int:
        """A whole number below stop."""
        return int(self.random() * stop)


@given(weights=st.lists(st.integers(1, 65_535), min_size=1, max_size=12))
def test_an_alias_table_has_the_shares_of_its_weights(weights: list[int]) -> None:
    """Over all of [0, 1) each index has its share, to the fineness of the steps."""
    table, steps = AliasTable(weights), 20_000
    chance = Steps(steps)
    had = [0] * len(weights)
    for _ in range(steps):
        had[table.draw(chance)] += 1
    for weight, drawn in zip(weights, had, strict=True):
        # Each index owns parts of at most n columns, and a part is off by one step at each end.
        assert abs(drawn / steps - weight / sum(weights)) <= 2 * len(weights) / steps


@given(
    window_s=st.floats(0.001, 1000.0),
    aggression=st.floats(0.1, 10.0),
    least=st.floats(0.001, 1.0),
    ages_s=st.tuples(st.floats(-10.0, 2000.0), st.floats(-10.0, 2000.0)),
)
def test_a_ramp_only_grows(
    window_s: float, aggression: float, least: float, ages_s: tuple[float, float]
) -> None:
    """A share is between the least and 1, never less when older, and 1 after the window."""
    slow = SlowStart(window_s=window_s, aggression=aggression, min_weight=least)
    young, old = (slow.share(age_s) for age_s in sorted(ages_s))
    assert least <= young <= old <= 1.0
    assert slow.share(window_s) == 1.0
    assert slow.share(-5.0) == least


def test_aggression_bends_the_ramp() -> None:
    """Half through the window: half at 1, the square root at 2, the square at 1/2."""
    shares = [SlowStart(window_s=10.0, aggression=bend).share(5.0) for bend in (1.0, 2.0, 0.5)]
    assert [round(share, 4) for share in shares] == [0.5, 0.7071, 0.25]


def test_tiny_and_huge_weights_go_together() -> None:
    """One in 65,536 is drawn about as often."""
    table, rng = AliasTable([65_535, 1]), random.Random(1)
    assert 0 < sum(table.draw(rng) for _ in range(400_000)) < 20
