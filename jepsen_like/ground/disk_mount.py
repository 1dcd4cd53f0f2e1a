"""The process under a server's data directory: FUSE on one side, the model of the disk behind it.

`python -m jepsen_like.ground.disk_mount --at DIR --backing DIR --control FD` mounts at DIR and
takes commands, one JSON object a line, from the connected Unix socket FD: `{"do": NAME, …}` is
answered by `{"result": …}` or `{"error": TEXT}`. The first line it says is `{"ready": true}`. When
the socket is closed, as when the harness was killed, it unmounts (lazily: whoever still holds the
directory gets errors) and ends.

The kernel keeps nothing of the contents (direct I/O) nor of names and attributes (all timeouts 0):
every write is seen at once, and nobody reads after a power loss what is not there any more. Locks
(flock) are the kernel's own. Calls are served by one thread, as by a disk with one queue: a delayed
call delays those behind it.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import mfusepy
import msgspec

from jepsen_like.ground.disk_faults import Call, Faults, Gate
from jepsen_like.ground.disk_model import ROOT, DiskModel

COMMAND_BYTES_MAX: Final = 1 << 16
DISK_BYTES: Final = 1 << 40
_BLOCK_BYTES: Final = 4096
_MNT_DETACH: Final = 2
_ZERO_TIMEOUTS: Final = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}

log = logging.getLogger(__name__)


class FileContent:
    """Content in a file of the backing directory.

    Args:
        path: The file; it is made anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self.size = 0

    def read(self, offset: int, size: int) -> bytes:
        """See `Content.read`."""
        return os.pread(self._fd, size, offset)

    def write(self, offset: int, data: bytes) -> None:
        """See `Content.write`."""
        view = memoryview(data)
        while view:
            view = view[os.pwrite(self._fd, view, offset + len(data) - len(view)) :]
        self.size = max(self.size, offset + len(data))

    def resize(self, size: int) -> None:
        """See `Content.resize`."""
        os.ftruncate(self._fd, size)
        self.size = size

    def remove(self) -> None:
        """See `Content.remove`."""
        os.close(self._fd)
        self._path.unlink(missing_ok=True)


