"""Snapshots are whole and intact, or they are not there, or they are refused by file and offset."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftreg.raft import snapshots
from raftreg.raft.faults import CorruptSnapshot
from raftreg.raft.snapshots import SnapshotMeta, SnapshotStore
from tests.raft.storage_rig import Events
from tests.sim.sim_disk import SimDisk, SimulatedCrash

CHUNKS = [b"first" * 10, b"", b"third" * 1000, b"\xff" * 4]


def meta_at(index: int, term: int = 3) -> SnapshotMeta:
    """What a snapshot at `index` says about itself."""
    return SnapshotMeta(index, term, index - 1, term, b"n1,n2,n3", 1_700_000_000.5)


def new_disk(seed: int = 0) -> SimDisk:
    """An empty disk."""
    return SimDisk(random.Random(seed), Events().call_later)


def write(store: SnapshotStore, meta: SnapshotMeta, chunks: list[bytes] = CHUNKS) -> None:
    """Write a whole snapshot."""
    writer = store.begin(meta)
    for chunk in chunks:
        writer.write(chunk)
    writer.commit()


def send(source: SnapshotStore, meta: SnapshotMeta, target: SnapshotStore) -> SnapshotMeta:
    """Stream a file from one store to another in small pieces."""
    receiver = target.receiver(meta.name)
    while data := source.read_raw(meta, receiver.received_bytes, 100):
        receiver.write(data)
    return receiver.finish()


def test_what_is_written_is_read_back() -> None:
    """Metadata and chunks come back as they were, also after a power cut."""
    disk = new_disk()
    store = SnapshotStore(disk)
    assert store.latest() is None
    write(store, meta_at(10))
    disk.crash()
    store = SnapshotStore(disk)
    assert store.latest() == meta_at(10)
    assert list(store.read(meta_at(10))) == CHUNKS
    assert store.size(meta_at(10)) == disk.size(meta_at(10).name)


@settings(max_examples=50)
@given(chunks=st.lists(st.binary(max_size=300), max_size=8), configuration=st.binary(max_size=100))
def test_any_chunks_are_read_back(chunks: list[bytes], configuration: bytes) -> None:
    """Round trip of any content, with and without chunks."""
    store = SnapshotStore(new_disk())
    meta = msgspec.structs.replace(meta_at(2**63), configuration=configuration)
    write(store, meta, chunks)
    assert store.latest() == meta
    assert list(store.read(meta)) == chunks


def test_the_newest_two_are_kept() -> None:
    """Newest means the highest index, then the highest term; older files are removed."""
    store = SnapshotStore(new_disk())
    for index in (5, 9, 1000, 99):
        write(store, meta_at(index))
    assert store.names() == [meta_at(1000).name, meta_at(99).name]
    write(store, meta_at(1000, term=4))
    assert store.latest() == meta_at(1000, term=4)
    assert len(store.names()) == 2


def test_unfinished_snapshot_is_none() -> None:
    """Aborted, or left by a crash: no trace of it remains, and the one before stands."""
    disk = new_disk()
    store = SnapshotStore(disk)
    write(store, meta_at(5))
    aborted = store.begin(meta_at(6))
    aborted.write(b"x")
    aborted.abort()
    left = store.begin(meta_at(7))
    left.write(b"x")
    received = store.receiver(meta_at(8).name)
    received.write(b"x")
    assert len(disk.list()) == 3
    store = SnapshotStore(disk)
    assert disk.list() == [meta_at(5).name]
    assert store.latest() == meta_at(5)
    with pytest.raises(ValueError, match="committed or aborted already"):
        aborted.write(b"more")


@pytest.mark.parametrize("seed", range(5))
def test_power_cut_at_any_step_leaves_a_whole_snapshot(seed: int) -> None:
    """While a third snapshot is written and the first pruned, a whole one is always there."""

    def prepared() -> tuple[SimDisk, SnapshotStore]:
        disk = new_disk(seed)
        store = SnapshotStore(disk)
        write(store, meta_at(1))
        write(store, meta_at(2))
        return disk, store

    disk, store = prepared()
    start = disk.operations
    write(store, meta_at(3))
    for step in range(1, disk.operations - start + 1):
        disk, store = prepared()
        disk.crash_after(step)
        with pytest.raises(SimulatedCrash):
            write(store, meta_at(3))
        disk.crash()
        latest = SnapshotStore(disk).latest()
        assert latest in {meta_at(2), meta_at(3)}
        assert latest is not None
        assert list(SnapshotStore(disk).read(latest)) == CHUNKS


def test_every_flipped_byte_is_noticed() -> None:
    """Flip any byte of a file: it is refused, naming the file and an offset up to the flip."""
    disk = new_disk()
    store = SnapshotStore(disk)
    write(store, meta_at(10), [b"first" * 10, b"", b"second" * 20])
    name = meta_at(10).name
    for offset in range(disk.size(name)):
        disk.flip(name, offset, 1 << offset % 8)
        with pytest.raises(CorruptSnapshot, match=name) as caught:
            store.latest()
        assert caught.value.offset <= max(offset, disk.size(name))
        disk.flip(name, offset, 1 << offset % 8)
    assert store.latest() == meta_at(10)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:3],
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"\x00",
        lambda data: data[:-24] + data[-24:] * 2,
        lambda data: bytes(len(data)),
    ],
    ids=["empty", "in the header", "a byte short", "half", "a byte long", "two footers", "zeros"],
)
def test_file_of_another_length_is_refused(change: Callable[[bytes], bytes]) -> None:
    """A file that is cut, goes on after its end, or was never written is refused."""
    disk = new_disk()
    store = SnapshotStore(disk)
    write(store, meta_at(10))
    name = meta_at(10).name
    disk.set_content(name, change(disk.read(name)))
    with pytest.raises(CorruptSnapshot, match=name):
        store.latest()


def test_chunks_that_changed_places_are_noticed() -> None:
    """Each chunk's CRC knows its number."""
    disk = new_disk()
    store = SnapshotStore(disk)
    write(store, meta_at(10), [b"A" * 50, b"B" * 50])
    name = meta_at(10).name
    data = disk.read(name)
    first, second = data.index(b"A" * 50) - 8, data.index(b"B" * 50) - 8
    swapped = data[:first] + data[second : second + 58] + data[first : first + 58]
    disk.set_content(name, swapped + data[second + 58 :])
    with pytest.raises(CorruptSnapshot, match="chunk 0 fails its CRC"):
        store.latest()


