"""Durations, query options and fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core.durations import format_duration, parse_duration
from raftreg.errors import InvalidRequest, RaftregError
from raftreg.http import json
from raftreg.http.decode import CheckKind, check_definition, service_definition
from raftreg.http.params import (
    Consistency,
    Query,
    read_options,
)
from raftreg.http.rows import catalog_deregistration, catalog_registration
from raftreg.model import Status


@pytest.mark.parametrize(
    ("text", "seconds", "formatted"),
    [
        ("10s", 10.0, "10s"),
        ("10.0s", 10.0, "10s"),
        ("1m30s", 90.0, "1m30s"),
        ("60s", 60.0, "1m0s"),
        ("1h", 3600.0, "1h0m0s"),
        ("1.5h", 5400.0, "1h30m0s"),
        ("250ms", 0.25, "250ms"),
        ("1500us", 0.0015, "1.5ms"),
        (".5s", 0.5, "500ms"),
        ("-1.5s", -1.5, "-1.5s"),
        ("0", 0.0, "0s"),
        (1_500_000_000, 1.5, "1.5s"),
    ],
)
def test_durations_are_read_and_written_as_go_does(
    text: str | int, seconds: float, formatted: str
) -> None:
    """Text and nanoseconds in, Go's form out."""
    assert parse_duration(text) == pytest.approx(seconds)
    assert format_duration(seconds) == formatted


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "5",
        "s",
        "1d",
        "1 s",
        "1s ",
        "--1s",
        "1e3s",
        "1s" * 100,
        "\u0663s",
        None,
        True,
        [],
        "9" * 40 + "h",
    ],
)
def test_bad_durations_are_refused(bad: object) -> None:
    """Nothing else passes for a duration."""
    with pytest.raises(InvalidRequest, match="duration"):
        parse_duration(bad)


@given(st.floats(min_value=0.001, max_value=1e9, allow_nan=False))
def test_a_written_duration_reads_back(seconds: float) -> None:
    """Writing and reading lose no nanosecond that a float can hold."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=2e-9, rel=1e-12)


def test_options_of_a_read() -> None:
    """Every option is taken, repeated ones in order."""
    options = read_options(
        Query(
            [
                ("index", "7"),
                ("wait", "1h"),
                ("stale", ""),
                ("tag", "a"),
                ("tag", "b"),
                ("passing", "1"),
                ("node-meta", "k:v:w"),
                ("dc", "dc1"),
                ("pretty", ""),
                ("max_age", "5s"),
                ("near", "_agent"),
            ]
        )
    )
    assert options.index == 7
    assert options.wait_s == 600.0  # never above ten minutes
    assert options.consistency is Consistency.STALE
    assert options.tags == ("a", "b")
    assert options.passing
    assert options.node_meta == (("k", "v:w"),)
    assert options.max_age_s == 5.0


@pytest.mark.parametrize("wait", ["", "0s"])
def test_no_wait_is_the_default(wait: str) -> None:
    """Five minutes, as Consul's documentation says."""
    assert read_options(Query([("index", "1"), ("wait", wait)])).wait_s == 300.0


@pytest.mark.parametrize(
    "pairs",
    [
        [("index", "1.5")],
        [("index", str(1 << 64))],
        [("index", "\u0661")],
        [("wait", "-1s")],
        [("wait", "soon")],
        [("stale", ""), ("consistent", "")],
        [("cached", ""), ("consistent", "")],
        [("max_age", "x")],
    ],
)
def test_bad_options_are_refused(pairs: list[tuple[str, str]]) -> None:
    """What can't be read is never taken for a default."""
    with pytest.raises(InvalidRequest):
        read_options(Query(pairs))


