"""Deadlines: what is read, what is left, and what is passed on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.deadline import (
    ENVOY_EXPECTED,
    GRPC_TIMEOUT,
    RAFTREG_DEADLINE,
    BadDeadline,
    TimeoutSettings,
    deadline_s,
    grpc_timeout,
    has_time_for,
    passed_on,
    remaining_s,
    told_s,
    try_s,
)
from raftreg.mesh.nouns import Call, MeshConfigError


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({}, math.inf),
        ({RAFTREG_DEADLINE: "1500"}, 1.5),
        ({RAFTREG_DEADLINE: "0"}, 0.0),
        ({ENVOY_EXPECTED: "250"}, 0.25),
        ({ENVOY_EXPECTED: "0"}, math.inf),
        ({GRPC_TIMEOUT: "2H"}, 7200.0),
        ({GRPC_TIMEOUT: "3M"}, 180.0),
        ({GRPC_TIMEOUT: "4S"}, 4.0),
        ({GRPC_TIMEOUT: "5m"}, 0.005),
        ({GRPC_TIMEOUT: "6u"}, 6e-6),
        ({GRPC_TIMEOUT: "99999999n"}, 0.099999999),
        ({RAFTREG_DEADLINE: "900", GRPC_TIMEOUT: "1S", ENVOY_EXPECTED: "800"}, 0.8),
    ],
)
def test_the_shortest_header_counts(headers: dict[str, str], expected_s: float) -> None:
    """Each header is read in its own form, and the one that gives least wins."""
    assert told_s(headers) == pytest.approx(expected_s)


@pytest.mark.parametrize("name", [RAFTREG_DEADLINE, GRPC_TIMEOUT, ENVOY_EXPECTED])
@pytest.mark.parametrize(
    "text",
    [
        "",
        " 5",
        "-5",
        "+5",
        "1.5",
        "5 S",
        "S",
        "123456789S",
        "5s",
        "\u0665",
        "\u0665S",
        "1_0m",
        "9" * 99,
    ],
)
def test_garbage_is_refused_naming_the_header(name: str, text: str) -> None:
    """What is no time in the header's own form is a clear error, and is not echoed at length."""
    with pytest.raises(BadDeadline, match=name) as raised:
        told_s({name: text})
    assert len(raised.value.message) < 200


@given(name=st.sampled_from([RAFTREG_DEADLINE, GRPC_TIMEOUT, ENVOY_EXPECTED]), text=st.text())
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    """No text does anything else than give a time or be refused."""
    try:
        given_s = told_s({name: text})
    except BadDeadline:
        return
    assert given_s >= 0.0


def test_a_caller_shortens_but_never_lengthens() -> None:
    """The route's limit holds; the caller's counts where it is shorter and is heeded."""
    settings = TimeoutSettings(request_s=2.0)
    assert deadline_s(Call(headers={RAFTREG_DEADLINE: "500"}), settings, 10.0) == 10.5
    assert deadline_s(Call(headers={RAFTREG_DEADLINE: "5000"}), settings, 10.0) == 12.0
    deaf = TimeoutSettings(request_s=2.0, heed_caller=False)
    assert deadline_s(Call(headers={RAFTREG_DEADLINE: "bad"}), deaf, 10.0) == 12.0
    assert deadline_s(Call(), TimeoutSettings(request_s=0.0), 10.0) == math.inf


def test_a_try_has_its_own_time_within_what_is_left() -> None:
    """A try ends at its own limit or the call's, whichever is first; a late one has nothing."""
    settings = TimeoutSettings(per_try_s=1.0)
    assert try_s(15.0, settings, 10.0) == 1.0
    assert try_s(10.25, settings, 10.0) == 0.25
    assert try_s(9.0, settings, 10.0) == 0.0
    assert try_s(math.inf, TimeoutSettings(), 10.0) == math.inf
    assert remaining_s(9.0, 10.0) == 0.0
    assert has_time_for(12.0, 10.0, wait_s=1.0, needs_s=1.0)
    assert not has_time_for(12.0, 10.0, wait_s=1.5, needs_s=1.0)
    assert not has_time_for(12.0, 10.0, wait_s=2.0)
    assert has_time_for(math.inf, 10.0, wait_s=99.0)


def test_grpc_is_told_in_its_own_way_and_others_are_not() -> None:
    """Only a gRPC call carries grpc-timeout; without a limit nothing is told."""
    settings = TimeoutSettings(hop_s=0.5)
    plain = passed_on(Call(), 2.0, settings)
    assert plain == {RAFTREG_DEADLINE: "1500", ENVOY_EXPECTED: "1500"}
    grpc = Call(headers={"content-type": "application/grpc+proto"})
    assert passed_on(grpc, 2.0, settings)[GRPC_TIMEOUT] == "1500000u"
    assert GRPC_TIMEOUT in passed_on(Call(headers={GRPC_TIMEOUT: "9S"}), 2.0, settings)
    assert passed_on(Call(), 0.4, settings) == {RAFTREG_DEADLINE: "0"}
    assert passed_on(grpc, math.inf, settings) == {}


@given(left_s=st.floats(0, 1e9))
def test_no_hop_gets_more_time_than_there_is(left_s: float) -> None:
    """What is passed on, read again, is never more, and less by the rounding alone."""
    grpc = Call(headers={"content-type": "application/grpc"})
    again_s = told_s(passed_on(grpc, left_s, TimeoutSettings()))
    assert again_s <= left_s * (1 + 1e-12)
    assert told_s({GRPC_TIMEOUT: grpc_timeout(left_s)}) >= left_s * (1 - 1e-4) - 1e-9
    assert again_s >= left_s * (1 - 1e-4) - 0.001


def test_bad_settings_are_refused_by_field() -> None:
    """What is out of bounds is refused naming the field."""
    with pytest.raises(MeshConfigError, match="per_try_s"):
        TimeoutSettings(per_try_s=-1.0)
