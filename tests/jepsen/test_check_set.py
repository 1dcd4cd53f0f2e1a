"""The checker of sets and that of unique ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.checkers.sets import check_set
from jepsen_like.checkers.unique import check_unique
from jepsen_like.checkers.verdict import Valid, Verdict
from jepsen_like.history import Event, MalformedHistory, Type
from tests.jepsen.script import Atom, Script, changed, overlapped, spreads


def kinds(verdict: Verdict) -> set[str]:
    """The kinds of what was found."""
    return {anomaly.kind for anomaly in verdict.anomalies}


def test_a_set_without_faults_is_valid() -> None:
    """All that was added is in the last read."""
    script = Script()
    script.ok("add", 1)
    script.ok("add", 2)
    script.ok("read", result=[2, 1])
    verdict = check_set(script.events)
    assert verdict.valid is Valid.TRUE
    assert verdict.figures["acknowledged"] == 2


def test_an_acknowledged_add_that_vanished_is_lost() -> None:
    """The add and the read that misses it are shown, and nothing else."""
    script = Script()
    script.ok("add", 1)
    lost = script.ok("add", 2)
    read = script.ok("read", result=[1])
    verdict = check_set(script.events)
    assert kinds(verdict) == {"lost-element"}
    assert verdict.anomalies[0].events == (lost, read - 1, read)


def test_a_read_that_misses_what_came_back_later_is_stale() -> None:
    """An element that is missing once is a stale read, not a loss."""
    script = Script()
    script.ok("add", 1)
    script.ok("read", result=[])
    script.ok("read", result=[1])
    assert kinds(check_set(script.events)) == {"stale-read"}


def test_what_a_read_showed_stays() -> None:
    """An add of unknown outcome that a read has shown may not vanish again."""
    script = Script()
    script.ok("add", 1)
    script.begin("add", 2).info()
    script.ok("read", result=[1, 2])
    script.ok("read", result=[1])
    assert kinds(check_set(script.events)) == {"lost-element"}


def test_an_unknown_add_may_be_missing_or_there() -> None:
    """Either is fine, and it is counted when it is there."""
    script = Script()
    script.ok("add", 1)
    script.begin("add", 2).info()
    script.ok("read", result=[1])
    script.ok("read", result=[1, 2])
    verdict = check_set(script.events)
    assert verdict.valid is Valid.TRUE
    assert verdict.figures["recovered"] == 1


def test_a_read_that_overlaps_an_add_may_miss_it() -> None:
    """Only what was acknowledged before the read began must be in it."""
    script = Script()
    script.ok("add", 1)
    reading = script.begin("read")
    script.ok("add", 2)
    reading.ok([1])
    script.ok("read", result=[1, 2])
    assert check_set(script.events).valid is Valid.TRUE


def test_what_nobody_added_is_a_phantom() -> None:
    """Neither what was never added, nor what is added later."""
    script = Script()
    script.ok("add", 1)
    script.ok("read", result=[1, 9, 5])
    script.ok("add", 5)
    script.ok("read", result=[1, 5])
    assert kinds(check_set(script.events)) == {"phantom"}


def test_an_add_that_failed_is_in_no_read() -> None:
    """FAIL says that it definitely had no effect."""
    script = Script()
    script.ok("add", 1)
    script.begin("add", 2).fail()
    script.ok("read", result=[1, 2])
    assert kinds(check_set(script.events)) == {"failed-add"}


def test_no_element_is_there_twice() -> None:
    """A set has each element once."""
    script = Script()
    script.ok("add", 1)
    script.ok("read", result=[1, 1])
    assert kinds(check_set(script.events)) == {"duplicate"}


@pytest.mark.parametrize("read_last", [False, True])
def test_nothing_is_known_without_a_read_after_the_last_add(read_last: bool) -> None:
    """The verdict is then UNKNOWN, as it is when nothing was acknowledged."""
    script = Script()
    if read_last:
        script.begin("add", 1).info()
        script.ok("read", result=[])
    else:
        script.ok("read", result=[])
        script.ok("add", 1)
    verdict = check_set(script.events)
    assert verdict.valid is Valid.UNKNOWN
    assert verdict.why_unknown


def test_an_element_added_twice_breaks_the_vocabulary() -> None:
    """The history can't be judged, and the error names the event."""
    script = Script()
    script.ok("add", 1)
    script.ok("add", 1)
    with pytest.raises(MalformedHistory, match="event 2: 1 is added again"):
        check_set(script.events)


