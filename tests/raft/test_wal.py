"""Group commit, segments, and what happens when the disk fails."""

from __future__ import annotations

import errno

import pytest

from raftreg.raft import wal as wal_module
from raftreg.raft.faults import DiskFailure
from tests.raft.storage_rig import Rig, fill, filled


def test_one_sync_makes_all_that_has_gathered_durable() -> None:
    """Sixty-four appends and a flush cost one sync."""
    rig = Rig()
    rig.open(segment_bytes=1 << 20)
    before = rig.disk.syncs
    fill(rig.journal, 1, 64, term=1)
    rig.settle()
    assert rig.disk.syncs == before + 1
    assert rig.durable == [rig.journal.lsn]


def test_nothing_is_durable_before_the_sync_ends() -> None:
    """durable_lsn and durable_index move when the disk reports, not when a sync starts."""
    rig = Rig()
    fill(rig.journal, 1, 3, term=1)
    durable = rig.journal.durable_lsn
    rig.journal.flush()
    assert (rig.journal.durable_lsn, rig.journal.durable_index) == (durable, 0)
    rig.events.run_one()
    assert (rig.journal.durable_lsn, rig.journal.durable_index) == (rig.journal.lsn, 3)


def test_next_sync_starts_when_the_one_before_ends() -> None:
    """Appends made while a sync is under way form the next batch, without another flush."""
    rig = Rig()
    rig.open(segment_bytes=1 << 20)
    before = rig.disk.syncs
    fill(rig.journal, 1, 1, term=1)
    rig.journal.flush()
    fill(rig.journal, 2, 40, term=1)
    rig.journal.flush()
    rig.events.run_all()
    assert rig.disk.syncs == before + 2
    assert rig.journal.durable_index == 40
    assert rig.durable == sorted(set(rig.durable))


def test_flush_without_changes_costs_nothing() -> None:
    """A flush of a durable log touches no disk."""
    rig = Rig()
    before = rig.disk.operations
    rig.journal.flush()
    rig.events.run_all()
    assert rig.disk.operations == before


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog larger than a batch goes to disk in several, each acknowledged on its own."""
    monkeypatch.setattr(wal_module, "BATCH_BYTES_MAX", 1000)
    rig = Rig()
    rig.open(segment_bytes=1 << 20)
    fill(rig.journal, 1, 50, term=1, size_bytes=100)
    assert rig.journal.unsynced_bytes == 50 * 116
    rig.settle()
    assert len(rig.durable) > 5
    assert rig.journal.unsynced_bytes == 0
    assert rig.crash_and_open()[:] == filled(1, 50, term=1, size_bytes=100)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("entries", [3, 100])
def test_failed_sync_is_final(code: int, entries: int) -> None:
    """The failure is told once, no sync is tried again, nothing more is taken (fsyncgate)."""
    rig = Rig()
    fill(rig.journal, 1, 2, term=1)
    rig.settle()
    fill(rig.journal, 3, 2 + entries, term=1)
    rig.disk.fail_next_sync(code)
    rig.settle()
    operations = rig.disk.operations
    rig.settle()
    assert [error.errno for error in rig.failures] == [code]
    assert rig.disk.operations == operations
    assert rig.journal.durable_index == 2
    with pytest.raises(DiskFailure, match="the log has failed"):
        fill(rig.journal, rig.journal.last_index + 1, rig.journal.last_index + 1, term=1)
    with pytest.raises(DiskFailure, match="the log had failed"):
        rig.journal.close()
    assert rig.crash_and_open()[:2] == filled(1, 2, term=1)


@pytest.mark.parametrize("failing", range(4))
def test_failure_at_any_step_of_a_new_segment_is_final(failing: int) -> None:
    """Sealing, creating and filling a segment fail as loudly as any other write."""
    rig = Rig()
    fill(rig.journal, 1, 20, term=1)
    rig.settle()
    fill(rig.journal, 21, 60, term=1)
    rig.journal.flush()
    for _ in range(failing):
        rig.events.run_one()
    durable = rig.journal.durable_index
    rig.disk.fail_next_sync()
    rig.events.run_all()
    assert len(rig.failures) == 1
    assert rig.journal.durable_index == durable
    recovered = rig.crash_and_open()
    assert recovered[:durable] == filled(1, durable, term=1)


def test_failed_removal_of_old_segments_is_final() -> None:
    """A directory that can't be synced is a failed disk, also when only old files were to go."""
    rig = Rig()
    fill(rig.journal, 1, 100, term=1)
    rig.settle()
    rig.journal.compact_to(99)
    rig.journal.flush()
    while len(rig.durable) < 1 or rig.durable[-1] < rig.journal.lsn:
        rig.events.run_one()
    rig.disk.fail_next_sync()
    rig.events.run_all()
    assert len(rig.failures) == 1


@pytest.mark.parametrize("answered", range(4))
def test_disk_that_does_not_answer_ends_the_log(
    monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    """What waits for the disk is bounded: past the bound the log fails instead of growing.

    It may stop to answer at any step of a new segment; what it answers later counts no more.
    """
    monkeypatch.setattr(wal_module, "UNSYNCED_BYTES_MAX", 10_000)
    rig = Rig()
    fill(rig.journal, 1, 40, term=1)
    rig.journal.flush()
    for _ in range(answered):
        rig.events.run_one()
    durable = list(rig.durable)
    with pytest.raises(DiskFailure, match="does not answer"):
        fill(rig.journal, 41, 1000, term=1, size_bytes=100)
    assert len(rig.failures) == 1
    rig.events.run_all()
    assert (len(rig.failures), rig.durable) == (1, durable)


def test_disk_that_fails_while_opening_is_reported() -> None:
    """An error at start is a DiskFailure that says so."""
    rig = Rig()
    rig.journal.close()
    rig.disk.fail_next_sync()
    with pytest.raises(DiskFailure, match="can't be opened"):
        rig.open()


def test_segments_roll_and_everything_is_read_back() -> None:
    """Many segments hold one log."""
    rig = Rig()
    fill(rig.journal, 1, 300, term=1)
    rig.settle()
    assert len(rig.disk.list()) > 10
    assert all(rig.disk.size(name) < 4000 for name in rig.disk.list())
    journal = rig.crash_and_open()
    assert journal[:] == filled(1, 300, term=1)
    assert journal.recovery.segments == len(rig.disk.list())


def test_record_larger_than_a_segment_is_kept() -> None:
    """A segment's size is a target; one large record gets a segment of its own."""
    rig = Rig()
    for index in range(1, 6):
        fill(rig.journal, index, index, term=1, size_bytes=5000)
    rig.settle()
    assert rig.crash_and_open()[:] == filled(1, 5, term=1, size_bytes=5000)
