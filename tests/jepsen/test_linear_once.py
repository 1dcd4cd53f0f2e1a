from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen_like.checkers.once import check_once
from jepsen_like.checkers.verdict import Valid
from jepsen_like.history import Event, MalformedHistory, Type


class Record:
    """Writes a history of one key."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, process: int, kind: Type, f: str, value: Any) -> Record:
        """Adds an event."""
        index = len(self.events)
        self.events.append(Event(index, index, process, kind, f, "k1", value, node="n1"))
        return self

    def append(self, ident: Any, kind: Type = Type.OK) -> Record:
        """An append that ended one way or the other."""
        return self.add(0, Type.INVOKE, "append", ident).add(0, kind, "append", ident)

    def read(self, value: Any) -> Record:
        """A read that was answered."""
        return self.add(1, Type.INVOKE, "read", None).add(1, Type.OK, "read", value)

    def kinds(self) -> list[str]:
        """Kinds of the anomalies found."""
        return [anomaly.kind for anomaly in check_once(self.events).anomalies]

    def valid(self) -> Valid:
        """The verdict."""
        return check_once(self.events).valid


def test_each_append_once() -> None:
    """Every acknowledged append once, in any order, is what is asked for."""
    record = Record().append(1).append(2).read([2, 1])
    assert record.valid() is Valid.TRUE


def test_an_append_of_unknown_outcome_may_be_there_or_not() -> None:
    """A lost answer leaves both possible, also after it has been missing for a while."""
    record = Record().append(1).append(2, Type.INFO).read([1])
    assert record.valid() is Valid.TRUE
    assert record.read([1, 2]).valid() is Valid.TRUE


def test_twice_is_found_once() -> None:
    """An id that stands twice in every read is one anomaly that shows its append and a read."""
    record = Record().append(1).read([1, 1]).read([1, 1])
    (anomaly,) = check_once(record.events).anomalies
    assert anomaly.kind == "applied-twice"
    assert anomaly.events == (0, 1, 2, 3)
    assert "2 times" in anomaly.message


def test_what_is_missing_is_found() -> None:
    """An acknowledged append that a later read lacks is lost."""
    assert Record().append(1).append(2).read([2]).kinds() == ["lost"]


def test_a_failed_or_unknown_id_is_a_phantom() -> None:
    """What failed, or what nobody appended, must not be there."""
    assert Record().append(1).append(2, Type.FAIL).read([1, 2]).kinds() == ["phantom"]
    assert Record().append(1).read([1, 5]).kinds() == ["phantom"]


def test_an_id_before_its_time() -> None:
    """An id that is read before its append was invoked is an anomaly."""
    assert Record().append(1).read([1, 2]).append(2).read([1, 2]).kinds() == ["from-the-future"]


def test_lists_only_grow() -> None:
    """Reads that disagree about the order, and reads that lose an unknown append, are anomalies."""
    forked = Record().append(1).append(2).read([1, 2]).read([2, 1])
    assert forked.kinds() == ["forked"]
    shrunk = Record().append(1).append(2, Type.INFO).read([1, 2]).read([1])
    assert shrunk.kinds() == ["shrunk"]


def test_counted_effects() -> None:
    """A number lies between what was acknowledged before and what could have happened."""
    record = Record().append(1).append(2, Type.INFO)
    assert record.read(1).valid() is Valid.TRUE
    assert record.read(3).kinds() == ["applied-twice"]
    assert Record().append(1).append(2).read(1).kinds() == ["lost"]


def test_no_verdict_without_acknowledgement_or_read() -> None:
    """Nothing acknowledged, or nothing read after it, decides nothing."""
    assert Record().append(1, Type.INFO).read([]).valid() is Valid.UNKNOWN
    assert Record().read([]).append(1).valid() is Valid.UNKNOWN
    assert check_once([]).valid is Valid.UNKNOWN


@pytest.mark.parametrize(
    "record",
    [
        Record().add(0, Type.INVOKE, "append", [1]),
        Record().add(0, Type.INVOKE, "txn", 1),
        Record().append(1).append(1),
        Record().append(1).read([[2]]),
        Record().append(1).read("x"),
    ],
)
def test_a_broken_history_is_refused(record: Record) -> None:
    """What is no history of this workload is an error that says at which event."""
    with pytest.raises(MalformedHistory, match=r"event \d"):
        check_once(record.events)


@settings(max_examples=100)
@given(data=st.data())
def test_a_real_run_is_accepted_and_its_mutations_are_not(data: st.DataObject) -> None:
    """Appends with lost answers, read now and then, are fine; a doubled or dropped one is not."""
    record, state = Record(), list[int]()
    for ident in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from([Type.OK, Type.OK, Type.INFO, Type.FAIL]))
        if kind is Type.OK or (kind is Type.INFO and data.draw(st.booleans())):
            state.append(ident)
        record.append(ident, kind)
        if data.draw(st.booleans()):
            record.read(list(state))
    record.append(99)
    state.append(99)
    good = Record()
    good.events = list(record.events)
    assert good.read(state).valid() is Valid.TRUE
    at = data.draw(st.integers(0, len(state) - 1))
    mutated = [*state, state[at]] if data.draw(st.booleans()) else [s for s in state if s != 99]
    assert record.read(mutated).valid() is Valid.FALSE
