"""Format of a segment of the write-ahead log: encoding, reading, and judging damage.

A segment is a header and records::

    header  magic 8s | format version u32 | first lsn u64 | nonce 16s | crc32c u32
    record  length u32 | crc32c u32 | kind u8 | payload (length bytes)      (all little endian)

The CRC of a record covers its offset, length, kind and payload and starts from the header's CRC,
which covers the nonce. A record is therefore valid only where it was written: stale disk blocks of
another segment, misplaced sectors and record images inside a stored value do not pass for records.

**Marks.** After each successful sync of a batch a MARK record is appended: all bytes before it had
reached the disk when it was written. The mark itself is made durable by the next sync, or by the
kernel's own write-back. A segment is created whole (temporary file, fsync, rename, fsync of the
directory) and its content at creation ends with a mark.

**Torn or corrupt?** A crash may leave the batch that was being written in any state, and that
batch was never acknowledged. Damage is a torn tail, which may be cut, only in the last segment and
only if

1. no valid mark follows it (a mark would prove that the damaged bytes had been synced), and
2. no valid record follows it at all, unless the gap between holds a disk sector of zero bytes from
   its first byte on, i.e. one that was never written (pages of one batch reach the disk in any
   order; the same test as etcd's `wal/decoder.go` isTornEntry).

Everything else is refused. What remains open: a batch whose mark was itself lost by a power cut
within moments after the sync *and* whose last record rots on top of it; two faults at once.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from crc32c import crc32c

from raftreg.raft.disk import Disk

MAGIC = b"RRWAL\r\n\x00"
FORMAT_VERSION = 1
NONCE_BYTES = 16
SECTOR_BYTES = 512
READ_BYTES = 1 << 20
#: Below 2**24, so that the fourth byte of every length is zero; the search for records needs it.
PAYLOAD_BYTES_MAX = (1 << 24) - 1

MARK = 0x10
KIND_MAX = MARK

_HEADER_BODY = struct.Struct("<8sIQ16s")
_CRC = struct.Struct("<I")
_PREFIX = struct.Struct("<IIB")
_PLACE = struct.Struct("<QIB")
_MARK_BODY = struct.Struct("<Q")

HEADER_BYTES = _HEADER_BODY.size + _CRC.size
PREFIX_BYTES = _PREFIX.size
MARK_BYTES = PREFIX_BYTES + _MARK_BODY.size

# Lookaheads, so that candidates may overlap: length below 2**24, any CRC, a known kind.
_ANY_RECORD = re.compile(rb"(?=...\x00....[\x01-\x10])", re.DOTALL)
_ANY_MARK = re.compile(rb"(?=\x08\x00\x00\x00....\x10)", re.DOTALL)
_NAME = re.compile(r"wal-([0-9a-f]{16})\.seg", re.ASCII)


class Damage(Exception):
    """Bytes at `offset` are not a record. Judged by `Wal`; it never reaches a caller."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


class Header(NamedTuple):
    """What a segment says about itself."""

    first_lsn: int
    seed: int


class Record(NamedTuple):
    """A record as read: where it lies, and what it holds."""

    offset: int
    kind: int
    payload: bytes
    end: int


def segment_name(first_lsn: int) -> str:
    """File name of the segment whose first record has this sequence number."""
    return f"wal-{first_lsn:016x}.seg"


def first_lsn_of(name: str) -> int | None:
    """Sequence number in a segment's file name, None for any other file."""
    match = _NAME.fullmatch(name)
    return int(match.group(1), 16) if match else None


def encode_header(first_lsn: int, nonce: bytes) -> tuple[bytes, int]:
    """Return a header's bytes and the CRC seed of its records."""
    body = _HEADER_BODY.pack(MAGIC, FORMAT_VERSION, first_lsn, nonce)
    seed = crc32c(body)
    return body + _CRC.pack(seed), seed


def decode_header(data: bytes) -> Header:
    """Read a header.

    Raises:
        Damage: It is short, foreign, of another version, or its CRC is wrong.
    """
    if len(data) < HEADER_BYTES:
        raise Damage(len(data), f"the header ends after {len(data)} of {HEADER_BYTES} bytes")
    magic, version, first_lsn, _ = _HEADER_BODY.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEADER_BODY.size)
    if magic != MAGIC:
        raise Damage(0, "the header does not begin as that of a log segment")
    if crc != crc32c(data[: _HEADER_BODY.size]):
        raise Damage(0, "the header fails its CRC")
    if version != FORMAT_VERSION:
        raise Damage(8, f"format version {version}; this program reads version {FORMAT_VERSION}")
    return Header(first_lsn, crc)


