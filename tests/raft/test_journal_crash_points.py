"""Power cuts at every single step of what must be atomic.

The counterpart of a kill in the middle of the engine's own compaction, which loses the tail in
seven of twelve runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from raftreg.raft.journal import STUB, DurableJournal
from raftreg.raft.retained import Entry
from tests.raft.storage_rig import Rig, fill, filled
from tests.sim.sim_disk import SimulatedCrash, Tear

LAST = 120


def prepared(seed: int, tears: tuple[Tear, ...] = tuple(Tear)) -> Rig:
    """A durable log over several segments, with a term and a vote."""
    rig = Rig(seed, tears)
    rig.journal.setCurrentTerm(3, "n2")
    fill(rig.journal, 1, LAST, term=3)
    rig.settle()
    return rig


def compact(journal: DurableJournal) -> None:
    """Compact, and append at the same time, as a busy server does."""
    journal.compact_to(100)
    fill(journal, LAST + 1, LAST + 60, term=3)


def install(journal: DurableJournal) -> None:
    """Install a snapshot beyond the end of the log."""
    journal.reset_to(500, 3, 501, 3)
    fill(journal, 502, 560, term=3)


def roll(journal: DurableJournal) -> None:
    """Append over several new segments, in a new term."""
    journal.setCurrentTerm(4, "n1")
    fill(journal, LAST + 1, LAST + 100, term=4)


def compacted(entries: list[Entry]) -> bool:
    """Either log is whole: it begins at 1 or at 100 and reaches at least the durable end."""
    first, last = entries[0][1], entries[-1][1]
    return first in {1, 100} and last >= LAST and entries == filled(first, last, term=3)


def installed(entries: list[Entry]) -> bool:
    """The whole old log, or the stubs and what followed them."""
    if entries[0][1] == 1:
        return entries == filled(1, LAST, term=3)
    stubs = [(STUB, 500, 3), (STUB, 501, 3)]
    return entries == stubs + filled(502, entries[-1][1], term=3)


def rolled(entries: list[Entry]) -> bool:
    """The old log, and some of the new entries without a gap."""
    last = entries[-1][1]
    return entries == filled(1, LAST, term=3) + filled(LAST + 1, last, term=4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("change", "whole"), [(compact, compacted), (install, installed), (roll, rolled)]
)
def test_power_cut_at_any_step_leaves_the_old_or_the_new(
    change: Callable[[DurableJournal], None], whole: Callable[[list[Entry]], bool], seed: int
) -> None:
    """At whichever write, sync, rename or removal the power fails, nothing durable is lost."""
    rig = prepared(seed)
    start = rig.disk.operations
    change(rig.journal)
    rig.settle()
    steps = rig.disk.operations - start
    assert steps > 3
    for step in range(1, steps + 1):
        rig = prepared(seed)
        rig.disk.crash_after(step)
        change(rig.journal)
        with pytest.raises(SimulatedCrash):
            rig.settle()
        durable = rig.journal.durable_lsn
        journal = rig.crash_and_open()
        assert journal.lsn >= durable
        assert whole(journal[:]), (step, journal[0], journal[-1])
        assert journal.getCurrentTerm() >= 3
        assert journal.getVotedForNodeId() == ("n2" if journal.getCurrentTerm() == 3 else "n1")


@pytest.mark.parametrize("seed", range(10))
def test_power_cut_while_a_log_is_being_opened(seed: int) -> None:
    """Recovery itself may be cut short any number of times: the next one finds the same log."""
    rig = prepared(seed)
    fill(rig.journal, LAST + 1, LAST + 9, term=3)
    rig.journal.flush()
    rig.disk.crash()
    for step in range(1, 8):
        rig.disk.crash_after(step)
        try:
            rig.open()
        except SimulatedCrash:
            rig.disk.crash()
        else:
            break
    journal = rig.crash_and_open()
    assert journal[:] == filled(1, journal.last_index, term=3)
    assert journal.last_index >= LAST


@pytest.mark.parametrize("seed", range(20))
def test_power_cut_soon_after_a_kill(seed: int) -> None:
    """What a killed process had written is in the page cache only when the next one reads it.

    Recovery must sync it before it marks it as synced, or a power cut then looks like corruption.
    """
    for step in range(1, 4):
        rig = Rig(seed, tears=[Tear.SECTORS])
        rig.open(segment_bytes=1 << 20)
        fill(rig.journal, 1, LAST, term=3)
        rig.journal.flush()
        rig.disk.kill()
        rig.disk.crash_after(step)
        with contextlib.suppress(SimulatedCrash):
            rig.open(segment_bytes=1 << 20)
        journal = rig.crash_and_open()
        assert journal[:] == filled(1, journal.last_index, term=3)


@pytest.mark.parametrize("seed", range(20))
def test_names_that_a_killed_process_left_are_durable_before_more_is_promised(seed: int) -> None:
    """A kill between a segment's rename and the directory's sync, then a power cut after more.

    Without a sync of the directory at the next start the rename could be undone with all that was
    acknowledged into the segment since.
    """
    rig = prepared(seed)
    start = rig.disk.operations
    roll(rig.journal)
    rig.settle()
    for step in range(1, rig.disk.operations - start + 1):
        rig = prepared(seed)
        rig.disk.crash_after(step)
        roll(rig.journal)
        with pytest.raises(SimulatedCrash):
            rig.settle()
        journal = rig.kill_and_open()
        last = journal.last_index + 3
        journal.setCurrentTerm(5, "n1")
        fill(journal, last - 2, last, term=5)
        rig.settle()
        assert journal.durable_index == last
        assert rig.crash_and_open().last_index == last


@pytest.mark.parametrize("seed", range(20))
def test_what_a_failed_sync_dropped_is_written_again_before_more_is_promised(seed: int) -> None:
    """The kernel reports a failed sync once; the pages are clean then, readable and not on disk.

    The next process reads them, and its own sync writes nothing of them (the "fsyncgate" of 2018):
    unless it writes them anew a power cut leaves a hole among acknowledged entries.
    """
    rig = Rig(seed)
    rig.open(segment_bytes=1 << 20)
    fill(rig.journal, 1, LAST, term=3)
    rig.settle()
    rig.disk.fail_next_sync()
    fill(rig.journal, LAST + 1, LAST + 30, term=3)
    rig.settle()
    assert len(rig.failures) == 1
    journal = rig.kill_and_open()
    first = journal.last_index + 1
    fill(journal, first, first + 30, term=3)
    rig.settle()
    assert journal.durable_index == first + 30
    for _ in range(3):
        assert rig.crash_and_open()[:] == filled(1, first + 30, term=3)


@pytest.mark.parametrize("seed", range(5))
def test_power_cut_while_the_first_segment_is_made(seed: int) -> None:
    """A data directory whose very first start was cut short is fresh, not corrupt."""
    for step in range(1, 5):
        rig = Rig(seed)
        rig.disk.remove(rig.disk.list()[0])
        rig.disk.crash_after(step)
        with pytest.raises(SimulatedCrash):
            rig.open()
        journal = rig.crash_and_open()
        assert (len(journal), journal.getCurrentTerm()) == (0, 0)
        fill(journal, 1, 3, term=1)
        rig.settle()
        assert rig.crash_and_open()[:] == filled(1, 3, term=1)
