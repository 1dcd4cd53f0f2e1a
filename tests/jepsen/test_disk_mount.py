"""The mounted disk through system calls; where none can be mounted, that it says so."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random

import pytest

from jepsen_like.ground.disk import DiskGone, MountedDisk, available, mount

APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND


@asynccontextmanager
async def a_disk(folder: Path) -> AsyncIterator[MountedDisk | None]:
    """A mounted disk; None where none can be mounted, and then asking for one was refused."""
    where = (folder / "backing", folder / "mount", folder / "log")
    why_not = available()
    if why_not is None:
        async with mount("n1", *where) as mounted:
            yield mounted
        return
    with pytest.raises(DiskGone) as refused:
        async with mount("n1", *where):
            pass
    assert why_not in str(refused.value)
    yield None


@contextmanager
def opened(path: Path, flags: int = APPEND) -> Iterator[int]:
    """A descriptor."""
    fd = os.open(path, flags, 0o600)
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def error_of(call: Callable[[], object]) -> str | None:
    """The name of the error that a system call gives, None if it succeeds."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None


async def test_it_is_a_file_system(tmp_path: Path) -> None:
    """Directories, appends, reads at an offset, cuts, renames, removals and room are as usual."""
    async with a_disk(tmp_path) as mounted:
        if mounted is None:
            return
        folder = mounted.at / "d"
        folder.mkdir(0o700)
        with opened(folder / "a") as fd:
            assert os.write(fd, b"hello ") + os.write(fd, b"world") == 11
            assert os.pread(fd, 5, 6) == b"world"
            os.ftruncate(fd, 8)
            assert os.fstat(fd).st_size == 8
        (folder / "a").chmod(0o640)
        (folder / "a").rename(folder / "b")
        (folder / "c").write_bytes(bytes(300_000))
        (folder / "c").write_bytes(b"new")
        assert sorted(path.name for path in folder.iterdir()) == ["b", "c"]
        assert (folder / "b").read_bytes() == b"hello wo"
        assert (folder / "b").stat().st_mode & 0o777 == 0o640
        assert (folder / "c").read_bytes() == b"new"
        (folder / "c").unlink()
        assert error_of(folder.rmdir) == "ENOTEMPTY"
        assert os.statvfs(folder).f_bavail > 0
        assert error_of((folder / "c").stat) == "ENOENT"


async def test_a_lock_is_held_against_another_opener(tmp_path: Path) -> None:
    """A server locks its directory, also on this disk."""
    async with a_disk(tmp_path) as mounted:
        if mounted is None:
            return
        exclusive = fcntl.LOCK_EX | fcntl.LOCK_NB
        with opened(mounted.at / "LOCK") as first, opened(mounted.at / "LOCK") as second:
            fcntl.flock(first, exclusive)
            assert error_of(lambda: fcntl.flock(second, exclusive)) == "EAGAIN"
            fcntl.flock(first, fcntl.LOCK_UN)
            fcntl.flock(second, exclusive)


async def test_a_power_loss_takes_only_what_was_not_synced(tmp_path: Path) -> None:
    """What was synced is read back from the same path; what the old process had open is dead."""
    async with a_disk(tmp_path) as mounted:
        if mounted is None:
            return
        with opened(mounted.at / "log") as fd, opened(mounted.at, os.O_RDONLY) as folder:
            os.write(fd, b"durable")
            os.fsync(fd)
            os.fsync(folder)
            os.write(fd, b" lost")
            (mounted.at / "never-synced").write_bytes(b"x")
            loss = await mounted.lose_power(seed=1, torn=True)
            assert loss["bytes"] >= 1
            assert error_of(lambda: os.write(fd, b"from the dead")) == "EIO"
            assert error_of(lambda: os.fsync(fd)) == "EIO"
        left = (mounted.at / "log").read_bytes()
        assert left.startswith(b"durable")
        assert b"durable lost".startswith(left)
        counts = await mounted.counts()
        assert counts["power_losses"] == 1
        assert counts["lost_bytes"] == loss["bytes"]


