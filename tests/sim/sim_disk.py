"""A disk for the simulator: it knows what was synced, and a crash loses the rest.

Everything is decided by the `random.Random` given to it, so one seed gives one history. Callbacks
come through a scheduler (`call_later`), which a simulated loop or a plain heap of events provides.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import TypeAlias

from raftreg.raft.disk import Disk, Done, Handle, check_name, temporary_name

CallLater: TypeAlias = Callable[[float, Callable[[], None]], object]

SECTOR_BYTES = 512


class SimulatedCrash(BaseException):
    """The power fails inside an operation of the disk (see `SimDisk.crash_after`)."""


class Tear(Enum):
    """What a crash leaves of the unsynced tail of a file."""

    #: A random prefix of it.
    PREFIX = auto()
    #: A random prefix, then random bytes up to a random end.
    GARBAGE = auto()
    #: A random prefix, then zero bytes up to a random end (the size grew, the data never came).
    ZEROS = auto()
    #: Each disk sector of it on its own: written or zero (pages reach the disk in any order).
    SECTORS = auto()


class _File:
    """An inode: what was written, and how much of it is on disk."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.synced_bytes = 0
        # Ranges that a failed sync left readable but clean: no later sync writes them.
        self.dropped: list[range] = []

    def survivor(self, rng: random.Random, tears: Sequence[Tear]) -> _File:
        kept = _File()
        kept.data = self.data[: self.synced_bytes]
        for hole in self.dropped:
            if hole.stop <= self.synced_bytes and rng.random() < 0.5:
                kept.data[hole.start : hole.stop] = bytes(len(hole))
        tail = bytes(self.data[self.synced_bytes :])
        if tail:
            kept.data += _tear(tail, self.synced_bytes, rng, rng.choice(tears))
        kept.synced_bytes = len(kept.data)
        return kept


def _tear(tail: bytes, offset: int, rng: random.Random, tear: Tear) -> bytes:
    cut = rng.randint(0, len(tail))
    end = rng.randint(cut, len(tail))
    match tear:
        case Tear.PREFIX:
            return tail[:cut]
        case Tear.GARBAGE:
            return tail[:cut] + rng.randbytes(end - cut)
        case Tear.ZEROS:
            return tail[:cut] + bytes(end - cut)
        case Tear.SECTORS:
            return _tear_sectors(tail if rng.random() < 0.5 else tail[:end], offset, rng)


def _tear_sectors(tail: bytes, offset: int, rng: random.Random) -> bytes:
    torn = bytearray(tail)
    start = 0
    while start < len(torn):
        stop = min(start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES, len(torn))
        if rng.random() < 0.5:
            torn[start:stop] = bytes(stop - start)
        start = stop
    return bytes(torn)


class _SimHandle:
    def __init__(self, name: str, file: _File, epoch: int) -> None:
        self.name = name
        self.file = file
        self.epoch = epoch
        self.open = True

    def write(self, data: bytes) -> None:
        assert self.open, f"write to the closed handle of {self.name}"
        self.file.data += data

    def close(self) -> None:
        self.open = False


