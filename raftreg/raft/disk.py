"""The door to the disk: a directory of flat files, and the seam for simulation.

Everything below the Raft log that waits for the disk goes through `Disk`. `RealDisk` is the
operating system's; `tests/sim/sim_disk.py` is one that loses unsynced writes at a crash.

What a `Disk` promises, and nothing more:

* written bytes are durable only after a sync of that file reported success;
* a new file created by `open_append` is durable only by a later `replace` or `sync_directory`;
* `replace`, `remove`, `truncate`, `rewrite`, `write_durably` and the later-variants are durable on
  return (or when `done` is called with None);
* `done` callbacks run on the loop, one at a time, never inside the call that started the operation;
* after an error a file must not be written again: nobody knows what it holds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import queue
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeAlias

from raftreg.durable import make_directory_durably
from raftreg.raft.faults import DiskFailure

Done: TypeAlias = Callable[[OSError | None], None]
CallSoon: TypeAlias = Callable[[Callable[[], None]], object]

FILE_MODE = 0o600
LOCK_NAME = "LOCK"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)

# macOS has no fdatasync; fsync is the stronger one of the two.
_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def temporary_name(name: str) -> str:
    """Name under which a file is written before it takes its own; left over only by a crash."""
    return name + ".tmp"


def check_name(name: str) -> str:
    """Return `name` if it is a flat file name.

    Raises:
        ValueError: The name could leave the directory, is hidden, too long or the lock's own.
    """
    if NAME_PATTERN.fullmatch(name) is None or name == LOCK_NAME:
        raise ValueError(f"not a flat file name: {name!r}")
    return name


class Handle(Protocol):
    """A file open for appending. It belongs to one thread at a time."""

    @property
    def name(self) -> str:
        """Name of the file in its directory."""
        ...

    def write(self, data: bytes) -> None:
        """Append `data`; it may stay in memory until the next sync. Never waits for the disk."""
        ...

    def close(self) -> None:
        """Give the file back. Bytes that were not synced may be lost."""
        ...


class Disk(Protocol):
    """A directory of files. Names are flat. Synchronous operations raise OSError."""

    def list(self) -> list[str]:
        """Names of the files, sorted."""
        ...

    def size(self, name: str) -> int:
        """Size of a file in bytes."""
        ...

    def read(self, name: str, offset: int = 0, size_max: int = -1) -> bytes:
        """Read up to `size_max` bytes from `offset`; fewer only at the end of the file."""
        ...

    def open_append(self, name: str) -> Handle:
        """Open a file at its end, creating it when there is none (not durably)."""
        ...

    def sync(self, handle: Handle, done: Done, after: bytes = b"") -> None:
        """Write what was buffered and make it durable, off the loop.

        Args:
            handle: Whose bytes: all that were written before this call.
            done: Called later on the loop with None, or with the error.
            after: Bytes appended once the sync succeeded; not synced themselves. They are
                evidence, in the file, that everything before them had reached the disk.
        """
        ...

    def sync_now(self, handle: Handle) -> None:
        """`sync` that waits; for start-up, worker threads and rare paths."""
        ...

    def sync_directory(self) -> None:
        """Make creations by `open_append` durable."""
        ...

    def replace(self, source: str, target: str) -> None:
        """Rename durably and atomically. The content must have been synced before."""
        ...

    def remove(self, name: str) -> None:
        """Remove durably."""
        ...

    def remove_later(self, names: Sequence[str], done: Done) -> None:
        """Remove durably, one after the other in order, off the loop and behind no sync."""
        ...

    def truncate(self, name: str, size: int) -> None:
        """Cut a file to `size` bytes durably."""
        ...

    def rewrite(self, name: str, offset: int, data: bytes) -> None:
        """Write again what is there already, and sync the file.

        After a sync that failed the kernel shows bytes that never reached the disk, and takes them
        for clean: only writing them anew makes a later sync cover them.
        """
        ...

    def write_durably(self, name: str, data: bytes) -> None:
        """Create or replace a whole file atomically and durably."""
        ...

    def write_durably_later(self, name: str, data: bytes, done: Done) -> None:
        """`write_durably` off the loop, in order with the syncs."""
        ...

    def wait_idle(self) -> None:
        """Wait for the operations under way and run their callbacks here; for an orderly stop."""
        ...

    def nonce(self, size_bytes: int) -> bytes:
        """Random bytes that tell a file's records from those of any other file."""
        ...


