"""Snapshots on disk: one checked file each, written aside and taking its name only when whole.

A file, all little endian::

    header  magic 8s | format version u32 | size of metadata u32 | crc32c u32 | metadata (msgpack)
    chunk   length u32 | crc32c u32 | bytes        the CRC covers the chunk's number, too
    footer  0xFFFFFFFF u32 | chunks u64 | bytes u64 | crc32c of all chunks u32 | crc32c u32

The CRC of the header covers everything before it and the metadata; the last CRC of the footer
covers the footer. The file must end with the footer. Nothing of a chunk is handed out before its
CRC holds.

All of this is synchronous. Writing and verifying large snapshots belongs in a worker thread; one
writer or receiver belongs to one thread at a time, and different ones may work side by side.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator

import msgspec
from crc32c import crc32c

from raftreg.decoding import MsgpackDecoder
from raftreg.raft.disk import Disk, Handle, temporary_name
from raftreg.raft.faults import CorruptSnapshot

MAGIC = b"RRSNAP\r\n"
FORMAT_VERSION = 1
KEPT_MAX = 2
CHUNK_BYTES_MAX = 16 << 20
METADATA_BYTES_MAX = 1 << 20
#: A snapshot is synced piece by piece, so that its end does not hold up the syncs of the log.
SYNC_EVERY_BYTES = 4 << 20
READ_BYTES = 1 << 20
#: What a peer may send as one snapshot.
RECEIVE_BYTES_MAX = 64 << 30

_HEADER = struct.Struct("<8sIII")
_HEADER_FIXED = struct.Struct("<8sII")
_CHUNK = struct.Struct("<II")
_NUMBER = struct.Struct("<Q")
_FOOTER_BODY = struct.Struct("<IQQI")
_CRC = struct.Struct("<I")
_FOOTER_TAG = 0xFFFFFFFF
FOOTER_BYTES = _FOOTER_BODY.size + _CRC.size

_NAME = re.compile(r"snapshot-(\d{20})-(\d{20})\.snap", re.ASCII)


class SnapshotMeta(msgspec.Struct, frozen=True):
    """What a snapshot covers.

    Attributes:
        index: Index of the last entry that it covers.
        term: That entry's term.
        prev_index: Index of the entry before it (the engine keeps the last two as stubs).
        prev_term: That entry's term.
        configuration: The membership in force at `index`, encoded.
        created_at: Seconds since the epoch, by the creator's clock; for people.
    """

    index: int
    term: int
    prev_index: int
    prev_term: int
    configuration: bytes
    created_at: float

    @property
    def name(self) -> str:
        """File name of the snapshot."""
        return f"snapshot-{self.index:020d}-{self.term:020d}.snap"


def is_snapshot_name(name: str) -> bool:
    """Whether a name, such as one that a peer sent, is that of a snapshot."""
    return _NAME.fullmatch(name) is not None


class SnapshotStore:
    """The snapshots of one data directory.

    Args:
        disk: The directory. Temporary files left by a crash are removed.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        for name in disk.list():
            stem = name.removesuffix(".tmp")
            if stem != name and is_snapshot_name(stem.removesuffix(".received")):
                disk.remove(name)

    def names(self) -> list[str]:
        """Names of the snapshots, newest (highest index, then term) first; not verified."""
        return sorted(filter(is_snapshot_name, self._disk.list()), reverse=True)

    def latest(self) -> SnapshotMeta | None:
        """Return the newest snapshot, all of it verified; None if there is none.

        Raises:
            CorruptSnapshot: The newest one is damaged. An older one (`latest_intact`) may be used
                only if the log still reaches back to it.
        """
        names = self.names()
        return self.verify(names[0]) if names else None

    def latest_intact(self) -> tuple[SnapshotMeta | None, list[CorruptSnapshot]]:
        """Return the newest intact snapshot and what is wrong with the newer ones."""
        faults: list[CorruptSnapshot] = []
        for name in self.names():
            try:
                return self.verify(name), faults
            except CorruptSnapshot as fault:
                faults.append(fault)
        return None, faults

    def verify(self, name: str) -> SnapshotMeta:
        """Check a whole file.

        Raises:
            CorruptSnapshot: Some byte of it is not as it was written.
        """
        reader = _Reader(self._disk, name, name)
        for _ in reader.chunks():
            pass
        return reader.meta

    def begin(self, meta: SnapshotMeta) -> SnapshotWriter:
        """Start to write a snapshot; any unfinished one of the same name is discarded."""
        return SnapshotWriter(self, self._disk, meta)

    def read(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """Yield the chunks in order, each once its CRC holds.

        Raises:
            CorruptSnapshot: At the first damage; what was yielded before must be thrown away.
            FileNotFoundError: It has been pruned.
        """
        return _Reader(self._disk, meta.name, meta.name).chunks()

    def size(self, meta: SnapshotMeta) -> int:
        """Size of the file in bytes."""
        return self._disk.size(meta.name)

    def read_raw(self, meta: SnapshotMeta, offset: int, size_max: int) -> bytes:
        """Read bytes of the file itself, to send it on; b"" at the end.

        Raises:
            FileNotFoundError: It has been pruned; send a newer one from the start.
        """
        return self._disk.read(meta.name, offset, size_max)

    def receiver(self, name: str, size_bytes_max: int = RECEIVE_BYTES_MAX) -> SnapshotReceiver:
        """Start to receive a snapshot file from a peer.

        Args:
            name: The file's name as the peer said it.
            size_bytes_max: More than this is refused.

        Raises:
            CorruptSnapshot: The name is not that of a snapshot.
        """
        if not is_snapshot_name(name):
            raise CorruptSnapshot(name[:200], 0, "not the name of a snapshot")
        return SnapshotReceiver(self, self._disk, name, size_bytes_max)

    def prune(self) -> None:
        """Remove all but the newest two."""
        for name in self.names()[KEPT_MAX:]:
            # A writer and a receiver may end at the same time, in two threads.
            with contextlib.suppress(FileNotFoundError):
                self._disk.remove(name)


class _FileWriter:
    """Writes a file beside its final name, syncing as it goes."""

    def __init__(self, disk: Disk, temporary: str, final: str) -> None:
        self._disk = disk
        self._temporary = temporary
        self._final = final
        self._unsynced_bytes = 0
        if temporary in disk.list():
            disk.remove(temporary)
        self._handle: Handle | None = disk.open_append(temporary)

    def write(self, data: bytes) -> None:
        handle = self._open_handle()
        handle.write(data)
        self._unsynced_bytes += len(data)
        if self._unsynced_bytes >= SYNC_EVERY_BYTES:
            self.sync()

    def sync(self) -> None:
        self._disk.sync_now(self._open_handle())
        self._unsynced_bytes = 0

    def rename(self) -> None:
        self._open_handle().close()
        self._handle = None
        self._disk.replace(self._temporary, self._final)

    def abort(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None
            self._disk.remove(self._temporary)

    def _open_handle(self) -> Handle:
        if self._handle is None:
            raise ValueError(f"{self._temporary} is committed or aborted already")
        return self._handle


class SnapshotWriter:
    """Writes one snapshot. End it with `commit` or `abort`.

    Args:
        store: Where it will belong.
        disk: The directory.
        meta: What it covers.
    """

    def __init__(self, store: SnapshotStore, disk: Disk, meta: SnapshotMeta) -> None:
        self._store = store
        self._file = _FileWriter(disk, temporary_name(meta.name), meta.name)
        self._chunks = 0
        self._bytes = 0
        self._crc = 0
        self._file.write(_encode_header(meta))

    def write(self, chunk: bytes) -> None:
        """Append a chunk.

        Args:
            chunk: At most `CHUNK_BYTES_MAX` bytes.

        Raises:
            ValueError: It is too large, or the writer has ended.
            OSError: The disk failed; abort.
        """
        if len(chunk) > CHUNK_BYTES_MAX:
            raise ValueError(f"a chunk of {len(chunk)} bytes; at most {CHUNK_BYTES_MAX}")
        self._file.write(_CHUNK.pack(len(chunk), _chunk_crc(self._chunks, chunk)) + chunk)
        self._chunks += 1
        self._bytes += len(chunk)
        self._crc = crc32c(chunk, self._crc)

    def commit(self) -> None:
        """Make the snapshot durable under its name, then remove all but the newest two.

        Raises:
            ValueError: The writer has ended.
            OSError: The disk failed; unless the rename had been done, no snapshot was made.
        """
        self._file.write(_encode_footer(self._chunks, self._bytes, self._crc))
        self._file.sync()
        self._file.rename()
        self._store.prune()

    def abort(self) -> None:
        """Throw away what was written. Does nothing once committed."""
        self._file.abort()


class SnapshotReceiver:
    """Takes the bytes of a peer's snapshot file in order. End it with `finish` or `abort`.

    Args:
        store: Where it will belong.
        disk: The directory.
        name: Its final name.
        size_bytes_max: More than this is refused.
    """

    def __init__(self, store: SnapshotStore, disk: Disk, name: str, size_bytes_max: int) -> None:
        self._store = store
        self._disk = disk
        self._name = name
        self._size_bytes_max = size_bytes_max
        # Another name than a writer's, which may be at work on the same snapshot.
        self._temporary = temporary_name(f"{name}.received")
        self._file = _FileWriter(disk, self._temporary, name)
        self.received_bytes = 0

    def write(self, data: bytes) -> None:
        """Append bytes of the file; `received_bytes` says which come next.

        Raises:
            CorruptSnapshot: There are more than allowed.
            OSError: The disk failed; abort.
        """
        if self.received_bytes + len(data) > self._size_bytes_max:
            reason = f"the peer sent more than {self._size_bytes_max} bytes"
            raise CorruptSnapshot(self._name, self.received_bytes, reason)
        self._file.write(data)
        self.received_bytes += len(data)

    def finish(self) -> SnapshotMeta:
        """Verify the whole file, then give it its name durably and prune older ones.

        Raises:
            CorruptSnapshot: It is not whole and intact; it has been thrown away.
            OSError: The disk failed.
        """
        self._file.sync()
        try:
            reader = _Reader(self._disk, self._temporary, self._name)
            for _ in reader.chunks():
                pass
        except CorruptSnapshot:
            self.abort()
            raise
        self._file.rename()
        self._store.prune()
        return reader.meta

    def abort(self) -> None:
        """Throw away what was received. Does nothing once finished."""
        self._file.abort()


class _Reader:
    """Reads and checks one file in order.

    Args:
        disk: The directory.
        file: Name under which it lies there now.
        name: Name that it has, or shall get; it must agree with the metadata.
    """

    def __init__(self, disk: Disk, file: str, name: str) -> None:
        self._disk = disk
        self._file = file
        self._name = name
        self._size = disk.size(file)
        self._buffer = b""
        self._buffer_offset = 0
        self._offset = 0
        self.meta = self._read_header()

    def chunks(self) -> Iterator[bytes]:
        count = size = crc = 0
        while (prefix := self._take(4)) != _FOOTER_TAG.to_bytes(4, "little"):
            start = self._offset - 4
            chunk = self._read_chunk(int.from_bytes(prefix, "little"), start, count)
            count += 1
            size += len(chunk)
            crc = crc32c(chunk, crc)
            yield chunk
        self._check_footer(_encode_footer(count, size, crc))

    def _read_header(self) -> SnapshotMeta:
        magic, version, meta_bytes, crc = _HEADER.unpack(self._take(_HEADER.size))
        if magic != MAGIC:
            raise self._corrupt(0, "it does not begin as a snapshot")
        if meta_bytes > METADATA_BYTES_MAX:
            raise self._corrupt(12, f"metadata of {meta_bytes} bytes is beyond the limit")
        encoded = self._take(meta_bytes)
        if crc32c(encoded, crc32c(_HEADER_FIXED.pack(magic, version, meta_bytes))) != crc:
            raise self._corrupt(0, "the header fails its CRC")
        if version != FORMAT_VERSION:
            raise self._corrupt(8, f"format version {version}; this program reads {FORMAT_VERSION}")
        try:
            meta = MsgpackDecoder[SnapshotMeta](SnapshotMeta).decode(encoded)
        except msgspec.DecodeError as error:
            raise self._corrupt(_HEADER.size, f"malformed metadata: {error}") from error
        if meta.name != self._name:
            raise self._corrupt(_HEADER.size, f"its metadata is that of {meta.name}")
        return meta

    def _read_chunk(self, length: int, start: int, number: int) -> bytes:
        if length > CHUNK_BYTES_MAX:
            raise self._corrupt(start, f"a chunk of {length} bytes is beyond the limit")
        (crc,) = _CRC.unpack(self._take(_CRC.size))
        chunk = self._take(length)
        if _chunk_crc(number, chunk) != crc:
            raise self._corrupt(start, f"chunk {number} fails its CRC")
        return chunk

    def _check_footer(self, expected: bytes) -> None:
        start = self._offset - 4
        if self._take(FOOTER_BYTES - 4) != expected[4:]:
            raise self._corrupt(start, "the footer does not agree with the chunks")
        if self._offset != self._size:
            raise self._corrupt(self._offset, f"{self._size - self._offset} bytes after the footer")

    def _take(self, size: int) -> bytes:
        if self._offset + size > self._size:
            raise self._corrupt(self._offset, f"the file ends after {self._size} bytes, too early")
        start = self._offset - self._buffer_offset
        if start + size > len(self._buffer):
            self._buffer = self._disk.read(self._file, self._offset, max(size, READ_BYTES))
            self._buffer_offset = self._offset
            start = 0
        self._offset += size
        return self._buffer[start : start + size]

    def _corrupt(self, offset: int, reason: str) -> CorruptSnapshot:
        return CorruptSnapshot(self._name, offset, reason)


def _encode_header(meta: SnapshotMeta) -> bytes:
    encoded = msgspec.msgpack.encode(meta)
    if len(encoded) > METADATA_BYTES_MAX:
        raise ValueError(f"metadata of {len(encoded)} bytes; at most {METADATA_BYTES_MAX}")
    crc = crc32c(encoded, crc32c(_HEADER_FIXED.pack(MAGIC, FORMAT_VERSION, len(encoded))))
    return _HEADER.pack(MAGIC, FORMAT_VERSION, len(encoded), crc) + encoded


def _encode_footer(chunks: int, size_bytes: int, crc: int) -> bytes:
    body = _FOOTER_BODY.pack(_FOOTER_TAG, chunks, size_bytes, crc)
    return body + _CRC.pack(crc32c(body))


def _chunk_crc(number: int, chunk: bytes) -> int:
    return int(crc32c(chunk, crc32c(_NUMBER.pack(number))))
