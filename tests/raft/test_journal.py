"""The rules by which the journal keeps the engine from un-appending what it acknowledged."""

from __future__ import annotations

import pytest
from pysyncobj.journal import Journal

from raftreg.raft.faults import CorruptLog, DiskFailure, InvariantViolation
from raftreg.raft.journal import STUB
from tests.raft.storage_rig import Rig, command, fill, filled


def test_duplicate_of_an_older_append_keeps_what_follows_it() -> None:
    """An overlapping append that repeats known entries truncates nothing (audit S1)."""
    journal = Rig().journal
    fill(journal, 1, 10, term=1)
    fill(journal, 3, 5, term=1)
    assert journal[:] == filled(1, 10, term=1)


def test_the_engines_truncation_before_an_append_does_nothing() -> None:
    """deleteEntriesFrom, which the engine calls on every overlap, removes no entry."""
    journal = Rig().journal
    fill(journal, 1, 10, term=1)
    journal.deleteEntriesFrom(2)
    assert journal.last_index == 10


def test_conflict_replaces_from_the_conflicting_entry_on() -> None:
    """An entry of another term at a known index removes it and all that follow, then stands."""
    rig = Rig()
    fill(rig.journal, 1, 10, term=1)
    rig.settle()
    fill(rig.journal, 8, 8, term=2)
    assert rig.journal.durable_index == 7
    rig.settle()
    assert rig.journal.durable_index == 8
    assert rig.crash_and_open()[:] == filled(1, 7, term=1) + filled(8, 8, term=2)


def test_committed_entry_is_never_replaced() -> None:
    """A conflict at or below the commit floor is refused and changes nothing."""
    journal = Rig().journal
    fill(journal, 1, 10, term=1)
    journal.setRaftCommitIndex(6)
    with pytest.raises(InvariantViolation, match="entry 6 of term 2 would replace a committed one"):
        fill(journal, 6, 6, term=2)
    fill(journal, 7, 7, term=2)
    assert journal[:] == filled(1, 6, term=1) + filled(7, 7, term=2)


def test_gap_is_refused() -> None:
    """An entry that does not follow the last one is refused."""
    journal = Rig().journal
    fill(journal, 1, 3, term=1)
    with pytest.raises(InvariantViolation, match="entry 5 would leave a gap after entry 3"):
        fill(journal, 5, 5, term=1)


def test_entry_below_the_retained_part_is_taken_as_known() -> None:
    """A late duplicate of a compacted entry, of whatever term, changes nothing."""
    journal = Rig().journal
    fill(journal, 1, 10, term=2)
    journal.compact_to(5)
    fill(journal, 2, 2, term=1)
    assert journal[:] == filled(5, 10, term=2)


def test_fresh_log_takes_the_engines_first_entry() -> None:
    """A new journal is empty, in term 0 without a vote, and takes what the engine adds first."""
    rig = Rig()
    journal = rig.journal
    assert isinstance(journal, Journal)
    assert (len(journal), journal.getCurrentTerm(), journal.getVotedForNodeId()) == (0, 0, None)
    assert (journal.first_index, journal.last_index, journal.last_term) == (0, 0, 0)
    assert (journal.durable_index, journal.getRaftCommitIndex()) == (0, 1)
    assert journal.recovery.created
    journal.add(STUB, 1, 0)
    assert journal.durable_index == 0
    rig.settle()
    assert journal.durable_index == 1
    assert not rig.crash_and_open().recovery.created


def test_commit_index_after_a_restart_is_what_the_snapshot_proves() -> None:
    """A restart never believes a commit index that the log does not prove (audit S7)."""
    rig = Rig()
    fill(rig.journal, 1, 30, term=1)
    rig.journal.setRaftCommitIndex(30)
    rig.settle()
    assert rig.crash_and_open().getRaftCommitIndex() == 1
    rig.journal.compact_to(20)
    rig.settle()
    journal = rig.crash_and_open()
    assert (journal.first_index, journal.getRaftCommitIndex(), journal.commit_floor) == (20, 21, 21)


@pytest.mark.parametrize(
    ("term", "vote", "what"),
    [(4, "n1", "term 4 after term 5"), (5, "n2", "cast for n1"), (5, None, "cast for n1")],
)
def test_term_never_goes_back_and_a_vote_never_changes(
    term: int, vote: str | None, what: str
) -> None:
    """Within a term a vote is cast once; terms only rise."""
    journal = Rig().journal
    journal.setCurrentTerm(5, None)
    journal.setCurrentTerm(5, "n1")
    with pytest.raises(InvariantViolation, match=what):
        journal.setCurrentTerm(term, vote)
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (5, "n1")


def test_term_and_vote_survive_the_segment_that_held_them() -> None:
    """A vote of long ago is still known when the segment with its record has been dropped."""
    rig = Rig()
    rig.journal.setCurrentTerm(7, "n2")
    fill(rig.journal, 1, 200, term=7)
    rig.settle()
    rig.journal.compact_to(199)
    rig.settle()
    assert "wal-0000000000000001.seg" not in rig.disk.list()
    assert len(rig.disk.list()) == 1
    journal = rig.crash_and_open()
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (7, "n2")
    assert journal[:] == filled(199, 200, term=7)


