"""Histograms: quantiles within 5 %, merging in any order, and forms that bad input can't break."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.errors import InvalidRequest
from raftreg.mesh.histogram import (
    BUCKETS,
    COUNT_MAX,
    GREATEST_S,
    LEAST_S,
    RELATIVE_ERROR,
    Histogram,
    bucket_of,
    decode,
    merged,
    upper_bound_s,
    value_s,
)

durations = st.floats(LEAST_S, GREATEST_S)
samples = st.lists(durations, max_size=200)


def of(values: list[float]) -> Histogram:
    """A histogram of these durations, in seconds."""
    found = Histogram()
    for value in values:
        found.observe(value)
    return found


@given(st.lists(durations, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_five_per_cent(values: list[float], share: float) -> None:
    """The quantile is no further than the relative error from the value of that rank."""
    exact = sorted(values)[math.floor(share * (len(values) - 1))]
    found = of(values).quantile_s(share)
    # The longest is kept in whole nanoseconds.
    assert abs(found - exact) <= RELATIVE_ERROR * (1 + 1e-6) * exact + 1e-9


@given(samples, samples, samples)
def test_merging_is_associative_and_commutative(
    one: list[float], two: list[float], three: list[float]
) -> None:
    """However parts are merged, the sum is that of all values at once, to the last bit."""
    whole = of(one + two + three)
    assert merged([merged([of(one), of(two)]), of(three)]) == whole
    assert merged([of(three), merged([of(two), of(one)])]) == whole
    assert whole.count == len(one) + len(two) + len(three)


@given(st.integers(0, BUCKETS - 1))
def test_each_bucket_holds_its_own_value(bucket: int) -> None:
    """What a bucket stands for falls into it, and its bounds are 5 % away."""
    assert bucket_of(value_s(bucket)) in ({bucket} if bucket else {0, 1})
    assert upper_bound_s(bucket) == pytest.approx(value_s(bucket) / (1 - RELATIVE_ERROR))


@pytest.mark.parametrize("value", [-1.0, 0.0, -math.inf])
def test_what_is_below_all_is_the_least(value: float) -> None:
    """A clock that stepped back counts as no time at all."""
    found = of([value])
    assert (found.counts, found.sum_ns) == ({0: 1}, 0)


@pytest.mark.parametrize("value", [GREATEST_S, 1e300, math.inf])
def test_what_is_above_all_is_the_greatest(value: float) -> None:
    """However long it took, the histogram stays within its buckets and its sum finite."""
    found = of([value])
    assert found.counts == {BUCKETS - 1: 1}
    assert found.sum_s == GREATEST_S


def test_what_is_no_number_is_refused() -> None:
    """NaN is an error of the caller and leaves nothing behind."""
    found = Histogram()
    with pytest.raises(ValueError, match="NaN"):
        found.observe(math.nan)
    assert found == Histogram()


def test_an_empty_one_is_all_zeros() -> None:
    """Without durations there are quantiles all the same: 0."""
    shown = Histogram().shown()
    assert (shown.count, shown.p99_s, shown.max_s) == (0, 0.0, 0.0)


@given(samples)
def test_it_survives_the_wire(values: list[float]) -> None:
    """What was encoded is decoded to the same, in at most a few bytes a bucket."""
    found = of(values)
    data = found.encode()
    assert decode(data) == found
    assert len(data) <= 32 + 4 * len(found.counts)


def test_sums_of_the_greatest_can_still_be_sent() -> None:
    """However much was merged, the form for the wire stays within its bounds."""
    found = of([GREATEST_S, 0.001])
    for _ in range(80):
        found.merge(found)
    assert decode(found.encode()).counts == dict.fromkeys(found.counts, COUNT_MAX)


@given(samples, st.integers(0, BUCKETS - 1))
def test_counts_by_bound(values: list[float], bucket: int) -> None:
    """At the bound of a bucket the count is exact; it never counts what is above."""
    bound_s = upper_bound_s(bucket)
    expected = sum(1 for value in values if bucket_of(value) <= bucket)
    assert of(values).count_at_most(bound_s) == expected


@given(samples, st.floats(0, 2 * GREATEST_S))
def test_counts_by_any_bound_never_say_too_much(values: list[float], bound_s: float) -> None:
    """No duration above the bound is counted at it."""
    least = sum(1 for value in values if value <= bound_s * (1 + 1e-6))
    assert of(values).count_at_most(bound_s) <= least or bound_s >= GREATEST_S


@given(st.binary(max_size=64))
def test_garbage_is_refused(data: bytes) -> None:
    """Any bytes are a histogram or a clear refusal."""
    try:
        found = decode(data)
    except InvalidRequest:
        return
    assert decode(found.encode()) == found


@pytest.mark.parametrize(
    "parts",
    [
        [2, 0, 0, []],  # another version
        [1, 0, 0, [1]],  # half a pair
        [1, 5, 5, []],  # a sum of nothing
        [1, 1, 1, [BUCKETS, 1]],  # beyond the last bucket
        [1, 1, 1, [-1, 1]],
        [1, 1, 1, [3, 0]],  # a count of nothing
        [1, 1, 1, [3, 1, 0, 1]],  # a bucket twice
        [1, 1, 1, [3, 2**60]],
        [1, -1, 1, [3, 1]],
        [1, 100, 1, [3, 1]],  # a sum that the maximum does not allow
        [1, 1, 2**62, [3, 1]],
        [1, 0, 0, [0, 1] * (BUCKETS + 1)],
        "text",
    ],
)
def test_bad_forms_are_refused(parts: object) -> None:
    """A form that contradicts itself or the bounds is refused by name."""
    with pytest.raises(InvalidRequest, match="histogram"):
        decode(msgspec.msgpack.encode(parts))
