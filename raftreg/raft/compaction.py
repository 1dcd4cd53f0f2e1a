"""Snapshots of the state machine: written beside the running server, sent, received, restored.

The state is copied (shallowly) in one step on the loop; encoding and writing happen in a worker
thread in small pieces, so that the loop does not stall while a million keys are saved. The log is
cut only once the snapshot is durable, and keeps a tail for followers that are a little behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import msgspec

from raftreg.raft.dedup import AppliedRequests, Row
from raftreg.raft.faults import CorruptLog, CorruptSnapshot, ProtocolViolation
from raftreg.raft.journal import DurableJournal
from raftreg.raft.membership import Configuration, decode_configuration, encode_configuration
from raftreg.raft.snapshots import SnapshotMeta, SnapshotReceiver, SnapshotStore

FORMAT = 1
#: Kinds of chunks: header, rows of `AppliedRequests`, the state machine's own.
_HEADER, _REQUESTS, _MACHINE = b"H", b"R", b"M"
_ROWS_PER_CHUNK = 64


class Worker(Protocol):
    """A thread beside the loop (or its simulation)."""

    def run(self, job: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """Runs `job` off the loop, then `done` on the loop with the job's fault or None."""
        ...

    def pause(self) -> None:
        """Is called by a job after each piece of work: lets the loop have the interpreter."""
        ...


class CompactionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When snapshots are made and how they travel.

    Attributes:
        entries_max, log_bytes_max: A snapshot is begun when the log has grown by either.
        trailing_entries: Entries kept below a snapshot for followers a little behind.
        piece_bytes: Size of a piece of a snapshot on the wire.
        window_bytes: No further piece is sent while this much is still on its way.
        retry_s: Seconds to wait after a snapshot that could not be written.
    """

    entries_max: int = 50_000
    log_bytes_max: int = 64 * 1024 * 1024
    trailing_entries: int = 2_000
    piece_bytes: int = 512 * 1024
    window_bytes: int = 4 * 1024 * 1024
    retry_s: float = 30.0


class Header(msgspec.Struct, frozen=True):
    """First chunk of a snapshot."""

    format: int
    time_ms: int


class Peer(Protocol):
    """A destination, as the engine names it."""

    @property
    def id(self) -> str:
        """Id of the server."""
        ...


class Loaded:
    """A snapshot opened for restoring: header, then requests, then the machine's chunks."""

    def __init__(self, meta: SnapshotMeta, chunks: Iterator[bytes]) -> None:
        self.meta = meta
        self._chunks = chunks
        first = next(chunks, b"")
        if first[:1] != _HEADER:
            raise CorruptSnapshot(meta.name, 0, "it does not begin with its header")
        self.header = msgspec.msgpack.decode(first[1:], type=Header)
        if self.header.format != FORMAT:
            raise CorruptSnapshot(
                meta.name, 0, f"format {self.header.format}; this program reads {FORMAT}"
            )
        self._next: bytes | None = next(chunks, None)

    def read_requests(self, decode_result: Callable[[bytes], Any]) -> AppliedRequests:
        """Reads the memory of applied requests; before `machine_chunks`."""
        return AppliedRequests.from_rows(self._rows(), decode_result)

    def _rows(self) -> Iterator[Row]:
        while self._next is not None and self._next[:1] == _REQUESTS:
            yield from msgspec.msgpack.decode(self._next[1:], type=list[Row])
            self._next = next(self._chunks, None)

    def machine_chunks(self) -> Iterator[bytes]:
        """What `StateMachine.snapshot` had given."""
        while self._next is not None:
            yield self._next[1:]
            self._next = next(self._chunks, None)


class _Sending:
    """A snapshot on its way to one peer."""

    __slots__ = ("meta", "offset")

    def __init__(self, meta: SnapshotMeta) -> None:
        self.meta = meta
        self.offset = 0


