"""The checker of locks with fencing."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.checkers.lock import check_lock
from jepsen_like.checkers.verdict import Valid, Verdict
from jepsen_like.history import Event
from tests.jepsen.script import Atom, Script, overlapped, spreads


def kinds(verdict: Verdict) -> set[str]:
    """The kinds of what was found."""
    return {anomaly.kind for anomaly in verdict.anomalies}


def asked(session: str, **more: Any) -> dict[str, Any]:
    """The value of an invocation."""
    return {"lock": "l", "session": session, **more}


def held(session: str, token: int) -> dict[str, Any]:
    """The value of what is done with a token."""
    return {"lock": "l", "session": session, "token": token}


class Locks(Script):
    """A script with the verbs of locks."""

    def acquire(self, session: str, token: int) -> int:
        """A lock is acquired."""
        return self.ok("acquire", asked(session), held(session, token))

    def guarded(self, session: str, token: int, raft_index: int | None = None) -> int:
        """A guarded write is accepted."""
        return self.ok("guarded", held(session, token), raft_index=raft_index)

    def finish(self, session: str = "final", token: int = 1000) -> Verdict:
        """The lock is acquired at the end, and all is judged."""
        self.ok("acquire", asked(session, final=True), held(session, token))
        return check_lock(self.events)


def test_holders_one_after_the_other_are_valid() -> None:
    """Acquire, write, release; a stale token is refused."""
    script = Locks()
    script.acquire("a", 1)
    script.guarded("a", 1)
    script.ok("renew", {"session": "a"})
    script.ok("release", held("a", 1))
    script.acquire("b", 2)
    script.guarded("b", 2)
    script.begin("guarded", held("a", 1)).fail()
    script.ok("release", held("b", 2))
    verdict = script.finish()
    assert verdict.valid is Valid.TRUE
    assert verdict.figures["refused"] == 1


def test_a_stale_token_that_is_accepted() -> None:
    """In real time, when the answers carry no index."""
    script = Locks()
    script.acquire("a", 1)
    script.ok("destroy", {"session": "a", "delay_s": 0})
    script.acquire("b", 2)
    newer = script.guarded("b", 2)
    stale = script.guarded("a", 1)
    verdict = script.finish()
    assert kinds(verdict) == {"stale-token"}
    assert verdict.anomalies[0].events == (newer - 1, newer, stale - 1, stale)


def test_the_index_tells_the_order_of_writes_at_once() -> None:
    """Two guarded writes overlap; by their index the older token came second."""
    script = Locks()
    script.acquire("a", 1)
    script.ok("destroy", {"session": "a", "delay_s": 0})
    script.acquire("b", 2)
    first = script.begin("guarded", held("a", 1))
    script.guarded("b", 2, raft_index=10)
    first.ok(held("a", 1), raft_index=11)
    assert kinds(script.finish()) == {"stale-token"}


def test_two_sessions_with_one_token() -> None:
    """A token names one tenure."""
    script = Locks()
    script.acquire("a", 1)
    script.ok("release", held("a", 1))
    script.acquire("b", 1)
    script.guarded("b", 1)
    assert kinds(script.finish()) == {"token-twice"}


def test_a_token_lower_than_one_before() -> None:
    """Tokens rise from holder to holder."""
    script = Locks()
    script.acquire("a", 5)
    script.guarded("a", 5)
    script.ok("release", held("a", 5))
    script.acquire("b", 4)
    assert kinds(script.finish()) == {"token-backwards"}


def test_a_second_holder_beside_a_living_one() -> None:
    """The first is renewed after the second acquired, and had not given the lock back."""
    script = Locks()
    first = script.acquire("a", 1)
    second = script.acquire("b", 2)
    proof = script.ok("renew", {"session": "a"}) - 1
    script.guarded("b", 2)
    verdict = script.finish()
    assert kinds(verdict) == {"two-holders"}
    assert verdict.anomalies[0].events == (first, second - 1, second, proof)


def test_a_release_that_works_proves_that_the_lock_was_held() -> None:
    """It began after a second holder had acquired."""
    script = Locks()
    script.acquire("a", 1)
    script.guarded("a", 1)
    script.acquire("b", 2)
    script.ok("release", held("a", 1))
    assert kinds(script.finish()) == {"two-holders"}


def test_a_holder_whose_session_may_have_ended_proves_nothing() -> None:
    """Nobody saw it alive after the second had acquired."""
    script = Locks()
    script.acquire("a", 1)
    script.ok("renew", {"session": "a"})
    script.acquire("b", 2)
    script.guarded("b", 2)
    script.begin("renew", {"session": "a"}).fail()
    script.begin("release", held("a", 1)).fail()
    assert script.finish().valid is Valid.TRUE


def test_a_release_of_unknown_outcome_may_take_effect_any_time() -> None:
    """So a second holder is fine, though the first session lives and acquires again."""
    script = Locks()
    script.acquire("a", 1)
    script.guarded("a", 1)
    script.begin("release", held("a", 1)).info()
    script.acquire("a", 1)
    script.acquire("b", 2)
    script.ok("renew", {"session": "a"})
    assert script.finish().valid is Valid.TRUE


def test_an_acquisition_within_the_lock_delay() -> None:
    """The session lived a second before it was destroyed; the delay is fifteen."""
    script = Locks()
    script.acquire("a", 1)
    script.guarded("a", 1)
    script.ok("destroy", {"session": "a", "delay_s": 15})
    script.acquire("b", 2)
    script.at(100)
    assert kinds(script.finish()) == {"lock-delay"}


def test_an_acquisition_after_the_lock_delay() -> None:
    """Or of a lock that was given back before the session was destroyed."""
    script = Locks()
    script.acquire("a", 1)
    script.guarded("a", 1)
    script.ok("destroy", {"session": "a", "delay_s": 15})
    script.at(60)
    script.acquire("b", 2)
    script.ok("release", held("b", 2))
    script.ok("destroy", {"session": "b", "delay_s": 15})
    assert script.finish().valid is Valid.TRUE


def test_a_lock_that_can_not_be_had_at_the_end() -> None:
    """Its holder is dead, and it was never released."""
    script = Locks()
    script.acquire("a", 1)
    script.guarded("a", 1)
    script.begin("acquire", asked("z", final=True)).fail()
    assert kinds(check_lock(script.events)) == {"stuck-lock"}


def test_what_is_not_tried_is_not_known() -> None:
    """No acquisition, no guarded write, or none at the end."""
    assert check_lock([]).valid is Valid.UNKNOWN
    script = Locks()
    script.acquire("a", 1)
    assert "no guarded write" in check_lock(script.events).why_unknown
    script.guarded("a", 1)
    assert "no final acquire of l" in check_lock(script.events).why_unknown


@st.composite
def lock_histories(draw: st.DrawFn) -> list[Event]:
    """Tenures one after the other, each operation stretched over its neighbours."""
    atoms: list[Atom] = []
    token = 0
    highest = 0
    for _ in range(draw(st.integers(1, 6))):
        token += 1
        session = f"s{token}"
        atoms.append(Atom("acquire", asked(session), held(session, token)))
        for _ in range(draw(st.integers(0, 2))):
            old = draw(st.integers(1, token))
            if old >= highest:
                highest = old
                value = held(f"s{old}", old)
                atoms.append(Atom("guarded", value, value, raft_index=len(atoms)))
        if draw(st.booleans()):
            atoms.append(Atom("renew", {"session": session}, {"session": session}))
        if draw(st.booleans()):
            value = held(session, token)
            atoms.append(Atom("release", value, value))
        else:
            value = {"session": session, "delay_s": 0}
            atoms.append(Atom("destroy", value, value))
    for atom in atoms:
        atom.before, atom.after = draw(spreads()), draw(spreads())
    events = overlapped(atoms)
    script = Locks()
    script.events = events
    script._processes = len(atoms)
    script.acquire("last", token + 1)
    script.guarded("last", token + 1, raft_index=10_000)
    script.ok("release", held("last", token + 1))
    script.ok("acquire", asked("final", final=True), held("final", token + 2))
    return script.events


@given(lock_histories())
def test_what_a_serial_execution_gives_is_valid(events: list[Event]) -> None:
    """However its operations overlap."""
    verdict = check_lock(events)
    assert verdict.valid is Valid.TRUE, verdict.anomalies


@given(lock_histories())
def test_a_stale_write_at_the_end_shows(events: list[Event]) -> None:
    """The oldest token of all is accepted after the newest."""
    script = Locks()
    script.events = events
    script._processes = 1000
    script.guarded("s1", 1, raft_index=10_001)
    assert "stale-token" in kinds(check_lock(script.events))
