"""The checkers of the catalog and of agents' answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.checkers.answers import check_answers
from jepsen_like.checkers.catalog import check_catalog
from jepsen_like.checkers.latest import NEVER, Change, Latest
from jepsen_like.checkers.verdict import Valid, Verdict
from jepsen_like.history import Event, Type
from tests.jepsen.script import Atom, Script, overlapped, spreads


def kinds(verdict: Verdict) -> set[str]:
    """The kinds of what was found."""
    return {anomaly.kind for anomaly in verdict.anomalies}


class Catalog(Script):
    """A script with the verbs of the catalog."""

    def register(self, key: str, *, passing: bool | None = True, local: bool = False) -> int:
        """An instance is registered."""
        return self.ok("register", {"passing": passing, "local": local}, key=key)

    def look(
        self, rows: list[Any], node: str = "n1", via: str = "http", level: str = "stale"
    ) -> int:
        """A place is asked."""
        asked = {"via": via, "level": level, "final": False}
        return self.begin("look", asked, node=node).ok(rows)

    def settle(self) -> None:
        """Much time passes."""
        self.at(len(self.events) + 100)


def test_places_that_agree_are_valid() -> None:
    """DNS shows the passing ones only."""
    script = Catalog()
    script.register("a")
    script.register("b", passing=False)
    script.register("c")
    script.ok("deregister", {}, key="c")
    script.nemesis("start-kill")
    script.look([["a", True]])
    script.nemesis("stop-kill")
    script.settle()
    script.look([["a", True], ["b", False]])
    script.look([["a", True], ["b", False]], node="n2")
    script.look([["a", True]], node="a1", via="dns")
    verdict = check_catalog(script.events)
    # The first look was in time: nothing is asked of it but that it shows no phantoms.
    assert verdict.valid is Valid.TRUE
    assert verdict.figures["settled_looks"] == 3


@pytest.mark.parametrize(
    "rows",
    [[], [["a", False]], [["a", True], ["c", True]]],
    ids=["missing", "wrong status", "deregistered"],
)
def test_a_place_that_differs_in_the_end(rows: list[Any]) -> None:
    """It shows what the operations can't have left."""
    script = Catalog()
    script.register("a")
    script.register("c")
    script.ok("deregister", {}, key="c")
    script.settle()
    script.look([["a", True]])
    script.look(rows, node="n2")
    assert kinds(check_catalog(script.events)) == {"diverged"}


def test_places_must_agree_on_what_is_unknown() -> None:
    """Either is possible, but not both at once."""
    script = Catalog()
    script.register("a")
    script.begin("register", {"passing": True}, key="b").info()
    script.settle()
    script.look([["a", True]])
    script.look([["a", True]], node="a1", via="dns")
    assert check_catalog(script.events).valid is Valid.TRUE
    script.look([["a", True], ["b", True]], node="n2")
    assert kinds(check_catalog(script.events)) == {"diverged"}


def test_a_default_look_misses_nothing_acknowledged() -> None:
    """A stale one may, for a while."""
    for level, valid in (("stale", Valid.TRUE), ("default", Valid.FALSE)):
        script = Catalog()
        script.register("a")
        script.look([], level=level)
        script.settle()
        script.look([["a", True]], level=level)
        assert check_catalog(script.events).valid is valid


def test_what_an_agent_accepted_may_come_later() -> None:
    """But it must be there in the end."""
    script = Catalog()
    script.register("a", local=True)
    script.look([], level="default")
    script.settle()
    script.look([["a", True]], level="default")
    assert check_catalog(script.events).valid is Valid.TRUE
    script.look([])
    assert "diverged" in kinds(check_catalog(script.events))


def test_health_sets_what_is_passing() -> None:
    """And a registration that keeps the status may leave either."""
    script = Catalog()
    script.register("a", passing=None)
    script.register("b")
    script.ok("health", {"passing": False}, key="b")
    script.settle()
    script.look([["a", False], ["b", False]])
    assert check_catalog(script.events).valid is Valid.TRUE


def test_what_nobody_registered_is_a_phantom() -> None:
    """Nor may it appear before."""
    script = Catalog()
    script.look([["a", True]])
    script.register("a")
    script.settle()
    script.look([["a", True]])
    assert kinds(check_catalog(script.events)) == {"phantom"}


def test_no_answer_in_the_end_is_an_anomaly() -> None:
    """Everything was healed long ago."""
    script = Catalog()
    script.register("a")
    script.settle()
    script.begin("look", {"via": "http"}, node="n1").fail()
    script.look([["a", True]])
    assert kinds(check_catalog(script.events)) == {"no-answer"}


def test_a_place_that_was_not_asked_in_the_end_is_not_known() -> None:
    """Nor is a catalog without changes, or without looks."""
    script = Catalog()
    assert check_catalog([]).valid is Valid.UNKNOWN
    script.register("a")
    script.look([["a", True]], node="n2")
    script.settle()
    script.look([["a", True]])
    assert check_catalog(script.events).why_unknown == "no settled look at n2 by http"


