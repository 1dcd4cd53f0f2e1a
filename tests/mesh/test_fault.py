"""Faults on purpose: whom they meet, what they do, and that they end."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.fault import (
    FAULT_S_MAX,
    RULES_MAX,
    Abort,
    Bandwidth,
    Blackhole,
    Delay,
    Fault,
    FaultRule,
    Faults,
    Pacer,
)
from raftreg.mesh.nouns import Call, MeshConfigError

UNIX_S = 1_700_000_000.0
CALL = Call(method="GET", path="/v1/a", headers={"x-user": "eve"}, source="web")


def a_rule(fault: Fault | None = None, *, lasts_s: float = 60.0, **match: Any) -> FaultRule:
    """A rule that acts for so long from `UNIX_S` on."""
    return FaultRule(fault=fault or Abort(), until_unix_s=UNIX_S + lasts_s, **match)


def faults(*rules: FaultRule, seed: int = 1) -> Faults:
    """Rules first known at monotonic second 100."""
    return Faults(rules, random.Random(seed), now_s=100.0, unix_s=UNIX_S)


@pytest.mark.parametrize(
    ("match", "acts"),
    [
        ({}, True),
        ({"sources": frozenset({"web", "batch"})}, True),
        ({"sources": frozenset({"batch"})}, False),
        ({"methods": frozenset({"POST"})}, False),
        ({"methods": frozenset({"GET"})}, True),
        ({"path_prefix": "/v1/"}, True),
        ({"path_prefix": "/v2/"}, False),
        ({"headers": {"x-user": "eve"}}, True),
        ({"headers": {"x-user": ""}}, True),
        ({"headers": {"x-user": "adam"}}, False),
        ({"headers": {"x-none": ""}}, False),
        ({"headers": {"x-user": "eve"}, "sources": frozenset({"batch"})}, False),
        ({"percent": 0.0}, False),
    ],
)
def test_only_calls_that_match_in_all_are_met(match: dict[str, Any], acts: bool) -> None:
    """Source, method, path and headers must all fit; zero percent never acts."""
    injection = faults(a_rule(**match)).inject(CALL, 101.0)
    assert (injection is not None) is acts


def test_kinds_join_and_the_first_of_each_counts() -> None:
    """A call may be delayed by one rule and aborted by another; the second abort is not asked."""
    injection = faults(
        a_rule(Delay(delay_s=0.5), name="slow"),
        a_rule(Abort(status=0), name="broken"),
        a_rule(Abort(status=503), name="other"),
        a_rule(Bandwidth(bytes_per_s=10.0), name="narrow"),
        a_rule(Blackhole(hold_s=5.0), name="hole"),
    ).inject(CALL, 101.0)
    assert injection is not None
    assert injection.delay_s == 0.5
    assert injection.abort == Abort(status=0)
    assert injection.bandwidth == Bandwidth(bytes_per_s=10.0)
    assert injection.blackhole == Blackhole(hold_s=5.0)
    assert injection.rules == ("slow", "broken", "narrow", "hole")


def test_every_rule_ends_by_itself() -> None:
    """A rule acts until its end and never from it on; one that has ended before is never known."""
    several = faults(
        a_rule(lasts_s=10.0), a_rule(Delay(delay_s=1.0), lasts_s=20.0), a_rule(lasts_s=-1)
    )
    assert len(several.active(100.0)) == 2
    assert several.inject(CALL, 109.9) is not None
    later = several.inject(CALL, 110.0)
    assert later is not None
    assert (later.abort, later.delay_s) == (None, 1.0)
    assert several.inject(CALL, 120.0) is None
    assert several.active(120.0) == ()
    assert several.inject(CALL, 121.0) is None


def test_no_rule_may_be_forgotten_or_too_many() -> None:
    """An end is required and lies within a week; the number of rules is bounded."""
    with pytest.raises(TypeError, match="until_unix_s"):
        FaultRule(fault=Abort())  # type: ignore[call-arg]  # the end is missing on purpose
    with pytest.raises(MeshConfigError, match=r"faults\[1\]\.until_unix_s"):
        faults(a_rule(), a_rule(lasts_s=FAULT_S_MAX + 1))
    with pytest.raises(MeshConfigError, match="faults"):
        faults(*[a_rule()] * (RULES_MAX + 1))


@given(percent=st.floats(0, 100), seed=st.integers(0, 2**32))
def test_the_percentage_is_met(percent: float, seed: int) -> None:
    """Of many calls so many are met as are set, within five deviations and a few."""
    some = faults(a_rule(percent=percent), seed=seed)
    met = sum(some.inject(CALL, 101.0) is not None for _ in range(2000))
    share = percent / 100
    assert abs(met - 2000 * share) <= 5 * (2000 * share * (1 - share)) ** 0.5 + 6


@given(seed=st.integers(0, 2**32))
def test_a_delay_lies_within_its_spread(seed: int) -> None:
    """A delay is at least its time and at most that and the spread."""
    injection = faults(a_rule(Delay(delay_s=1.0, spread_s=0.5)), seed=seed).inject(CALL, 101.0)
    assert injection is not None
    assert 1.0 <= injection.delay_s <= 1.5


@given(pieces=st.lists(st.tuples(st.integers(1, 65_536), st.floats(0, 2)), min_size=1, max_size=50))
def test_a_paced_answer_never_exceeds_its_bandwidth(pieces: list[tuple[int, float]]) -> None:
    """No piece is complete before the bytes so far could have come at that rate."""
    pacer = Pacer(Bandwidth(bytes_per_s=1000.0), now_s=0.0)
    now_s, sent = 0.0, 0
    for size, idle_s in pieces:
        now_s += idle_s
        now_s += pacer.wait_s(size, now_s)
        sent += size
        assert sent <= 1000.0 * now_s * (1 + 1e-9)


def test_faults_are_read_from_plain_data_by_their_kind() -> None:
    """A rule goes through JSON and back; bad values name their field."""
    rule = a_rule(Delay(delay_s=0.5), percent=10.0, headers={"x-user": "eve"})
    assert msgspec.json.decode(msgspec.json.encode(rule), type=FaultRule) == rule
    for broken, named in (
        (lambda: Abort(status=99), "status"),
        (lambda: Delay(delay_s=-1.0), "delay_s"),
        (lambda: Bandwidth(bytes_per_s=0.0), "bytes_per_s"),
        (lambda: Blackhole(hold_s=float("inf")), "hold_s"),
        (lambda: a_rule(percent=101.0), "percent"),
        (lambda: a_rule(headers={"X-User": "eve"}), "lower case"),
    ):
        with pytest.raises(MeshConfigError, match=named):
            broken()
