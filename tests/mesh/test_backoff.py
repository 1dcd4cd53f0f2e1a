"""Waits before repeats: within their bounds, spread, and as the server asks."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.backoff import BackoffSettings, retry_after_s
from raftreg.mesh.nouns import MeshConfigError

SENT = "Sun, 06 Nov 1994 08:49:37 GMT"


@given(st.integers(0, 10_000), st.integers(0, 2**32))
def test_waits_stay_below_the_bound(retry: int, seed: int) -> None:
    """A wait is never below 0 or above its bound, which never exceeds the greatest."""
    settings = BackoffSettings(base_s=0.1, max_s=3.0)
    bound_s = settings.bound_s(retry)
    assert 0 <= settings.wait_s(retry, Random(seed)) <= bound_s <= 3.0
    assert bound_s <= settings.bound_s(retry + 1)


def test_bounds_double() -> None:
    """25 ms, doubled each time, and no more than 250 ms."""
    bounds_ms = [round(1000 * BackoffSettings().bound_s(retry)) for retry in range(6)]
    assert bounds_ms == [25, 50, 100, 200, 250, 250]


def test_the_jitter_is_full() -> None:
    """A crowd is spread over the whole span: each tenth of it gets about a tenth."""
    settings, rng = BackoffSettings(base_s=1.0, max_s=1.0), Random(7)
    tenths = [0] * 10
    for _ in range(10_000):
        tenths[int(settings.wait_s(0, rng) * 10)] += 1
    assert all(850 <= count <= 1150 for count in tenths)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "9" * 30}, 1e9),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT", "date": SENT}, 10.0),
        ({"retry-after": "Sunday, 06-Nov-94 08:49:47 GMT", "date": SENT}, 10.0),
        ({"retry-after": "Sun Nov  6 08:49:47 1994", "date": SENT}, 10.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:00:00 GMT", "date": SENT}, 0.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "soon", "date": SENT}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], wait_s: float | None) -> None:
    """Seconds and all three forms of a date are understood; what is neither says nothing."""
    assert retry_after_s(headers) == wait_s


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_is_survived(after: str, date: str) -> None:
    """Whatever a server sends, there is a wait that is no less than 0, or none."""
    found = retry_after_s({"retry-after": after, "date": date})
    assert found is None or found >= 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("base_s", -1), ("max_s", math.inf), ("factor", 0.5), ("max_s", 0.001)],
)
def test_bad_settings_are_refused(field: str, value: float) -> None:
    """A field out of its bounds is named."""
    with pytest.raises(MeshConfigError, match=field):
        BackoffSettings(**{field: value})
