"""Snapshots and the log together: what a start finds after any crash, and what travels."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from raftreg.raft.compaction import Compaction, CompactionLimits
from raftreg.raft.faults import CorruptLog, CorruptSnapshot, ProtocolViolation
from raftreg.raft.journal import DurableJournal
from raftreg.raft.membership import Configuration, encode_configuration
from raftreg.raft.snapshots import SnapshotStore
from tests.raft.lab import EnvelopeLab
from tests.sim.scheduler import Scheduler
from tests.sim.sim_disk import SimDisk

LIMITS = CompactionLimits(entries_max=5, trailing_entries=2, piece_bytes=40, retry_s=1.0)


class Jobs:
    """A worker whose jobs run when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], None], Callable[[BaseException | None], None]]] = []

    def run(self, job: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """See `Worker.run`."""
        self.waiting.append((job, done))

    def pause(self) -> None:
        """Nothing else runs."""

    def finish(self) -> None:
        """Runs the job that waits."""
        job, done = self.waiting.pop()
        try:
            job()
        except OSError as fault:
            done(fault)
        else:
            done(None)


class Room:
    """Log, snapshots and compaction of one server; the state is the applied index as text."""

    def __init__(self, disk: SimDisk | None = None) -> None:
        self.scheduler = Scheduler()
        self.disk = disk or SimDisk(random.Random(1), self.scheduler.call_later)
        self.jobs = Jobs()
        self.journal = DurableJournal.open(self.disk)
        self.store = SnapshotStore(self.disk)
        self.buffered_bytes = 0
        self.compaction = Compaction(
            journal=self.journal,
            store=self.store,
            worker=self.jobs,
            limits=LIMITS,
            clock=self.scheduler.clock,
            buffered_bytes=lambda _: self.buffered_bytes,
            capture=lambda: (7, [], iter([b"state ", b"of the machine"])),
        )

    def fill(self, last: int, term: int = 1) -> None:
        """Appends entries up to an index and makes them durable."""
        for index in range(self.journal.last_index + 1, last + 1):
            self.journal.add(b"\x00%d" % index, index, term)
        self.sync()

    def sync(self) -> None:
        """Everything written so far is on disk."""
        self.journal.flush()
        self.scheduler.run_until(self.scheduler.now + 10.0)

    def snapshot(self, applied: int) -> None:
        """Writes a snapshot at an applied index and cuts the log."""
        self.compaction.maybe_start(applied, lambda _: Configuration())
        self.jobs.finish()
        self.sync()

    def restarted(self) -> Room:
        """After kill -9, another process on the same disk."""
        self.disk.kill()
        room = Room(self.disk)
        room.scheduler = self.scheduler
        return room


class To:
    """A peer."""

    id = "b"


def pieces(room: Room) -> list[list[object]]:
    """All pieces of the newest snapshot."""
    sent: list[list[object]] = []
    while not sent or not sent[-1][2]:
        piece = room.compaction.getTransmissionData(To())
        assert piece is not None
        sent.append(piece)
    return sent


def test_a_snapshot_cuts_the_log_and_a_restart_begins_at_it() -> None:
    """The tail for slow followers stays; the chunks come back as they were."""
    room = Room()
    room.fill(12)
    room.snapshot(10)
    assert (room.journal.first_index, room.journal.last_index) == (7, 12)
    again = room.restarted()
    loaded = again.compaction.load_newest()
    assert loaded is not None
    assert (loaded.meta.index, loaded.header.time_ms) == (10, 7)
    assert len(loaded.read_requests(lambda data: data)) == 0
    assert list(loaded.machine_chunks()) == [b"state ", b"of the machine"]
    assert (again.journal.first_index, again.journal.last_index) == (7, 12)


def test_a_crash_between_snapshot_and_log_leaves_both_usable() -> None:
    """An installed snapshot that the log does not reach yet: the log is made to begin at it."""
    room, other = Room(), Room()
    room.fill(20)
    room.snapshot(18)
    other.fill(4)
    for piece in pieces(room):
        other.compaction.setTransmissionData(piece)
    again = other.restarted()  # before `reset_to` was called
    loaded = again.compaction.load_newest()
    assert loaded is not None
    assert loaded.meta.index == 18
    assert (again.journal.first_index, again.journal.last_index) == (17, 18)


def test_a_log_that_conflicts_with_the_snapshot_gives_way() -> None:
    """Entries of another term at the snapshot's index were never committed."""
    room, other = Room(), Room()
    room.fill(20, term=3)
    room.snapshot(18)
    other.fill(1)
    other.fill(25, term=2)
    for piece in pieces(room):
        other.compaction.setTransmissionData(piece)
    again = other.restarted()
    assert again.compaction.load_newest() is not None
    assert (again.journal.last_index, again.journal.last_term) == (18, 3)


def test_a_late_snapshot_removes_nothing_that_is_in_the_log() -> None:
    """What comes after the snapshot's last entry may be acknowledged already."""
    room, other = Room(), Room()
    room.fill(20)
    room.snapshot(18)
    other.fill(25)
    results = [other.compaction.setTransmissionData(piece) for piece in pieces(room)]
    assert not any(results)
    assert other.journal.last_index == 25
    again = other.restarted()
    assert again.compaction.load_newest() is not None
    assert again.journal.last_index == 25


def test_a_damaged_snapshot_is_passed_over_when_the_log_reaches_further_back() -> None:
    """The older one is used; where the log does not reach it, the server refuses to start."""
    room = Room()
    room.fill(12)
    room.snapshot(10)
    room.fill(40)
    newest = room.store.names()[0]
    room.compaction.maybe_start(30, lambda _: Configuration())
    job, _ = room.jobs.waiting.pop()
    job()  # written, and killed before the log is cut
    assert room.store.names()[0] != newest
    room.disk.flip(room.store.names()[0], 60)
    damaged = room.store.names()[0]
    again = room.restarted()
    loaded = again.compaction.load_newest()
    assert loaded is not None
    assert loaded.meta.index == 10
    assert [fault.file for fault in again.compaction.passed_over] == [damaged]


@pytest.mark.parametrize("keep_older", [True, False])
def test_a_damaged_snapshot_that_the_log_needs_is_told(keep_older: bool) -> None:
    """The error names the file; nothing is changed."""
    room = Room()
    room.fill(12)
    room.snapshot(10)
    room.fill(40)
    room.snapshot(30)
    newest, older = room.store.names()
    if not keep_older:
        room.disk.remove(older)
    room.disk.flip(newest, 60)
    with pytest.raises(CorruptSnapshot, match=newest):
        room.restarted().compaction.load_newest()


def test_a_log_without_the_snapshot_that_it_needs_is_refused() -> None:
    """A log that begins in the middle is not taken for a whole one."""
    room = Room()
    room.fill(12)
    room.snapshot(10)
    room.disk.remove(room.store.names()[0])
    with pytest.raises(CorruptSnapshot, match="no snapshot reaches it"):
        room.restarted().compaction.load_newest()


def test_snapshots_without_a_log_are_refused() -> None:
    """The log holds term and vote: without it this server could vote twice in a term."""
    lab = EnvelopeLab("ABC", compact_after=5)
    lab.elect("A", "BC")
    for number in range(12):
        lab.write("A", f"k{number}")
        lab.flow("ABC", rounds=2)
    disk = lab.disks["B"]
    snapshots = [name for name in disk.list() if name.endswith(".snap")]
    assert snapshots
    lab.crash("B")
    for name in disk.list():
        if name not in snapshots:
            disk.remove(name)
    with pytest.raises(CorruptLog, match="term and vote are lost"):
        lab.start("B")


def test_a_new_server_takes_its_first_snapshot() -> None:
    """Its log is as new as it is, and that is no reason to refuse what the leader sends."""
    lab = EnvelopeLab("ABC", compact_after=5)
    for name in "AB":
        lab.cut("C", name)
    lab.elect("A", "B")
    for number in range(12):
        lab.write("A", f"k{number}")
        lab.flow("AB", rounds=2)
    for name in "AB":
        lab.connect("C", name)
    lab.flow("ABC", rounds=12)
    assert lab.values("C") == lab.values("A")
    assert lab.nodes["C"].metrics.snapshots_installed_total == 1


def test_pieces_out_of_order_or_damaged_install_nothing() -> None:
    """A lost first piece, a damaged one, a repeated last one; then a whole one is taken."""
    room, other = Room(), Room()
    room.fill(20)
    room.snapshot(18)
    sent = pieces(room)
    assert len(sent) > 3
    assert not any(other.compaction.setTransmissionData(piece) for piece in sent[1:])
    piece, *rest = sent[1]
    assert isinstance(piece, bytes)
    damaged = [sent[0], [piece[:-1] + b"\x00", *rest], *sent[2:]]
    with pytest.raises(ProtocolViolation, match="refused"):
        [other.compaction.setTransmissionData(part) for part in damaged]
    assert other.store.names() == []
    assert [other.compaction.setTransmissionData(piece) for piece in sent][-1]
    assert not other.compaction.setTransmissionData(sent[-1])
    assert other.compaction.received.index == 18
    assert other.compaction.received.configuration == encode_configuration(Configuration())


def test_no_piece_is_sent_while_the_window_is_full() -> None:
    """The network's buffer bounds what is on its way; then the next piece follows."""
    room = Room()
    assert room.compaction.getTransmissionData(To()) is None  # there is none yet
    room.fill(20)
    room.snapshot(18)
    first = room.compaction.getTransmissionData(To())
    room.buffered_bytes = LIMITS.window_bytes + 1
    assert room.compaction.getTransmissionData(To()) is None
    room.buffered_bytes = 0
    second = room.compaction.getTransmissionData(To())
    assert first is not None
    assert second is not None
    assert (first[1], second[1]) == (True, False)
    room.compaction.cancelTransmisstion(To())
    assert room.compaction.getTransmissionData(To()) == first


def test_a_snapshot_that_cannot_be_written_is_tried_again_later() -> None:
    """The log stays whole, the failure is counted, and there is a pause before the next."""
    room = Room()
    room.fill(12)
    room.compaction.maybe_start(10, lambda _: Configuration())
    room.disk.fail_next_sync(28)
    room.jobs.finish()
    assert (room.compaction.failures_total, room.journal.first_index) == (1, 1)
    assert room.store.names() == []
    room.compaction.maybe_start(10, lambda _: Configuration())
    assert not room.jobs.waiting
    room.scheduler.run_until(room.scheduler.now + LIMITS.retry_s)
    room.snapshot(10)
    assert room.journal.first_index == 7


def test_one_snapshot_is_written_at_a_time() -> None:
    """While one is being written no other begins, however far the log has grown."""
    room = Room()
    room.fill(40)
    room.compaction.maybe_start(10, lambda _: Configuration())
    room.compaction.maybe_start(40, lambda _: Configuration())
    assert len(room.jobs.waiting) == 1