@st.composite
def catalog_histories(draw: st.DrawFn) -> tuple[list[Event], list[list[Any]]]:
    """A serial execution over two instances, each operation stretched; and what is there then."""
    states: dict[str, bool] = {}
    atoms: list[Atom] = [Atom("register", {"passing": True}, {"passing": True}, "z")]
    states["z"] = True
    for _ in range(draw(st.integers(1, 12))):
        before, after = draw(spreads()), draw(spreads())
        what = draw(st.sampled_from(["register", "deregister", "health", "look"]))
        if what == "look":
            rows = [[name, passing] for name, passing in sorted(states.items())]
            asked = {"via": "http", "level": "default"}
            atoms.append(Atom("look", asked, rows, None, before, after, node="n1"))
            continue
        key, passing = draw(st.sampled_from("xy")), draw(st.booleans())
        fate = draw(st.sampled_from([Type.OK, Type.OK, Type.INFO, Type.FAIL]))
        if what == "health" and key not in states:
            fate = Type.FAIL
        value = {} if what == "deregister" else {"passing": passing}
        atoms.append(Atom(what, value, value, key, before, after, fate))
        if fate is Type.FAIL or (fate is Type.INFO and draw(st.booleans())):
            continue
        if what == "deregister":
            states.pop(key, None)
        else:
            states[key] = passing
    script = Catalog()
    script.events = overlapped(atoms)
    script._processes = len(atoms)
    script.settle()
    rows = [[name, passing] for name, passing in sorted(states.items())]
    script.look(rows)
    script.look([row for row in rows if row[1]], node="a1", via="dns")
    return script.events, rows


@given(catalog_histories())
def test_what_a_serial_execution_gives_is_valid(made: tuple[list[Event], list[list[Any]]]) -> None:
    """However its operations overlap."""
    verdict = check_catalog(made[0])
    assert verdict.valid is Valid.TRUE, verdict.anomalies


@given(catalog_histories(), st.integers(0, 2))
def test_a_place_that_lost_a_row_shows(made: tuple[list[Event], list[list[Any]]], at: int) -> None:
    """Another server shows one instance less."""
    events, rows = made
    script = Catalog()
    script.events = events
    script._processes = 1000
    script.settle()
    at = min(at, len(rows) - 1)
    script.look(rows[:at] + rows[at + 1 :], node="n2")
    assert "diverged" in kinds(check_catalog(script.events))


def test_only_what_can_have_been_last_may_show() -> None:
    """A certain change hides those that ended before it began, and no others."""
    latest = Latest(
        [Change(1, 2, True, ("a",)), Change(3, 6, True, ("b",)), Change(4, NEVER, False, ("c",))],
        "none",
    )
    assert latest.may_be("none", 1, 2)
    assert not latest.may_be("none", 3, 4)
    assert latest.may_be("a", 3, 4)
    assert not latest.may_be("b", 0, 3)
    assert not latest.may_be("a", 7, 8)
    assert latest.may_be("b", 7, 8)
    assert latest.may_be("c", 7, 8)


class Agents(Script):
    """A script with the verbs of agents' answers."""

    def register(self, key: str, via: str = "server", *, steady: bool = True) -> int:
        """An instance is registered."""
        return self.ok("register", {"via": via, "steady": steady}, key=key)

    def look(
        self, names: list[str], age_s: float | None = 0.0, via: str = "stale", agent: str = "a1"
    ) -> int:
        """An agent is asked."""
        shown = {"instances": [[name, True] for name in names], "age_s": age_s}
        return self.begin("look", {"via": via}, node=agent).ok(shown)

    def settle(self) -> None:
        """Much time passes."""
        self.at(len(self.events) + 100)


def test_an_agent_that_answers_from_its_view_is_valid() -> None:
    """With the age of its answer; DNS can't tell one."""
    script = Agents()
    script.register("s")
    script.look(["s"])
    script.nemesis("start-cut")
    script.register("mine", "agent", steady=False)
    script.look(["s"], age_s=9)
    script.look(["s"], age_s=None, via="dns")
    script.nemesis("stop-cut")
    script.settle()
    script.look(["mine", "s"])
    script.look(["mine", "s"], age_s=None, via="dns")
    verdict = check_answers(script.events)
    assert verdict.valid is Valid.TRUE
    assert verdict.figures["settled_looks"] == 2


def test_an_agent_that_forgets() -> None:
    """What it has shown, and what is never deregistered, stays."""
    script = Agents()
    script.register("s")
    script.look(["s"])
    script.look([], age_s=100)
    script.settle()
    script.look(["s"])
    assert kinds(check_answers(script.events)) == {"forgotten"}


def test_an_agent_that_gives_no_answer() -> None:
    """Unless a fault names it."""
    for named, valid in (("a1", Valid.TRUE), ("n1", Valid.FALSE)):
        script = Agents()
        script.register("s")
        script.look(["s"])
        script.nemesis("start-kill", {"hosts": [named]})
        script.begin("look", {"via": "stale"}, node="a1").fail()
        script.nemesis("stop-kill")
        script.settle()
        script.look(["s"])
        assert check_answers(script.events).valid is valid


def test_an_answer_tells_its_age_and_does_not_lie() -> None:
    """An instance that has been there for long is missing, so the answer is old."""
    script = Agents()
    script.register("s")
    script.look([], age_s=None)
    script.settle()
    script.look([], age_s=2)
    assert {"no-age", "age-untrue"} <= kinds(check_answers(script.events))
    script = Agents()
    script.register("s")
    script.at(30)
    script.look([], age_s=27)
    script.nemesis("stop-cut")
    script.settle()
    script.look(["s"])
    assert check_answers(script.events).valid is Valid.TRUE


def test_what_was_accepted_arrives_and_what_was_deregistered_goes() -> None:
    """In the end, at every agent."""
    script = Agents()
    script.register("s")
    script.register("mine", "agent", steady=False)
    script.register("gone", "agent", steady=False)
    script.ok("deregister", {"via": "agent"}, key="gone")
    script.settle()
    script.look(["gone", "s"])
    assert kinds(check_answers(script.events)) == {"not-arrived", "not-gone"}


def test_without_final_looks_nothing_is_known() -> None:
    """Nor without registrations or looks."""
    assert check_answers([]).valid is Valid.UNKNOWN
    script = Agents()
    script.register("s")
    script.look(["s"])
    assert check_answers(script.events).why_unknown == "no settled look at a1 (stale)"
