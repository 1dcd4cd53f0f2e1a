"""Traffic: nothing is lost from the totals, tables are bounded, and reports count once."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.errors import InvalidRequest
from raftreg.mesh.nouns import Failure, MeshConfigError, Outcome
from raftreg.mesh.traffic import (
    KEYS_MAX,
    NAME_CHARS_MAX,
    OTHERS,
    CodeClass,
    Key,
    Report,
    Sums,
    Traffic,
    code_class,
    decode,
)
from raftreg.mesh.traffic_view import TrafficSettings, TrafficView

OK = Outcome(status=200, duration_s=0.01)
BAD = Outcome(status=503, duration_s=0.5)
calls = st.lists(
    st.tuples(
        st.sampled_from(["web", "job", "", "*"]),
        st.integers(0, 12).map("r{}".format),
        st.sampled_from([OK, BAD, Outcome(failure=Failure.RESET), Outcome(status=404)]),
        st.integers(0, 2),
    ),
    max_size=120,
)
Calls = list[tuple[str, str, Outcome, int]]


def of(made: Calls, keys_max: int = 200) -> Traffic:
    """The traffic of these calls to `api`."""
    found = Traffic(keys_max)
    for source, route, outcome, retries in made:
        found.count(source, "api", route, outcome, retries)
    return found


def totals(rows: Iterable[tuple[Key, Sums]]) -> dict[CodeClass, tuple[int, int, int, int]]:
    """Count, errors, repeats and nanoseconds by class."""
    found: dict[CodeClass, tuple[int, int, int, int]] = {}
    for key, sums in rows:
        old = found.get(key.code, (0, 0, 0, 0))
        new = (sums.count, sums.errors, sums.retries, sums.latency.sum_ns)
        found[key.code] = (old[0] + new[0], old[1] + new[1], old[2] + new[2], old[3] + new[3])
    return found


@given(calls, st.integers(1, 10))
def test_no_call_is_lost_and_the_table_is_bounded(made: Calls, keys_max: int) -> None:
    """However few keys are kept, totals by class are those of all calls."""
    few, many = of(made, keys_max), of(made)
    assert len(few) <= 2 * keys_max + len(CodeClass)
    assert totals(few) == totals(many)
    report = few.report(1, 10.0)
    assert len(report.rows) <= keys_max + len(CodeClass)
    assert totals(report.sums()) == totals(many)


@given(calls, calls, st.integers(1, 200))
def test_merging_counts_both(one: Calls, two: Calls, keys_max: int) -> None:
    """Merged tables count what both counted, in either order."""
    left, right = of(one, keys_max), of(two, keys_max)
    left.merge(of(two, keys_max))
    right.merge(of(one, keys_max))
    assert totals(left) == totals(right) == totals(of(one + two))


def test_the_largest_keep_their_place_against_many_small_ones() -> None:
    """A stranger who makes up names can't push out the rows that matter, not even late ones."""
    found = Traffic(keys_max=10)
    for at in range(2000):
        found.count(f"made-up-{at}", "api", "", OK)
        if at >= 1000:
            found.count("late-but-large", "api", "", OK)
    key, sums = found.largest(2)[1]
    assert key.source == "late-but-large"
    assert sums.count == 1000
    others, _ = found.largest(1)[0]
    assert others == Key(OTHERS, OTHERS, OTHERS, CodeClass.SUCCESSFUL)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (OK, "2xx"),
        (BAD, "5xx"),
        (Outcome(status=101), "1xx"),
        (Outcome(status=304), "3xx"),
        (Outcome(status=404), "4xx"),
        (Outcome(status=600), "failed"),
        (Outcome(status=-1), "failed"),
        (Outcome(failure=Failure.CONNECT), "failed"),
        (Outcome(), "tcp"),
    ],
)
def test_classes(outcome: Outcome, expected: str) -> None:
    """Each outcome has a class."""
    assert code_class(outcome).value == expected


def test_long_names_are_cut() -> None:
    """A name of any length takes bounded room."""
    found = Traffic()
    found.count("s" * 10_000, "d" * 10_000, "r" * 10_000, OK)
    (key, _), *_ = found
    assert len(key.source) == len(key.destination) == len(key.route) == NAME_CHARS_MAX


@given(calls, st.integers(0, 10**6), st.floats(0.1, 3600))
def test_a_report_survives_the_wire(made: Calls, sequence: int, window_s: float) -> None:
    """What was encoded is decoded to the same, its sums too."""
    report = of(made).report(sequence, window_s)
    found = decode(report.encode())
    assert found == report
    assert totals(found.sums()) == totals(of(made))


