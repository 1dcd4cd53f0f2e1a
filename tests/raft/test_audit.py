"""What PySyncObj loses as shipped, and that the envelope does not (the findings of ADR 0001).

Each schedule runs on the plain engine first: it must show the fault, or the schedule proves
nothing. Elsewhere: S4 and S5 (no sync, compaction in place) in test_journal_kill9 and
test_journal_crash_points, S6 (no checksums) in test_wal_damage, S12 (pickle before authentication)
in test_transport and test_security, and for what is authenticated in test_engine_internals.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raftreg.errors import InvalidRequest, NotProposed, TooLarge
from raftreg.raft.api import Server
from raftreg.raft.entries import COMMAND_BYTES_MAX
from raftreg.raft.faults import DiskFailure
from raftreg.raft.node import Timing
from tests.raft.audit_scenarios import SCENARIOS, Finding
from tests.raft.lab import BY_HAND, EnvelopeLab
from tests.sim import planted

ROOT = Path(__file__).parents[2]


def on_plain_engine(scenario: str) -> Finding:
    """Runs a scenario on PySyncObj as shipped, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.raft.plain_engine", scenario],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    finding: Finding = json.loads(run.stdout)
    return finding


def on_ours(scenario: str) -> Finding:
    """Runs the same scenario in the envelope."""
    return SCENARIOS[scenario](EnvelopeLab)


def test_s1_an_overlapping_append_removes_nothing() -> None:
    """What was acknowledged stays when the leader sends it again and dies in the middle."""
    plain, ours = on_plain_engine("overlap"), on_ours("overlap")
    assert plain["lost"]
    assert plain["un_appended"] > 0
    assert ours == {"lost": [], "acked": 10, "un_appended": 0}


def test_s2_a_piece_of_a_snapshot_commits_nothing() -> None:
    """An old leader's own tail is not committed by a snapshot that begins to arrive."""
    plain, ours = on_plain_engine("snapshot_commits_tail"), on_ours("snapshot_commits_tail")
    assert plain["lost"] == ["lost1", "lost2"]
    assert ours == {"lost": [], "committed_own_tail": False, "same": True}


def test_s2_a_snapshot_that_is_broken_off_leaves_no_divergence() -> None:
    """The sender dies after one piece: all servers still come to the same state."""
    plain, ours = on_plain_engine("snapshot_broken_off"), on_ours("snapshot_broken_off")
    assert not plain["same"]
    assert ours == {"lost": [], "same": True, "leads": True}


def test_s3_an_acknowledgement_counts_in_its_own_term() -> None:
    """Late acknowledgements of an earlier leadership commit nothing in five servers."""
    plain, ours = on_plain_engine("stale_ack"), on_ours("stale_ack")
    assert plain["lost"] == ["new0", "new1", "new2"]
    assert ours == {"lost": [], "early": [], "leads": True}