class FileSystem:
    """The calls of the kernel, as mfusepy hands them on. Paths are None for removed files.

    Args:
        model: Holds everything.
        gate: Stands before every call.
        mounted: Is called once calls may come.
    """

    use_ns = True  #: mfusepy: times are whole nanoseconds

    def __init__(self, model: DiskModel, gate: Gate, mounted: Callable[[], None]) -> None:
        self._model = model
        self._gate = gate
        self._mounted = mounted
        # By handle: the inode, and the epoch in which it was opened. A handle is never used again.
        self._handles: dict[int, tuple[int, int]] = {}
        self._last_handle = 0

    def init(self, _path: str) -> None:
        """The mount is there."""
        self._mounted()

    # Looking.

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, Any]:
        """What `stat` shows."""
        with self._gate.lock:
            self._gate.enter(Call.LOOK)
            number = self._model.find(path) if path is not None else self._number(fh)
            found = self._model.attributes(number)
        return {
            "st_ino": found.number,
            "st_mode": found.mode,
            "st_nlink": found.links,
            "st_uid": found.uid,
            "st_gid": found.gid,
            "st_size": found.size,
            "st_blocks": -(-found.size // 512),
            "st_blksize": _BLOCK_BYTES,
            "st_atime": found.modified_ns,
            "st_mtime": found.modified_ns,
            "st_ctime": found.modified_ns,
        }

    def readdir(self, path: str, _fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        """Names in a directory."""
        with self._gate.lock:
            self._gate.enter(Call.LOOK)
            here = self._model.find(path)
            names = {".": here, "..": ROOT, **self._model.list(here)}
            modes = {number: self._model.attributes(number).mode for number in names.values()}
        for name, number in names.items():
            yield name, {"st_mode": modes[number], "st_ino": number}, 0

    def statfs(self, _path: str) -> dict[str, int]:
        """Room on the disk."""
        with self._gate.lock:
            free = 0 if self._gate.full else DISK_BYTES // _BLOCK_BYTES
        return {
            "f_bsize": _BLOCK_BYTES,
            "f_frsize": _BLOCK_BYTES,
            "f_blocks": DISK_BYTES // _BLOCK_BYTES,
            "f_bfree": free,
            "f_bavail": free,
            "f_namemax": 255,
        }

    # Files.

    def create(self, path: str, mode: int, _flags: int) -> int:
        """Makes and opens a file."""
        with self._gate.lock:
            self._gate.enter(Call.NAME, grows=True)
            return self._opened(self._model.create(path, mode))

    def open(self, path: str, flags: int) -> int:
        """Opens a file, and empties it if the flags say so."""
        with self._gate.lock:
            self._gate.enter(Call.WRITE if flags & os.O_TRUNC else Call.LOOK)
            number = self._model.find(path)
            if flags & os.O_TRUNC:
                self._model.resize(number, 0)
            return self._opened(number)

    def read(self, _path: str | None, size: int, offset: int, fh: int) -> bytes:
        """Reads what was written."""
        with self._gate.lock:
            self._gate.enter(Call.READ)
            return self._model.read(self._number(fh), offset, size)

    def write(self, _path: str | None, data: bytes, offset: int, fh: int) -> int:
        """Writes, not durably."""
        with self._gate.lock:
            number = self._number(fh)
            grows = offset + len(data) > self._model.attributes(number).size
            self._gate.enter(Call.WRITE, grows=grows)
            self._model.write(number, offset, data)
            self._gate.counts["write_bytes"] += len(data)
        return len(data)

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        """Cuts or extends, not durably."""
        with self._gate.lock:
            number = self._number(fh) if fh is not None else self._model.find(path or "")
            grows = length > self._model.attributes(number).size
            self._gate.enter(Call.WRITE, grows=grows)
            self._model.resize(number, length)
        return 0

    def fsync(self, _path: str | None, _data_only: int, fh: int) -> int:
        """Makes a file durable. fdatasync is the same here: only times are left out by it."""
        with self._gate.lock:
            number = self._number(fh)
            epoch = self._gate.epoch
            try:
                self._gate.enter(Call.SYNC)
            except OSError:
                if self._gate.epoch == epoch:
                    self._model.fail_sync(number)
                raise
            self._model.sync(number)
        return 0

    def flush(self, _path: str | None, _fh: int) -> int:
        """Closing makes nothing durable."""
        return 0

    def release(self, _path: str | None, fh: int) -> int:
        """The last descriptor of a handle is closed; never waits, for a killed process must end."""
        with self._gate.lock:
            number, epoch = self._handles.pop(fh)
            if epoch == self._gate.epoch:
                self._model.closed(number)
        return 0

    def chmod(self, path: str | None, mode: int) -> int:
        """Permission bits."""
        with self._gate.lock:
            self._gate.enter(Call.NAME)
            self._model.set_mode(self._model.find(path or ""), mode)
        return 0

    def chown(self, path: str | None, uid: int, gid: int) -> int:
        """The owner."""
        with self._gate.lock:
            self._gate.enter(Call.NAME)
            self._model.set_owner(self._model.find(path or ""), uid, gid)
        return 0

    def utimens(self, path: str | None, times: tuple[int, int] | None = None) -> int:
        """The time of the last change."""
        with self._gate.lock:
            self._gate.enter(Call.NAME)
            self._model.set_modified(
                self._model.find(path or ""), times[1] if times else time.time_ns()
            )
        return 0

    # Names.

    def mkdir(self, path: str, mode: int) -> int:
        """Makes a directory."""
        with self._gate.lock:
            self._gate.enter(Call.NAME, grows=True)
            self._model.make_directory(path, mode)
        return 0

    def unlink(self, path: str) -> int:
        """Removes a file."""
        with self._gate.lock:
            self._gate.enter(Call.NAME)
            self._model.unlink(path)
        return 0

    def rmdir(self, path: str) -> int:
        """Removes an empty directory."""
        with self._gate.lock:
            self._gate.enter(Call.NAME)
            self._model.remove_directory(path)
        return 0

    def rename(self, old: str, new: str) -> int:
        """Renames inside a directory."""
        with self._gate.lock:
            self._gate.enter(Call.NAME)
            self._model.rename(old, new)
        return 0

    def fsyncdir(self, path: str, _data_only: int, _fh: int) -> int:
        """Makes the names in a directory durable."""
        with self._gate.lock:
            self._gate.enter(Call.SYNC_NAMES)
            self._model.sync_directory(self._model.find(path))
        return 0

    # Inside.

    def _opened(self, number: int) -> int:
        self._last_handle += 1
        self._handles[self._last_handle] = number, self._gate.epoch
        self._model.opened(number)
        return self._last_handle

    def _number(self, fh: int | None) -> int:
        number, epoch = self._handles[fh or 0]
        if epoch != self._gate.epoch:
            raise OSError(errno.EIO, "opened before the power was lost")
        return number


class Control:
    """The other side: commands from the harness.

    Args:
        model: Holds everything.
        gate: Stands before every call.
    """

    def __init__(self, model: DiskModel, gate: Gate) -> None:
        self._model = model
        self._gate = gate
        self._commands: dict[str, Callable[..., object]] = {
            "set_faults": self._set_faults,
            "counts": lambda: dict(gate.counts),
            "freeze": gate.freeze,
            "thaw": partial(gate.thaw, power_lost=False),
            "sync": model.sync_all,
            "lose_power": self._lose_power,
            "flip": self._flip,
        }

    def answer(self, line: bytes) -> bytes:
        """Carries out one command; gives the answer with its newline."""
        try:
            command = msgspec.json.decode(line, type=dict[str, Any])
            with self._gate.lock:
                result = self._do(str(command.pop("do", "")), command)
        except (OSError, ValueError, TypeError, LookupError) as error:
            return msgspec.json.encode({"error": f"{type(error).__name__}: {error}"}) + b"\n"
        return msgspec.json.encode({"result": result}) + b"\n"

    def _do(self, what: str, arguments: dict[str, Any]) -> object:
        command = self._commands.get(what)
        if command is None:
            raise ValueError(f"no such command: {what[:40]!r}")
        return command(**arguments)

    def _set_faults(self, **faults: Any) -> None:
        self._gate.set_faults(msgspec.convert(faults, Faults))

    def _lose_power(self, seed: int, torn: bool) -> dict[str, int]:
        loss = self._model.lose_power(Random(seed), torn=torn)
        self._gate.set_faults(Faults())
        self._gate.thaw(power_lost=True)
        counts = {"writes": loss.writes, "bytes": loss.bytes, "names": loss.names}
        for name, count in counts.items():
            self._gate.counts[f"lost_{name}"] += count
        self._gate.counts["power_losses"] += 1
        return counts

    def _flip(self, pattern: str, seed: int) -> dict[str, Any]:
        rng = Random(seed)
        files = [
            found
            for found in self._model.durable_files()
            if fnmatchcase(found[0].rpartition("/")[2], pattern)
        ]
        if not files:
            raise LookupError(f"no durable byte in any file named {pattern[:80]!r}")
        path, number, size = rng.choice(files)
        offset = rng.randrange(size)
        old, new = self._model.flip(number, offset, rng.randrange(8))
        self._gate.counts["flips"] += 1
        return {"file": path.lstrip("/"), "offset": offset, "old": old, "new": new, "size": size}


def unmount(at: Path) -> None:
    """Detaches a mount at once, even if it is in use; nothing if there is none."""
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(at), _MNT_DETACH)


def _obey(channel: socket.socket, control: Control, at: Path) -> None:
    """Answers commands until the harness is gone; then ends the process."""
    with channel.makefile("rb") as lines:
        try:
            while line := lines.readline(COMMAND_BYTES_MAX):
                channel.sendall(control.answer(line))
        except OSError as error:
            log.warning("the control is lost: %s", error)
    unmount(at)
    # The FUSE thread may wait in a frozen call, and whoever holds a file of a detached mount would
    # keep it for ever: leaving closes the kernel's connection, and they get errors.
    os._exit(0)


def main() -> None:
    """Mounts and serves until unmounted."""
    parser = argparse.ArgumentParser(description="A disk that can lose its power.")
    parser.add_argument("--at", type=Path, required=True)
    parser.add_argument("--backing", type=Path, required=True)
    parser.add_argument("--control", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    model = DiskModel(lambda number: FileContent(options.backing / f"{number}"), time.time_ns)
    gate = Gate()
    channel = socket.socket(fileno=options.control)
    obeying = threading.Thread(
        target=_obey, args=(channel, Control(model, gate), options.at), daemon=True
    )

    def mounted() -> None:
        channel.sendall(b'{"ready": true}\n')
        obeying.start()

    mfusepy.FUSE(
        FileSystem(model, gate, mounted),
        str(options.at),
        foreground=True,
        nothreads=True,
        fsname="jepsen_like",
        direct_io=True,
        hard_remove=True,
        use_ino=True,
        **_ZERO_TIMEOUTS,
    )


if __name__ == "__main__":
    main()
