"""One file of the disk's model: what was written, what is durable, what a power loss leaves.

The rules are told in `disk_model.py`. Changes since the last sync are kept in order, each with what
it replaced, so that the durable state can be had back and any mixture be built upon it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from random import Random
from typing import Protocol, TypeAlias

import msgspec

SECTOR_BYTES = 512
#: Unsynced bytes of one file past which the kernel is taken to write back by itself.
UNSYNCED_BYTES_MAX = 64 << 20


class Content(Protocol):
    """The bytes of one file as they were written; where they are kept is the shell's affair."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Overwrites and extends; a gap is filled with zeros."""
        ...

    def resize(self, size: int) -> None:
        """Cuts, or extends with zeros."""
        ...

    def remove(self) -> None:
        """The file is no more."""
        ...


class MemoryContent:
    """Content in memory."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def size(self) -> int:
        """See `Content.size`."""
        return len(self._data)

    def read(self, offset: int, size: int) -> bytes:
        """See `Content.read`."""
        return bytes(self._data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """See `Content.write`."""
        if offset > len(self._data):
            self.resize(offset)
        self._data[offset : offset + len(data)] = data

    def resize(self, size: int) -> None:
        """See `Content.resize`."""
        del self._data[size:]
        self._data.extend(bytes(size - len(self._data)))

    def remove(self) -> None:
        """See `Content.remove`."""
        self._data.clear()


class Loss(msgspec.Struct, frozen=True):
    """What a power loss took.

    Attributes:
        writes: Unsynced writes of which at least a part is gone.
        bytes: Bytes of such writes that are not there any more.
        names: Creations, removals and renames that were undone.
    """

    writes: int = 0
    bytes: int = 0
    names: int = 0


class _Write(msgspec.Struct, frozen=True):
    """Bytes at an offset, and what stood there before (shorter where the file ended)."""

    offset: int
    data: bytes
    before: bytes
    size_before: int


class _Resize(msgspec.Struct, frozen=True):
    """Another size, and the bytes that it cut off."""

    size: int
    cut: bytes
    size_before: int


_Change: TypeAlias = _Write | _Resize


class Node:
    """What files and directories have in common: an inode.

    Args:
        number: Of the inode.
        mode: Type and permission bits.
        now_ns: Time of its making.
    """

    def __init__(self, number: int, mode: int, now_ns: int) -> None:
        self.number = number
        self.mode = mode
        self.uid = 0
        self.gid = 0
        self.modified_ns = now_ns


class File(Node):
    """An inode of a file: its content, and the changes since the last sync, oldest first.

    Args:
        number: Of the inode.
        mode: Permission bits.
        now_ns: Time of its making.
        content: Empty; belongs to this file.
    """

    def __init__(self, number: int, mode: int, now_ns: int, content: Content) -> None:
        super().__init__(number, stat.S_IFREG | mode, now_ns)
        self.content = content
        self.changes: list[_Change] = []
        self.unsynced_bytes = 0
        # Durable bytes of sectors that a failed sync left readable but not durable.
        self.phantoms: dict[int, bytes] = {}

    def write(self, offset: int, data: bytes) -> None:
        """Overwrites and extends, not durably."""
        before = self.content.read(offset, len(data))
        change = _Write(offset, data, before, self.content.size)
        self.content.write(offset, data)
        self._changed(change, len(data) + len(before))

    def resize(self, size: int) -> None:
        """Cuts, or extends with zeros, not durably."""
        before = self.content.size
        cut = self.content.read(size, before - size) if size < before else b""
        self.content.resize(size)
        self._changed(_Resize(size, cut, before), len(cut))

    def _changed(self, change: _Change, size: int) -> None:
        self.changes.append(change)
        self.unsynced_bytes += size
        if self.unsynced_bytes > UNSYNCED_BYTES_MAX:
            self.sync()

    def sync(self) -> None:
        """Makes bytes and size durable."""
        for sector in self._dirty_sectors():
            self.phantoms.pop(sector, None)
        self._settle()

    def fail_sync(self) -> None:
        """The bytes stay readable; the kernel takes them for clean and writes them no more."""
        dirty = self._dirty_sectors()
        self._undo_all()
        for sector in dirty:
            durable = self.content.read(sector * SECTOR_BYTES, SECTOR_BYTES)
            self.phantoms.setdefault(sector, durable.ljust(SECTOR_BYTES, b"\0"))
        self._redo(len(self.changes))
        self._settle()

    def lose_power(self, rng: Random, *, torn: bool) -> Loss:
        """Leaves a possible state."""
        changes, written = self.changes, self._image()
        dirty = set(self._dirty_sectors())
        self._undo_all()
        self._lose_phantoms(rng, dirty)
        if changes:
            self._redo_in_part(rng, torn=torn)
        loss = _loss_of(changes, written, self.content)
        self.phantoms.clear()
        self._settle()
        return loss

    def durable_bytes(self) -> int:
        """Size of the part from the start that no unsynced change has touched."""
        size = self.content.size
        for change in self.changes:
            first = change.offset if isinstance(change, _Write) else change.size
            size = min(size, first, change.size_before)
        return size

    def _settle(self) -> None:
        self.changes = []
        self.unsynced_bytes = 0

    def _image(self) -> dict[int, bytes]:
        """What was written last at the place of each unsynced write."""
        return {
            at: self.content.read(change.offset, len(change.data))
            for at, change in enumerate(self.changes)
            if isinstance(change, _Write)
        }

    def _dirty_sectors(self) -> list[int]:
        found: set[int] = set()
        for change in self.changes:
            if isinstance(change, _Write):
                found.update(_sectors_of(change.offset, len(change.data)))
        return sorted(found)

    def _undo_all(self) -> None:
        for change in reversed(self.changes):
            match change:
                case _Write():
                    self.content.resize(change.size_before)
                    if change.before:
                        self.content.write(change.offset, change.before)
                case _Resize():
                    self.content.resize(min(change.size, change.size_before))
                    self.content.resize(change.size_before)
                    if change.cut:
                        self.content.write(change.size, change.cut)

    def _redo(self, count: int) -> None:
        for change in self.changes[:count]:
            match change:
                case _Write():
                    self.content.write(change.offset, change.data)
                case _Resize():
                    self.content.resize(change.size)

    def _redo_in_part(self, rng: Random, *, torn: bool) -> None:
        last = self.changes[-1]
        if torn and isinstance(last, _Write):
            self._redo(len(self.changes) - 1)
            kept = last.data[: rng.randrange(len(last.data))]
            if kept:
                self.content.write(last.offset, kept)
            return
        shrinks = any(isinstance(one, _Resize) and one.cut for one in self.changes)
        if shrinks or rng.random() < 0.5:
            self._redo(rng.randint(0, len(self.changes)))
        else:
            self._redo_sectors(rng)

    def _redo_sectors(self, rng: Random) -> None:
        """Each sector as it stood after some of the writes, with one of the sizes."""
        count = len(self.changes)
        versions = {sector: rng.randint(0, count) for sector in self._dirty_sectors()}
        sizes = [self.content.size]
        for at, change in enumerate(self.changes):
            match change:
                case _Write():
                    sizes.append(max(sizes[-1], change.offset + len(change.data)))
                    for offset, piece in _pieces(change):
                        if at < versions[offset // SECTOR_BYTES]:
                            self.content.write(offset, piece)
                case _Resize():
                    sizes.append(change.size)
        self.content.resize(rng.choice(sizes))

    def _lose_phantoms(self, rng: Random, dirty: set[int]) -> None:
        size = self.content.size
        for sector, durable in sorted(self.phantoms.items()):
            start = sector * SECTOR_BYTES
            if sector not in dirty and start < size and rng.random() < 0.5:
                self.content.write(start, durable[: size - start])


def _sectors_of(offset: int, size: int) -> range:
    return range(offset // SECTOR_BYTES, (offset + max(size, 1) - 1) // SECTOR_BYTES + 1)


def _pieces(change: _Write) -> Iterator[tuple[int, bytes]]:
    """A write cut at the borders of sectors."""
    start = 0
    while start < len(change.data):
        room = SECTOR_BYTES - (change.offset + start) % SECTOR_BYTES
        yield change.offset + start, change.data[start : start + room]
        start += room


def _loss_of(changes: list[_Change], written: dict[int, bytes], content: Content) -> Loss:
    writes = lost = 0
    for at, wanted in written.items():
        change = changes[at]
        assert isinstance(change, _Write)
        left = content.read(change.offset, len(wanted))
        missing = len(wanted) - sum(map(int.__eq__, left, wanted))
        writes += missing > 0
        lost += missing
    return Loss(writes=writes, bytes=lost)