@given(st.binary(max_size=64))
def test_garbage_is_refused(data: bytes) -> None:
    """Any bytes are a report or a clear refusal."""
    try:
        found = decode(data)
    except InvalidRequest:
        return
    list(found.sums())


HISTOGRAM = [1, 10, 10, [3, 1]]
ROW = [["web", "api", "", "2xx"], 1, 0, 0, HISTOGRAM]


@pytest.mark.parametrize(
    "parts",
    [
        [2, 1, 10.0, []],
        [1, -1, 10.0, []],
        [1, 1, 0.0, []],
        [1, 1, math.nan, []],
        [1, 1, 1e9, []],
        [1, 1, 10.0, [ROW, ROW]],
        [1, 1, 10.0, [[["web", "api", "", "7xx"], 1, 0, 0, HISTOGRAM]]],
        [1, 1, 10.0, [[["w" * 257, "api", "", "2xx"], 1, 0, 0, HISTOGRAM]]],
        [1, 1, 10.0, [[["web", "api", "", "2xx"], 1, 2, 0, HISTOGRAM]]],
        [1, 1, 10.0, [[["web", "api", "", "2xx"], 2, 0, 0, HISTOGRAM]]],
        [1, 1, 10.0, [[["web", "api", "", "2xx"], 1, 0, -1, HISTOGRAM]]],
        [1, 1, 10.0, [[["web", "api", "", "2xx"], 1, 0, 0, [1, 10, 10, [999, 1]]]]],
        [1, 1, 10.0, [[[f"w{at}", "", "", "2xx"], *ROW[1:]] for at in range(KEYS_MAX + 8)]],
    ],
)
def test_bad_reports_are_refused(parts: object) -> None:
    """A report that contradicts itself or the bounds is refused before it counts."""
    with pytest.raises(InvalidRequest, match=r"traffic|histogram"):
        decode(msgspec.msgpack.encode(parts))


def reported(sequence: int, made: Calls) -> Report:
    """A report of ten seconds with these calls, as it comes over the wire."""
    return decode(of(made).report(sequence, 10.0).encode())


def test_the_last_windows_are_shown() -> None:
    """Rates, errors and quantiles are those of the slots that are kept, and of all sidecars."""
    view = TrafficView(TrafficSettings(slot_s=10.0, slots=3))
    for at in range(5):
        view.add("one", reported(at, [("web", "r", OK, 0)] * 90), 5.0 + 10 * at)
        view.add("two", reported(at, [("web", "r", BAD, 1)] * 10), 5.0 + 10 * at)
    ok, bad = view.recent(50.0 - 1e-9)
    assert (ok.source, ok.destination, ok.route, ok.code) == ("web", "api", "r", "2xx")
    assert (ok.count, ok.error_share, bad.count, bad.error_share) == (270, 0.0, 30, 1.0)
    assert ok.per_second == pytest.approx(9.0)
    assert ok.p99_s == pytest.approx(0.01, rel=0.05)
    (edge,) = view.edges(50.0 - 1e-9)
    assert (edge.count, edge.retries) == (300, 30)
    assert edge.error_share == pytest.approx(0.1)
    assert edge.p99_s == pytest.approx(0.5, rel=0.05)
    assert view.recent(1000.0) == []


def test_a_report_that_is_sent_twice_counts_once() -> None:
    """A repeat, or one that was overtaken, adds nothing."""
    view = TrafficView(TrafficSettings())
    report = reported(7, [("web", "r", OK, 0)])
    assert view.add("one", report, 1.0)
    assert not view.add("one", report, 2.0)
    assert not view.add("one", reported(6, [("web", "r", OK, 0)]), 2.0)
    assert view.add("two", report, 2.0)
    assert [row.count for row in view.recent(3.0)] == [2]


def test_time_that_steps_back_does_no_harm() -> None:
    """An earlier time counts as the present."""
    view = TrafficView(TrafficSettings())
    view.add("one", reported(1, [("web", "r", OK, 0)]), 100.0)
    view.add("one", reported(2, [("web", "r", OK, 0)]), 50.0)
    assert [row.count for row in view.recent(100.0)] == [2]


@pytest.mark.parametrize(
    ("field", "value"), [("slot_s", 0.0), ("slots", 0), ("keys_max", KEYS_MAX + 1)]
)
def test_bad_settings_are_refused(field: str, value: float) -> None:
    """A field out of its bounds is named."""
    with pytest.raises(MeshConfigError, match=field):
        TrafficSettings(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(MeshConfigError, match="keys_max"):
        Traffic(0)