def test_file_under_another_name_is_refused() -> None:
    """A renamed snapshot is not taken for one of another index."""
    disk = new_disk()
    store = SnapshotStore(disk)
    write(store, meta_at(10))
    disk.replace(meta_at(10).name, meta_at(20).name)
    with pytest.raises(CorruptSnapshot, match="its metadata is that of"):
        store.latest()


def test_caller_decides_about_a_corrupt_newest_snapshot() -> None:
    """`latest` refuses, `latest_intact` gives the older one and says what is wrong."""
    disk = new_disk()
    store = SnapshotStore(disk)
    write(store, meta_at(10))
    write(store, meta_at(20))
    disk.flip(meta_at(20).name, 200)
    with pytest.raises(CorruptSnapshot):
        store.latest()
    intact, faults = store.latest_intact()
    assert intact == meta_at(10)
    assert [fault.file for fault in faults] == [meta_at(20).name]
    disk.flip(meta_at(10).name, 200)
    assert store.latest_intact()[0] is None


def test_nothing_of_a_bad_chunk_is_handed_out() -> None:
    """Reading stops before the first chunk that fails."""
    disk = new_disk()
    store = SnapshotStore(disk)
    write(store, meta_at(10))
    disk.flip(meta_at(10).name, disk.size(meta_at(10).name) - 100)
    got: list[bytes] = []
    with pytest.raises(CorruptSnapshot, match="chunk 2 fails its CRC"):
        got.extend(store.read(meta_at(10)))
    assert got == CHUNKS[:2]


