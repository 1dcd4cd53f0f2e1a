"""The real disk and the simulated one keep the same promises; then what only the real one does."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftreg.raft.disk import LOCK_NAME, Disk, RealDisk
from raftreg.raft.faults import DiskFailure
from tests.raft.storage_rig import Events
from tests.sim.sim_disk import SimDisk, Tear


class Outcomes:
    """Collects what `done` callbacks were told."""

    def __init__(self) -> None:
        self.errors: list[OSError | None] = []

    def done(self, error: OSError | None) -> None:
        """Take one outcome."""
        self.errors.append(error)


@pytest.fixture(params=["real", "simulated"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk of each kind, whose callbacks run in wait_idle only."""
    if request.param == "simulated":
        yield SimDisk(random.Random(1), Events().call_later)
        return
    real = RealDisk.open(tmp_path / "data", lambda _call: None)
    yield real
    real.close()


def test_written_bytes_are_read_back_after_a_sync(disk: Disk) -> None:
    """Bytes are appended in order, over several handles; `after` follows them."""
    outcomes = Outcomes()
    handle = disk.open_append("a.seg")
    handle.write(b"one ")
    handle.write(b"two ")
    disk.sync(handle, outcomes.done, after=b"three ")
    disk.wait_idle()
    handle.close()
    again = disk.open_append("a.seg")
    again.write(b"four")
    disk.sync_now(again)
    again.close()
    assert outcomes.errors == [None]
    assert disk.read("a.seg") == b"one two three four"
    assert disk.read("a.seg", 4, 3) == b"two"
    assert disk.read("a.seg", 400, 3) == b""
    assert disk.size("a.seg") == 18


def test_operations_end_in_the_order_in_which_they_were_started(disk: Disk) -> None:
    """One queue: a file written later is not there before an earlier sync has ended."""
    order: list[str] = []
    handle = disk.open_append("a.seg")

    def note(what: str) -> Callable[[OSError | None], None]:
        return lambda _error: order.append(what)

    for number in range(5):
        handle.write(b"x")
        disk.sync(handle, note(f"sync {number}"))
        disk.write_durably_later(f"b{number}.seg", b"y", note(f"write {number}"))
    disk.wait_idle()
    handle.close()
    assert order == [f"{what} {n}" for n in range(5) for what in ("sync", "write")]


def test_files_are_replaced_removed_and_cut(disk: Disk) -> None:
    """Whole-file operations do what they say, and list is sorted."""
    outcomes = Outcomes()
    disk.write_durably("b.seg", b"old")
    disk.write_durably("b.seg", b"new content")
    disk.write_durably("a.seg", b"a")
    disk.write_durably("c.seg", b"c")
    assert disk.list() == ["a.seg", "b.seg", "c.seg"]
    disk.truncate("b.seg", 3)
    disk.replace("a.seg", "d.seg")
    disk.remove_later(["c.seg"], outcomes.done)
    disk.wait_idle()
    assert outcomes.errors == [None]
    assert disk.list() == ["b.seg", "d.seg"]
    assert disk.read("b.seg") == b"new"
    disk.remove("d.seg")
    disk.sync_directory()
    assert disk.list() == ["b.seg"]


def test_bytes_are_written_again_in_place(disk: Disk) -> None:
    """What is there stays, byte for byte, and the file does not grow."""
    disk.write_durably("a", b"one two three")
    disk.rewrite("a", 4, b"two")
    assert disk.read("a") == b"one two three"
    disk.rewrite("a", 13, b"")
    assert disk.size("a") == 13


def test_errors_are_reported_to_the_callback(disk: Disk) -> None:
    """A job that fails off the loop tells its own callback, and the next job is done."""
    outcomes = Outcomes()
    disk.remove_later(["absent.seg"], outcomes.done)
    disk.wait_idle()
    disk.write_durably_later("b.seg", b"b", outcomes.done)
    disk.wait_idle()
    assert isinstance(outcomes.errors[0], FileNotFoundError)
    assert outcomes.errors[1:] == [None]
    with pytest.raises(FileNotFoundError):
        disk.read("absent.seg")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "LOCK", "a\x00b", "x" * 300, "a\n"])
def test_names_that_are_not_flat_are_refused(disk: Disk, name: str) -> None:
    """No name leads out of the directory or to the lock."""
    outcomes = Outcomes()
    for operation in (
        disk.open_append,
        disk.remove,
        lambda name: disk.remove_later([name], outcomes.done),
        lambda name: disk.write_durably_later(name, b"", outcomes.done),
    ):
        with pytest.raises(ValueError, match="not a flat file name"):
            operation(name)
    assert outcomes.errors == []


def test_second_opener_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    """Two servers can't share a data directory."""
    first = RealDisk.open(tmp_path, lambda _call: None)
    with pytest.raises(DiskFailure, match=f"{tmp_path} is in use by another process"):
        RealDisk.open(tmp_path, lambda _call: None)
    first.close()
    RealDisk.open(tmp_path, lambda _call: None).close()


def test_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file in the place of the directory gives a clear error."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFailure, match="file can't be used: File exists"):
        RealDisk.open(tmp_path / "file", lambda _call: None)


