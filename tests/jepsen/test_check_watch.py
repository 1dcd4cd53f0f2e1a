"""The checker of watches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.checkers.verdict import Valid, Verdict
from jepsen_like.checkers.watch import check_watch
from jepsen_like.history import Event, MalformedHistory, Type
from tests.jepsen.script import Atom, Script, overlapped, spreads


def kinds(verdict: Verdict) -> set[str]:
    """The kinds of what was found."""
    return {anomaly.kind for anomaly in verdict.anomalies}


class Watches(Script):
    """A script with the verbs of watches."""

    def write(self, key: str, value: int, index: int) -> int:
        """A write that is acknowledged."""
        return self.ok("write", value, key=key, raft_index=index)

    def watch(
        self,
        rows: list[list[Any]],
        since: int,
        index: int,
        *,
        kind: str = "prefix",
        key: str | None = "p/",
        watcher: str = "w",
        wait_s: float = 1.0,
    ) -> int:
        """A watch that is answered."""
        asked = {"watcher": watcher, "since": since, "wait_s": wait_s}
        return self.begin(f"watch-{kind}", asked, key).ok(rows, index)


def test_every_change_in_order_is_valid() -> None:
    """Over several answers, some without news."""
    script = Watches()
    script.write("p/1", 1, 5)
    script.write("p/2", 2, 7)
    script.watch([["p/1", 1, 5], ["p/2", 2, 7]], 0, 7)
    script.watch([], 7, 7)
    script.write("other", 1, 8)
    script.write("p/3", 3, 9)
    script.watch([["p/3", 3, 9]], 7, 9)
    verdict = check_watch(script.events)
    assert verdict.valid is Valid.TRUE
    assert verdict.figures["answers"] == 3


@pytest.mark.parametrize("kind", ["prefix", "feed"])
def test_a_change_that_is_left_out_is_lost(kind: str) -> None:
    """An answer up to an index shows all writes up to it."""
    script = Watches()
    lost = script.write("p/1", 1, 5)
    script.write("p/2", 2, 7)
    key = "p/" if kind == "prefix" else None
    answer = script.watch([["p/2", 2, 7]], 0, 7, kind=kind, key=key)
    verdict = check_watch(script.events)
    assert kinds(verdict) == {"watch-lost"}
    assert verdict.anomalies[0].events == (lost, answer)


def test_a_key_may_leave_out_what_was_overwritten() -> None:
    """But not the newest value."""
    script = Watches()
    script.write("k", 1, 5)
    script.write("k", 2, 7)
    script.watch([["k", 2, 7]], 0, 7, kind="key", key="k")
    assert check_watch(script.events).valid is Valid.TRUE
    script.watch([["k", 1, 5]], 0, 7, kind="key", key="k", watcher="v")
    assert kinds(check_watch(script.events)) == {"watch-lost"}


def test_a_change_that_comes_again() -> None:
    """In a later answer, or in the same one."""
    script = Watches()
    script.write("p/1", 1, 5)
    script.watch([["p/1", 1, 5]], 0, 5)
    script.watch([["p/1", 1, 5]], 5, 5)
    assert kinds(check_watch(script.events)) == {"watch-twice"}
    script = Watches()
    script.write("p/1", 1, 5)
    script.watch([["p/1", 1, 5], ["p/1", 1, 5]], 0, 5)
    assert kinds(check_watch(script.events)) == {"watch-twice"}


def test_changes_out_of_order() -> None:
    """Within an answer, or from one to the next."""
    script = Watches()
    script.write("p/1", 1, 5)
    script.write("p/2", 2, 7)
    script.watch([["p/2", 2, 7], ["p/1", 1, 5]], 0, 7)
    assert kinds(check_watch(script.events)) == {"watch-order"}


def test_an_index_that_goes_backwards() -> None:
    """An answer may not be older than what was asked from."""
    script = Watches()
    script.write("p/1", 1, 5)
    script.watch([["p/1", 1, 5]], 0, 5)
    script.watch([], 5, 3)
    assert "index-backwards" in kinds(check_watch(script.events))


@pytest.mark.parametrize(
    "rows", [[["p/9", 9, 6]], [["p/2", 2, 6]], [["p/1", 1, 4]]], ids=["unknown", "failed", "index"]
)
def test_what_was_not_written_so_is_a_phantom(rows: list[list[Any]]) -> None:
    """Written by nobody, definitely not written, or written under another index."""
    script = Watches()
    script.write("p/1", 1, 5)
    script.begin("write", 2, "p/2").fail()
    script.watch([*rows], 4, 6)
    assert "watch-phantom" in kinds(check_watch(script.events))


def test_a_write_of_unknown_outcome_binds_once_it_was_seen() -> None:
    """Other watchers must see it too, under the same index."""
    script = Watches()
    script.write("p/1", 1, 5)
    script.begin("write", 2, "p/2").info()
    script.watch([["p/1", 1, 5], ["p/2", 2, 6]], 0, 6)
    assert check_watch(script.events).valid is Valid.TRUE
    script.watch([["p/1", 1, 5]], 0, 6, watcher="v")
    assert kinds(check_watch(script.events)) == {"watch-lost"}


def test_a_watcher_that_never_hears_of_the_last_write() -> None:
    """Its last answer came after the write and is older."""
    script = Watches()
    script.write("p/1", 1, 5)
    script.watch([["p/1", 1, 5]], 0, 5)
    script.write("p/2", 2, 7)
    script.watch([], 5, 5)
    assert kinds(check_watch(script.events)) == {"watch-behind"}


def late(script: Watches, *, wait_s: float) -> Verdict:
    """A watch begins at 100 s, a write ends at 102 s, and the answer comes at 112 s."""
    script.at(100)
    asked = {"watcher": "w", "since": 0, "wait_s": wait_s}
    watching = script.begin("watch-prefix", asked, "p/")
    script.write("p/1", 1, 5)
    script.at(112)
    watching.ok([["p/1", 1, 5]], 5)
    return check_watch(script.events)


def test_an_answer_long_after_the_write_is_late() -> None:
    """Ten seconds, while all was well."""
    assert kinds(late(Watches(), wait_s=30)) == {"watch-late"}


def test_an_answer_may_be_late_while_something_is_broken() -> None:
    """While a fault is active and shortly after it; and a short wait ends by itself."""
    assert late(Watches(), wait_s=4).valid is Valid.TRUE
    broken = Watches()
    broken.at(90)
    broken.nemesis("start-kill")
    assert late(broken, wait_s=30).valid is Valid.TRUE
    healed = Watches()
    healed.nemesis("start-kill")
    healed.nemesis("start-kill", {"killed": "n1"})
    healed.at(95)
    healed.nemesis("stop-kill")
    assert late(healed, wait_s=30).valid is Valid.TRUE
    long_ago = Watches()
    long_ago.nemesis("start-kill")
    long_ago.nemesis("start-kill", {"killed": "n1"})
    long_ago.nemesis("stop-kill")
    assert kinds(late(long_ago, wait_s=30)) == {"watch-late"}


def test_nothing_is_known_without_writes_or_answers() -> None:
    """Nor when nobody watched after the last write."""
    assert check_watch([]).valid is Valid.UNKNOWN
    script = Watches()
    script.write("p/1", 1, 5)
    script.watch([["p/1", 1, 5]], 0, 5)
    script.write("p/2", 2, 7)
    assert "did not watch after the last write" in check_watch(script.events).why_unknown


def test_an_answer_has_an_index() -> None:
    """Without it nothing could be said about what it must show."""
    script = Watches()
    script.begin("watch-prefix", {"watcher": "w", "since": 0}, "p/").ok([])
    with pytest.raises(MalformedHistory, match="an answer without index"):
        check_watch(script.events)


def rows_between(written: list[tuple[str, int, int]], since: int, index: int) -> list[list[Any]]:
    """What a right answer shows."""
    return [list(row) for row in written if since < row[2] <= index]


@st.composite
def watch_histories(draw: st.DrawFn) -> list[Event]:
    """Writes and two watchers of a prefix, each operation stretched over its neighbours."""
    atoms: list[Atom] = []
    written: list[tuple[str, int, int]] = []
    at = {"a": 0, "b": 0}
    index = 1
    busy_until = {"a": -1.0, "b": -1.0}
    for number in range(draw(st.integers(2, 14))):
        before, after = draw(spreads()), draw(spreads())
        who = draw(st.sampled_from(["write", "write", "unknown", "a", "b"]))
        if who in at:
            # A watcher asks again only when it was answered.
            before = int(min(before, max(number * 10 - busy_until[who] - 1, 0)))
            busy_until[who] = number * 10 + after + 1
            rows = rows_between(written, at[who], index)
            asked = {"watcher": who, "since": at[who], "wait_s": 1}
            atoms.append(Atom("watch-prefix", asked, rows, "p/", before, after, raft_index=index))
            at[who] = index
            continue
        index += draw(st.integers(1, 3))
        written.append((f"p/{number}", number, index))
        type_ = Type.OK if who == "write" else Type.INFO
        atoms.append(
            Atom("write", number, number, f"p/{number}", before, after, type_, raft_index=index)
        )
    index += 1
    written.append(("p/999", 999, index))
    atoms.append(Atom("write", 999, 999, "p/999", raft_index=index))
    script = Watches()
    script.events = overlapped(atoms)
    script._processes = len(atoms)
    for who, since in at.items():
        script.watch(rows_between(written, since, index), since, index, watcher=who)
    return script.events


@given(watch_histories())
def test_what_a_serial_execution_gives_is_valid(events: list[Event]) -> None:
    """However its operations overlap."""
    verdict = check_watch(events)
    assert verdict.valid is Valid.TRUE, verdict.anomalies


@given(watch_histories(), st.data(), st.sampled_from(["drop", "twice"]))
def test_a_row_that_is_dropped_or_doubled_shows(
    events: list[Event], data: st.DataObject, how: str
) -> None:
    """In any answer of any watcher."""
    answers = [e for e in events if e.f.startswith("watch") and e.type is Type.OK and e.value]
    rows = data.draw(st.sampled_from(answers)).value
    at = data.draw(st.integers(0, len(rows) - 1))
    certain = {e.value for e in events if e.f == "write" and e.type is Type.OK}
    shown_to_both = sum(rows[at] in answer.value for answer in answers) > 1
    if how == "twice":
        rows.insert(at, rows[at])
    elif rows[at][1] in certain or shown_to_both:
        del rows[at]
    else:
        return
    assert check_watch(events).valid is Valid.FALSE