def test_snapshot_is_streamed_to_another_store() -> None:
    """The raw bytes, received in order, make the same snapshot there, durable."""
    source, disk = SnapshotStore(new_disk()), new_disk(1)
    write(source, meta_at(10))
    write(SnapshotStore(disk), meta_at(5))
    assert send(source, meta_at(10), SnapshotStore(disk)) == meta_at(10)
    disk.crash()
    assert SnapshotStore(disk).latest() == meta_at(10)
    assert list(SnapshotStore(disk).read(meta_at(10))) == CHUNKS


@settings(max_examples=100)
@given(flip=st.integers(0, 10_000), cut=st.integers(0, 200))
def test_bad_bytes_from_a_peer_never_become_a_snapshot(flip: int, cut: int) -> None:
    """A flipped or missing byte on the way: refused, thrown away, the old snapshot stands."""
    source, disk = SnapshotStore(new_disk()), new_disk(1)
    write(source, meta_at(10))
    data = bytearray(source.read_raw(meta_at(10), 0, 1 << 20))
    if cut:
        del data[-cut:]
    else:
        data[flip % len(data)] ^= 0x20
    store = SnapshotStore(disk)
    write(store, meta_at(5))
    receiver = store.receiver(meta_at(10).name)
    receiver.write(bytes(data))
    with pytest.raises(CorruptSnapshot, match=meta_at(10).name):
        receiver.finish()
    assert disk.list() == [meta_at(5).name]
    assert store.latest() == meta_at(5)


def test_peer_chooses_neither_path_nor_size() -> None:
    """A name that is no snapshot's and bytes beyond the limit are refused."""
    store = SnapshotStore(new_disk())
    for name in ("../../etc/passwd", "wal-0000000000000001.seg", "", "snapshot-1-1.snap"):
        with pytest.raises(CorruptSnapshot, match="not the name of a snapshot"):
            store.receiver(name)
    receiver = store.receiver(meta_at(10).name, size_bytes_max=10)
    receiver.write(b"x" * 10)
    with pytest.raises(CorruptSnapshot, match="sent more than 10 bytes"):
        receiver.write(b"x")


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk or metadata beyond the limit is refused by the writer and by the reader."""
    disk = new_disk()
    store = SnapshotStore(disk)
    write(store, meta_at(10))
    monkeypatch.setattr(snapshots, "CHUNK_BYTES_MAX", 100)
    with pytest.raises(ValueError, match="a chunk of 101 bytes"):
        store.begin(meta_at(11)).write(bytes(101))
    with pytest.raises(CorruptSnapshot, match="a chunk of 5000 bytes is beyond the limit"):
        store.latest()
    monkeypatch.setattr(snapshots, "METADATA_BYTES_MAX", 10)
    with pytest.raises(ValueError, match="metadata of"):
        store.begin(meta_at(12))
    with pytest.raises(CorruptSnapshot, match=r"metadata of .* is beyond the limit"):
        store.latest()


def test_large_snapshot_is_synced_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes that wait for a sync are bounded while a snapshot is written."""
    monkeypatch.setattr(snapshots, "SYNC_EVERY_BYTES", 1000)
    disk = new_disk()
    before = disk.syncs
    write(SnapshotStore(disk), meta_at(10), [b"x" * 500] * 20)
    assert disk.syncs - before >= 10


def test_disk_that_fails_makes_no_snapshot() -> None:
    """A failed sync is raised, and the snapshot before stands."""
    disk = new_disk()
    store = SnapshotStore(disk)
    write(store, meta_at(5))
    writer = store.begin(meta_at(10))
    writer.write(b"x")
    disk.fail_next_sync()
    with pytest.raises(OSError, match="injected"):
        writer.commit()
    writer.abort()
    assert SnapshotStore(disk).latest() == meta_at(5)