async def test_calls_on_a_frozen_disk_wait_and_fail_when_the_power_goes(tmp_path: Path) -> None:
    """Nothing changes after the instant of the power loss; thawed instead, the call goes on."""
    async with a_disk(tmp_path) as mounted:
        if mounted is None:
            return
        with opened(mounted.at / "log") as fd:
            for end, error in ((mounted.thaw(), None), (lost(mounted), "EIO")):
                await mounted.freeze()
                before = (await mounted.counts()).get("frozen_calls", 0)
                call = asyncio.create_task(  # noqa: TID251  # ends in this test
                    asyncio.to_thread(error_of, lambda: os.write(fd, b"x"))
                )
                while (await mounted.counts()).get("frozen_calls", 0) == before:
                    assert not call.done()
                await end
                assert await call == error


async def lost(mounted: MountedDisk) -> None:
    """The power of a disk goes."""
    await mounted.lose_power(seed=1, torn=False)


async def test_faults_act_are_counted_and_end(tmp_path: Path) -> None:
    """A full disk refuses what grows, syncs and writes fail on demand, all of it can be late."""
    async with a_disk(tmp_path) as mounted:
        if mounted is None:
            return
        with opened(mounted.at / "log") as fd:
            os.write(fd, b"x")
            await mounted.set_faults(full=True)
            assert error_of(lambda: os.write(fd, b"x")) == "ENOSPC"
            assert error_of((mounted.at / "new").touch) == "ENOSPC"
            await mounted.set_faults(fsync_error=True)
            assert error_of(lambda: os.fsync(fd)) == "EIO"
            await mounted.set_faults(write_error=True)
            assert error_of(lambda: os.write(fd, b"x")) == "EIO"
            await mounted.set_faults(delay_s=0.01)
            assert error_of(lambda: os.fdatasync(fd)) is None
            await mounted.set_faults()
            assert error_of(lambda: os.write(fd, b"y")) is None
        assert (mounted.at / "log").read_bytes() == b"xy"
        counts = await mounted.counts()
        faults = ("full_errors", "fsync_errors", "write_errors", "delayed_calls")
        assert {name: counts[name] for name in faults} == dict(
            zip(faults, (2, 1, 1, 1), strict=True)
        )


async def test_one_bit_rots(tmp_path: Path) -> None:
    """It tells what it flipped, and that is what is read; without a durable byte it says so."""
    async with a_disk(tmp_path) as mounted:
        if mounted is None:
            return
        path = mounted.at / "wal-1.seg"
        path.write_bytes(b"0" * 100)
        with pytest.raises(DiskGone, match="no durable byte"):
            await mounted.flip("wal-*.seg", Random(1))
        await mounted.sync()
        flipped = await mounted.flip("wal-*.seg", Random(1))
        wanted = bytearray(b"0" * 100)
        wanted[flipped["offset"]] = flipped["new"]
        assert path.read_bytes() == wanted
        assert flipped["file"] == "wal-1.seg"
        assert (flipped["old"] ^ flipped["new"]).bit_count() == 1


async def test_at_the_end_the_mount_is_gone_even_if_it_is_in_use(tmp_path: Path) -> None:
    """Whoever still has a file open gets errors instead of waiting for ever, frozen or not."""
    with contextlib.ExitStack() as files:
        async with a_disk(tmp_path) as mounted:
            if mounted is None:
                return
            fd = files.enter_context(opened(mounted.at / "log"))
            assert error_of(lambda: os.write(fd, b"x")) is None
            await mounted.freeze()
        assert not mounted.at.is_mount()
        assert error_of(lambda: os.write(fd, b"x")) is not None


async def test_a_disk_whose_process_is_gone_says_so(tmp_path: Path) -> None:
    """An unknown command is an error; after the end every command is one."""
    async with a_disk(tmp_path) as mounted:
        if mounted is None:
            return
        await mounted.counts()
    with pytest.raises(DiskGone, match="n1"):
        await mounted.counts()
