"""The memory of applied requests: once, bounded, and the same after a snapshot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.raft import dedup
from raftreg.raft.dedup import AppliedRequests, Forgotten

_CALLS = st.lists(
    st.tuples(st.sampled_from("pqr"), st.integers(1, 12), st.integers(0, 12)), max_size=60
)


def encode(result: int) -> bytes:
    """Results of these tests are small numbers."""
    return bytes([result])


@given(calls=_CALLS)
def test_a_request_takes_effect_once(calls: list[tuple[str, int, int]]) -> None:
    """Whatever is repeated in whatever order, nothing is new twice, and results stay the same."""
    applied, results = AppliedRequests(), dict[tuple[str, int], int]()
    for count, (proposer, sequence, low) in enumerate(calls):
        known, result = applied.seen(proposer, sequence)
        if (proposer, sequence) in results:
            assert known
            assert isinstance(result, Forgotten) or result == results[proposer, sequence]
        elif not known:
            results[proposer, sequence] = count
            applied.record(proposer, sequence, low, count)


@given(calls=_CALLS)
def test_results_are_forgotten_exactly_below_low(calls: list[tuple[str, int, int]]) -> None:
    """A result is kept while its proposer may ask for it, and is forgotten below its `low`."""
    applied, lows, results = AppliedRequests(), dict[str, int](), dict[tuple[str, int], int]()
    for count, (proposer, sequence, low) in enumerate(calls):
        if not applied.seen(proposer, sequence)[0]:
            applied.record(proposer, sequence, low, count)
            lows[proposer] = max(lows.get(proposer, 0), low)
            results[proposer, sequence] = count
    for (proposer, sequence), result in results.items():
        known, remembered = applied.seen(proposer, sequence)
        assert known
        if sequence >= lows[proposer]:
            assert remembered == result


@given(calls=_CALLS, more=_CALLS)
def test_a_snapshot_of_it_answers_as_it_does(
    calls: list[tuple[str, int, int]], more: list[tuple[str, int, int]]
) -> None:
    """Restored from its rows it decides all that follows in the same way."""
    applied = AppliedRequests()
    for count, (proposer, sequence, low) in enumerate(calls):
        applied.record(proposer, sequence, low, count)
    rows = applied.rows(encode)
    applied.record("later", 1, 0, 1)  # what comes after the call is not in the rows
    copy = AppliedRequests.from_rows(rows, lambda data: data[0])
    assert copy.seen("later", 1) == (False, None)
    copy.record("later", 1, 0, 1)
    for proposer, sequence, low in more:
        assert copy.seen(proposer, sequence) == applied.seen(proposer, sequence)
        for memory in (copy, applied):
            memory.record(proposer, sequence, low, 7)
    assert list(copy.rows(encode)) == list(applied.rows(encode))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limits the longest silent proposer and the lowest result are forgotten."""
    monkeypatch.setattr(dedup, "PROPOSERS_MAX", 3)
    monkeypatch.setattr(dedup, "RESULTS_MAX", 5)
    applied = AppliedRequests()
    for sequence in range(1, 11):
        applied.record("busy", sequence, 0, sequence)
    assert applied.seen("busy", 5) == (True, Forgotten())
    assert applied.seen("busy", 6) == (True, 6)
    for name in ("a", "b"):
        applied.record(name, 1, 0, 1)
    applied.record("busy", 11, 0, 11)
    applied.record("c", 1, 0, 1)
    assert len(applied) == 3
    assert applied.seen("a", 1) == (False, None)
    assert applied.seen("busy", 11) == (True, 11)
