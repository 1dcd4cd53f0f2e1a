"""The journal that the Raft engine sees: entries in memory, every change in the write-ahead log.

It takes the place of PySyncObj's journal and holds the rules that one breaks:

* an entry that is there already, with the same term, is left alone: a duplicate or overlapping
  AppendEntries never un-appends what was acknowledged (Raft paper, figure 2, AppendEntries rule 3);
* only a conflict (another term at the same index) truncates, and never at or below what is known to
  be committed;
* term and vote are records of the same log, so one sync orders them with the entries;
* a stored commit index is a record behind the entries that it speaks of, so it is never believed
  beyond what the log holds; it only spares a restarted server to wait for a leader.

Nothing here is durable when a method returns. Whoever sends an acknowledgement, a vote or a request
for votes waits until `durable_lsn` has reached the `lsn` read after the change.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Self, overload

from pysyncobj.journal import Journal

from raftreg.raft.disk import Disk
from raftreg.raft.faults import CorruptLog, InvariantViolation
from raftreg.raft.retained import ConfigEntry, Entry, RetainedLog
from raftreg.raft.wal import SEGMENT_BYTES_MAX, Recovery, Wal


class RecordKind(enum.IntEnum):
    """What a record of the write-ahead log means; the numbers are on disk."""

    #: index u64, term u64, command; replaces everything from its index on.
    ENTRY = 1
    #: term u64, flag u8 (1: voted), id of the node voted for in UTF-8.
    HARD_STATE = 2
    #: index u64 of the first entry that is kept; 0: the log is empty.
    START = 3
    #: prev_index, prev_term, index, term, all u64; the log is exactly these two stubs.
    RESET = 4
    #: No payload; the log has no entries.
    CLEAR = 5
    #: index u64: entries up to it were on disk here and known to be committed.
    COMMIT = 6


#: Command of a stub entry: the engine's no-op.
STUB = b"\x01"

_ENTRY = struct.Struct("<QQ")
_HARD_STATE = struct.Struct("<QB")
_START = struct.Struct("<Q")
_COMMIT = struct.Struct("<Q")
_RESET = struct.Struct("<QQQQ")


class DurableJournal(Journal):
    """Raft's log, term and vote on disk. Construct it with `open`.

    Attributes:
        commit_floor: Highest index that the driver knows to be committed. It only grows.
    """

    def __init__(self) -> None:
        self._log = RetainedLog()
        self._term = 0
        self._voted_for: str | None = None
        # Index at which the log must begin once all of it is replayed; None: nothing is required.
        self._required_first: int | None = None
        self._wal: Wal
        self._noted_commit = 0
        self.commit_floor = 0

    @classmethod
    def open(
        cls,
        disk: Disk,
        *,
        segment_bytes: int = SEGMENT_BYTES_MAX,
        on_durable: Callable[[int], None] | None = None,
        on_failure: Callable[[OSError], None] | None = None,
    ) -> Self:
        """Read the journal of a data directory, or begin one.

        Args:
            disk: The directory.
            segment_bytes: Size at which the log starts a new file.
            on_durable: Called on the loop with the lsn up to which everything is on disk.
            on_failure: Called on the loop, once, when the disk has failed; the server must stop.

        Raises:
            CorruptLog: Synced data is damaged or a file is missing. Nothing was changed.
            DiskFailure: The disk can't be read or written.
        """
        journal = cls()
        journal._wal = Wal.open(
            disk,
            replay=journal._replay,
            preamble=journal._preamble,
            segment_bytes=segment_bytes,
        )
        journal._check_complete()
        journal.commit_floor = journal.getRaftCommitIndex() if journal._log.entries else 0
        if on_durable is not None:
            journal._wal.on_durable = on_durable
        if on_failure is not None:
            journal._wal.on_failure = on_failure
        return journal

    # What the engine calls; the names are PySyncObj's.

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry, or leave the log alone if it has the entry already.

        Args:
            command: At most `segment.PAYLOAD_BYTES_MAX` - 16 bytes.
            idx: Its index. Below the first retained index it is taken as known (compacted).
            term: Its term; one other than that of a retained entry at `idx` truncates from there.

        Raises:
            InvariantViolation: It would leave a gap, or replace a committed entry.
            DiskFailure: The log has failed.
        """
        log = self._log
        if log.entries:
            last = log.entries[-1][1]
            if idx > last + 1:
                raise InvariantViolation(f"entry {idx} would leave a gap after entry {last}")
            if idx <= last and not self._must_replace(idx, term):
                return
        command = bytes(command)
        lsn = self._wal.append(RecordKind.ENTRY, _ENTRY.pack(idx, term), command)
        if log.entries and idx <= log.last_index:
            log.truncate_from(idx)
        log.append(command, idx, term, lsn)

    def clear(self) -> None:
        """Remove all entries. Use `reset_to` to install a snapshot in one atomic step."""
        self._wal.append(RecordKind.CLEAR)
        self._log.clear()

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803  # the engine's names
        """Do nothing: the engine asks for it on every overlap, `add` truncates on a conflict."""

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803  # the engine's names
        """Remove the first `entryTo` retained entries (a position, as the engine counts).

        Raises:
            InvariantViolation: No entry would be left.
        """
        if entryTo > 0:
            self.compact_to(self._log.first_index + entryTo)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803  # the engine's names
        """Record the current term and whom this server voted for in it.

        Raises:
            InvariantViolation: The term would go back, or a vote would be changed within its term.
        """
        if (term, votedForNodeId) == (self._term, self._voted_for):
            return
        if term < self._term:
            raise InvariantViolation(f"term {term} after term {self._term}")
        if term == self._term and self._voted_for is not None:
            raise InvariantViolation(
                f"vote for {votedForNodeId} in term {term}, cast for {self._voted_for} already"
            )
        self._wal.append(RecordKind.HARD_STATE, _encode_hard_state(term, votedForNodeId))
        self._term, self._voted_for = term, votedForNodeId

    def getCurrentTerm(self) -> int:  # noqa: N802  # the engine's name
        """Return the current term, 0 at first."""
        return self._term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802  # the engine's name
        """Return the id of the node voted for in the current term."""
        return self._voted_for

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803  # the engine's names
        """Raise `commit_floor`; `note_commit` stores it when that is cheap."""
        self.commit_floor = max(self.commit_floor, raftCommitIndex)

    def getRaftCommitIndex(self) -> int:  # noqa: N802  # the engine's name
        """Return the index up to which the log is known to be committed, 1 for a fresh log.

        A compacted log begins with the entry before the snapshot's last one, so `first_index + 1`
        is; a later one may have been noted. It is never beyond the log.
        """
        proved = 1 if self._log.first_index <= 1 else self._log.first_index + 1
        return min(max(proved, self._noted_commit), max(self._log.last_index, 1))

    @property
    def noted_commit(self) -> int:
        """Commit index that was recorded last."""
        return self._noted_commit

    def note_commit(self) -> None:
        """Record `commit_floor`, so that a restarted server knows it before it hears a leader.

        It must not be beyond `durable_index`. It need not be synced: an older one does no harm.
        """
        if self.commit_floor > self._noted_commit:
            self._noted_commit = self.commit_floor
            self._wal.append(RecordKind.COMMIT, _COMMIT.pack(self._noted_commit))

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self._log.entries[item]

    def __len__(self) -> int:
        return len(self._log.entries)

    def _destroy(self) -> None:
        self.close()

    # What the driver calls.

    def compact_to(self, index: int) -> None:
        """Make `index` the first retained entry; whole old segments go once that is durable.

        Whatever is removed must be in a durable snapshot. An index at or below the first one
        changes nothing.

        Raises:
            InvariantViolation: There is no entry at `index`.
        """
        if index <= self._log.first_index:
            return
        if index > self._log.last_index:
            raise InvariantViolation(
                f"compaction to {index} would leave nothing: last entry {self._log.last_index}"
            )
        self._wal.append(RecordKind.START, _START.pack(index))
        self._log.drop_below(index)
        self._wal.drop_before(self._log.first_lsn)

    def reset_to(self, prev_index: int, prev_term: int, index: int, term: int) -> None:
        """Make the log hold two stubs, the last entries that an installed snapshot covers.

        One record, so that a crash leaves either the old log or the new one. The snapshot must be
        durable.

        Raises:
            InvariantViolation: The two indexes do not follow each other.
        """
        if index != prev_index + 1:
            raise InvariantViolation(f"stub {index} can't follow stub {prev_index}")
        lsn = self._wal.append(RecordKind.RESET, _RESET.pack(prev_index, prev_term, index, term))
        self._reset(lsn, prev_index, prev_term, index, term)
        self.commit_floor = max(self.commit_floor, index)
        self._wal.drop_before(lsn)

    def flush(self) -> None:
        """Start a sync of all changes made so far, unless one is under way."""
        self._wal.flush()

    def close(self) -> None:
        """Make everything durable and close the files.

        Raises:
            DiskFailure: The disk failed; what was not durable is lost.
        """
        self._wal.close()

    @property
    def recovery(self) -> Recovery:
        """What opening the log found, such as a torn tail that was cut."""
        return self._wal.recovery

    @property
    def first_index(self) -> int:
        """Index of the first retained entry, 0 for an empty log."""
        return self._log.first_index

    @property
    def last_index(self) -> int:
        """Index of the last entry, 0 for an empty log."""
        return self._log.last_index

    @property
    def last_term(self) -> int:
        """Term of the last entry, 0 for an empty log."""
        return self._log.entries[-1][2] if self._log.entries else 0

    @property
    def durable_index(self) -> int:
        """Highest index whose entry, and everything before it, is on disk."""
        return max(self._log.durable_index(self._wal.durable_lsn), 0)

    @property
    def lsn(self) -> int:
        """Sequence number of the last change; durable once `durable_lsn` has reached it."""
        return self._wal.lsn

    @property
    def durable_lsn(self) -> int:
        """Sequence number up to which every change is on disk."""
        return self._wal.durable_lsn

    @property
    def unsynced_bytes(self) -> int:
        """Size of the changes that wait for the next sync; for backpressure."""
        return self._wal.unsynced_bytes

    @property
    def size_bytes(self) -> int:
        """Sum of the sizes of the retained commands."""
        return self._log.size_bytes

    @property
    def config_version(self) -> int:
        """Rises whenever `config_entries` changes."""
        return self._log.config_version

    def config_entries(self) -> list[ConfigEntry]:
        """Return (index, command) of the retained membership entries, in order."""
        return list(self._log.config_entries)

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at `index`, None if it is not retained."""
        return self._log.term_at(index)

    def entries(self, first: int, last: int) -> list[Entry]:
        """Return the retained entries with `first <= index <= last`."""
        base = self._log.first_index
        return self._log.entries[max(first - base, 0) : max(last - base + 1, 0)]

    def _must_replace(self, idx: int, term: int) -> bool:
        """Whether an entry at or before the end is a conflict; False if it is there already."""
        known = self._log.term_at(idx)
        if known is None or known == term:
            return False
        if idx <= self.commit_floor:
            raise InvariantViolation(
                f"entry {idx} of term {term} would replace a committed one of term {known} "
                f"(committed up to {self.commit_floor})"
            )
        return True

    def _reset(self, lsn: int, prev_index: int, prev_term: int, index: int, term: int) -> None:
        self._log.clear()
        self._log.append(STUB, prev_index, prev_term, lsn)
        self._log.append(STUB, index, term, lsn)

    # Records.

    def _preamble(self) -> list[tuple[int, bytes]]:
        """Give what a new segment must repeat, so that older ones need not be kept for it."""
        return [
            (RecordKind.HARD_STATE, _encode_hard_state(self._term, self._voted_for)),
            (RecordKind.START, _START.pack(self._log.first_index)),
            (RecordKind.COMMIT, _COMMIT.pack(self._noted_commit)),
        ]

    def _replay(self, lsn: int, kind: int, payload: bytes) -> None:
        try:
            match kind:
                case RecordKind.ENTRY:
                    self._replay_entry(lsn, payload)
                case RecordKind.HARD_STATE:
                    self._term, self._voted_for = _decode_hard_state(payload)
                case RecordKind.START:
                    self._replay_start(_START.unpack(payload)[0])
                case RecordKind.RESET:
                    stubs = _RESET.unpack(payload)
                    self._reset(lsn, *stubs)
                    self._required_first = stubs[0]
                case RecordKind.CLEAR:
                    self._log.clear()
                    self._required_first = None
                case RecordKind.COMMIT:
                    (noted,) = _COMMIT.unpack(payload)
                    self._noted_commit = max(self._noted_commit, noted)
                case _:
                    raise ValueError(f"a record of unknown kind {kind}")
        except struct.error as error:
            raise ValueError(f"a malformed record of kind {kind}: {error}") from error

    def _replay_entry(self, lsn: int, payload: bytes) -> None:
        index, term = _ENTRY.unpack_from(payload)
        if self._log.entries and index <= self._log.last_index:
            # Also below the first: the oldest segments are gone, and with them entries that this
            # one's successors replaced.
            self._log.truncate_from(index)
        self._log.append(payload[_ENTRY.size :], index, term, lsn)
        if self._required_first is None:
            self._required_first = index

    def _replay_start(self, index: int) -> None:
        self._required_first = index or None
        if index:
            self._log.drop_below(index)

    def _check_complete(self) -> None:
        required = self._required_first
        if required is not None and self._log.first_index != required:
            found = self._log.first_index or "none"
            raise CorruptLog(
                self._wal.segment_names[0],
                0,
                f"the log must begin with entry {required}, the first one found is {found}: "
                "an older segment is missing",
            )


def _encode_hard_state(term: int, voted_for: str | None) -> bytes:
    vote = b"" if voted_for is None else voted_for.encode()
    return _HARD_STATE.pack(term, voted_for is not None) + vote


def _decode_hard_state(payload: bytes) -> tuple[int, str | None]:
    term, voted = _HARD_STATE.unpack_from(payload)
    return term, payload[_HARD_STATE.size :].decode() if voted else None
