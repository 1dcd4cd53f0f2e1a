"""The model of the disk, held against a plain one that remembers every state there ever was."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.ground import disk_file
from jepsen_like.ground.disk_file import SECTOR_BYTES
from jepsen_like.ground.disk_model import ROOT, DiskModel

SIZE_MAX = 4 * SECTOR_BYTES
NAMES = ("a", "b", "c")

writes = st.tuples(
    st.just("write"),
    st.integers(0, SIZE_MAX),
    st.binary(min_size=1, max_size=3 * SECTOR_BYTES),
)
resizes = st.tuples(st.just("resize"), st.integers(0, SIZE_MAX), st.just(b""))
syncs = st.tuples(st.just("sync"), st.just(0), st.just(b""))
steps = st.lists(st.one_of(writes, resizes, syncs), max_size=12)


def written(data: bytes, what: str, offset: int, piece: bytes) -> bytes:
    """What a file holds after a step."""
    if what == "write":
        return data[:offset].ljust(offset, b"\0") + piece + data[offset + len(piece) :]
    return data[:offset].ljust(offset, b"\0") if what == "resize" else data


def sector(data: bytes, number: int) -> bytes:
    """A sector, with zeros where the file ended."""
    return data[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")


def content(model: DiskModel, path: str) -> bytes:
    """All bytes of a file."""
    number = model.find(path)
    return model.read(number, 0, model.attributes(number).size)


def model_with_file(name: str = "/f") -> tuple[DiskModel, int]:
    """A disk with an empty file whose name is durable."""
    model = DiskModel()
    number = model.create(name)
    model.sync_directory(ROOT)
    return model, number


def play(model: DiskModel, number: int, script: list[tuple[str, int, bytes]]) -> list[bytes]:
    """Carries out the steps; gives every state since the last sync, the durable one first."""
    states = [b""]
    for what, offset, piece in script:
        match what:
            case "write":
                model.write(number, offset, piece)
            case "resize":
                model.resize(number, offset)
            case _:
                model.sync(number)
                states = states[-1:]
        states.append(written(states[-1], what, offset, piece))
    return states


@given(steps, st.integers())
def test_what_is_left_of_a_file_is_a_mixture_of_states_that_it_had(
    script: list[tuple[str, int, bytes]], seed: int
) -> None:
    """Each sector is as it stood after one of the writes since the last sync; so is the size."""
    model, number = model_with_file()
    states = play(model, number, script)
    assert content(model, "/f") == states[-1]
    loss = model.lose_power(Random(seed), torn=False)
    left = content(model, "/f")
    assert len(left) in {len(state) for state in states}
    for at in range(-(-len(left) // SECTOR_BYTES)):
        found = sector(left, at)
        # Where the file now ends inside the sector, what was beyond the end is gone.
        size = min(SECTOR_BYTES, len(left) - at * SECTOR_BYTES)
        assert found[:size] in {sector(state, at)[:size] for state in states}
    if left == states[-1]:
        assert loss.bytes == 0


@given(steps, st.integers(), st.booleans())
def test_what_was_synced_is_always_there_byte_for_byte(
    script: list[tuple[str, int, bytes]], seed: int, torn: bool
) -> None:
    """After a sync of the file nothing is lost; a second power loss changes nothing either."""
    model, number = model_with_file()
    wanted = play(model, number, script)[-1]
    model.sync(number)
    for again in range(2):
        assert model.lose_power(Random(seed + again), torn=torn).bytes == 0
        assert content(model, "/f") == wanted


@given(steps, st.binary(min_size=2, max_size=SECTOR_BYTES * 2), st.integers())
def test_a_torn_write_stays_up_to_some_byte(
    script: list[tuple[str, int, bytes]], last: bytes, seed: int
) -> None:
    """All before it is there; of the last write a part from its start, never all of it."""
    model, number = model_with_file()
    before = play(model, number, script)[-1]
    model.write(number, len(before), last)
    loss = model.lose_power(Random(seed), torn=True)
    left = content(model, "/f")
    assert left.startswith(before)
    assert (before + last).startswith(left)
    assert len(left) < len(before + last)
    assert loss.bytes >= 1


@given(steps, st.integers())
def test_undoing_a_failed_sync_leaves_what_is_read(
    script: list[tuple[str, int, bytes]], seed: int
) -> None:
    """After a failed sync the bytes are still read back; they are durable once written again."""
    model, number = model_with_file()
    wanted = play(model, number, script)[-1]
    model.fail_sync(number)
    assert content(model, "/f") == wanted
    model.write(number, 0, wanted)
    model.sync(number)
    model.lose_power(Random(seed), torn=False)
    assert content(model, "/f") == wanted


def test_a_sync_after_a_failed_one_makes_nothing_durable_that_was_dropped() -> None:
    """The kernel takes the pages for clean: some power loss takes them, though a sync succeeded."""

    def after_power_loss(seed: int) -> bytes:
        model, number = model_with_file()
        model.write(number, 0, b"durable ")
        model.sync(number)
        model.write(number, 8, b"dropped")
        model.fail_sync(number)
        model.sync(number)
        model.lose_power(Random(seed), torn=False)
        return content(model, "/f")

    left = {after_power_loss(seed) for seed in range(20)}
    assert left == {b"durable dropped", b"durable ".ljust(15, b"\0")}


def names_of(model: DiskModel) -> dict[str, bytes]:
    """Names in the root with what their files hold."""
    return {name: content(model, f"/{name}") for name in model.list(ROOT)}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("create", "unlink", "rename", "sync")),
            st.sampled_from(NAMES),
            st.sampled_from(NAMES),
        ),
        max_size=15,
    ),
    st.integers(),
)
def test_names_go_back_to_a_state_since_the_last_sync_of_their_directory(
    script: list[tuple[str, str, str]], seed: int
) -> None:
    """Whole changes in their order: a rename is there or not; no file is lost that has a name."""
    model = DiskModel()
    states = [names_of(model)]
    for at, (what, source, target) in enumerate(script):
        operations: dict[str, Callable[[], object]] = {
            "create": lambda: make(model, f"/{source}", b"%d" % at),  # noqa: B023  # called at once
            "unlink": lambda: model.unlink(f"/{source}"),  # noqa: B023
            "rename": lambda: model.rename(f"/{source}", f"/{target}"),  # noqa: B023
            "sync": lambda: model.sync_directory(ROOT),
        }
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            operations[what]()
        states = states if what != "sync" else []
        states.append(names_of(model))
    model.lose_power(Random(seed), torn=False)
    assert names_of(model) in states


def make(model: DiskModel, path: str, data: bytes) -> None:
    """A file with durable content, under a name that is not durable yet."""
    number = model.create(path)
    model.write(number, 0, data)
    model.sync(number)


def test_a_directory_that_was_never_synced_is_lost_with_all_that_was_synced_in_it() -> None:
    """Syncing a file makes no name durable, nor does syncing the directory make its own."""

    def after_power_loss(seed: int) -> list[str]:
        model = DiskModel()
        inner = model.make_directory("/d")
        make(model, "/d/f", b"x")
        model.sync_directory(inner)
        model.lose_power(Random(seed), torn=False)
        return list(model.list(ROOT))

    assert {tuple(after_power_loss(seed)) for seed in range(10)} == {(), ("d",)}


def test_a_file_without_a_name_is_kept_while_it_is_open() -> None:
    """As with any file system; its number is dead once the last handle is closed."""
    model, number = model_with_file()
    model.opened(number)
    model.unlink("/f")
    model.sync_directory(ROOT)
    model.write(number, 0, b"x")
    assert model.read(number, 0, 9) == b"x"
    model.closed(number)
    with pytest.raises(OSError, match="inode"):
        model.read(number, 0, 9)


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (lambda model: model.find("/none/such"), errno.ENOENT),
        (lambda model: model.find("/f/below"), errno.ENOTDIR),
        (lambda model: model.create("/f"), errno.EEXIST),
        (lambda model: model.create("/" + "n" * 300), errno.ENAMETOOLONG),
        (lambda model: model.unlink("/d"), errno.EISDIR),
        (lambda model: model.rename("/f", "/d/f"), errno.EXDEV),
        (lambda model: model.rename("/f", "/d"), errno.EISDIR),
        (lambda model: model.remove_directory("/full"), errno.ENOTEMPTY),
        (lambda model: model.read(model.find("/d"), 0, 1), errno.EISDIR),
    ],
    ids=range(9),
)
def test_what_can_not_be_done_says_so(operation: Callable[[DiskModel], Any], code: int) -> None:
    """The errors are those of the system calls."""
    model, _ = model_with_file()
    model.make_directory("/d")
    model.make_directory("/full")
    model.create("/full/f")
    with pytest.raises(OSError, match=r".") as caught:
        operation(model)
    assert caught.value.errno == code


def test_only_durable_bytes_rot() -> None:
    """One bit of one byte changes; what is not durable can't be flipped."""
    model, number = model_with_file()
    model.write(number, 0, b"abcd")
    model.sync(number)
    model.write(number, 2, b"XY__")
    assert list(model.durable_files()) == [("/f", number, 2)]
    assert model.flip(number, 1, 0) == (ord("b"), ord("c"))
    assert content(model, "/f") == b"acXY__"
    with pytest.raises(ValueError, match="no durable byte"):
        model.flip(number, 2, 0)


def test_what_waits_too_long_is_written_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsynced bytes are bounded: beyond that the kernel writes by itself."""
    monkeypatch.setattr(disk_file, "UNSYNCED_BYTES_MAX", 1000)
    model, number = model_with_file()
    for _ in range(11):
        model.write(number, model.attributes(number).size, bytes(100))
    model.lose_power(Random(0), torn=True)
    assert model.attributes(number).size == 1100
