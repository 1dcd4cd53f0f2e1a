"""Schedules under which PySyncObj as shipped breaks a promise, written once for two engines.

Each takes the class of a lab (the plain engine, or ours in its envelope), drives a cluster by hand,
message by message, and says what it found. The names S1, M4, … are those of ADR 0001.
"""

# ruff: noqa: D102 - the methods of `Lab` are explained where ours are, in lab.py

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Finding = dict[str, Any]


class Lab(Protocol):
    """A cluster stepped by hand: no election, no delivery and no time but what is asked for."""

    kind: str
    faults: int

    def __init__(self, ids: str, **options: Any) -> None: ...
    def start(self, name: str) -> None: ...
    def crash(self, name: str) -> None: ...
    def connect(self, a: str, b: str) -> None: ...
    def cut(self, a: str, b: str) -> None: ...
    def tick(self, *names: str, dt: float = 0.11) -> None: ...
    def deliver(self, source: str, target: str, count: int | None = None) -> int: ...
    def flow(self, names: str, rounds: int = 6) -> None: ...
    def stand(self, name: str) -> None: ...
    def elect(self, name: str, voters: str) -> bool: ...
    def write(
        self, name: str, key: str, size_bytes: int = 0, *, fails: bool = False
    ) -> list[str]: ...
    def compact(self, name: str) -> None: ...
    def stall_disks(self) -> None: ...
    def lose_unsynced_tail(self, name: str) -> None: ...
    def drop(self, source: str, target: str) -> None: ...
    def leads(self, name: str) -> bool: ...
    def term(self, name: str) -> int: ...
    def last(self, name: str) -> tuple[int, int]: ...
    def values(self, name: str) -> dict[str, int]: ...


def _cut_all(lab: Lab, name: str, others: str) -> None:
    for other in others:
        lab.cut(name, other)


def _connect_all(lab: Lab, name: str, others: str) -> None:
    for other in others:
        lab.connect(name, other)


def _lost(told: dict[str, list[str]], values: dict[str, int]) -> list[str]:
    return [key for key, answers in told.items() if answers == ["ok"] and key not in values]


def overlap(new: type[Lab]) -> Finding:
    """S1: two resets in flight make the leader send everything twice; the first message of the
    second copy overlaps what the follower has acknowledged, and then the leader dies.
    """
    lab = new("ABC", appendEntriesBatchSizeBytes=256)
    lab.elect("A", "BC")
    lab.flow("ABC")
    lab.write("A", "base")
    lab.flow("ABC")
    _cut_all(lab, "C", "AB")
    told = {f"w{i}": lab.write("A", f"w{i}", 40) for i in range(10)}
    lab.tick("A")
    lab.tick("A")
    lab.cut("A", "B")
    lab.connect("A", "B")
    lab.tick("A")
    lab.tick("A")
    lab.deliver("A", "B")
    lab.deliver("B", "A", 1)
    lab.tick("A")
    first = lab.deliver("A", "B", 0)
    lab.deliver("B", "A", 1)
    lab.tick("A")
    # All but the last messages: what follows the first copy is the repetition.
    while lab.last("B")[0] < lab.last("A")[0] and lab.deliver("A", "B", 1):
        first += 1
    lab.deliver("B", "A")
    lab.tick("A")
    full = lab.last("B")[0]
    lab.deliver("A", "B", 1)
    shortened = full - lab.last("B")[0]
    lab.crash("A")
    lab.connect("B", "C")
    lab.elect("B", "C")
    lab.flow("BC")
    acked = sum(answers == ["ok"] for answers in told.values())
    return {"lost": _lost(told, lab.values("B")), "acked": acked, "un_appended": shortened}


