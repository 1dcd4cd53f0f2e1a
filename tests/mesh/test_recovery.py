"""Recovery times from interval-censored observations: the estimate finds the truth behind them."""

from __future__ import annotations

import math
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.errors import InvalidRequest
from raftreg.mesh.recovery import (
    DELAYS,
    INTERVALS_MAX,
    NEVER,
    Recoveries,
    decode,
    delay_of,
    delay_s,
)

seen = st.lists(
    st.tuples(st.none() | st.floats(0, 100), st.none() | st.floats(0, 100)), max_size=60
)


def of(observations: list[tuple[float | None, float | None]]) -> Recoveries:
    """Recoveries that saw these."""
    found = Recoveries()
    for failed_s, succeeded_s in observations:
        found.observe(failed_s, succeeded_s)
    return found


@given(seen)
def test_the_curve_is_a_distribution(observations: list[tuple[float | None, float | None]]) -> None:
    """Whatever was seen, shares ascend from 0 to 1."""
    curve = of(observations).curve()
    assert len(curve) == DELAYS
    assert all(0 <= share <= 1 for share in curve)
    assert list(curve) == sorted(curve)


@given(seen, seen, seen)
def test_merging_is_associative_and_commutative(
    one: list[tuple[float | None, float | None]],
    two: list[tuple[float | None, float | None]],
    three: list[tuple[float | None, float | None]],
) -> None:
    """However parts are merged, the sum is that of all observations at once."""
    left = of(one)
    left.merge(of(two))
    left.merge(of(three))
    right = of(three)
    right.merge(of(two))
    right.merge(of(one))
    assert left.weights == right.weights == of(one + two + three).weights


@given(st.integers(0, DELAYS - 1))
def test_the_grid(place: int) -> None:
    """The greatest delay of a place is of that place, and steps are 22 %."""
    assert delay_of(delay_s(place) * (1 - 1e-9)) == place
    assert delay_s(place + 1) / delay_s(place) == pytest.approx(1.2216, rel=1e-3)


@pytest.mark.parametrize("value", [math.inf, 1e9])
def test_what_is_beyond_the_grid_is_its_last_place(value: float) -> None:
    """A delay of any length has a place."""
    assert delay_of(value) == DELAYS - 1
    assert delay_of(-value) == 0


def test_a_repeat_that_fails_half_of_the_time() -> None:
    """Of repeats at one delay the share that succeeded is the estimate: all, none or half."""
    half: list[tuple[float | None, float | None]] = [(None, 0.1)] * 50 + [(0.1, None)] * 50
    assert of(half).curve()[delay_of(0.1)] == pytest.approx(0.5, abs=0.01)
    assert of([(None, 0.1)] * 9).curve()[delay_of(0.1)] == pytest.approx(1.0)
    assert of([(0.1, None)] * 9).curve()[delay_of(0.1)] == pytest.approx(0.0, abs=1e-3)


def test_the_truth_is_found_from_two_looks_a_failure() -> None:
    """Lengths drawn from an exponential, each looked at twice at random: the curve is found."""
    rng, mean_s = Random(3), 0.4
    found = Recoveries()
    for _ in range(4000):
        length_s = rng.expovariate(1 / mean_s)
        looks_s = sorted(0.001 * math.exp(rng.random() * math.log(10_000)) for _ in range(2))
        failed = [look_s for look_s in looks_s if look_s < length_s]
        late = [look_s for look_s in looks_s if look_s >= length_s]
        found.observe(failed[-1] if failed else None, late[0] if late else None)
    curve = found.curve()
    for probe_s in (0.1, 0.2, 0.4, 0.8, 1.6):
        place = delay_of(probe_s)
        # Looks at a place are spread over it: the estimate is that of its middle.
        middle_s = math.sqrt(delay_s(place) * delay_s(place - 1))
        assert curve[place] == pytest.approx(1 - math.exp(-middle_s / mean_s), abs=0.08)


def test_those_that_never_recover_count() -> None:
    """Calls that gave up hold the curve down: it does not pretend that all recover."""
    found = of([(None, 0.1)] * 30 + [(5.0, None)] * 70)
    assert found.curve()[delay_of(4.0)] == pytest.approx(0.3, abs=0.01)


def test_nothing_seen_is_nothing_known() -> None:
    """A call that was not repeated says nothing, and without data the curve is 0."""
    found = of([(None, None)] * 5)
    assert found.weight == 0
    assert set(found.curve()) == {0.0}


def test_old_ones_fade_and_vanish() -> None:
    """Weights decay, and intervals of no weight are dropped, so that the table does not fill up."""
    found = of([(None, 0.1)] * 4)
    found.decay(0.5)
    assert found.weight == 2
    found.decay(0.001)
    assert found.weights == {}


def test_it_can_not_outgrow_its_grid() -> None:
    """However many different delays are seen, there are no more intervals than places allow."""
    rng, found = Random(1), Recoveries()
    for _ in range(20_000):
        first_s, second_s = sorted(math.exp(rng.uniform(-9, 6)) for _ in range(2))
        found.observe(first_s, second_s if rng.random() < 0.7 else None)
    assert len(found.weights) <= INTERVALS_MAX
    assert len(found.encode()) <= 16 + 13 * INTERVALS_MAX


@given(seen)
def test_it_survives_the_wire(observations: list[tuple[float | None, float | None]]) -> None:
    """What was encoded is decoded to the same."""
    found = of(observations)
    assert decode(found.encode()).weights == found.weights


@given(st.binary(max_size=64))
def test_garbage_is_refused(data: bytes) -> None:
    """Any bytes are recoveries or a clear refusal."""
    try:
        found = decode(data)
    except InvalidRequest:
        return
    assert decode(found.encode()).weights == found.weights


@pytest.mark.parametrize(
    "parts",
    [
        [2, []],
        [1, [[1, 0, 1.0]]],
        [1, [[-1, 0, 1.0]]],
        [1, [[0, NEVER + 1, 1.0]]],
        [1, [[0, 1, 0.0]]],
        [1, [[0, 1, math.nan]]],
        [1, [[0, 1, math.inf]]],
        [1, [[0, 1, 1.0], [0, 1, 1.0]]],
        [1, [[0, 1, 1.0]] * (INTERVALS_MAX + 1)],
        {"version": 1},
    ],
)
def test_bad_forms_are_refused(parts: object) -> None:
    """A form that contradicts itself or the bounds is refused by name."""
    with pytest.raises(InvalidRequest, match="recoveries"):
        decode(msgspec.msgpack.encode(parts))
