"""A file system under a server's data directory that can fail, freeze and lose its power.

    async with mount("n1", backing, at, log) as disk:
        ...                                     # a server runs in `at`
        await disk.freeze()                     # the instant of the power loss
        host.send(signal.SIGKILL)               # its calls wait: it can't be gone yet
        await disk.lose_power(seed=1, torn=False)   # they fail; now it goes

Each disk is a process of its own (`disk_mount.py`) that holds two states of everything, written and
durable (`disk_model.py`). It ends, and the mount with it, when the harness does, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes.util
import importlib.util
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec

_START_S_MAX = 15.0
_ANSWER_S_MAX = 60.0
_END_S_MAX = 5.0
_LINE_BYTES_MAX = 1 << 16
_CAP_SYS_ADMIN = 21


class DiskGone(OSError):
    """The process of a disk has ended, does not answer, or refused a command."""


def available() -> str | None:
    """Tells why no disk can be mounted here; None if one can."""
    if os.geteuid() != 0 or not _may_mount():
        return "mounting a file system under each server needs root (CAP_SYS_ADMIN)"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse that could be used"
    if importlib.util.find_spec("mfusepy") is None:
        return "the Python package mfusepy is not installed"
    if not any(map(ctypes.util.find_library, ("fuse3", "fuse"))):
        return "libfuse is not installed"
    return None


def _may_mount() -> bool:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


class MountedDisk:
    """Implements `DiskControl` on the process of one disk.

    Args:
        name: Of the host, for errors.
        at: Where it is mounted.
        reader, writer: The connection to the process.
    """

    def __init__(
        self, name: str, at: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.name = name
        self.at = at
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    async def set_faults(
        self,
        *,
        full: bool = False,
        fsync_error: bool = False,
        write_error: bool = False,
        delay_s: float = 0.0,
    ) -> None:
        """See `DiskControl.set_faults`."""
        await self._do(
            "set_faults",
            full=full,
            fsync_error=fsync_error,
            write_error=write_error,
            delay_s=delay_s,
        )

    async def counts(self) -> dict[str, int]:
        """See `DiskControl.counts`.

        Faults that acted: `full_errors`, `fsync_errors`, `write_errors`, `delayed_calls`,
        `frozen_calls`, `power_losses`, `lost_writes`, `lost_bytes`, `lost_names`, `flips`. Calls:
        `looks`, `reads`, `writes`, `write_bytes`, `syncs`, `name_changes`, `directory_syncs`. What
        never happened is not there.
        """
        return msgspec.convert(await self._do("counts"), dict[str, int])

    async def freeze(self) -> None:
        """See `DiskControl.freeze`."""
        await self._do("freeze")

    async def thaw(self) -> None:
        """Lets frozen calls go on as if nothing had been."""
        await self._do("thaw")

    async def lose_power(self, *, seed: int, torn: bool) -> dict[str, int]:
        """See `DiskControl.lose_power`.

        A process with a call in a frozen disk can't end before the call does. So: freeze, send
        SIGKILL, call this, which fails the calls that wait, then wait until the process is gone.
        What it had opened stays dead: no call of it reaches the disk afterwards.
        """
        found = await self._do("lose_power", seed=seed, torn=torn)
        return msgspec.convert(found, dict[str, int])

    async def sync(self) -> None:
        """Makes durable all that was written, names too."""
        await self._do("sync")

    async def flip(self, name_pattern: str, rng: Random) -> dict[str, Any]:
        """Turns over one bit of one durable byte; the server must not run.

        Args:
            name_pattern: Which files, such as "wal-*.seg" or "snapshot-*.snap" (fnmatch).
            rng: Chooses file, byte and bit.

        Returns:
            {"file": path in the data directory, "offset", "old", "new", "size": durable bytes}.

        Raises:
            DiskGone: No such file has durable bytes; also as for any command.
        """
        found = await self._do("flip", pattern=name_pattern, seed=rng.getrandbits(64))
        return msgspec.convert(found, dict[str, Any])

    async def _do(self, what: str, **arguments: Any) -> Any:
        line = msgspec.json.encode({"do": what, **arguments}) + b"\n"
        async with self._turn:
            try:
                async with asyncio.timeout(_ANSWER_S_MAX):
                    self._writer.write(line)
                    await self._writer.drain()
                    answer = await self._reader.readline()
            except (OSError, TimeoutError, ValueError) as error:
                raise DiskGone(f"disk of {self.name}: {what}: {error!r}") from error
        if not answer.endswith(b"\n"):
            raise DiskGone(f"disk of {self.name}: {what}: its process has ended")
        reply = msgspec.json.decode(answer, type=dict[str, Any])
        if "error" in reply:
            raise DiskGone(f"disk of {self.name}: {what}: {reply['error']}")
        return reply.get("result")


@contextlib.asynccontextmanager
async def mount(host_name: str, backing: Path, at: Path, log: Path) -> AsyncIterator[MountedDisk]:
    """Mounts an empty disk; unmounts it at the end, also when a process still uses it.

    Args:
        host_name: For messages.
        backing: Directory for its own files; it is made. It belongs to this disk alone.
        at: Where to mount; it is made.
        log: What its process says is appended there.

    Raises:
        DiskGone: It could not be mounted; the log tells more.
    """
    why_not = available()
    if why_not is not None:
        raise DiskGone(f"disk of {host_name}: {why_not}")
    _prepare(backing, at)
    ours, theirs = socket.socketpair()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(_unmount, at)
        process = await _start(backing, at, log, theirs)
        stack.push_async_callback(_end, process)
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_BYTES_MAX)
        # Closing is what ends the process.
        stack.callback(writer.close)
        await _ready(host_name, reader, log)
        yield MountedDisk(host_name, at, reader, writer)


def _prepare(backing: Path, at: Path) -> None:
    backing.mkdir(parents=True, exist_ok=True)
    at.mkdir(parents=True, exist_ok=True)


async def _start(
    backing: Path, at: Path, log: Path, channel: socket.socket
) -> asyncio.subprocess.Process:
    with channel, log.open("ab") as said:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jepsen_like.ground.disk_mount"),
            *("--at", str(at), "--backing", str(backing), "--control", str(channel.fileno())),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=(channel.fileno(),),
            start_new_session=True,
        )


async def _ready(host_name: str, reader: asyncio.StreamReader, log: Path) -> None:
    try:
        async with asyncio.timeout(_START_S_MAX):
            said = await reader.readline()
    except TimeoutError as error:
        raise DiskGone(f"disk of {host_name}: not mounted after {_START_S_MAX:g} s") from error
    if not said:
        raise DiskGone(f"disk of {host_name}: not mounted, see {log}")


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(_END_S_MAX):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _unmount(at: Path) -> None:
    """In case its process was killed; harmless otherwise."""
    from jepsen_like.ground.disk_mount import unmount  # noqa: PLC0415 - needs libfuse

    unmount(at)