@st.composite
def set_histories(draw: st.DrawFn) -> list[Event]:
    """A serial execution, each operation stretched, with outcomes of every kind."""
    atoms: list[Atom] = []
    held: list[int] = []
    for element in range(draw(st.integers(1, 12))):
        fate = draw(st.sampled_from(["ok", "fail", "lost", "kept", "read"]))
        before, after = draw(spreads()), draw(spreads())
        if fate == "read":
            atoms.append(Atom("read", None, list(held), before=before, after=after))
            continue
        types = {"ok": Type.OK, "fail": Type.FAIL, "lost": Type.INFO, "kept": Type.INFO}
        if fate in {"ok", "kept"}:
            held.append(element)
        atoms.append(Atom("add", element, element, before=before, after=after, type=types[fate]))
    held.append(99)
    atoms.append(Atom("add", 99, 99))
    events = overlapped(atoms)
    script = Script()
    script.events = events
    script._processes = len(atoms)
    script.ok("read", result=list(held))
    return events


@given(set_histories())
def test_what_a_serial_execution_gives_is_valid(events: list[Event]) -> None:
    """However its operations overlap."""
    assert check_set(events).valid is Valid.TRUE


@given(set_histories(), st.data())
def test_a_serial_execution_with_a_loss_is_not(events: list[Event], data: st.DataObject) -> None:
    """Any acknowledged element that is taken out of the last read is missed."""
    sure = [e.value for e in events if e.f == "add" and e.type is Type.OK]
    lost = data.draw(st.sampled_from(sure))
    broken = changed(events, len(events) - 1, lambda value: [e for e in value if e != lost])
    verdict = check_set(broken)
    assert verdict.valid is Valid.FALSE
    assert str(lost) in " ".join(anomaly.message for anomaly in verdict.anomalies)


def test_many_losses_are_counted_and_the_first_hundred_shown() -> None:
    """A verdict stays small."""
    script = Script()
    for element in range(300):
        script.ok("add", element)
    script.ok("read", result=[])
    verdict = check_set(script.events)
    assert len(verdict.anomalies) == 100
    assert verdict.figures["lost-element"] == 300


def test_ids_that_differ_are_valid() -> None:
    """Numbers and texts alike; unknown outcomes don't matter."""
    script = Script()
    script.ok("generate", result=7)
    script.ok("generate", result="a")
    script.begin("generate").info()
    assert check_unique(script.events).valid is Valid.TRUE


def test_an_id_given_twice_is_shown() -> None:
    """Both answers are named."""
    script = Script()
    first = script.ok("generate", result=7)
    script.ok("generate", result=8)
    second = script.ok("generate", result=7)
    verdict = check_unique(script.events)
    assert kinds(verdict) == {"id-twice"}
    assert verdict.anomalies[0].events == (first, second)


def test_without_an_id_nothing_is_known() -> None:
    """UNKNOWN, because no id was given."""
    script = Script()
    script.begin("generate").fail()
    assert check_unique(script.events).valid is Valid.UNKNOWN


def test_an_id_is_a_number_or_a_text() -> None:
    """Anything else breaks the vocabulary."""
    script = Script()
    script.ok("generate", result=[1])
    with pytest.raises(MalformedHistory, match="an id is an int or a text"):
        check_unique(script.events)
