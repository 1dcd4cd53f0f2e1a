"""The checker of list-append histories: each anomaly by hand, and serial executions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.checkers.append import check_append
from jepsen_like.checkers.verdict import Valid, Verdict
from jepsen_like.history import Event, MalformedHistory, Type
from tests.jepsen.script import Atom, Script, overlapped, spreads

Steps = list[list[Any]]


def kinds(verdict: Verdict) -> set[str]:
    """The kinds of what was found."""
    return {anomaly.kind for anomaly in verdict.anomalies}


def steps(text: str) -> Steps:
    """Steps by a short notation: "x+1 y?1,2 z?" appends 1 to x, reads y as [1, 2] and z as []."""
    found: Steps = []
    for part in text.split():
        if "+" in part:
            key, _, element = part.partition("+")
            found.append(["append", key, int(element)])
        else:
            key, _, shown = part.partition("?")
            found.append(["r", key, [int(element) for element in shown.split(",") if element]])
    return found


def asked(filled: Steps) -> Steps:
    """The same with the reads still open."""
    return [[verb, key, None if verb == "r" else value] for verb, key, value in filled]


def one_by_one(*texts: str) -> Script:
    """Transactions one after the other."""
    script = Script()
    for text in texts:
        script.ok("txn", asked(steps(text)), steps(text))
    return script


def at_once(*texts: str) -> Script:
    """Transactions that all overlap each other."""
    script = Script()
    opened = [(script.begin("txn", asked(steps(text))), steps(text)) for text in texts]
    for txn, filled in opened:
        txn.ok(filled)
    return script


def test_serial_transactions_are_valid() -> None:
    """Reads show what stands before them, their own appends too."""
    script = one_by_one("x+1 x?1", "y+1 x?1", "x+2 y?1 x?1,2", "x?1,2 y?1")
    verdict = check_append(script.events)
    assert verdict.valid is Valid.TRUE
    assert verdict.figures["keys"] == 2


def test_g0_two_writers_in_turns() -> None:
    """Each appended before the other did: a cycle of writes alone."""
    script = at_once("x+1 y+1", "x+2 y+2")
    script.ok("txn", asked(steps("x? y?")), steps("x?1,2 y?2,1"))
    verdict = check_append(script.events)
    assert kinds(verdict) == {"G0"}
    assert "appended before" in verdict.anomalies[0].message
    assert "(x: 1, then 2)" in verdict.anomalies[0].message


def test_g1a_a_read_of_what_failed() -> None:
    """An element of a transaction that definitely failed is in no list."""
    script = Script()
    script.begin("txn", steps("x+1")).fail()
    script.ok("txn", asked(steps("x?")), steps("x?1"))
    assert kinds(check_append(script.events)) == {"G1a"}


def test_g1b_a_read_from_the_middle() -> None:
    """A list that ends with an element that its transaction followed up."""
    script = at_once("x+1 x+2", "x?1")
    script.ok("txn", asked(steps("x?")), steps("x?1,2"))
    assert "G1b" in kinds(check_append(script.events))


def test_g1c_two_that_read_each_other() -> None:
    """Each read what the other wrote."""
    script = at_once("x+1 y?1", "y+1 x?1")
    script.ok("txn", asked(steps("x? y?")), steps("x?1 y?1"))
    verdict = check_append(script.events)
    assert kinds(verdict) == {"G1c"}
    assert "was read by" in verdict.anomalies[0].message


def test_g_single_read_skew() -> None:
    """One read misses a write, another of the same transaction shows its other half."""
    script = at_once("x+1 y+1", "x? y?1")
    script.ok("txn", asked(steps("x? y?")), steps("x?1 y?1"))
    verdict = check_append(script.events)
    assert kinds(verdict) == {"G-single"}
    assert "did not see" in verdict.anomalies[0].message


def test_g2_write_skew() -> None:
    """Two transactions miss each other's writes."""
    script = at_once("x? y+1", "y? x+1")
    script.ok("txn", asked(steps("x? y?")), steps("x?1 y?1"))
    assert kinds(check_append(script.events)) == {"G2-item"}


def test_write_skew_shows_when_nobody_reads_after() -> None:
    """Appends that no read showed come after the reads that don't show them."""
    script = at_once("x? y+1", "y? x+1")
    assert kinds(check_append(script.events)) == {"G2-item"}


def test_a_stale_read_breaks_real_time() -> None:
    """What is serializable but not strictly so is named so."""
    script = one_by_one("x+1", "x?", "x?1")
    verdict = check_append(script.events)
    assert kinds(verdict) == {"G-single-realtime"}
    assert "ended before" in verdict.anomalies[0].message


def test_writes_against_real_time() -> None:
    """Two appends in the wrong order, though one was over before the other began."""
    script = one_by_one("x+1", "x+2", "x?2,1")
    assert kinds(check_append(script.events)) == {"G0-realtime"}


def test_an_acknowledged_append_that_vanished_is_lost() -> None:
    """A read that began after it misses it, and so do all others."""
    script = one_by_one("x+1", "x+2", "x?1")
    verdict = check_append(script.events)
    assert "lost-append" in kinds(verdict)
    assert verdict.anomalies[0].events == (3, 4, 5)


def test_lists_that_no_order_explains() -> None:
    """Two reads of which neither is a prefix of the other."""
    script = at_once("x+1", "x+2", "x?1", "x?2")
    script.ok("txn", asked(steps("x?")), steps("x?1,2"))
    assert "incompatible-order" in kinds(check_append(script.events))


def test_an_element_that_is_there_twice() -> None:
    """A retry that took effect twice shows so."""
    script = one_by_one("x+1", "x?1,1")
    assert "duplicate-element" in kinds(check_append(script.events))