@pytest.mark.parametrize("made_before", [False, True])
def test_the_directory_itself_outlives_a_power_loss(
    made_before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each directory on the way is synced once the one below is in it; else all could vanish."""
    directory = tmp_path / "a" / "raft"
    if made_before:  # by a process that was killed at once
        directory.mkdir(parents=True)
    synced: dict[int, set[str]] = {}
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            synced[os.fstat(fd).st_ino] = set(os.listdir(fd))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    RealDisk.open(directory, lambda _call: None).close()
    assert synced[directory.parent.stat().st_ino] == {"raft"}
    assert made_before or synced[tmp_path.stat().st_ino] == {"a"}


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """Directory 0700, files 0600, whatever is made; the lock is no file of the disk's."""
    directory = tmp_path / "data"
    disk = RealDisk.open(directory, lambda _call: None)
    disk.open_append("a.seg").close()
    disk.write_durably("b.seg", b"b")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {"a.seg": 0o600, "b.seg": 0o600, LOCK_NAME: 0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert disk.list() == ["a.seg", "b.seg"]
    disk.close()


async def test_callbacks_run_on_the_loop(tmp_path: Path) -> None:
    """A sync does not block the loop, and its callback runs in the loop's thread."""
    loop = asyncio.get_running_loop()
    disk = RealDisk.open(tmp_path, loop.call_soon_threadsafe)
    handle = disk.open_append("a.seg")
    ended: asyncio.Future[bool] = loop.create_future()

    def done(error: OSError | None) -> None:
        ended.set_result(error is None and asyncio.get_running_loop() is loop)

    handle.write(b"x" * 100_000)
    disk.sync(handle, done)
    assert await ended
    handle.close()
    disk.close()


def test_failure_of_the_system_reaches_the_callback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk and a failed fdatasync are told as they are."""
    disk = RealDisk.open(tmp_path, lambda _call: None)
    outcomes = Outcomes()
    handle = disk.open_append("a.seg")

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    handle.write(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        disk.sync(handle, outcomes.done)
        disk.wait_idle()
    assert [error.errno for error in outcomes.errors if error] == [errno.ENOSPC]
    handle.close()
    disk.close()


def test_job_that_breaks_is_reported_and_does_not_end_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong off the loop reaches the callback; later operations are done."""
    disk = RealDisk.open(tmp_path, lambda _call: None)
    outcomes = Outcomes()

    def broken(_self: RealDisk) -> None:
        raise MemoryError("none left")

    with monkeypatch.context() as patch:
        patch.setattr(RealDisk, "sync_directory", broken)
        disk.write_durably_later("a.seg", b"a", outcomes.done)
        disk.wait_idle()
    disk.write_durably_later("b.seg", b"b", outcomes.done)
    disk.wait_idle()
    assert [str(error) for error in outcomes.errors] == ["[Errno 5] MemoryError: none left", "None"]
    disk.close()


def test_loop_that_is_closed_loses_no_outcome(tmp_path: Path) -> None:
    """After the loop has ended, wait_idle still delivers."""

    def closed(_call: object) -> None:
        raise RuntimeError("Event loop is closed")

    disk = RealDisk.open(tmp_path, closed)
    outcomes = Outcomes()
    disk.write_durably_later("b.seg", b"b", outcomes.done)
    disk.wait_idle()
    assert outcomes.errors == [None]
    disk.close()


def test_simulated_crash_loses_only_what_was_not_synced() -> None:
    """Synced bytes and durable names stay; unsynced bytes and new names may go, older first."""
    kept = set()
    for seed in range(60):
        rng = random.Random(seed)
        disk = SimDisk(rng, Events().call_later, tears=[Tear.PREFIX])
        disk.write_durably("a.seg", b"synced ")
        handle = disk.open_append("a.seg")
        handle.write(b"unsynced")
        disk.open_append("new.seg")
        disk.crash(rng)
        content = disk.read("a.seg")
        assert content.startswith(b"synced ")
        assert b"synced unsynced".startswith(content)
        kept.add((len(content), disk.list() == ["a.seg", "new.seg"]))
    assert len(kept) > 12


@pytest.mark.parametrize("tear", list(Tear))
def test_simulated_crash_is_replayed_by_its_seed(tear: Tear) -> None:
    """The same seed leaves the same bytes."""

    def run() -> bytes:
        disk = SimDisk(random.Random(5), Events().call_later, tears=[tear])
        disk.write_durably("a.seg", b"synced ")
        disk.open_append("a.seg").write(bytes(range(1, 250)) * 20)
        disk.crash()
        return disk.read("a.seg")

    assert run() == run()


def test_simulated_stall_delays_what_starts_then() -> None:
    """A stalled disk reports late, and in order."""
    events = Events()
    disk = SimDisk(random.Random(1), events.call_later)
    outcomes = Outcomes()
    disk.stall(10.0)
    disk.write_durably_later("b.seg", b"b", outcomes.done)
    disk.stall(0.0)
    disk.write_durably_later("c.seg", b"c", outcomes.done)
    events.run_all()
    assert outcomes.errors == [None, None]
    assert events.now_s > 10.0