def _divergent_tail(new: type[Lab]) -> tuple[Lab, dict[str, list[str]]]:
    lab = new("ABC")
    lab.elect("A", "BC")
    lab.flow("ABC")
    lab.write("A", "base")
    lab.flow("ABC")
    _cut_all(lab, "A", "BC")
    told = {key: lab.write("A", key) for key in ("lost1", "lost2")}
    lab.tick("A", "A")
    lab.elect("B", "C")
    lab.flow("BC")
    for i in range(40):
        lab.write("B", f"k{i}")
        lab.flow("BC", rounds=2)
    lab.compact("B")
    lab.flow("BC")
    _connect_all(lab, "A", "BC")
    return lab, told


def snapshot_commits_tail(new: type[Lab]) -> Finding:
    """S2: the first piece of a snapshot reaches an old leader with entries of its own."""
    lab, told = _divergent_tail(new)
    lab.tick("B")
    lab.deliver("B", "A", 1)
    lab.tick("A")
    committed = "lost1" in lab.values("A")
    lab.flow("ABC", rounds=20)
    lost = _lost(told, lab.values("B"))
    same = lab.values("A") == lab.values("B") == lab.values("C")
    return {"lost": lost, "committed_own_tail": committed, "same": same}


def snapshot_broken_off(new: type[Lab]) -> Finding:
    """S2, second variant: the sender dies after one piece, a leader with the whole log follows."""
    lab, told = _divergent_tail(new)
    lab.tick("B")
    lab.deliver("B", "A", 1)
    lab.tick("A")
    lab.crash("B")
    _cut_all(lab, "B", "AC")
    lab.elect("C", "A")
    lab.flow("AC", rounds=20)
    return {
        "lost": _lost(told, lab.values("C")),
        "same": lab.values("A") == lab.values("C"),
        "leads": lab.leads("C"),
    }


def stale_ack(new: type[Lab]) -> Finding:
    """S3: acknowledgements of an earlier leadership arrive in a later one of the same server."""
    lab = new("ABCDE")
    lab.elect("A", "BCDE")
    lab.flow("ABCDE")
    _cut_all(lab, "A", "CDE")
    for i in range(10):
        lab.write("A", f"old{i}")
        lab.tick("A")
        lab.tick("A")
        lab.deliver("A", "B")
    lab.elect("C", "DE")
    lab.flow("CDE")
    lab.connect("A", "C")
    for _ in range(8):
        lab.tick("C")
        for name in "ABDE":
            lab.deliver("C", name)
        for name in "ABDE":
            lab.deliver(name, "C")
    lab.crash("C")
    _connect_all(lab, "A", "DE")
    lab.elect("A", "DE")
    lab.cut("A", "E")
    told = {f"new{i}": lab.write("A", f"new{i}") for i in range(3)}
    for _ in range(3):
        lab.tick("A")
        lab.deliver("A", "D")
        lab.deliver("D", "A")
    before = [key for key, answers in told.items() if answers == ["ok"]]
    lab.deliver("B", "A")
    lab.tick("A")
    lab.tick("A")
    lab.crash("A")
    lab.crash("D")
    lab.start("C")
    for a, b in ("BE", "CE", "BC"):
        lab.connect(a, b)
    lab.elect("E", "BC")
    lab.flow("BCE")
    return {"lost": _lost(told, lab.values("E")), "early": before, "leads": lab.leads("E")}


def vote_forgotten(new: type[Lab]) -> Finding:
    """S8: C votes for A and loses power; its disk comes back, and B asks in the same term."""
    lab = new("ABC", durable=False)
    lab.cut("A", "B")
    lab.stand("A")
    lab.deliver("A", "C")
    lab.deliver("C", "A")
    lab.crash("C")
    lab.start("C")
    lab.cut("A", "C")
    lab.elect("B", "C")
    return {
        "two_leaders": lab.leads("A") and lab.leads("B") and lab.term("A") == lab.term("B"),
        "first_leads": lab.leads("A"),
    }


