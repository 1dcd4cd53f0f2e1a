"""What the agent's file holds after a power loss, on a disk whose syncs can fail."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg_agent.record_log import Key, RecordLog
from raftreg_agent.store import Store


class FragileDisk:
    """Knows what of each file is on the platter.

    After a sync that failed the kernel takes the pages for clean: they can be read, a later sync of
    the same file succeeds, and they are on no disk (Rebello et al., "Can Applications Recover from
    fsync Failures?", USENIX ATC 2020).
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing = False
        self._durable: dict[int, bytearray] = {}
        self._lost: dict[int, list[tuple[int, int]]] = {}
        self._pins: list[int] = []
        monkeypatch.setattr("raftreg_agent.record_log.os.fdatasync", self._sync)

    def lose_power(self, path: Path) -> None:
        """Leaves of a file what was synced; zeros where it was not."""
        inode = path.stat().st_ino
        path.write_bytes(self._durable.get(inode, b""))
        self._lost[inode] = []

    def close(self) -> None:
        """Forgets all files."""
        for handle in self._pins:
            os.close(handle)

    def _sync(self, handle: int) -> None:
        status = os.fstat(handle)
        content = bytearray(Path(f"/proc/self/fd/{handle}").read_bytes())
        if status.st_ino not in self._lost:
            self._pins.append(os.dup(handle))  # the number of a file that is gone comes again
        lost = self._lost.setdefault(status.st_ino, [])
        if self.failing:
            lost.append((len(self._durable.get(status.st_ino, b"")), len(content)))
            raise OSError(errno.EIO, "Input/output error")
        for start, end in lost:
            content[start:end] = bytes(end - start)
        self._durable[status.st_ino] = content


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[FragileDisk]:
    """A disk that syncs until it is told to fail."""
    with contextlib.closing(FragileDisk(monkeypatch)) as made:
        yield made


def _key(name: str) -> Key:
    return ("services", name)


def _opened(path: Path) -> tuple[RecordLog, dict[Key, bytes]]:
    records = RecordLog(path)
    values, damaged = records.load()
    assert damaged == []
    records.prove()
    return records, values


def test_what_a_start_has_read_is_there_after_a_power_loss(
    tmp_path: Path, disk: FragileDisk
) -> None:
    """A failed sync leaves lines that can be read and are on no disk: a process that reads them
    after a restart must put them on disk before it acts on them, or writes behind them.
    """
    path = tmp_path / "x.log"
    records, _ = _opened(path)
    records.write({_key("a"): b"1"})
    disk.failing = True
    with pytest.raises(OSError, match="Input/output error"):
        records.write({_key("b"): b"2"})
    disk.failing = False
    again, read = _opened(path)  # the first process was killed
    assert read == {_key("a"): b"1", _key("b"): b"2"}
    disk.lose_power(path)
    assert _opened(path)[1] == read
    again, _ = _opened(path)
    again.write({_key("c"): b"3"})
    disk.lose_power(path)
    assert _opened(path)[1] == read | {_key("c"): b"3"}


def test_a_start_that_can_not_prove_what_it_read_fails(tmp_path: Path, disk: FragileDisk) -> None:
    """Nobody acts on lines that may be on no disk."""
    path = tmp_path / "x.log"
    _opened(path)[0].write({_key("a"): b"1"})
    disk.failing = True
    records = RecordLog(path)
    records.load()
    with pytest.raises(OSError, match="Input/output error"):
        records.prove()


def test_node_id_is_on_disk_before_it_is_told(tmp_path: Path, disk: FragileDisk) -> None:
    """A failed sync of the id's file is an error, and leaves no id that a start would use."""
    store = Store(tmp_path)
    store.open()
    disk.failing = True
    with pytest.raises(OSError, match="Input/output error"):
        store.node_id()
    assert not (tmp_path / "node-id").exists()


WRITES = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.none() | st.binary(max_size=3),
        st.booleans(),
        st.sampled_from(["on", "killed", "power loss"]),
    )
)


@given(WRITES)
def test_what_was_acknowledged_or_read_is_never_lost(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, bytes | None, bool, str]],
) -> None:
    """Whatever syncs fail, whenever the process is killed or the power fails: each key is as the
    last start read it or the last acknowledged write left it, or as a later one that failed.
    """
    path = tmp_path_factory.mktemp("log") / "x.log"
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(FragileDisk(patch)) as disk:
        records, _ = _opened(path)
        possible: dict[str, set[bytes | None]] = {name: {None} for name in "abcd"}
        for name, raw, fails, then in [*steps, ("a", None, True, "power loss")]:
            value = None if raw is None else b'"%b"' % raw.hex().encode()
            disk.failing = fails
            try:
                records.write({_key(name): value})
                possible[name] = {value}
            except OSError:
                possible[name].add(value)
            disk.failing = False
            if then == "on":
                continue
            if then == "power loss" and path.exists():
                disk.lose_power(path)
            records = RecordLog(path)
            read, _ = records.load()  # half a line that failed may have been set aside
            records.prove()
            for other, values in possible.items():
                assert read.get(_key(other)) in values
                possible[other] = {read.get(_key(other))}
