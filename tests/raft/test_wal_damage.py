"""Damaged files: a torn tail is cut, anything else is refused by file and offset.

The counterpart of what the engine's own journal does: of 400 bit flips it loads 362 silently wrong.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from crc32c import crc32c

from raftreg.raft import segment
from raftreg.raft.faults import CorruptLog
from raftreg.raft.journal import DurableJournal
from raftreg.raft.segment import SegmentReader
from tests.raft.storage_rig import Rig, filled
from tests.raft.storage_rig import fill as add

Edit = Callable[[bytes], bytes]

ENTRIES = 50
FIRST = "wal-0000000000000001.seg"


def written(batches: int = 10, segment_bytes: int = 1 << 20) -> Rig:
    """A log of fifty entries, a term and a vote, made durable in several batches."""
    rig = Rig()
    rig.open(segment_bytes)
    rig.journal.setCurrentTerm(7, "n2")
    step = ENTRIES // batches
    for first in range(1, ENTRIES + 1, step):
        add(rig.journal, first, first + step - 1, term=1, size_bytes=100)
        rig.settle()
    rig.journal.close()
    return rig


def offsets(rig: Rig, name: str = FIRST) -> list[segment.Record]:
    """The records of a segment, marks included."""
    return list(SegmentReader(rig.disk, name).records())


def entry_offset(rig: Rig, index: int) -> int:
    """Where the record of an entry begins."""
    entries = [r for r in offsets(rig) if r.kind == 1]
    return entries[index - 1].offset


def edit(rig: Rig, change: Edit, name: str = FIRST) -> None:
    """Change a file as if it had come back so from the disk."""
    rig.disk.set_content(name, change(rig.disk.read(name)))


def flip(offset: int, mask: int = 0x40) -> Edit:
    """Flip bits of one byte."""
    return lambda data: data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :]


def intact(journal: DurableJournal) -> bool:
    """Whether a journal holds all that was written."""
    state = (journal.getCurrentTerm(), journal.getVotedForNodeId())
    return journal[:] == filled(1, ENTRIES, term=1, size_bytes=100) and state == (7, "n2")


@pytest.mark.parametrize("field", [0, 3, 4, 8, 9, 12, 17, 60])
def test_flip_in_any_field_of_a_synced_record_is_refused_where_it_is(field: int) -> None:
    """Length, CRC, kind, index, term, command: a flip is refused, naming file and record."""
    rig = written()
    offset = entry_offset(rig, 20)
    edit(rig, flip(offset + field))
    with pytest.raises(CorruptLog) as caught:
        rig.open()
    assert (caught.value.file, caught.value.offset) == (FIRST, offset)
    assert FIRST in str(caught.value)
    assert f"byte {offset}" in str(caught.value)


def test_flip_in_the_last_synced_record_is_refused() -> None:
    """The mark after the last batch proves that it had been synced."""
    rig = written()
    offset = entry_offset(rig, ENTRIES)
    edit(rig, flip(offset + 30))
    with pytest.raises(CorruptLog, match=f"corrupt at byte {offset}.*had been synced"):
        rig.open()


@pytest.mark.parametrize("offset", range(segment.HEADER_BYTES))
def test_flip_in_the_header_is_refused(offset: int) -> None:
    """Every byte of a segment's header is covered."""
    rig = written()
    edit(rig, flip(offset))
    with pytest.raises(CorruptLog):
        rig.open()


def test_four_hundred_random_flips_load_nothing_wrong() -> None:
    """A flipped bit anywhere is refused, or it hit what was not data and everything is there."""
    rng = random.Random(20)
    good = written(segment_bytes=1500)
    content = {name: good.disk.read(name) for name in good.disk.list()}
    blamed: list[tuple[str, str]] = []
    for _ in range(400):
        rig = Rig()
        rig.disk.remove(FIRST)
        victim = rng.choice(sorted(content))
        for name, data in content.items():
            rig.disk.set_content(name, data)
        edit(rig, flip(rng.randrange(len(content[victim])), 1 << rng.randrange(8)), victim)
        try:
            journal = rig.open()
        except CorruptLog as fault:
            blamed.append((fault.file, victim))
        else:
            assert intact(journal)
    assert len(blamed) > 380
    assert all(file == victim for file, victim in blamed)


def test_lost_page_in_synced_data_is_refused() -> None:
    """Four KiB of zeros where synced records were is corruption, not a torn tail."""
    rig = written()
    edit(rig, lambda data: data[:2048] + bytes(2048) + data[4096:])
    with pytest.raises(CorruptLog, match="had been synced"):
        rig.open()


@pytest.mark.parametrize("size", [0, 3, segment.HEADER_BYTES - 1])
def test_segment_without_a_whole_header_is_refused(size: int) -> None:
    """A segment gets its name only when its header is on disk, so a short one was damaged."""
    rig = written()
    edit(rig, lambda data: data[:size])
    with pytest.raises(CorruptLog, match=f"corrupt at byte {size}.*header"):
        rig.open()


def test_other_file_in_the_place_of_a_segment_is_refused() -> None:
    """Neither another segment's content nor a foreign file is taken for the log."""
    rig = written(segment_bytes=1500)
    names = rig.disk.list()
    other = rig.disk.read(names[1])
    edit(rig, lambda _: other, names[2])
    with pytest.raises(CorruptLog, match="the header says that it begins at record"):
        rig.open()
    edit(rig, lambda _: b"#!/bin/sh\n" * 100, names[2])
    with pytest.raises(CorruptLog, match="does not begin as that of a log segment"):
        rig.open()