def test_s3_the_schedule_finds_acknowledgements_of_any_term(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the rule switched off, our engine fails in the same way: the schedule does bite."""
    planted.acks_of_any_term(monkeypatch)
    assert on_ours("stale_ack")["lost"] == ["new0", "new1", "new2"]


def test_s7_nothing_is_committed_beyond_what_is_on_disk() -> None:
    """After the loss of an unsynced tail a leader without followers acknowledges nothing."""
    plain, ours = on_plain_engine("unsynced_tail"), on_ours("unsynced_tail")
    assert plain["alone"] == ["ok"]
    assert ours == {"acked": 0, "alone": []}


def test_s8_a_vote_survives_power_loss() -> None:
    """A server that voted, lost power and came back does not vote for another in that term."""
    plain, ours = on_plain_engine("vote_forgotten"), on_ours("vote_forgotten")
    assert plain["two_leaders"]
    assert ours == {"two_leaders": False, "first_leads": True}


def test_s8_the_schedule_finds_a_forgotten_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the vote kept in memory only, our engine elects two leaders in one term, too."""
    planted.vote_not_persisted(monkeypatch)
    assert on_ours("vote_forgotten")["two_leaders"]


def test_s10_a_refused_command_holds_nothing_up() -> None:
    """`apply` is total: what it can't take gets a value as its answer, and the log goes on."""
    plain, ours = on_plain_engine("poison"), on_ours("poison")
    assert plain["after"] == []
    assert plain["faults"] > 10
    assert ours == {"after": ["ok"], "faults": 0}


def test_s11_a_failing_callback_is_loud_and_applies_nothing_twice() -> None:
    """The fault comes out of the tick (the server stops on it); the entry is applied once."""
    plain, ours = on_plain_engine("failing_callback"), on_ours("failing_callback")
    assert plain["counts"] == [2, 1, 1]
    assert ours == {"counts": [1, 1, 1], "faults": 1}


def test_m4_a_lost_forward_is_answered() -> None:
    """A follower repeats what was lost with its connection to the leader."""
    assert on_plain_engine("lost_forward") == {"told": [], "applied": 0}
    assert on_ours("lost_forward") == {"told": ["ok"], "applied": 1}


def test_m5_a_retry_over_a_leader_change_takes_effect_once() -> None:
    """The write was in the log already when the leader changed."""
    plain, ours = on_plain_engine("retry_after_leader_change"), on_ours("retry_after_leader_change")
    assert plain["told"] == ["LEADER_CHANGED"]
    assert plain["counts"] == [2, 2, 2]
    assert ours == {"told": ["ok"], "again": ["ok"], "counts": [1, 1, 1]}


def test_m10_large_entries_arrive_whole() -> None:
    """Commands up to the limit pass; the plain engine fails on one of an unlucky size."""
    plain, ours = on_plain_engine("large_entries"), on_ours("large_entries")
    assert plain["answers"]["130992"] == ["EOFError"]
    assert set(map(tuple, ours["answers"].values())) == {("ok",)}


def test_m10_a_command_over_the_limit_is_refused() -> None:
    """One byte more than the limit is refused before anything is proposed."""
    node = EnvelopeLab("A").nodes["A"]
    with pytest.raises(TooLarge, match=str(COMMAND_BYTES_MAX)):
        node.propose(b"x" * (COMMAND_BYTES_MAX + 1), lambda *_: None)


def elected(lab: EnvelopeLab) -> EnvelopeLab:
    """The same lab, with A as a leader whose term has begun."""
    assert lab.elect("A", "BC")
    lab.flow("ABC")
    return lab


def test_s9_membership_changes_one_at_a_time() -> None:
    """A second change is refused while the first is not committed, and two voters at once are."""
    lab = elected(EnvelopeLab("ABC"))
    node = lab.nodes["A"]
    done: list[object] = []
    one = node.configuration.without("B")
    learner = Server(id="D", name="D", address="D:1", voter=False)
    with pytest.raises(InvalidRequest, match="one membership change at a time"):
        node.change_configuration(one.without("C"), done.append)
    with pytest.raises(InvalidRequest, match="hand leadership over"):
        node.change_configuration(node.configuration.without("A"), done.append)
    lab.cut("A", "B")
    lab.cut("A", "C")
    node.change_configuration(one, done.append)
    lab.tick("A")
    with pytest.raises(NotProposed, match="under way"):
        node.change_configuration(one.with_server(learner), done.append)
    assert done == []
    lab.connect("A", "C")
    lab.flow("ABC")
    assert done == [None]
    assert node.configuration == one


def test_s13_a_full_disk_stops_the_server_and_loses_nothing() -> None:
    """The write that meets the full disk is not acknowledged; what was, is there afterwards."""
    lab = elected(EnvelopeLab("ABC"))
    before = lab.write("A", "before")
    lab.flow("ABC")
    lab.disks["A"].fail_next_sync(28)
    meets = lab.write("A", "meets")
    lab.tick("A")
    assert lab.failed == ["A"]
    lab.write("A", "later")
    with pytest.raises(DiskFailure):
        lab.tick("A")
    assert (before, meets) == (["ok"], [])
    lab.crash("A")
    lab.start("A")
    assert lab.elect("B", "AC")
    lab.flow("ABC")
    assert all(lab.values(name)["before"] == 1 for name in "ABC")


def test_m8_a_cut_off_leader_answers_no_read_and_steps_down() -> None:
    """No read is answered on the strength of a leadership that is over; it ends soon."""
    lab = elected(EnvelopeLab("ABC", timing=BY_HAND))
    reads: list[int | None] = []
    lab.cut("A", "B")
    lab.cut("A", "C")
    assert lab.elect("B", "C")
    lab.write("B", "x")
    lab.flow("BC")
    assert lab.leads("A")
    lab.nodes["A"].read(reads.append)
    lab.flow("ABC")
    assert reads == []
    lab.connect("A", "B")
    lab.flow("ABC", rounds=20)
    assert not lab.leads("A")
    assert lab.values("A") == {"x": 1}
    assert reads != [None]


def test_m8_a_leader_without_followers_steps_down_within_the_fallback() -> None:
    """Half a second of silence, not the thirty of the plain engine's default."""
    timing = Timing()
    lab = EnvelopeLab("ABC", timing=timing)
    while not any(map(lab.leads, "ABC")):
        lab.flow("ABC", rounds=1)
    leader = next(name for name in "ABC" if lab.leads(name))
    lab.flow("ABC")
    for other in set("ABC") - {leader}:
        lab.cut(leader, other)
    ticks = 0
    while lab.leads(leader):
        lab.tick(leader, dt=0.05)
        ticks += 1
        assert ticks * 0.05 <= timing.fallback_s + 0.1


def commit_under_an_unsynced_no_op() -> tuple[list[str], EnvelopeLab]:
    """A leads term 3 with a no-op that only B has on disk; x (term 1) is on the disks of both."""
    lab = elected(EnvelopeLab("ABC"))
    for name in "BC":
        lab.cut("A", name)
    told = lab.write("A", "x")
    lab.tick("A", "A")
    assert lab.elect("C", "B")  # term 2; its no-op stands where x stands in A
    lab.cut("B", "C")
    lab.connect("A", "B")
    lab.nodes["A"]._engine.step_down(2)
    lab.stand("A")
    lab.deliver("A", "B")
    lab.disks["A"].stall(1e9)
    lab.deliver("B", "A")
    assert lab.leads("A")
    assert lab.term("A") == 3
    for _ in range(3):
        lab.tick("A")
        lab.deliver("A", "B")
        lab.deliver("B", "A")
    return told, lab


def test_a_leader_commits_no_older_term_by_what_it_has_not_on_disk() -> None:
    """Counting only to the end of its own synced log, it must not stop at an older term."""
    told, lab = commit_under_an_unsynced_no_op()
    assert told == []
    lab.disks["A"].heal()
    lab.scheduler.run_until(lab.scheduler.now + 2e9)
    lab.flow("AB")
    assert told == ["ok"]


def test_the_schedule_finds_a_commit_of_an_older_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rule switched off, x is acknowledged, and a later leader overwrites it."""
    planted.commit_of_an_older_term(monkeypatch)
    told, lab = commit_under_an_unsynced_no_op()
    assert told == ["ok"]
    lab.crash("A")
    lab.start("A")
    lab.connect("A", "C")
    lab.cut("A", "B")
    assert lab.elect("C", "A") or lab.elect("C", "A")  # the first term is A's own vote's
    lab.flow("AC")
    assert "x" not in lab.values("C")