def test_an_element_that_nobody_appended() -> None:
    """It came from nowhere."""
    script = one_by_one("x+1", "x?1,7")
    assert "phantom" in kinds(check_append(script.events))


@pytest.mark.parametrize("text", ["x+2 x?1", "x?1 x?1,2", "x?1 x+3 x?1,2,3", "x+3 x?"])
def test_a_transaction_is_not_interrupted(text: str) -> None:
    """Between its steps nobody else's appends appear, and its own do."""
    script = at_once("x+1", text if "+2" in text else "x+2", *([] if "+2" in text else [text]))
    assert "internal" in kinds(check_append(script.events))


def test_an_unknown_transaction_counts_when_it_was_seen() -> None:
    """And is left out when it was not."""
    script = Script()
    script.ok("txn", steps("x+1"))
    script.begin("txn", steps("x+2")).info()
    script.begin("txn", steps("x+3")).info()
    script.ok("txn", asked(steps("x?")), steps("x?1,2"))
    assert check_append(script.events).valid is Valid.TRUE


def test_an_unknown_transaction_may_take_effect_late() -> None:
    """A read after its end may miss it, and a later one show it."""
    script = Script()
    script.ok("txn", steps("x+1"))
    script.begin("txn", steps("x+2")).info()
    script.ok("txn", asked(steps("x?")), steps("x?1"))
    script.ok("txn", asked(steps("x?")), steps("x?1,2"))
    assert check_append(script.events).valid is Valid.TRUE


def test_half_a_transaction_is_not_atomic() -> None:
    """A read that shows one of two appends of an acknowledged transaction for good."""
    script = one_by_one("x+1 y+1", "x?1 y?")
    assert check_append(script.events).valid is Valid.FALSE


def test_nothing_is_known_without_reads_at_the_end() -> None:
    """Of a key whose last append nobody could have seen."""
    assert check_append(one_by_one("x?", "x+1").events).valid is Valid.UNKNOWN
    script = Script()
    script.begin("txn", steps("x+1")).info()
    assert check_append(script.events).valid is Valid.UNKNOWN


def test_an_element_appended_twice_breaks_the_vocabulary() -> None:
    """The error names the event."""
    with pytest.raises(MalformedHistory, match="1 is appended to x again"):
        check_append(one_by_one("x+1", "x+1").events)


def test_a_read_that_is_not_filled_in_breaks_the_vocabulary() -> None:
    """An acknowledged read has a list."""
    script = Script()
    script.ok("txn", [["r", "x", None]], [["r", "x", None]])
    with pytest.raises(MalformedHistory, match="the read of x is not filled in"):
        check_append(script.events)


@st.composite
def append_histories(draw: st.DrawFn) -> list[Event]:
    """A serial execution of transactions, each stretched, with outcomes of every kind."""
    lists: dict[str, list[int]] = {"x": [], "y": [], "z": []}
    atoms: list[Atom] = []
    number = 0
    for _ in range(draw(st.integers(1, 12))):
        fate = draw(st.sampled_from(["ok", "ok", "ok", "fail", "lost", "kept"]))
        now = {key: list(shown) for key, shown in lists.items()}
        filled: Steps = []
        for key in draw(st.lists(st.sampled_from("xyz"), min_size=1, max_size=4)):
            if draw(st.booleans()):
                number += 1
                now[key].append(number)
                filled.append(["append", key, number])
            else:
                filled.append(["r", key, list(now[key])])
        if fate in {"ok", "kept"}:
            lists = now
        type_ = {"fail": Type.FAIL, "ok": Type.OK}.get(fate, Type.INFO)
        atoms.append(
            Atom(
                "txn",
                asked(filled),
                filled,
                before=draw(spreads()),
                after=draw(spreads()),
                type=type_,
            )
        )
    lists["x"].append(999)
    atoms.append(Atom("txn", steps("x+999"), steps("x+999")))
    script = Script()
    script.events = overlapped(atoms)
    script._processes = len(atoms)
    final = [["r", key, shown] for key, shown in lists.items()]
    script.ok("txn", asked(final), final)
    return script.events


@given(append_histories())
def test_what_a_serial_execution_gives_is_valid(events: list[Event]) -> None:
    """However its transactions overlap."""
    verdict = check_append(events)
    assert verdict.valid is Valid.TRUE, verdict.anomalies


@given(append_histories(), st.data())
def test_a_serial_execution_with_a_loss_is_not(events: list[Event], data: st.DataObject) -> None:
    """Any acknowledged element that is taken out of the last reads is missed."""
    sure = [
        (key, element)
        for event in events
        if event.type is Type.OK
        for verb, key, element in event.value
        if verb == "append"
    ]
    key, lost = data.draw(st.sampled_from(sure))
    last = events[-1].value
    position = "xyz".index(key)
    last[position] = ["r", key, [e for e in last[position][2] if e != lost]]
    assert check_append(events).valid is Valid.FALSE


@given(append_histories(), st.data())
def test_a_serial_execution_with_swapped_elements_is_not(
    events: list[Event], data: st.DataObject
) -> None:
    """Two neighbours in the last read change places, one of which another read had shown last."""
    shown = events[-1].value[0][2]
    if len(shown) < 2:
        return
    at = len(shown) - 2
    before = shown[: at + 1]
    script = Script()
    script.events = events[:-2]
    script._processes = 1000
    script.ok("txn", asked([["r", "x", before]]), [["r", "x", before]])
    swapped = [*shown[:at], shown[at + 1], shown[at]]
    script.ok("txn", asked([["r", "x", swapped]]), [["r", "x", swapped]])
    assert check_append(script.events).valid is Valid.FALSE