def test_log_of_another_format_version_is_refused() -> None:
    """A program that does not know a format says so and touches nothing."""
    rig = written()
    data = rig.disk.read(FIRST)
    body = data[:8] + struct.pack("<I", 2) + data[12 : segment.HEADER_BYTES - 4]
    crc = struct.pack("<I", crc32c(body))
    edit(rig, lambda data: body + crc + data[segment.HEADER_BYTES :])
    with pytest.raises(CorruptLog, match="format version 2; this program reads version 1"):
        rig.open()


def test_damage_in_an_earlier_segment_is_refused() -> None:
    """An earlier segment was whole before the next one began; its tail is never cut."""
    rig = written(segment_bytes=1500)
    name = rig.disk.list()[1]
    size = rig.disk.size(name)
    edit(rig, lambda data: data[: size - segment.MARK_BYTES - 20], name)
    with pytest.raises(CorruptLog, match="later segments exist") as caught:
        rig.open()
    assert caught.value.file == name


@pytest.mark.parametrize("keep", [0, 2, 8, 9, 10, 40, 124])
def test_record_that_the_end_of_the_file_cuts_is_torn(keep: int) -> None:
    """What is left of a record at the end of the last file is cut and reported."""
    rig = written()
    offset = entry_offset(rig, ENTRIES)
    edit(rig, lambda data: data[: offset + keep])
    journal = rig.open()
    assert journal[:] == filled(1, ENTRIES - 1, term=1, size_bytes=100)
    assert journal.recovery.cut_bytes == keep
    assert rig.disk.size(FIRST) == offset + segment.MARK_BYTES
    if keep:
        assert (journal.recovery.cut_file, journal.recovery.cut_offset) == (FIRST, offset)


@pytest.mark.parametrize("tail", [bytes(5000), b"\xa5" * 5000, bytes(700) + b"\x01" * 3])
def test_tail_that_never_was_a_record_is_cut(tail: bytes) -> None:
    """Zeros or garbage after the last record, without any record behind them, are cut."""
    rig = written()
    edit(rig, lambda data: data + tail)
    journal = rig.open()
    assert intact(journal)
    assert journal.recovery.cut_bytes == len(tail)


def unproven_batch(count: int = 40) -> tuple[Rig, int]:
    """A log whose last batch of `count` entries has lost its mark, and that batch's first entry."""
    rig = written()
    rig.open(1 << 20)
    first = ENTRIES + 1
    add(rig.journal, first, first + count - 1, term=1, size_bytes=100)
    rig.settle()
    edit(rig, lambda data: data[: -segment.MARK_BYTES])
    return rig, first


def test_flip_before_valid_records_is_refused_without_a_mark() -> None:
    """In a batch that no mark proves, a bad record with good ones after it is still corruption."""
    rig, first = unproven_batch()
    offset = entry_offset(rig, first + 3)
    edit(rig, flip(offset + 30))
    with pytest.raises(CorruptLog, match=f"corrupt at byte {offset}.*a valid record follows"):
        rig.open()


def test_sector_that_was_never_written_is_a_torn_batch() -> None:
    """Pages of an unsynced batch reach the disk in any order: a hole in it stops no start."""
    rig, first = unproven_batch()
    hole = -(-entry_offset(rig, first + 5) // 512) * 512
    edit(rig, lambda data: data[:hole] + bytes(512) + data[hole + 512 :])
    journal = rig.open()
    assert journal[:ENTRIES] == filled(1, ENTRIES, term=1, size_bytes=100)
    assert ENTRIES + 5 <= journal.last_index < ENTRIES + 40
    assert journal.recovery.cut_bytes > 0


def test_image_of_a_record_inside_a_value_proves_nothing() -> None:
    """A stored value that holds a copy of real records and marks does not make a tail corrupt."""
    rig = written()
    image = rig.disk.read(FIRST)
    rig.open(1 << 20)
    offset = rig.disk.size(FIRST)
    rig.journal.add(b"\x00" + image, ENTRIES + 1, 1)
    rig.settle()
    edit(rig, lambda data: data[: offset + 25 + len(image)])
    journal = rig.open()
    assert intact(journal)
    assert journal.recovery.cut_offset == offset


def test_cut_tail_stays_cut() -> None:
    """After a cut the log goes on from there, and later starts find nothing amiss."""
    rig = written()
    edit(rig, lambda data: data[:-60])
    journal = rig.open()
    last = journal.last_index
    add(journal, last + 1, last + 5, term=1, size_bytes=100)
    rig.settle()
    journal = rig.crash_and_open()
    assert journal[:] == filled(1, last + 5, term=1, size_bytes=100)


def test_refused_log_is_left_as_it_was() -> None:
    """Refusing changes no byte, so that the files can be examined."""
    rig = written()
    edit(rig, flip(entry_offset(rig, 20) + 30))
    before = {name: rig.disk.read(name) for name in rig.disk.list()}
    with pytest.raises(CorruptLog):
        rig.open()
    assert {name: rig.disk.read(name) for name in rig.disk.list()} == before


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(9, b""), (1, b"short"), (2, b""), (2, b"\x07" + bytes(7) + b"\x01\xff"), (3, b""), (4, b"x")],
)
def test_valid_record_with_impossible_content_is_refused(kind: int, payload: bytes) -> None:
    """A record that passes its CRC and makes no sense is named, not loaded and not a crash."""
    rig = written()
    journal = rig.open(1 << 20)
    journal._wal.append(kind, payload)
    rig.settle()
    with pytest.raises(CorruptLog, match=FIRST):
        rig.crash_and_open()