class _RealHandle:
    """An O_APPEND descriptor and the bytes that wait for the next sync."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._fd = fd
        self._buffer: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._buffer.append(data)

    def take(self) -> list[bytes]:
        taken, self._buffer = self._buffer, []
        return taken

    def commit(self, parts: list[bytes], after: bytes = b"") -> None:
        for part in parts:
            self._write_all(part)
        _fdatasync(self._fd)
        if after:
            self._write_all(after)

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Worker:
    """One thread that runs jobs in order and hands their outcomes back to the loop.

    A plain queue and not a concurrent.futures executor: a sync is on the path of every write, and
    a future's lock and condition cost as much as the sync of a fast disk.
    """

    def __init__(self, name: str, call_soon: CallSoon) -> None:
        self._call_soon = call_soon
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], Done] | threading.Event | None] = (
            queue.SimpleQueue()
        )
        self._outcomes: deque[tuple[Done, OSError | None]] = deque()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None], done: Done) -> None:
        self._jobs.put((job, done))

    def wait_idle(self) -> None:
        reached = threading.Event()
        self._jobs.put(reached)
        reached.wait()
        self.deliver()

    def stop(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def deliver(self) -> None:
        while self._outcomes:
            done, error = self._outcomes.popleft()
            done(error)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
            else:
                self._run_job(*item)

    def _run_job(self, job: Callable[[], None], done: Done) -> None:
        outcome: OSError | None = None
        try:
            job()
        except OSError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001  # a dead thread would let its callers wait for ever
            outcome = OSError(errno.EIO, f"{type(error).__name__}: {error}")
        self._outcomes.append((done, outcome))
        try:
            self._call_soon(self.deliver)
        except RuntimeError:
            # The loop is closed: whoever still cares calls wait_idle, which delivers too.
            return


class RealDisk:
    """A directory of the operating system, locked against other processes.

    Syncs run on one thread and removals on another: unlinking a large file can take longer than
    many syncs.

    Args:
        directory: An existing directory, already locked by `lock_fd`.
        lock_fd: Descriptor that holds the lock; closed with the disk.
        call_soon: Runs a callable on the loop from any thread (loop.call_soon_threadsafe).
    """

    def __init__(self, directory: Path, lock_fd: int, call_soon: CallSoon) -> None:
        self._directory = directory
        self._lock_fd = lock_fd
        self._directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._log_worker = _Worker("raftreg-log-sync", call_soon)
        self._removal_worker = _Worker("raftreg-log-removal", call_soon)

    @classmethod
    def open(cls, directory: str | os.PathLike[str], call_soon: CallSoon) -> Self:
        """Create the directory if need be and take its lock.

        Raises:
            DiskFailure: Another process holds the lock, or the directory can't be used.
        """
        path = Path(directory)
        try:
            make_directory_durably(path)
            lock_fd = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise DiskFailure(f"data directory {path} can't be used: {error.strerror}") from error
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock_fd)
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                raise DiskFailure(f"data directory {path} is in use by another process") from error
            raise DiskFailure(f"data directory {path} can't be locked: {error.strerror}") from error
        return cls(path, lock_fd, call_soon)

    def close(self) -> None:
        """Finish what is under way, then release the lock. Callbacks still due are run here."""
        self.wait_idle()
        self._log_worker.stop()
        self._removal_worker.stop()
        os.close(self._directory_fd)
        os.close(self._lock_fd)

    def list(self) -> list[str]:
        """See `Disk.list`."""
        with os.scandir(self._directory) as entries:
            return sorted(e.name for e in entries if e.is_file() and e.name != LOCK_NAME)

    def size(self, name: str) -> int:
        """See `Disk.size`."""
        return self._path(name).stat().st_size

    def read(self, name: str, offset: int = 0, size_max: int = -1) -> bytes:
        """See `Disk.read`."""
        with self._path(name).open("rb") as file:
            file.seek(offset)
            return file.read(size_max)

    def open_append(self, name: str) -> Handle:
        """See `Disk.open_append`."""
        return self._open(name, os.O_APPEND)

    def sync(self, handle: Handle, done: Done, after: bytes = b"") -> None:
        """See `Disk.sync`."""
        real = _own(handle)
        parts = real.take()
        self._log_worker.submit(lambda: real.commit(parts, after), done)

    def sync_now(self, handle: Handle) -> None:
        """See `Disk.sync_now`."""
        real = _own(handle)
        real.commit(real.take())

    def sync_directory(self) -> None:
        """See `Disk.sync_directory`."""
        os.fsync(self._directory_fd)

    def replace(self, source: str, target: str) -> None:
        """See `Disk.replace`."""
        self._path(source).replace(self._path(target))
        self.sync_directory()

    def remove(self, name: str) -> None:
        """See `Disk.remove`."""
        self._path(name).unlink()
        self.sync_directory()

    def remove_later(self, names: Sequence[str], done: Done) -> None:
        """See `Disk.remove_later`."""
        in_order = tuple(map(check_name, names))

        def remove_all() -> None:
            for name in in_order:
                self.remove(name)

        self._removal_worker.submit(remove_all, done)

    def truncate(self, name: str, size: int) -> None:
        """See `Disk.truncate`."""
        fd = os.open(self._path(name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)

    def rewrite(self, name: str, offset: int, data: bytes) -> None:
        """See `Disk.rewrite`."""
        fd = os.open(self._path(name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(fd, data[written:], offset + written)
            os.fsync(fd)
        finally:
            os.close(fd)

    def write_durably(self, name: str, data: bytes) -> None:
        """See `Disk.write_durably`."""
        temporary = temporary_name(name)
        handle = self._open(temporary, os.O_TRUNC)
        try:
            handle.commit([data])
        finally:
            handle.close()
        self.replace(temporary, name)

    def write_durably_later(self, name: str, data: bytes, done: Done) -> None:
        """See `Disk.write_durably_later`."""
        check_name(name)
        self._log_worker.submit(lambda: self.write_durably(name, data), done)

    def wait_idle(self) -> None:
        """See `Disk.wait_idle`."""
        self._log_worker.wait_idle()
        self._removal_worker.wait_idle()

    def nonce(self, size_bytes: int) -> bytes:
        """See `Disk.nonce`."""
        return secrets.token_bytes(size_bytes)

    def _path(self, name: str) -> Path:
        return self._directory / check_name(name)

    def _open(self, name: str, flag: int) -> _RealHandle:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag
        return _RealHandle(name, os.open(self._path(name), flags, FILE_MODE))


def _own(handle: Handle) -> _RealHandle:
    if not isinstance(handle, _RealHandle):
        raise TypeError(f"a handle of another disk: {handle!r}")
    return handle