def test_compaction_counts_positions_as_the_engine_does() -> None:
    """deleteEntriesTo(n) removes the first n retained entries; it never empties the log."""
    journal = Rig().journal
    fill(journal, 1, 10, term=1)
    journal.deleteEntriesTo(0)
    journal.deleteEntriesTo(3)
    journal.deleteEntriesTo(3)
    assert journal.first_index == 7
    with pytest.raises(InvariantViolation, match="would leave nothing"):
        journal.deleteEntriesTo(4)
    assert journal[:] == filled(7, 10, term=1)


def test_compaction_waits_until_it_is_durable_before_it_removes_files() -> None:
    """No segment goes while a crash could still bring back the log that needed it."""
    rig = Rig()
    fill(rig.journal, 1, 100, term=1)
    rig.settle()
    before = rig.disk.list()
    rig.journal.compact_to(99)
    rig.events.run_all()
    assert rig.disk.list() == before
    rig.settle()
    assert len(rig.disk.list()) < len(before)


def test_reset_installs_a_snapshot_in_one_step() -> None:
    """After a reset the log is two stubs; a crash before it is durable brings the old log back."""
    rig = Rig()
    fill(rig.journal, 1, 50, term=1)
    rig.settle()
    rig.journal.reset_to(80, 3, 81, 4)
    assert rig.journal[:] == [(STUB, 80, 3), (STUB, 81, 4)]
    assert rig.crash_and_open()[:] == filled(1, 50, term=1)
    rig.journal.reset_to(80, 3, 81, 4)
    rig.settle()
    journal = rig.crash_and_open()
    assert journal[:] == [(STUB, 80, 3), (STUB, 81, 4)]
    assert journal.getRaftCommitIndex() == journal.commit_floor == 81
    with pytest.raises(InvariantViolation, match="stub 9 can't follow stub 7"):
        journal.reset_to(7, 1, 9, 1)


def test_clear_and_add_is_legal() -> None:
    """The engine's own way to install a snapshot works, too."""
    rig = Rig()
    fill(rig.journal, 1, 50, term=1)
    rig.journal.clear()
    assert (len(rig.journal), rig.journal.size_bytes) == (0, 0)
    fill(rig.journal, 90, 91, term=2)
    rig.settle()
    assert rig.crash_and_open()[:] == filled(90, 91, term=2)


def test_membership_entries_are_known_through_conflict_and_compaction() -> None:
    """config_entries holds the retained entries of the membership; its version tells of changes."""
    journal = Rig().journal
    fill(journal, 1, 4, term=1)
    version = journal.config_version
    journal.add(b"\x02one", 5, 1)
    fill(journal, 6, 7, term=1)
    journal.add(b"\x02two", 8, 1)
    assert journal.config_entries() == [(5, b"\x02one"), (8, b"\x02two")]
    assert journal.config_version == version + 2
    fill(journal, 8, 8, term=2)
    assert journal.config_entries() == [(5, b"\x02one")]
    assert journal.config_version == version + 3
    journal.compact_to(3)
    assert journal.config_version == version + 3
    journal.compact_to(6)
    assert (journal.config_entries(), journal.config_version) == ([], version + 4)


def test_reads_by_index() -> None:
    """Entries and terms are found by index; what is not retained is empty or None."""
    journal = Rig().journal
    fill(journal, 1, 10, term=1)
    fill(journal, 11, 12, term=3)
    journal.compact_to(4)
    assert journal.entries(5, 7) == filled(5, 7, term=1)
    assert journal.entries(1, 4) == filled(4, 4, term=1)
    assert journal.entries(12, 99) == filled(12, 12, term=3)
    assert journal.entries(1, 3) == journal.entries(13, 14) == []
    assert [journal.term_at(i) for i in (3, 4, 11, 13)] == [None, 1, 3, None]
    assert journal.last_term == 3


def test_missing_segment_is_refused() -> None:
    """A deleted segment, oldest or in the middle, is noticed and nothing is loaded."""
    for victim in (0, 1):
        rig = Rig()
        fill(rig.journal, 1, 100, term=1)
        rig.settle()
        rig.journal.close()
        rig.disk.remove(rig.disk.list()[victim])
        with pytest.raises(CorruptLog, match=r"segment is missing|the segment before it ends at"):
            rig.open()


def test_closed_journal_takes_nothing() -> None:
    """After close every change is refused; closing again is harmless."""
    rig = Rig()
    fill(rig.journal, 1, 3, term=1)
    rig.journal.close()
    rig.journal.close()
    with pytest.raises(DiskFailure, match="closed"):
        fill(rig.journal, 4, 4, term=1)
    assert rig.crash_and_open().last_index == 3


def test_entry_beyond_the_record_limit_is_refused() -> None:
    """An oversized entry is an error of the caller; the log is unchanged and goes on."""
    journal = Rig().journal
    with pytest.raises(ValueError, match="at most"):
        journal.add(bytes(1 << 24), 1, 1)
    fill(journal, 1, 1, term=1)
    assert journal[-1] == (command(1, 1), 1, 1)