def encode_record(seed: int, offset: int, kind: int, parts: Iterable[bytes]) -> list[bytes]:
    """Encode one record that will lie at `offset` of the file.

    Returns:
        Pieces to be written one after the other; the payload's are passed on, not copied.
    """
    pieces = [b"", *parts]
    length = sum(map(len, pieces))
    crc = crc32c(_PLACE.pack(offset, length, kind), seed)
    for piece in pieces:
        crc = crc32c(piece, crc)
    pieces[0] = _PREFIX.pack(length, crc, kind)
    return pieces


def encode_mark(seed: int, offset: int, last_lsn: int) -> bytes:
    """Encode the mark that follows a synced batch, whose last record is `last_lsn`."""
    return b"".join(encode_record(seed, offset, MARK, (_MARK_BODY.pack(last_lsn),)))


def decode_mark(payload: bytes) -> int:
    """Sequence number of the last record before a mark, or -1 when the payload is malformed."""
    return int(_MARK_BODY.unpack(payload)[0]) if len(payload) == _MARK_BODY.size else -1


class SegmentReader:
    """Reads one segment record by record, holding about a megabyte of it at a time.

    Args:
        disk: Where the file is.
        name: Of the file.

    Raises:
        Damage: The header is not valid.
    """

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self.name = name
        self.size = disk.size(name)
        self._buffer = b""
        self._buffer_offset = 0
        self.header = decode_header(self._bytes(0, HEADER_BYTES))

    def records(self) -> Iterator[Record]:
        """Yield the records in order.

        Raises:
            Damage: At the first bytes that are not a whole and valid record.
        """
        offset = HEADER_BYTES
        while offset < self.size:
            record = self._record(offset)
            yield record
            offset = record.end

    def damage_is_torn_tail(self, offset: int) -> str | None:
        """Judge damage at `offset` by the rule of this module.

        Returns:
            None if the tail from `offset` may be cut, else why it must not be.
        """
        tail = self._disk.read(self.name, offset)
        mark = self._find(_ANY_MARK, tail, offset)
        if mark is not None:
            return f"it had been synced before the mark at byte {mark} was written"
        # No mark follows, so the tail is at most one batch and the wide search is short.
        following = self._find(_ANY_RECORD, tail, offset)
        if following is None or _has_unwritten_sector(tail[: following - offset], offset):
            return None
        return f"a valid record follows at byte {following}"

    def _find(self, pattern: re.Pattern[bytes], tail: bytes, offset: int) -> int | None:
        """Offset of the first valid record after the damage whose prefix looks like `pattern`."""
        for match in pattern.finditer(tail, 1):
            if self._valid_at(tail, match.start(), offset):
                return offset + match.start()
        return None

    def _record(self, offset: int) -> Record:
        prefix = self._bytes(offset, PREFIX_BYTES)
        if len(prefix) < PREFIX_BYTES:
            raise Damage(offset, "the file ends inside a record's prefix")
        length, crc, kind = _PREFIX.unpack(prefix)
        if length > PAYLOAD_BYTES_MAX:
            raise Damage(offset, f"a record of {length} bytes is beyond the limit")
        if offset + PREFIX_BYTES + length > self.size:
            raise Damage(offset, f"a record of {length} bytes reaches beyond the end of the file")
        payload = self._bytes(offset + PREFIX_BYTES, length)
        if not self._crc_holds(crc, offset, kind, payload):
            raise Damage(offset, "the record fails its CRC")
        return Record(offset, kind, payload, offset + PREFIX_BYTES + length)

    def _valid_at(self, tail: bytes, position: int, base: int) -> bool:
        length, crc, kind = _PREFIX.unpack_from(tail, position)
        end = position + PREFIX_BYTES + length
        if end > len(tail):
            return False
        return self._crc_holds(crc, base + position, kind, tail[position + PREFIX_BYTES : end])

    def _crc_holds(self, crc: int, offset: int, kind: int, payload: bytes) -> bool:
        place = _PLACE.pack(offset, len(payload), kind)
        return bool(crc32c(payload, crc32c(place, self.header.seed)) == crc)

    def _bytes(self, offset: int, size: int) -> bytes:
        start = offset - self._buffer_offset
        if start < 0 or start + size > len(self._buffer):
            self._buffer = self._disk.read(self.name, offset, max(size, READ_BYTES))
            self._buffer_offset = offset
            start = 0
        return self._buffer[start : start + size]


def _has_unwritten_sector(gap: bytes, offset: int) -> bool:
    """Whether a sector's share of `gap`, which starts at `offset` of the file, is all zero.

    The first sector may have been written in part by an earlier batch: there the rest counts.
    """
    first_end = -offset % SECTOR_BYTES
    if 0 < first_end <= len(gap) and not any(gap[:first_end]):
        return True
    zero = bytes(SECTOR_BYTES)
    starts = range(first_end, len(gap) - SECTOR_BYTES + 1, SECTOR_BYTES)
    return any(gap.startswith(zero, start) for start in starts)
