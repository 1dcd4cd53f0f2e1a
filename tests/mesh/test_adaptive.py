"""The limit that finds itself: Gradient2's formula, and what it does in a queue."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.adaptive import AdaptiveLimit, AdaptiveSettings, Sample
from raftreg.mesh.nouns import MeshConfigError


def quick(initial: int, tolerance: float = 1.5, drop_factor: float = 0.9) -> AdaptiveLimit:
    """A limit for which each sample that comes a second after the last one is a window."""
    return AdaptiveLimit(
        AdaptiveSettings(
            limit_initial=initial,
            limit_min=1,
            limit_max=1000,
            tolerance=tolerance,
            window_s=1.0,
            window_samples_min=1,
            drop_factor=drop_factor,
        )
    )


def feed(
    limit: AdaptiveLimit,
    durations_s: list[float],
    in_flight: int,
    now_s: float,
    sample: Sample = Sample.MEASURED,
) -> float:
    """One window for each duration; returns when the last one ended."""
    for duration_s in durations_s:
        limit.observe(sample, duration_s, in_flight, now_s)
        now_s += 1.0
    return now_s


@pytest.mark.parametrize(
    ("windows", "then_s", "tolerance", "expected"),
    [
        # Same duration: gradient 1, so 80 + 0.2 * (100 + 4).
        (1, 0.1, 1.0, 100.8),
        # long becomes the plain mean 0.25 of 0.1 and 0.4; gradient 0.625: 80 + 0.2 * (62.5 + 4).
        (1, 0.4, 1.0, 93.3),
        # Within the tolerance nothing shrinks: 1.6 * 0.25 / 0.4 = 1.
        (1, 0.4, 1.6, 100.8),
        # Against ten windows long is hardly moved; the gradient is a half: 80 + 0.2 * (50 + 4).
        (10, 100.0, 1.0, 90.8),
    ],
)
def test_a_window_moves_the_limit_as_the_formula_says(
    windows: int, then_s: float, tolerance: float, expected: float
) -> None:
    """It takes over a fifth of limit * clamp(tolerance * long / short, 0.5, 1) + queue."""
    limit = quick(100, tolerance)
    # Hardly used at first, so that only the long mean is learned.
    limit.observe(Sample.IGNORED, 0.0, 1, -1.0)
    now_s = feed(limit, [0.1] * windows, 1, 0.0)
    assert limit.long_s == pytest.approx(0.1)
    assert limit.limit == 100
    feed(limit, [then_s], 100, now_s)
    assert limit._estimate == pytest.approx(expected)
    assert limit.limit == int(expected)


def test_it_does_not_grow_while_hardly_used() -> None:
    """Who asks for less than half of the limit learns nothing of how much there would be."""
    limit = quick(20)
    feed(limit, [0.1] * 50, 9, 0.0)
    assert limit.limit == 20
    feed(limit, [0.1] * 50, 20, 100.0)
    assert limit.limit > 20


def test_drops_shrink_it_even_when_durations_are_short() -> None:
    """A peer that refuses fast is overloaded, however short its answers take."""
    limit = quick(100, drop_factor=0.5)
    feed(limit, [0.001] * 4, 100, 0.0, Sample.DROPPED)
    assert limit.limit < 30


def test_long_mean_is_led_back_after_an_overload() -> None:
    """When durations are normal again, the long mean follows in tens of windows, not hundreds."""
    limit = quick(20)
    now_s = feed(limit, [10.0] * 100, 20, 0.0)
    feed(limit, [0.1] * 60, 20, now_s)
    assert limit.long_s < 0.25


def served(limit: AdaptiveLimit, width: int, seconds: int, callers: int) -> tuple[int, float]:
    """Runs a peer of so many workers at 10 ms a call; mean limit and mean duration at the end."""
    workers = [0.0] * width
    under_way: list[tuple[float, float]] = []
    last: list[tuple[int, float]] = []
    now_s = 0.0
    while now_s < seconds:
        while len(under_way) < min(limit.limit, callers):
            end_s = max(now_s, heapq.heappop(workers)) + 0.01
            heapq.heappush(workers, end_s)
            heapq.heappush(under_way, (end_s, now_s))
        in_flight = len(under_way)
        now_s, began_s = heapq.heappop(under_way)
        limit.observe(Sample.MEASURED, now_s - began_s, in_flight, now_s)
        if now_s > seconds * 0.8:
            last.append((limit.limit, now_s - began_s))
    return round(sum(n for n, _ in last) / len(last)), sum(s for _, s in last) / len(last)


def test_in_front_of_a_peer_with_few_workers_it_keeps_the_queue_short() -> None:
    """With 10 workers and 150 callers it settles near the workers, using all of them."""
    settings = AdaptiveSettings(
        limit_initial=5, limit_min=1, limit_max=150, tolerance=1.1, window_s=0.1
    )
    limit, duration_s = served(AdaptiveLimit(settings), width=10, seconds=20, callers=150)
    assert 10 <= limit <= 75
    assert duration_s < 0.075


@given(
    samples=st.lists(
        st.tuples(
            st.sampled_from(Sample), st.floats(0, 1e6), st.integers(0, 10_000), st.floats(0, 5)
        ),
        max_size=100,
    )
)
def test_it_stays_between_its_bounds(samples: list[tuple[Sample, float, int, float]]) -> None:
    """Whatever it sees, the limit is a whole number between its bounds."""
    limit = AdaptiveLimit(
        AdaptiveSettings(limit_initial=7, limit_min=3, limit_max=40, window_samples_min=1)
    )
    now_s = 0.0
    for sample, duration_s, in_flight, gap_s in samples:
        now_s += gap_s
        limit.observe(sample, duration_s, in_flight, now_s)
        assert 3 <= limit.limit <= 40


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"limit_min": 10, "limit_max": 5}, "limit_max"),
        ({"limit_initial": 500}, "limit_initial"),
        ({"smoothing": 0.0}, "smoothing"),
        ({"tolerance": 0.5}, "tolerance"),
    ],
)
def test_bad_settings_are_refused_by_field(fields: dict[str, float], named: str) -> None:
    """Bounds that contradict each other are refused naming the field."""
    with pytest.raises(MeshConfigError, match=named):
        AdaptiveSettings(**fields)  # type: ignore[arg-type]  # one table for whole and broken ones