class Compaction:
    """Keeps the log short. Also the engine's `SnapshotPort` (names in PySyncObj's spelling).

    Args:
        journal: The log to cut.
        store: The files.
        worker: Runs the writing.
        limits: When and how.
        clock: Monotonic seconds.
        buffered_bytes: Bytes on their way to a peer.
        capture: Gives (cluster time, rows of applied requests, machine's chunks) at the applied
            index; the iterators must not touch what changes later.

    Attributes:
        passed_over: Damaged snapshots in place of which an older one was loaded.
    """

    def __init__(
        self,
        *,
        journal: DurableJournal,
        store: SnapshotStore,
        worker: Worker,
        limits: CompactionLimits,
        clock: Callable[[], float],
        buffered_bytes: Callable[[str], int],
        capture: Callable[[], tuple[int, Iterable[Row], Iterable[bytes]]],
    ) -> None:
        self._journal = journal
        self._store = store
        self._worker = worker
        self._limits = limits
        self._clock = clock
        self._buffered_bytes = buffered_bytes
        self._capture = capture
        self.passed_over: list[CorruptSnapshot] = []
        self._writing = False
        self._not_before = 0.0
        self._bytes_at_last = 0
        self._newest: SnapshotMeta | None = None
        self._sending: dict[str, _Sending] = {}
        self._receiver: SnapshotReceiver | None = None
        self.last_index = 0
        self.failures_total = 0
        self.written_total = 0
        self.configuration: Configuration | None = None

    # --- restoring

    @property
    def received(self) -> SnapshotMeta:
        """The snapshot that was received last."""
        assert self._newest is not None
        return self._newest

    def load_newest(self) -> Loaded | None:
        """Opens the newest usable snapshot and makes the log begin at it where it must.

        Raises:
            CorruptLog: There are snapshots, and no log.
            CorruptSnapshot: The newest one is damaged or gone, and the log does not reach back to
                an older one.
        """
        meta, faults = self._store.latest_intact()
        starting = self._newest is None
        if starting and self._journal.recovery.created and (meta is not None or faults):
            # Without its log this server does not know whom it voted for (section 5.2).
            raise CorruptLog(
                "journal", 0, "the log is gone, and there are snapshots: term and vote are lost"
            )
        if meta is None:
            self._check_reaches(1, faults)
            self.passed_over = faults
            return None
        journal = self._journal
        if journal.last_index < meta.index or self._diverges(meta):
            # A crash came between the snapshot's rename and the log's cut.
            journal.reset_to(meta.prev_index, meta.prev_term, meta.index, meta.term)
        self._check_reaches(meta.index, faults)
        self.passed_over = faults
        self._adopt(meta)
        return Loaded(meta, self._store.read(meta))

    def _diverges(self, meta: SnapshotMeta) -> bool:
        return self._journal.term_at(meta.index) not in {None, meta.term}

    def _check_reaches(self, index: int, faults: list[CorruptSnapshot]) -> None:
        first = self._journal.first_index
        if first <= index:
            return
        if faults:
            raise faults[0]
        raise CorruptSnapshot(
            "snapshot", 0, f"the log begins at entry {first} and no snapshot reaches it"
        )

    def _adopt(self, meta: SnapshotMeta) -> None:
        self._newest = meta
        self.last_index = meta.index
        self.configuration = decode_configuration(meta.configuration)

    # --- writing

    def maybe_start(
        self, applied_index: int, configuration_at: Callable[[int], Configuration]
    ) -> None:
        """Begins a snapshot when the log has grown enough since the last one."""
        if self._writing or not self._due(applied_index):
            return
        journal = self._journal
        prev_term, term = journal.term_at(applied_index - 1), journal.term_at(applied_index)
        if prev_term is None or term is None:
            return
        meta = SnapshotMeta(
            index=applied_index,
            term=term,
            prev_index=applied_index - 1,
            prev_term=prev_term,
            configuration=encode_configuration(configuration_at(applied_index)),
            created_at=self._clock(),
        )
        self._writing = True
        time_ms, rows, machine_chunks = self._capture()
        chunks = _snapshot_chunks(time_ms, rows, machine_chunks)
        self._worker.run(
            lambda: self._write(meta, chunks), lambda fault: self._written(meta, fault)
        )

    def _due(self, applied_index: int) -> bool:
        limits = self._limits
        grown = applied_index - max(self.last_index, 1)
        if grown < 2 or self._clock() < self._not_before:
            return False
        grown_bytes = self._journal.size_bytes - self._bytes_at_last
        return grown >= limits.entries_max or grown_bytes >= limits.log_bytes_max

    def _write(self, meta: SnapshotMeta, chunks: Iterator[bytes]) -> None:
        writer = self._store.begin(meta)
        try:
            for chunk in chunks:
                writer.write(chunk)
                self._worker.pause()
            writer.commit()
        except BaseException:
            writer.abort()
            raise

    def _written(self, meta: SnapshotMeta, fault: BaseException | None) -> None:
        self._writing = False
        if fault is not None:
            self.failures_total += 1
            self._not_before = self._clock() + self._limits.retry_s
            return
        self.written_total += 1
        if meta.index <= self.last_index:
            return  # meanwhile a newer one was installed
        self._adopt(meta)
        first = meta.index - 1 - self._limits.trailing_entries
        self._journal.compact_to(max(first, self._journal.first_index))
        self._bytes_at_last = self._journal.size_bytes

    # --- the engine's view: sending and receiving

    def checkSerializing(self) -> tuple[int, int | None]:  # noqa: N802 - the engine's name
        """PySyncObj makes no snapshots by itself here."""
        return 0, None

    def cancelTransmisstion(self, peer: Peer) -> None:  # noqa: N802 - the engine's name
        """A peer is not connected: it begins anew."""
        self._sending.pop(peer.id, None)

    def getTransmissionData(self, peer: Peer) -> list[Any] | None:  # noqa: N802
        """The next piece for a peer: [bytes, is first, is last, file name]; None: not now."""
        if self._newest is None or self._buffered_bytes(peer.id) > self._limits.window_bytes:
            return None
        sending = self._sending.get(peer.id)
        if sending is None:
            sending = self._sending[peer.id] = _Sending(self._newest)
        try:
            piece = self._store.read_raw(sending.meta, sending.offset, self._limits.piece_bytes)
            size = self._store.size(sending.meta)
        except FileNotFoundError:
            del self._sending[peer.id]  # two newer ones exist: begin with the newest
            return None
        first = sending.offset == 0
        sending.offset += len(piece)
        last = sending.offset >= size
        if last:
            del self._sending[peer.id]
        return [piece, first, last, sending.meta.name]

    def setTransmissionData(self, data: list[Any] | None) -> bool:  # noqa: N802
        """Takes a piece; True when the snapshot is whole, verified and durable.

        A broken sequence is dropped: the leader begins anew when this server does not advance.
        """
        if data is None:
            return False
        piece, first, last, name = data
        try:
            if first:
                self._drop_receiver()
                self._receiver = self._store.receiver(name)
            if self._receiver is None:
                return False
            self._receiver.write(piece)
            if not last:
                return False
            receiver, self._receiver = self._receiver, None
            meta = receiver.finish()
        except CorruptSnapshot as fault:
            self._drop_receiver()
            raise ProtocolViolation(f"snapshot from the leader refused: {fault}") from fault
        if meta.index <= max(self.last_index, self._journal.commit_floor):
            return False  # nothing new in it
        if self._journal.term_at(meta.index) == meta.term:
            # The log has it all, and what comes after may be acknowledged: it must stay.
            return False
        self._adopt(meta)
        return True

    def _drop_receiver(self) -> None:
        if self._receiver is not None:
            self._receiver.abort()
            self._receiver = None


def _snapshot_chunks(
    time_ms: int, rows: Iterable[Row], machine_chunks: Iterable[bytes]
) -> Iterator[bytes]:
    yield _HEADER + msgspec.msgpack.encode(Header(FORMAT, time_ms))
    pending: list[Row] = []
    for row in rows:
        pending.append(row)
        if len(pending) == _ROWS_PER_CHUNK:
            yield _REQUESTS + msgspec.msgpack.encode(pending)
            pending = []
    if pending:
        yield _REQUESTS + msgspec.msgpack.encode(pending)
    for chunk in machine_chunks:
        yield _MACHINE + chunk