class SimDisk:
    """A directory in memory with the failure modes of a real one; implements `Disk`.

    Args:
        rng: Decides delays, what a crash keeps, and nonces.
        call_later: Runs a callable after a simulated delay in seconds.
        sync_delay_s: Bounds of the time that a sync, or another operation off the loop, takes.
        tears: What a crash may do to unsynced bytes.

    Attributes:
        operations: Number of steps (write-out, sync, rename, removal …) performed so far.
        syncs: Number of syncs that succeeded.
    """

    def __init__(
        self,
        rng: random.Random,
        call_later: CallLater,
        *,
        sync_delay_s: tuple[float, float] = (0.0001, 0.005),
        tears: Sequence[Tear] = tuple(Tear),
    ) -> None:
        self._rng = rng
        self._call_later = call_later
        self._sync_delay_s = sync_delay_s
        self._tears = tears
        self._files: dict[str, _File] = {}
        self._durable_files: dict[str, _File] = {}
        # The directory after each change that no directory sync has covered yet.
        self._unsynced_directories: list[dict[str, _File]] = []
        self._waiting: list[tuple[int, Callable[[], None], Done]] = []
        self._next_job = 0
        self._epoch = 0
        self._faults: list[OSError] = []
        self._stall_s = 0.0
        self._crash_at: int | None = None
        self.operations = 0
        self.syncs = 0

    # Faults.

    def crash(self, rng: random.Random | None = None) -> None:
        """Lose the power: unsynced bytes and directory changes are lost, whole or in part.

        Operations under way never report. Handles from before must not be used any more.
        """
        rng = rng or self._rng
        self._epoch += 1
        self._waiting.clear()
        self._crash_at = None
        self._faults.clear()
        self._stall_s = 0.0
        directories = [self._durable_files, *self._unsynced_directories]
        survivors = directories[rng.randrange(len(directories))]
        self._unsynced_directories.clear()
        self._files = {
            name: file.survivor(rng, self._tears) for name, file in sorted(survivors.items())
        }
        self._durable_files = dict(self._files)

    def kill(self) -> None:
        """Kill the process that uses the disk: written bytes stay, operations never report."""
        self._epoch += 1
        self._waiting.clear()
        self._faults.clear()
        self._crash_at = None

    def crash_after(self, operations: int) -> None:
        """Raise SimulatedCrash in the middle of the operation after so many more."""
        self._crash_at = self.operations + operations

    def fail_next_sync(self, code: int = errno.EIO) -> None:
        """Let the next operation that makes something durable fail (errno.EIO, errno.ENOSPC)."""
        self._faults.append(OSError(code, "injected"))

    def heal(self) -> None:
        """Take back the faults that have not happened yet, and the stall."""
        self._faults.clear()
        self._stall_s = 0.0

    def stall(self, delay_s: float) -> None:
        """Let operations off the loop take so much longer; 0 ends it."""
        self._stall_s = delay_s

    def flip(self, name: str, offset: int, mask: int = 0x40) -> None:
        """Rot: change bits of a byte, synced or not."""
        self._files[name].data[offset] ^= mask

    def set_content(self, name: str, data: bytes) -> None:
        """Put a file there as if it had been synced."""
        file = _File()
        file.data[:] = data
        file.synced_bytes = len(data)
        self._files[name] = file
        self._durable_files[name] = file

    def synced_bytes(self, name: str) -> int:
        """How much of a file is certain to outlive a crash."""
        return self._files[name].synced_bytes

    # The Disk protocol.

    def list(self) -> list[str]:
        """See `Disk.list`."""
        return sorted(self._files)

    def size(self, name: str) -> int:
        """See `Disk.size`."""
        return len(self._file(name).data)

    def read(self, name: str, offset: int = 0, size_max: int = -1) -> bytes:
        """See `Disk.read`."""
        data = self._file(name).data
        return bytes(data[offset:] if size_max < 0 else data[offset : offset + size_max])

    def open_append(self, name: str) -> Handle:
        """See `Disk.open_append`."""
        check_name(name)
        if name not in self._files:
            self._step()
            self._files[name] = _File()
            self._directory_changed()
        return _SimHandle(name, self._files[name], self._epoch)

    def sync(self, handle: Handle, done: Done, after: bytes = b"") -> None:
        """See `Disk.sync`."""
        own = self._own(handle)
        upto = len(own.file.data)

        def job() -> None:
            self._sync_file(own.file, upto)
            own.file.data += after

        self._later(job, done)

    def sync_now(self, handle: Handle) -> None:
        """See `Disk.sync_now`."""
        own = self._own(handle)
        self._sync_file(own.file, len(own.file.data))

    def sync_directory(self) -> None:
        """See `Disk.sync_directory`."""
        self._step()
        self._raise_fault()
        self._durable_files = dict(self._files)
        self._unsynced_directories.clear()

    def replace(self, source: str, target: str) -> None:
        """See `Disk.replace`."""
        self._step()
        self._files[check_name(target)] = self._file(source)
        del self._files[source]
        self._directory_changed()
        self.sync_directory()

    def remove(self, name: str) -> None:
        """See `Disk.remove`."""
        self._step()
        self._file(name)
        del self._files[name]
        self._directory_changed()
        self.sync_directory()

    def remove_later(self, names: Sequence[str], done: Done) -> None:
        """See `Disk.remove_later`."""
        in_order = tuple(map(check_name, names))

        def job() -> None:
            for name in in_order:
                self.remove(name)

        self._later(job, done)

    def truncate(self, name: str, size: int) -> None:
        """See `Disk.truncate`."""
        file = self._file(name)
        self._step()
        del file.data[size:]
        file.synced_bytes = min(file.synced_bytes, size)
        self._sync_file(file, len(file.data))

    def rewrite(self, name: str, offset: int, data: bytes) -> None:
        """See `Disk.rewrite`."""
        file = self._file(name)
        self._step()
        assert file.data[offset : offset + len(data)] == data, "it must be there already"
        written = range(offset, offset + len(data))
        file.dropped = [
            hole for hole in file.dropped if hole.start < offset or hole.stop > written.stop
        ]
        self._sync_file(file, len(file.data))

    def write_durably(self, name: str, data: bytes) -> None:
        """See `Disk.write_durably`."""
        temporary = temporary_name(check_name(name))
        self._step()
        file = _File()
        self._files[temporary] = file
        self._directory_changed()
        file.data[:] = data
        self._sync_file(file, len(data))
        self.replace(temporary, name)

    def write_durably_later(self, name: str, data: bytes, done: Done) -> None:
        """See `Disk.write_durably_later`."""
        check_name(name)
        self._later(lambda: self.write_durably(name, data), done)

    def wait_idle(self) -> None:
        """See `Disk.wait_idle`; no simulated time passes."""
        while self._waiting:
            self._finish(self._waiting[0][0])

    def nonce(self, size_bytes: int) -> bytes:
        """See `Disk.nonce`."""
        return self._rng.randbytes(size_bytes)

    # Inside.

    def _file(self, name: str) -> _File:
        file = self._files.get(check_name(name))
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return file

    def _own(self, handle: Handle) -> _SimHandle:
        assert isinstance(handle, _SimHandle)
        assert handle.epoch == self._epoch, f"the handle of {handle.name} is from before a crash"
        return handle

    def _sync_file(self, file: _File, upto: int) -> None:
        self._step()
        try:
            self._raise_fault()
        except OSError:
            file.dropped.append(range(file.synced_bytes, len(file.data)))
            raise
        file.synced_bytes = max(file.synced_bytes, min(upto, len(file.data)))
        self.syncs += 1

    def _raise_fault(self) -> None:
        if self._faults:
            raise self._faults.pop(0)

    def _directory_changed(self) -> None:
        self._unsynced_directories.append(dict(self._files))

    def _step(self) -> None:
        self.operations += 1
        if self._crash_at is not None and self.operations >= self._crash_at:
            raise SimulatedCrash

    def _later(self, job: Callable[[], None], done: Done) -> None:
        self._next_job += 1
        number = self._next_job
        self._waiting.append((number, job, done))
        epoch = self._epoch
        delay_s = self._rng.uniform(*self._sync_delay_s) + self._stall_s

        def due() -> None:
            if epoch == self._epoch:
                self._finish_upto(number)

        self._call_later(delay_s, due)

    def _finish_upto(self, number: int) -> None:
        """One disk, one queue: an operation ends after those that were started before it."""
        while self._waiting and self._waiting[0][0] <= number:
            self._finish(self._waiting[0][0])

    def _finish(self, number: int) -> None:
        assert self._waiting[0][0] == number
        _, job, done = self._waiting.pop(0)
        try:
            job()
        except OSError as error:
            done(error)
        else:
            done(None)


def as_disk(disk: SimDisk) -> Disk:
    """Let the type checker prove that SimDisk is a Disk."""
    return disk
