from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen_like.checkers.register import MISMATCH, check_register
from jepsen_like.checkers.verdict import Valid, Verdict
from jepsen_like.history import Event, MalformedHistory, Type


class Record:
    """Writes a history, one operation after the other or overlapping."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, process: int, kind: Type, f: str, value: Any, **more: Any) -> Record:
        """Adds an event."""
        index = len(self.events)
        more.setdefault("key", "k1")
        self.events.append(Event(index, index * 1000, process, kind, f, value=value, **more))
        return self

    def done(
        self, f: str, given: Any, result: Any = None, *, process: int = 0, **more: Any
    ) -> Record:
        """An operation that began and was acknowledged before anything else happened."""
        invoked = {name: value for name, value in more.items() if name == "key"}
        self.add(process, Type.INVOKE, f, given, **invoked)
        return self.add(
            process, Type.OK, f, given if result is None and f != "read" else result, **more
        )

    def verdict(self) -> Verdict:
        """What the checker says."""
        return check_register(self.events)


def test_reads_see_the_last_write() -> None:
    """Reads at both linearizable levels that see the last acknowledged write are fine."""
    record = Record().done("write", 1).done("read", "default", 1).done("cas", [1, 2])
    verdict = record.done("read", "consistent", 2).verdict()
    assert verdict.valid is Valid.TRUE
    assert verdict.figures["acknowledged"] == 4


def test_a_stale_answer_to_a_default_read_is_told_in_a_sentence() -> None:
    """A read of an overwritten value is a violation that says what was overwritten by what."""
    record = Record().done("write", 7, node="n1").done("write", 9, node="n3")
    verdict = record.done("read", "default", 7, node="n2").verdict()
    assert verdict.valid is Valid.FALSE
    (anomaly,) = verdict.anomalies
    assert anomaly.kind == "not-linearizable"
    assert anomaly.events == (0, 1, 2, 3, 4, 5)
    assert anomaly.message == (
        "read k1 -> 7 at n2 (process 0) began after write k1 = 9 at n3 (process 0) was"
        " acknowledged; 7 had been overwritten"
    )


def test_a_lost_write_is_told_in_a_sentence() -> None:
    """Absence after an acknowledged write is a violation of these two operations."""
    verdict = Record().done("write", 7).done("read", "default", None).verdict()
    (anomaly,) = verdict.anomalies
    assert anomaly.events == (0, 1, 2, 3)
    assert "absence had been overwritten" in anomaly.message


def test_a_value_from_nowhere_is_told_in_a_sentence() -> None:
    """A value that nobody wrote, or only later, is a violation of the read alone."""
    verdict = Record().done("write", 1).done("read", "default", 5).verdict()
    (anomaly,) = verdict.anomalies
    assert anomaly.events == (2, 3)
    assert anomaly.message == "read k1 -> 5 (process 0): nothing ever led to 5"
    later = Record().done("read", "default", 5).done("write", 5).verdict()
    assert "written only afterwards" in later.anomalies[0].message


def test_other_violations_name_the_operations() -> None:
    """Where no single cause can be named, the sentence lists what can't be ordered."""
    record = Record().add(0, Type.INVOKE, "write", 1).add(1, Type.INVOKE, "write", 2)
    record.add(0, Type.OK, "write", 1).add(1, Type.OK, "write", 2)
    record.done("read", "default", 1).done("read", "default", 2)
    (anomaly,) = record.verdict().anomalies
    assert "no order of these" in anomaly.message


def test_a_failed_write_is_never_seen() -> None:
    """What definitely failed did not happen: to read it is a violation."""
    record = Record().add(0, Type.INVOKE, "write", 1).add(0, Type.FAIL, "write", 1)
    assert record.done("read", "default", 1).verdict().valid is Valid.FALSE


@pytest.mark.parametrize("ended", [True, False])
def test_an_unknown_write_may_be_seen_or_not(ended: bool) -> None:
    """A write of unknown outcome may take effect at any time after its invocation, or never."""
    for seen in ([None, None], [None, 1], [1, 1]):
        record = Record().add(9, Type.INVOKE, "write", 1)
        if ended:
            record.add(9, Type.INFO, "write", 1, error="no answer")
        for value in seen:
            record.done("read", "default", value)
        assert record.verdict().valid is Valid.TRUE
        record.done("read", "default", 1).done("read", "default", None)
        assert record.verdict().valid is Valid.FALSE


def test_a_cas_that_failed_says_only_what_it_saw() -> None:
    """A mismatch where the value was the expected one all the time is a violation; others fail."""
    for error, valid in ((MISMATCH, Valid.FALSE), ("not sent: refused", Valid.TRUE)):
        record = Record().done("write", 1).add(0, Type.INVOKE, "cas", [1, 2])
        record.add(0, Type.FAIL, "cas", [1, 2], error=error).done("read", "default", 1)
        assert record.verdict().valid is valid


def test_keys_are_independent() -> None:
    """The violation of one key is found among others and named."""
    record = Record().done("write", 1, key="k1").done("write", 2, key="k2")
    record.done("read", "default", 1, key="k1").done("read", "default", None, key="k2")
    (anomaly,) = record.verdict().anomalies
    assert "k2" in anomaly.message
    assert anomaly.events == (2, 3, 6, 7)


def test_stale_reads_may_be_behind() -> None:
    """A stale read of an old value is fine, as is another process or node that is further back."""
    record = Record().done("write", 1).done("write", 2)
    record.done("read", "stale", 2, node="n1").done("read", "stale", 1, node="n2")
    record.done("read", "stale", 1, node="n1", process=1)
    assert record.verdict().valid is Valid.TRUE


