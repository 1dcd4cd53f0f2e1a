"""The checker of the bank."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.checkers.bank import check_bank
from jepsen_like.checkers.verdict import Valid, Verdict
from jepsen_like.history import Event, Type
from tests.jepsen.script import Atom, Script, changed, overlapped, spreads


def kinds(verdict: Verdict) -> set[str]:
    """The kinds of what was found."""
    return {anomaly.kind for anomaly in verdict.anomalies}


def moved(amount: int, source: str = "0", target: str = "1") -> dict[str, object]:
    """The value of a transfer."""
    return {"from": source, "to": target, "amount": amount}


def opened(total: object = None) -> Script:
    """A bank of two accounts with ten each."""
    script = Script()
    script.ok("total", result=total or {"0": 10, "1": 10})
    return script


def test_transfers_and_reads_that_fit_are_valid() -> None:
    """Money that moved is where it should be."""
    script = opened()
    script.ok("transfer", moved(4))
    script.begin("transfer", moved(99)).fail()
    script.ok("read", result={"0": 6, "1": 14})
    assert check_bank(script.events).valid is Valid.TRUE


def test_a_sum_that_changes_is_shown() -> None:
    """Whether the total was told in parts, as a sum, or by the first read."""
    for total in ({"0": 10, "1": 10}, 20, None):
        script = Script()
        if total is None:
            script.ok("read", result={"0": 10, "1": 10})
        else:
            script.ok("total", result=total)
        script.ok("transfer", moved(4))
        script.ok("read", result={"0": 6, "1": 10})
        assert "wrong-total" in kinds(check_bank(script.events))


def test_a_negative_balance_is_shown() -> None:
    """Also when the sum is right."""
    script = opened()
    script.ok("transfer", moved(11))
    script.ok("read", result={"0": -1, "1": 21})
    assert kinds(check_bank(script.events)) == {"negative-balance"}


def test_an_account_that_vanishes_is_shown() -> None:
    """Accounts neither come nor go."""
    script = opened()
    script.ok("transfer", moved(10))
    script.ok("read", result={"1": 20})
    assert "wrong-accounts" in kinds(check_bank(script.events))


def test_a_lost_transfer_shows_though_the_sum_is_right() -> None:
    """An acknowledged transfer must be in the balances."""
    script = opened()
    script.ok("transfer", moved(4))
    script.ok("read", result={"0": 10, "1": 10})
    assert kinds(check_bank(script.events)) == {"wrong-balance"}


def test_a_transfer_that_took_effect_twice_shows() -> None:
    """Without the opening balances, too: two reads can't both be right."""
    script = Script()
    script.ok("read", result={"0": 10, "1": 10})
    script.ok("transfer", moved(4))
    script.ok("read", result={"0": 2, "1": 18})
    assert kinds(check_bank(script.events)) == {"wrong-balance"}


def test_an_unknown_transfer_may_have_happened_or_not() -> None:
    """Both balances fit; one beyond them does not."""
    for balance, valid in ((10, Valid.TRUE), (6, Valid.TRUE), (5, Valid.FALSE)):
        script = opened()
        script.ok("transfer", moved(0))
        script.begin("transfer", moved(4)).info()
        script.ok("read", result={"0": balance, "1": 20 - balance})
        assert check_bank(script.events).valid is valid


def test_nothing_is_known_without_a_last_read() -> None:
    """Nor without an acknowledged transfer."""
    script = opened()
    script.ok("read", result={"0": 10, "1": 10})
    assert check_bank(script.events).valid is Valid.UNKNOWN
    script.ok("transfer", moved(4))
    assert check_bank(script.events).valid is Valid.UNKNOWN


@st.composite
def bank_histories(draw: st.DrawFn) -> list[Event]:
    """A serial execution, each operation stretched, with outcomes of every kind."""
    balances = {"0": 10, "1": 10, "2": 10}
    atoms = [
        Atom(
            "total",
            None,
            dict(balances),
        )
    ]
    for _ in range(draw(st.integers(1, 14))):
        fate = draw(st.sampled_from(["ok", "fail", "lost", "kept", "read"]))
        before, after = draw(spreads()), draw(spreads())
        if fate == "read":
            atoms.append(Atom("read", None, dict(balances), before=before, after=after))
            continue
        source, target = draw(st.permutations("012"))[:2]
        amount = draw(st.integers(0, balances[source]))
        if fate in {"ok", "kept"}:
            balances[source] -= amount
            balances[target] += amount
        types = {"ok": Type.OK, "fail": Type.FAIL, "lost": Type.INFO, "kept": Type.INFO}
        value = moved(amount, source, target)
        atoms.append(Atom("transfer", value, value, before=before, after=after, type=types[fate]))
    amount = draw(st.integers(0, balances["0"]))
    balances["0"] -= amount
    balances["1"] += amount
    atoms.append(Atom("transfer", moved(amount), moved(amount)))
    script = Script()
    script.events = overlapped(atoms)
    script._processes = len(atoms)
    script.ok("read", result=balances)
    return script.events


@given(bank_histories())
def test_what_a_serial_execution_gives_is_valid(events: list[Event]) -> None:
    """However its operations overlap."""
    assert check_bank(events).valid is Valid.TRUE


@given(bank_histories(), st.integers(1, 5))
def test_money_that_is_made_shows(events: list[Event], amount: int) -> None:
    """One balance of the last read is larger than it was."""
    broken = changed(events, len(events) - 1, lambda v: {**v, "2": v["2"] + amount})
    assert "wrong-total" in kinds(check_bank(broken))


@given(bank_histories())
def test_money_in_the_wrong_place_shows(events: list[Event]) -> None:
    """More moved in the last read than all transfers of any outcome can have moved."""
    most = sum(e.value["amount"] for e in events if e.f == "transfer" and e.type is Type.INVOKE) + 1
    broken = changed(
        events, len(events) - 1, lambda v: {**v, "2": v["2"] + most, "1": v["1"] - most}
    )
    assert check_bank(broken).valid is Valid.FALSE
