from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path
from random import Random

import msgspec
import pytest
from structlog.testing import capture_logs

from raftreg.errors import ConfigurationError
from raftreg.http.decode import CheckDefinition, CheckKind, ServiceDefinition
from raftreg.model import ServiceInstance, Status
from raftreg_agent.definitions import load
from raftreg_agent.record_log import REWRITE_BYTES_MIN, Key, RecordLog
from raftreg_agent.state import KnownStatus
from raftreg_agent.store import Shelf, Store

CHECK = CheckDefinition(
    check_id="c",
    name="c",
    kind=CheckKind.HTTP,
    url="http://x/",
    interval_s=10.0,
    headers={"A": ("b", "c")},
    status=Status.PASSING,
)
SERVICE = ServiceDefinition(
    ServiceInstance(node="n", id="a/b \u00e9" * 80, name="web", tags=("x",), port=80), (CHECK,)
)


def test_the_directory_itself_outlives_a_power_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each directory on the way is synced once the one below is in it; else all could vanish."""
    synced: dict[int, set[str]] = {}
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            synced[os.fstat(fd).st_ino] = set(os.listdir(fd))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    Store(tmp_path / "a" / "agent").open()
    assert synced[tmp_path.stat().st_ino] == {"a"}
    assert synced[(tmp_path / "a").stat().st_ino] == {"agent"}


async def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Services, checks and statuses survive, whatever their ids hold."""
    store = Store(tmp_path)
    store.open()
    store.put(Shelf.SERVICES, SERVICE.service.id, SERVICE)
    store.put(Shelf.CHECKS, "c", CHECK)
    store.put(Shelf.STATUSES, "c", KnownStatus("c", Status.WARNING, "hm"))
    store.put(Shelf.STATUSES, "gone", KnownStatus("gone", Status.WARNING))
    await store.flush()
    store.remove(Shelf.STATUSES, "gone")
    await store.close()
    again = Store(tmp_path)
    found = again.open()
    assert found.services == (SERVICE,)
    assert found.checks == (CHECK,)
    assert found.statuses == (KnownStatus("c", Status.WARNING, "hm"),)
    await again.close()


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe\x00", b"00000000 []", b"null"])
async def test_a_damaged_line_is_set_aside_and_said(tmp_path: Path, damage: bytes) -> None:
    """The agent starts with the rest, also the next time, and the log names the path."""
    store = Store(tmp_path)
    store.open()
    store.put(Shelf.SERVICES, "a", SERVICE)
    await store.flush()
    path = tmp_path / "registrations.log"
    path.write_bytes(path.read_bytes() + damage + b"\n")
    with path.open("ab") as file:
        file.write(b"".join(_lines_of(tmp_path / "other", Shelf.CHECKS, "c", CHECK)))
    with capture_logs() as logs:
        again = Store(tmp_path)
        found = again.open()
    assert found.services == (SERVICE,)
    assert found.checks == (CHECK,)
    assert (tmp_path / "registrations.corrupt").read_bytes() == damage + b"\n"
    assert [entry["path"] for entry in logs] == [str(path)]
    again.put(Shelf.STATUSES, "c", KnownStatus("c", Status.WARNING))
    await again.close()
    with capture_logs() as logs:
        assert Store(tmp_path).open().checks == (CHECK,)
    assert logs == []


async def test_a_value_of_another_shape_is_set_aside(tmp_path: Path) -> None:
    """As an older or newer version might have written it."""
    store = Store(tmp_path)
    store.open()
    store.put(Shelf.SERVICES, "a", KnownStatus("c", Status.WARNING))
    store.put(Shelf.CHECKS, "c", CHECK)
    await store.close()
    found = Store(tmp_path).open()
    assert found.services == ()
    assert found.checks == (CHECK,)
    assert (tmp_path / "registrations.corrupt").exists()


async def test_what_a_crash_left_half_written_does_not_count(tmp_path: Path) -> None:
    """Neither a torn last line nor a file that had not replaced the old one; new lines follow."""
    store = Store(tmp_path)
    store.open()
    store.put(Shelf.CHECKS, "c", CHECK)
    await store.flush()
    path = tmp_path / "registrations.log"
    whole = path.read_bytes()
    (tmp_path / "registrations.tmp").write_bytes(b"{")
    for length in range(len(whole)):
        path.write_bytes(whole + whole[:length])
        again = Store(tmp_path)
        with capture_logs() as logs:
            assert again.open().checks == (CHECK,)
        assert logs == []
        again.put(Shelf.STATUSES, "c", KnownStatus("c", Status.WARNING, str(length)))
        await again.close()
        found = Store(tmp_path).open()
        assert (found.checks, len(found.statuses)) == ((CHECK,), 1)
    assert not (tmp_path / "registrations.tmp").exists()


async def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    """Values that were replaced are left out when there are many of them."""
    store = Store(tmp_path)
    store.open()
    for turn in range(400):
        store.put(Shelf.STATUSES, "c", KnownStatus("c", Status.WARNING, str(turn) * 10_000))
        await store.flush()
    assert (tmp_path / "registrations.log").stat().st_size < 3 * REWRITE_BYTES_MIN
    await store.close()
    assert Store(tmp_path).open().statuses[0].output == "399" * 10_000