def test_a_service_with_checks() -> None:
    """Ids and names of checks follow the service when they give none of their own."""
    definition = service_definition(
        {
            "name": "web",
            "ID": "web1",
            "Tags": ["a"],
            "Checks": [{"TTL": "10s"}, {"http": "http://localhost/", "interval": "10s"}],
            "Check": {"CheckID": "mine", "Name": "n", "tcp": "a:1", "Interval": "100ms"},
        }
    )
    first, second, third = definition.checks
    assert (first.check_id, first.name) == ("service:web1:1", "Service 'web' check")
    assert (second.check_id, second.kind, second.service_id) == (
        "service:web1:2",
        CheckKind.HTTP,
        "web1",
    )
    assert (third.check_id, third.kind, third.interval_s) == ("mine", CheckKind.TCP, 1.0)
    (only,) = service_definition({"Name": "w", "Check": {"TTL": "1s", "Status": "passing"}}).checks
    assert (only.check_id, only.status) == ("service:w", Status.PASSING)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Missing service name"),
        ({"Name": "w", "Color": "red"}, 'json: unknown field "Color"'),
        ({"Name": "w", "Check": {"TTL": "1s", "Colour": 1}}, 'unknown field "Colour"'),
        ({"Name": 5}, "Name must be a string, got a number"),
        ({"Name": "w", "Port": "80"}, "Port must be a whole number, got a string"),
        ({"Name": "w", "Address": "0.0.0.0"}, "Invalid service address"),
        ({"Name": "w", "Weights": {"Passing": 0}}, "Invalid Weights"),
        ({"Name": "w", "Check": {"TTL": "0s"}}, "TTL must be > 0 for TTL checks"),
        ({"Name": "w", "Check": {"HTTP": "http://x"}}, "Interval must be > 0"),
        ({"Name": "w", "Check": {"TTL": "1s", "Interval": "1s"}}, "cannot both be specified"),
        ({"Name": "w", "Check": {"HTTP": "x", "TCP": "y", "Interval": "1s"}}, "several kinds"),
        ({"Name": "w", "Check": {"AliasService": "x", "Interval": "1s"}}, "Alias checks"),
        ({"Name": "w", "Check": {"TTL": "1s", "Status": "fine"}}, "Bad check status"),
        ({"Name": "w\n"}, "control character"),
        ({"Name": "w", "Meta": {"k": "v" * 513}}, "longer than"),
        ({"Name": "w", "Checks": [{"CheckID": "c", "TTL": "1s"}] * 2}, "the same CheckID twice"),
    ],
)
def test_bad_services_are_refused(body: object, text: str) -> None:
    """The text says what is wrong, in the words that clients know."""
    with pytest.raises(InvalidRequest) as caught:
        service_definition(body)
    assert text in caught.value.message


def test_a_check_by_itself() -> None:
    """A check needs a name, and has it for an id."""
    check = check_definition({"name": "mem", "args": ["/bin/mem"], "interval": 10_000_000_000})
    assert (check.check_id, check.kind, check.interval_s) == ("mem", CheckKind.SCRIPT, 10.0)
    with pytest.raises(InvalidRequest, match="Missing check name"):
        check_definition({"TTL": "1s"})
    after = check_definition({"name": "c", "ttl": "1s", "deregister_critical_service_after": "1s"})
    assert after.deregister_after_s == 60.0


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
_NAMES = """
Node Address Service Check Checks Name ID Tags Meta Port TTL Weights TaggedAddresses Interval HTTP
Header Status Datacenter
"""
_names = st.sampled_from(_NAMES.split())
_bodies = (
    st.dictionaries(_names, _json_values | st.dictionaries(_names, _json_values)) | _json_values
)


@given(_bodies)
def test_any_body_is_read_or_refused(body: object) -> None:
    """Decoders give a value or say what is wrong; nothing else ever escapes."""
    for decode in (
        service_definition,
        check_definition,
        catalog_deregistration,
        lambda value: catalog_registration(value, datacenter="dc1"),
    ):
        try:
            decode(body)
        except RaftregError as error:
            assert error.message  # noqa: PT017 - what is asserted is every refusal's text


@given(st.binary(max_size=64))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    """The JSON reader never raises anything else."""
    try:
        json.loads(data)
    except InvalidRequest as error:
        assert "Request decode failed" in error.message  # noqa: PT017 - as above


def test_deep_nesting_is_refused() -> None:
    """A body can't exhaust a recursive reader."""
    with pytest.raises(InvalidRequest, match="Request decode failed"):
        json.loads(b"[" * 100 + b"]" * 100)
