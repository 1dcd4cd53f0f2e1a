"""Write-ahead log: records in segments, made durable by group commit.

`append` gives a record its log sequence number (lsn) and keeps it in memory; `flush` writes what
has gathered and syncs it, off the loop, as one batch. While a sync is under way more records
gather; the next one starts as soon as it ends (the group commit of DeWitt et al., SIGMOD 1984).
Whoever promises something to a peer or a client waits until `durable_lsn` has reached the lsn of
that promise.

A write or sync that failed is final: the log takes nothing more and calls `on_failure` once.

Segments hold consecutive lsns. A new one starts with the caller's preamble, records that repeat
whatever is still needed from older segments besides entries, so that dropping whole old segments is
all there is to compaction. The format, and the rule for cutting a torn tail, are in `segment.py`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Self, TypeAlias

import msgspec

from raftreg.raft import segment
from raftreg.raft.disk import Disk, Handle, temporary_name
from raftreg.raft.faults import CorruptLog, DiskFailure
from raftreg.raft.segment import Damage, SegmentReader

SEGMENT_BYTES_MAX = 64 << 20
#: A batch is what a crash may tear; it also bounds how long one sync can take.
BATCH_BYTES_MAX = 8 << 20
#: Records waiting for the disk. Past this the disk is taken to be dead.
UNSYNCED_BYTES_MAX = 256 << 20

Replay: TypeAlias = Callable[[int, int, bytes], None]
Preamble: TypeAlias = Callable[[], Iterable[tuple[int, bytes]]]


class Recovery(msgspec.Struct, frozen=True):
    """What opening a log found.

    Attributes:
        created: There was no log; this one is new and empty.
        segments: Number of segment files read.
        records: Number of records replayed.
        cut_bytes: Size of the torn tail that was cut from the last segment.
        cut_file: That segment's name, "" if nothing was cut.
        cut_offset: Where the tail began, in bytes.
        cut_reason: What was wrong with the first record of the tail.
    """

    created: bool = False
    segments: int = 0
    records: int = 0
    cut_bytes: int = 0
    cut_file: str = ""
    cut_offset: int = 0
    cut_reason: str = ""


class _Place(enum.Enum):
    """Where a pending record belongs."""

    HERE = enum.auto()
    FIRST_OF_SEGMENT = enum.auto()
    PREAMBLE = enum.auto()


class _Pending(NamedTuple):
    place: _Place
    kind: int
    parts: tuple[bytes, ...]
    size: int


class _Segment(NamedTuple):
    name: str
    first_lsn: int


def _ignore_lsn(_lsn: int) -> None:
    pass


def _ignore_failure(_error: OSError) -> None:
    pass


class Wal:
    """The write-ahead log. Construct it with `open`. It belongs to the thread of the loop.

    Attributes:
        on_durable: Called on the loop with `durable_lsn` after each sync.
        on_failure: Called on the loop, once, with the error that ended the log.
        recovery: What `open` found.
    """

    def __init__(self, disk: Disk, preamble: Preamble, segment_bytes: int) -> None:
        self._disk = disk
        self._preamble = preamble
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._active: Handle
        self._seed = 0
        self._offset = 0
        self._last_mark = 0
        self._planned_bytes = 0
        self._lsn = 0
        self._written_lsn = 0
        self._durable_lsn = 0
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        self._busy = False
        self._closed = False
        self._failure: OSError | None = None
        self._drop: tuple[int, int] | None = None
        self._removing = False
        self.on_durable: Callable[[int], None] = _ignore_lsn
        self.on_failure: Callable[[OSError], None] = _ignore_failure
        self.recovery = Recovery()

    @classmethod
    def open(
        cls,
        disk: Disk,
        *,
        replay: Replay,
        preamble: Preamble,
        segment_bytes: int = SEGMENT_BYTES_MAX,
    ) -> Self:
        """Read the log back and make it ready for appending.

        Args:
            disk: Directory of the log.
            replay: Called with (lsn, kind, payload) for every record, in order. A ValueError says
                that the record can't follow what went before; it is reported as corruption.
            preamble: Gives the records (kind, payload) with which a segment that starts now must
                begin. Called inside `append`, before the record that is being appended counts.
            segment_bytes: Size at which a new segment is started.

        Raises:
            CorruptLog: Synced data is damaged. Nothing was changed.
            DiskFailure: The disk can't be read or written.
        """
        wal = cls(disk, preamble, segment_bytes)
        try:
            wal._recover(replay)
        except OSError as error:
            raise DiskFailure(f"the log can't be opened: {error}") from error
        return wal

    @property
    def lsn(self) -> int:
        """Sequence number of the last record appended; 0 for an empty log."""
        return self._lsn

    @property
    def durable_lsn(self) -> int:
        """Sequence number up to which every record is known to be on disk."""
        return self._durable_lsn

    @property
    def unsynced_bytes(self) -> int:
        """Size of the records that no sync has taken up yet; for backpressure."""
        return self._pending_bytes

    @property
    def segment_names(self) -> list[str]:
        """Names of the segment files, oldest first."""
        return [one.name for one in self._segments]

    @property
    def failure(self) -> OSError | None:
        """The error that ended the log, if one did."""
        return self._failure

    def append(self, kind: int, *parts: bytes) -> int:
        """Append a record whose payload is the concatenation of `parts`.

        Args:
            kind: 1 to 15; what the payload means is the caller's.
            *parts: Pieces of the payload; they must not change afterwards.

        Returns:
            The record's lsn. It is not durable before `durable_lsn` has reached it.

        Raises:
            DiskFailure: The log has failed, is closed, or far too much waits for the disk.
            ValueError: The kind or the size is out of range.
        """
        self._check_usable()
        if not 0 < kind < segment.MARK:
            raise ValueError(f"record kind {kind} is not in 1..{segment.MARK - 1}")
        size = sum(map(len, parts))
        if size > segment.PAYLOAD_BYTES_MAX:
            raise ValueError(f"a record of {size} bytes; at most {segment.PAYLOAD_BYTES_MAX}")
        if self._planned_bytes + size > self._segment_bytes:
            self._plan_segment()
        return self._enqueue(_Place.HERE, kind, parts, size)

    def flush(self) -> None:
        """Start a sync of what has been appended, unless one is under way already."""
        if not self._busy:
            self._advance()

    def drop_before(self, lsn: int) -> None:
        """Remove the segments whose records are all older than `lsn`.

        It happens in the background, once everything appended so far is durable; a later call
        replaces an earlier one. A crash at any moment leaves an unbroken run of segments.
        """
        self._drop = (lsn, self._lsn)
        self._remove_dropped()

    def close(self) -> None:
        """Make everything durable and give the files back. Callbacks may run in here.

        Raises:
            DiskFailure: The disk failed, now or before; what was not durable is lost.
        """
        if self._closed:
            return
        while self._failure is None and (self._busy or self._pending):
            self.flush()
            self._disk.wait_idle()
        self._closed = True
        self._active.close()
        if self._failure is not None:
            raise DiskFailure(f"the log had failed: {self._failure}") from self._failure

    # Appending.

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise DiskFailure(f"the log has failed: {self._failure}") from self._failure
        if self._closed:
            raise DiskFailure("the log is closed")
        if self._pending_bytes > UNSYNCED_BYTES_MAX:
            waiting = f"{self._pending_bytes} bytes wait for a disk that does not answer"
            self._fail(TimeoutError(waiting))
            raise DiskFailure(waiting)

    def _plan_segment(self) -> None:
        place = _Place.FIRST_OF_SEGMENT
        self._planned_bytes = segment.HEADER_BYTES
        for kind, payload in self._preamble():
            self._enqueue(place, kind, (payload,), len(payload))
            place = _Place.PREAMBLE

    def _enqueue(self, place: _Place, kind: int, parts: tuple[bytes, ...], size: int) -> int:
        self._pending.append(_Pending(place, kind, parts, size))
        self._pending_bytes += size
        self._planned_bytes += size + segment.PREFIX_BYTES
        self._lsn += 1
        return self._lsn

    # Group commit: one operation of the disk at a time, each started where the last one ended.

    def _advance(self) -> None:
        if self._failure is not None or not self._pending:
            return
        self._busy = True
        if self._pending[0].place is _Place.FIRST_OF_SEGMENT:
            # The last mark of the segment that ends must be on disk before another one exists:
            # only then is every flaw in an earlier segment known to be corruption.
            self._disk.sync(self._active, self._on_sealed)
        else:
            self._write_batch()

    def _write_batch(self) -> None:
        data = self._encode(self._take_batch())
        self._active.write(data)
        self._disk.sync(self._active, self._on_synced, after=self._encode_mark())

    def _take_batch(self) -> list[_Pending]:
        batch: list[_Pending] = []
        size = 0
        while self._pending and self._pending[0].place is not _Place.FIRST_OF_SEGMENT:
            size += self._pending[0].size
            if batch and size > BATCH_BYTES_MAX:
                break
            batch.append(self._pending.popleft())
        return batch

    def _encode(self, batch: list[_Pending]) -> bytes:
        pieces: list[bytes] = []
        for record in batch:
            pieces += segment.encode_record(self._seed, self._offset, record.kind, record.parts)
            self._offset += segment.PREFIX_BYTES + record.size
            self._pending_bytes -= record.size
        self._written_lsn += len(batch)
        return b"".join(pieces)

    def _encode_mark(self) -> bytes:
        mark = segment.encode_mark(self._seed, self._offset, self._written_lsn)
        self._offset += len(mark)
        return mark

    def _succeeded(self, error: OSError | None) -> bool:
        """Whether to go on: not after an error, nor once the log was given up on a slow disk."""
        if error is not None:
            self._fail(error)
        return self._failure is None

    def _on_synced(self, error: OSError | None) -> None:
        if self._succeeded(error):
            self._became_durable()

    def _on_sealed(self, error: OSError | None) -> None:
        if not self._succeeded(error):
            return
        first_lsn = self._written_lsn + 1
        name = segment.segment_name(first_lsn)
        content = self._begin_segment(first_lsn, self._take_preamble())
        self._segments.append(_Segment(name, first_lsn))
        self._disk.write_durably_later(name, content, self._on_created)

    def _take_preamble(self) -> list[_Pending]:
        preamble = [self._pending.popleft()]
        while self._pending and self._pending[0].place is _Place.PREAMBLE:
            preamble.append(self._pending.popleft())
        return preamble

    def _begin_segment(self, first_lsn: int, preamble: list[_Pending]) -> bytes:
        header, self._seed = segment.encode_header(first_lsn, self._disk.nonce(segment.NONCE_BYTES))
        self._offset = len(header)
        return header + self._encode(preamble) + self._encode_mark()

    def _on_created(self, error: OSError | None) -> None:
        if not self._succeeded(error):
            return
        self._active.close()
        try:
            self._active = self._disk.open_append(self._segments[-1].name)
        except OSError as failure:
            self._fail(failure)
            return
        self._became_durable()

    def _became_durable(self) -> None:
        self._busy = False
        self._durable_lsn = self._written_lsn
        # The next sync first: the disk works while the callback does.
        self._advance()
        self._remove_dropped()
        self.on_durable(self._durable_lsn)

    def _fail(self, error: OSError) -> None:
        if self._failure is not None:
            return
        self._failure = error
        self._busy = False
        self._pending.clear()
        self.on_failure(error)

    # Compaction.

    def _remove_dropped(self) -> None:
        if self._drop is None or self._removing or self._drop[1] > self._durable_lsn:
            return
        keep_from, _ = self._drop
        self._drop = None
        count = 0
        while count + 1 < len(self._segments) and self._segments[count + 1].first_lsn <= keep_from:
            count += 1
        if count:
            self._removing = True
            names = [one.name for one in self._segments[:count]]
            del self._segments[:count]
            self._disk.remove_later(names, self._on_removed)

    def _on_removed(self, error: OSError | None) -> None:
        self._removing = False
        if error is not None:
            self._fail(error)
            return
        self._remove_dropped()

    # Recovery.

    def _recover(self, replay: Replay) -> None:
        names = [name for name in self._disk.list() if segment.first_lsn_of(name) is not None]
        if not names:
            self._create_first()
            return
        records = 0
        for name in names:
            records += self._replay_segment(name, replay, last=name == names[-1])
        self.recovery = msgspec.structs.replace(self.recovery, segments=len(names), records=records)
        self._remove_leftovers()
        self._resume(names[-1])

    def _create_first(self) -> None:
        self._remove_leftovers()
        self._plan_segment()
        name = segment.segment_name(1)
        self._disk.write_durably(name, self._begin_segment(1, self._take_preamble()))
        self._segments = [_Segment(name, 1)]
        self._active = self._disk.open_append(name)
        self._durable_lsn = self._written_lsn
        self.recovery = Recovery(created=True)

    def _remove_leftovers(self) -> None:
        for name in self._disk.list():
            stem = name.removesuffix(".tmp")
            if segment.first_lsn_of(stem) is not None and name == temporary_name(stem):
                self._disk.remove(name)

    def _replay_segment(self, name: str, replay: Replay, *, last: bool) -> int:
        try:
            reader = SegmentReader(self._disk, name)
        except Damage as damage:
            raise CorruptLog(name, damage.offset, damage.reason) from damage
        self._check_succession(name, reader.header.first_lsn)
        self._segments.append(_Segment(name, reader.header.first_lsn))
        self._seed = reader.header.seed
        self._offset = self._last_mark = segment.HEADER_BYTES
        before = self._lsn
        try:
            for record in reader.records():
                self._replay_record(name, record, replay)
                self._offset = record.end
        except Damage as damage:
            self._judge(reader, damage, last=last)
        return self._lsn - before

    def _check_succession(self, name: str, first_lsn: int) -> None:
        if first_lsn != segment.first_lsn_of(name):
            raise CorruptLog(name, 0, f"the header says that it begins at record {first_lsn}")
        if not self._segments:
            self._lsn = first_lsn - 1
        if first_lsn != self._lsn + 1:
            reason = f"it begins at record {first_lsn}, the segment before it ends at {self._lsn}"
            raise CorruptLog(name, 0, reason)

    def _replay_record(self, name: str, record: segment.Record, replay: Replay) -> None:
        if record.kind == segment.MARK:
            if segment.decode_mark(record.payload) != self._lsn:
                raise CorruptLog(name, record.offset, f"a mark out of place at record {self._lsn}")
            self._last_mark = record.offset
            return
        self._lsn += 1
        try:
            replay(self._lsn, record.kind, record.payload)
        except ValueError as error:
            raise CorruptLog(name, record.offset, str(error)) from error

    def _judge(self, reader: SegmentReader, damage: Damage, *, last: bool) -> None:
        if not last:
            raise CorruptLog(reader.name, damage.offset, f"{damage.reason}; later segments exist")
        why_not = reader.damage_is_torn_tail(damage.offset)
        if why_not is not None:
            raise CorruptLog(reader.name, damage.offset, f"{damage.reason}; {why_not}")
        self.recovery = Recovery(
            cut_bytes=reader.size - damage.offset,
            cut_file=reader.name,
            cut_offset=damage.offset,
            cut_reason=damage.reason,
        )

    def _resume(self, name: str) -> None:
        """Append to the last segment from now on, once all that was read is surely on disk."""
        if self.recovery.cut_bytes:
            self._disk.truncate(name, self._offset)
        # What was read may have been in the page cache only: after kill -9, or after a sync that
        # failed and whose pages no later sync would write. Up to the last mark all is on disk.
        unproved = self._disk.read(name, self._last_mark, self._offset - self._last_mark)
        self._disk.rewrite(name, self._last_mark, unproved)
        # The same goes for the names of segments and snapshots.
        self._disk.sync_directory()
        self._active = self._disk.open_append(name)
        self._planned_bytes = self._offset
        self._written_lsn = self._durable_lsn = self._lsn
        self._active.write(self._encode_mark())
        self._disk.sync_now(self._active)