async def test_after_a_failed_write_everything_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what a failed write left, so nothing is put behind it."""
    store = Store(tmp_path)
    store.open()
    store.put(Shelf.CHECKS, "c", CHECK)
    await store.flush()

    def full(handle: int, data: bytes) -> None:
        os.write(handle, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    store.put(Shelf.SERVICES, "a", SERVICE)
    with monkeypatch.context() as patched:
        patched.setattr("raftreg_agent.record_log._write_all", full)
        with pytest.raises(OSError, match="No space left"):
            await store.flush()
    await store.flush()
    await store.close()
    with capture_logs() as logs:
        found = Store(tmp_path).open()
    assert (found.services, found.checks, logs) == ((SERVICE,), (CHECK,), [])


async def test_a_caller_waits_for_its_own_group_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All whose values are in a group go on when it is written; none of them writes for those who
    came later, or the last of many would wait for as many syncs.
    """
    permits, written = threading.Semaphore(0), asyncio.Queue[list[str]]()
    loop = asyncio.get_running_loop()

    def write(self: RecordLog, group: dict[Key, bytes | None]) -> None:
        assert permits.acquire(timeout=30)
        loop.call_soon_threadsafe(written.put_nowait, [key for _, key in group])

    monkeypatch.setattr(RecordLog, "write", write)
    store = Store(tmp_path)
    store.open()

    async with asyncio.TaskGroup() as tasks:

        def put(key: str) -> asyncio.Task[None]:
            store.put(Shelf.CHECKS, key, CHECK)
            return tasks.create_task(store.flush())

        first = put("first")
        await asyncio.sleep(0)  # its group is on its way
        crowd = [put(f"crowd-{number}") for number in range(5)]
        await asyncio.sleep(0)
        permits.release()
        await first
        assert await written.get() == ["first"]
        late = put("late")
        await asyncio.sleep(0)
        permits.release()
        await asyncio.gather(*crowd)
        assert await written.get() == [f"crowd-{number}" for number in range(5)]
        assert not late.done()
        permits.release()
        await late
    await store.close()


async def test_a_caller_that_goes_away_leaves_its_group_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shares a group with it is told when it is on disk, not before."""
    permits = threading.Semaphore(0)
    real = RecordLog.write

    def write(self: RecordLog, group: dict[Key, bytes | None]) -> None:
        assert permits.acquire(timeout=30)
        real(self, group)

    monkeypatch.setattr(RecordLog, "write", write)
    store = Store(tmp_path)
    store.open()
    store.put(Shelf.CHECKS, "c", CHECK)
    async with asyncio.TaskGroup() as tasks:
        first, second = (tasks.create_task(store.flush()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not second.done()
        permits.release(2)
        await second
    assert Store(tmp_path).open().checks == (CHECK,)
    await store.close()


def _lines_of(directory: Path, shelf: Shelf, key: str, value: CheckDefinition) -> list[bytes]:
    """What a store writes for a value."""
    directory.mkdir()
    records = RecordLog(directory / "x.log")
    records.write({(shelf.value, key): msgspec.json.encode(value)})
    return (directory / "x.log").read_bytes().splitlines(keepends=True)


async def test_the_node_id_stays(tmp_path: Path) -> None:
    """It is made once; a file that holds none is set aside and replaced."""
    store = Store(tmp_path)
    store.open()
    first = store.node_id(Random(1))
    assert Store(tmp_path).node_id(Random(2)) == first
    (tmp_path / "node-id").write_text("garbage")
    assert Store(tmp_path).node_id(Random(3)) != first
    assert (tmp_path / "node-id.corrupt").read_text() == "garbage"
    await store.close()


async def test_a_data_dir_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    """The text names the directory."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="data directory"):
        Store(tmp_path / "file" / "data").open()


def test_definitions_come_from_all_files(tmp_path: Path) -> None:
    """One or several services and checks a file, as Consul writes them."""
    (tmp_path / "web.json").write_text(
        '{"service": {"name": "web", "port": 80, "check": {"ttl": "10s"}}}'
    )
    (tmp_path / "more.json").write_text(
        '{"services": [{"id": "a", "name": "api"}, {"id": "b", "name": "api"}],'
        ' "checks": [{"name": "disk", "args": ["df"], "interval": "30s"}]}'
    )
    (tmp_path / "notes.txt").write_text("not a definition")
    found = load(tmp_path, "n")
    assert sorted(found.services) == ["a", "b", "web"]
    assert found.services["web"].checks[0].check_id == "service:web"
    assert sorted(found.checks) == ["disk"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Request decode failed"),
        ("[]", "must hold a JSON object"),
        ('{"servce": {}}', "unknown field 'servce'"),
        ('{"service": {"port": 1}}', "service: Missing service name"),
        ('{"services": {}}', "services must be a list"),
        ('{"services": [{"name": "a"}, {"name": "b", "port": "x"}]}', r"services\[1\]: .*Port"),
        ('{"services": [{"name": "a"}, {"name": "a"}]}', "service 'a' is defined twice"),
        ('{"check": {"name": "c", "http": "http://x"}}', "check: .*Interval"),
        ('{"service": {"name": "a", "prot": 1}}', "prot"),
    ],
)
def test_a_bad_definition_names_file_and_field(tmp_path: Path, text: str, says: str) -> None:
    """A person finds the place at once."""
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ConfigurationError, match=says) as caught:
        load(tmp_path, "n")
    assert "bad.json" in str(caught.value)