def poison(new: type[Lab]) -> Finding:
    """S10: a command that the state machine can't take, and one after it."""
    lab = new("ABC")
    lab.elect("A", "BC")
    lab.flow("ABC")
    lab.write("A", "poison")
    lab.flow("ABC", rounds=10)
    after = lab.write("A", "after")
    lab.flow("ABC", rounds=10)
    return {"after": after, "faults": lab.faults}


def failing_callback(new: type[Lab]) -> Finding:
    """S11: the caller's callback raises."""
    lab = new("ABC")
    lab.elect("A", "BC")
    lab.flow("ABC")
    lab.write("A", "x", fails=True)
    lab.flow("ABC", rounds=8)
    return {"counts": [lab.values(name).get("x", 0) for name in "ABC"], "faults": lab.faults}


def large_entries(new: type[Lab]) -> Finding:
    """M10: values of 60 KB to 1.5 MB."""
    # The plain engine takes the last piece of the second for a middle one.
    sizes = (60_000, 130_992, 300_000, 524_288, 1_500_000)
    answers = {}
    for size in sizes:
        lab = new("ABC")
        lab.elect("A", "BC")
        lab.flow("ABC")
        told = lab.write("A", "big", size)
        try:
            lab.flow("ABC", rounds=12)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises is the finding
            told.append(type(error).__name__)
        answers[str(size)] = told
    return {"answers": answers}


def unsynced_tail(new: type[Lab]) -> Finding:
    """S7: power loss takes the end of the log that was not synced, and leaves a commit index."""
    lab = new("ABC")
    lab.elect("A", "BC")
    lab.flow("ABC")
    lab.stall_disks()
    told = {f"k{i}": lab.write("A", f"k{i}") for i in range(20)}
    lab.flow("ABC", rounds=20)
    for name in "ABC":
        lab.lose_unsynced_tail(name)
    _cut_all(lab, "C", "AB")
    for name in "AB":
        lab.tick(name, name)
    lab.elect("A", "B")
    lab.cut("A", "B")
    alone = lab.write("A", "alone")
    lab.tick("A", "A")
    lab.tick("A")
    return {"acked": sum(told_one == ["ok"] for told_one in told.values()), "alone": alone}


def lost_forward(new: type[Lab]) -> Finding:
    """M4: a follower's forwarded write is lost with its connection; the leader stays."""
    lab = new("ABC")
    lab.elect("A", "BC")
    lab.flow("ABC")
    told = lab.write("B", "x")
    lab.tick("B")
    lab.cut("A", "B")
    lab.connect("A", "B")
    lab.flow("ABC", rounds=30)
    return {"told": told, "applied": lab.values("A").get("x", 0)}


def retry_after_leader_change(new: type[Lab]) -> Finding:
    """M5: a forwarded write commits, but the follower only hears that the leader has changed."""
    lab = new("ABC")
    lab.elect("A", "BC")
    lab.flow("ABC")
    told = lab.write("B", "x")
    lab.tick("B")
    lab.deliver("B", "A")
    lab.tick("A")
    lab.tick("A")
    lab.deliver("A", "C")
    lab.deliver("C", "A")
    lab.drop("A", "B")
    lab.stand("B")
    lab.deliver("B", "A")
    lab.deliver("B", "C")
    lab.elect("C", "AB")
    lab.flow("ABC")
    again = lab.write("B", "x") if told == ["LEADER_CHANGED"] else told
    lab.flow("ABC", rounds=20)
    return {
        "told": told,
        "again": again,
        "counts": [lab.values(name).get("x", 0) for name in "ABC"],
    }


SCENARIOS: dict[str, Callable[[type[Any]], Finding]] = {
    scenario.__name__: scenario
    for scenario in (
        overlap,
        snapshot_commits_tail,
        snapshot_broken_off,
        stale_ack,
        vote_forgotten,
        poison,
        failing_callback,
        large_entries,
        unsynced_tail,
        lost_forward,
        retry_after_leader_change,
    )
}