def test_stale_reads_show_only_what_was_written() -> None:
    """A stale read of a value that nobody wrote yet, or that failed, is an anomaly."""
    verdict = Record().done("read", "stale", 1).done("write", 1).verdict()
    assert [a.kind for a in verdict.anomalies] == ["stale-read-of-nothing"]
    record = Record().add(0, Type.INVOKE, "write", 1).add(0, Type.FAIL, "write", 1)
    assert record.done("read", "stale", 1).verdict().valid is Valid.FALSE


def test_stale_reads_never_go_back() -> None:
    """At one node, a process never reads an older value or index than before."""
    record = Record().done("write", 1).done("write", 2)
    record.done("read", "stale", 2, node="n1").done("read", "stale", 1, node="n1")
    (anomaly,) = record.verdict().anomalies
    assert anomaly.kind == "stale-read-went-back"
    assert anomaly.events == (4, 5, 6, 7)
    absent = Record().done("write", 1).done("read", "stale", 1).done("read", "stale", None)
    assert absent.verdict().valid is Valid.FALSE
    index = Record().done("read", "stale", None, raft_index=9)
    assert index.done("read", "stale", None, raft_index=8).verdict().valid is Valid.FALSE


def test_stale_reads_are_held_against_the_newest_before() -> None:
    """A step back over a read whose order is uncertain is found as well."""
    record = Record().done("write", 1).add(1, Type.INVOKE, "write", 2).done("write", 3)
    for value in (3, 2, 1):
        record.done("read", "stale", value, node="n1")
    record.add(1, Type.OK, "write", 2)
    (anomaly,) = record.verdict().anomalies
    assert "from 3 to 1" in anomaly.message


def test_nothing_acknowledged_is_no_success() -> None:
    """A history without an acknowledged operation decides nothing."""
    record = Record().add(0, Type.INVOKE, "write", 1).add(0, Type.FAIL, "write", 1)
    assert record.verdict().valid is Valid.UNKNOWN
    assert check_register([]).valid is Valid.UNKNOWN


def test_a_budget_that_runs_out_is_no_success() -> None:
    """What could not be decided is unknown, and says which key."""
    record = Record()
    for process in range(30):
        record.add(process, Type.INVOKE, "cas", [process % 3, (process + 1) % 3])
    for process in range(30):
        record.add(process, Type.OK, "cas", None)
    record.done("write", 0).done("write", 1)
    verdict = check_register(record.events, steps_max=0)
    assert verdict.valid is Valid.UNKNOWN
    assert "k1" in verdict.why_unknown


@pytest.mark.parametrize(
    "record",
    [
        Record().add(0, Type.OK, "read", 1),
        Record().add(0, Type.INVOKE, "read", None).add(0, Type.INVOKE, "read", None),
        Record().add(0, Type.INVOKE, "cas", 4),
        Record().add(0, Type.INVOKE, "cas", [1, [2]]),
        Record().add(0, Type.INVOKE, "txn", []),
        Record().add(0, Type.INVOKE, "write", {"a": 1}),
    ],
)
def test_a_broken_history_is_refused(record: Record) -> None:
    """What is no history of registers is an error that says at which event."""
    with pytest.raises(MalformedHistory, match=r"event [01]"):
        record.verdict()


@settings(max_examples=60)
@given(data=st.data())
def test_a_run_with_indexes_is_accepted_and_its_mutation_refused(data: st.DataObject) -> None:
    """What a register did is linearizable by its indexes; with one read of the past it is not."""
    record, value, index = Record(), 0, 0
    for _ in range(data.draw(st.integers(2, 15))):
        if data.draw(st.booleans()) or value == 0:
            value, index = value + 1, index + 1
            record.done("write", value, raft_index=index)
        else:
            record.done("read", "default", value, raft_index=index)
    verdict = record.verdict()
    assert verdict.valid is Valid.TRUE
    assert verdict.figures["keys_searched"] == 0
    past = data.draw(st.integers(0, value - 1))
    record.done("read", "default", past or None, raft_index=data.draw(st.integers(0, index)))
    assert record.verdict().valid is Valid.FALSE


def test_mismatches_need_no_search() -> None:
    """Failed compare-and-sets come without an index; a hidden unknown write may explain them."""
    record = Record().done("write", 1, raft_index=1).add(9, Type.INVOKE, "write", 5)
    for process in (2, 3):
        record.add(process, Type.INVOKE, "cas", [1, 7])
    for process in (2, 3):
        record.add(process, Type.FAIL, "cas", [1, 7], error=MISMATCH)
    record.done("write", 2, raft_index=3)
    record.done("read", "default", 2, raft_index=3)
    verdict = record.verdict()
    assert verdict.valid is Valid.TRUE
    assert verdict.figures["keys_searched"] == 0


def test_a_violation_late_in_a_long_history_is_decided() -> None:
    """Thousands of operations before it, unknown writes and mismatches do not hide a stale read."""
    record = Record()
    for n in range(1, 1000):
        record.done("write", n).add(1, Type.INVOKE, "cas", [n - 1, 0])
        record.add(1, Type.FAIL, "cas", [n - 1, 0], error=MISMATCH)
        if n % 20 == 0:
            record.add(10 + n, Type.INVOKE, "write", -n)
    record.done("read", "default", 990)
    verdict = record.verdict()
    assert verdict.valid is Valid.FALSE
    assert len(verdict.anomalies[0].events) == 6
