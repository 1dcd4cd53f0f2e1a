"""Rate limits by source, against a plain token bucket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.nouns import Call, MeshConfigError
from raftreg.mesh.rate_limit import By, Rate, RateLimit, RateLimitSettings


def from_source(name: str) -> Call:
    """A call of a service."""
    return Call(method="GET", source=name)


class PlainBucket:
    """A token bucket as textbooks have it."""

    def __init__(self, rate: Rate) -> None:
        self.rate, self.tokens, self.at_s = rate, float(rate.burst), 0.0

    def take(self, now_s: float) -> bool:
        """Refills, and takes a token if there is one."""
        gained = (now_s - self.at_s) * self.rate.per_s
        self.tokens, self.at_s = min(self.rate.burst, self.tokens + gained), now_s
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


@given(
    steps=st.lists(st.tuples(st.integers(0, 20), st.sampled_from("ab")), max_size=80),
    per_s=st.sampled_from([0.5, 1.0, 4.0, 16.0]),
    burst=st.integers(1, 5),
)
def test_it_admits_what_a_token_bucket_for_each_source_admits(
    steps: list[tuple[int, str]], per_s: float, burst: int
) -> None:
    """Call by call it decides as a bucket of tokens does, and one source never costs another."""
    rate = Rate(per_s=per_s, burst=burst)
    limit = RateLimit(RateLimitSettings(rate=rate))
    plain = {name: PlainBucket(rate) for name in "ab"}
    now_s = 0.0
    for eighths, name in steps:
        now_s += eighths / 8
        assert (limit.take(from_source(name), now_s) == 0.0) is plain[name].take(now_s)


@given(per_s=st.floats(0.01, 10_000), burst=st.integers(1, 100), start_s=st.floats(0, 1e6))
def test_the_wait_it_tells_is_enough_and_no_more(per_s: float, burst: int, start_s: float) -> None:
    """After the burst it says when to come again: then it admits, and just before it does not."""
    limit = RateLimit(RateLimitSettings(rate=Rate(per_s=per_s, burst=burst)))
    for _ in range(burst):
        assert limit.take(from_source("a"), start_s) == 0.0
    wait_s = limit.take(from_source("a"), start_s)
    assert wait_s == pytest.approx(1 / per_s, rel=1e-3)
    assert limit.take(from_source("a"), start_s + wait_s * 0.9) > 0.0
    assert limit.take(from_source("a"), start_s + wait_s) == 0.0


def test_a_full_table_forgets_only_full_buckets_and_else_shares_one() -> None:
    """Inventing sources gains nothing, and those who have a bucket keep it."""
    limit = RateLimit(
        RateLimitSettings(
            rate=Rate(per_s=1.0),
            rates={"named": Rate(per_s=1.0, burst=2)},
            sources_max=3,
        )
    )
    assert [limit.take(from_source(name), 0.0) for name in "abc"] == [0.0, 0.0, 0.0]
    assert limit.take(from_source("d"), 0.0) == 0.0  # the shared bucket
    assert all(limit.take(from_source(f"new-{n}"), 0.0) > 0.0 for n in range(100))
    assert limit.take(from_source("a"), 0.0) > 0.0
    assert limit.take(from_source("named"), 0.0) == 0.0  # has its own all the same
    assert len(limit) == 4
    assert limit.take(from_source("e"), 1.0) == 0.0  # all are full again: there is room
    assert limit.take(from_source("f"), 1.0) == 0.0
    assert len(limit) <= 4
    assert limit.take(from_source("a"), 99.0) == 0.0  # many are full at once: the sweep takes few
    assert len(limit) <= 4


@pytest.mark.parametrize(
    ("by", "call", "other"),
    [
        (By.SOURCE, Call(source="a"), Call(source="b")),
        (By.ADDRESS, Call(source_address="10.0.0.1"), Call(source_address="10.0.0.2")),
        (By.HEADER, Call(headers={"x-api-key": "1"}), Call(headers={"x-api-key": "2"})),
    ],
)
def test_sources_are_told_apart_as_set(by: By, call: Call, other: Call) -> None:
    """By service, address or header; those who show none share a bucket."""
    header = "x-api-key" if by is By.HEADER else ""
    limit = RateLimit(RateLimitSettings(rate=Rate(per_s=1.0), by=by, header=header))
    assert limit.take(call, 0.0) == 0.0
    assert limit.take(other, 0.0) == 0.0
    assert limit.take(call, 0.0) > 0.0
    assert limit.take(Call(), 0.0) == 0.0
    assert limit.take(Call(path="/b"), 0.0) > 0.0


def test_a_named_source_has_its_own_rate() -> None:
    """Rates by name go before the common one."""
    limit = RateLimit(
        RateLimitSettings(rate=Rate(per_s=1.0), rates={"batch": Rate(per_s=1.0, burst=3)})
    )
    assert [limit.take(from_source("batch"), 0.0) > 0 for _ in range(4)] == [
        False,
        False,
        False,
        True,
    ]


def test_bad_settings_are_refused_by_field() -> None:
    """A rate of nothing, and a header that is not named, are refused."""
    with pytest.raises(MeshConfigError, match="per_s"):
        Rate(per_s=0.0)
    with pytest.raises(MeshConfigError, match="header"):
        RateLimitSettings(rate=Rate(per_s=1.0), by=By.HEADER)
    with pytest.raises(MeshConfigError, match="lower case"):
        RateLimitSettings(rate=Rate(per_s=1.0), by=By.HEADER, header="X-Key")
