"""The figures: what is kept of them, what is made of them, and that their checks find losses."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import ClassVar

import click
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.door import Answer, NoAnswer
from jepsen_like.figures import record as records
from jepsen_like.figures import run
from jepsen_like.figures.figure import Done, Figure, Row, none_lost, quantile, within
from jepsen_like.figures.lab import Lab, Trouble
from jepsen_like.figures.opening import found_when_read, opened
from jepsen_like.figures.record import Record, Round
from jepsen_like.figures.tables import NoSection, fill_in, markdown
from jepsen_like.figures.writers import Ack, Writers
from jepsen_like.ground.capabilities import loopback_only
from raftreg.clock import SystemClock
from raftreg.core.commands import KVOp, KVVerb, encode
from raftreg.raft.compaction import CompactionLimits
from raftreg.raft.replica import open_replica
from raftreg.raft.settings import ReplicaSettings
from raftreg.server.machine import RegistryMachine


class Counting(Figure):
    """A figure that measures nothing, in so many rounds."""

    name: ClassVar[str] = "counting"
    rounds: ClassVar[int] = 4
    quick_rounds: ClassVar[int] = 2
    lasts: ClassVar[str] = "no time"

    def __init__(self, fails_at: int = 0, loses_at: int = 0) -> None:
        self.fails_at = fails_at
        self.loses_at = loses_at
        self.asked: list[list[int]] = []

    async def measure(self, lab: Lab, numbers: Sequence[int], done: Done) -> list[str]:
        """Fails and loses where it was told to."""
        self.asked.append(list(numbers))
        for number in numbers:
            if number == self.fails_at:
                async with asyncio.TaskGroup():
                    raise Trouble("the cluster went away")
            losses = ("write 7 is not there",) if number == self.loses_at else ()
            done(Round(number, values={"time_s": 0.1 * number}, losses=losses))
        return []

    def rows(self, record: Record) -> list[Row]:
        """Two of them."""
        return [within("time | longest", max(record.values("time_s")), 0.35), none_lost(record)]

    def line(self, done: Round) -> str:
        """Its number."""
        return f"round {done.number}"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """The only figure there is, measured in this process."""
    figure = Counting()
    monkeypatch.setattr(run, "FIGURES", {"counting": figure})
    monkeypatch.setattr(run, "capabilities", lambda: loopback_only("a test"))
    return figure


def test_all_rounds_are_measured_kept_and_told(
    counting: Counting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record holds each round, the table the command and whether the goal is met."""
    assert run.main([], out=tmp_path) == 0
    found = records.load(tmp_path / "counting.json")
    assert found is not None
    assert found.complete
    assert [one.number for one in found.rounds] == [1, 2, 3, 4]
    printed = capsys.readouterr().out
    assert "python -m jepsen_like figures counting" in printed
    assert "| time \\| longest | 0.40 s | at most 0.35 s | **no** |" in printed
    assert "| acknowledged writes lost | 0 | 0 | yes |" in printed
    assert counting.asked == [[1, 2, 3, 4]]


def test_an_interrupted_figure_goes_on_where_it_was(counting: Counting, tmp_path: Path) -> None:
    """What was measured is kept; the next call measures only what is missing."""
    counting.fails_at = 3
    assert run.main(["counting"], out=tmp_path) == run.EXIT_UNABLE
    counting.fails_at = 0
    assert run.main(["counting"], out=tmp_path) == 0
    assert counting.asked == [[1, 2, 3, 4], [3, 4]]
    found = records.load(tmp_path / "counting.json")
    assert found is not None
    assert (found.sessions, len(found.rounds)) == (2, 4)
    # A complete one is measured anew.
    assert run.main(["counting"], out=tmp_path) == 0
    assert counting.asked[-1] == [1, 2, 3, 4]


def test_a_quick_run_is_kept_apart_and_called_quick(counting: Counting, tmp_path: Path) -> None:
    """It never takes the place of the real figure."""
    assert run.main(["counting"], quick=True, out=tmp_path) == 0
    assert records.load(tmp_path / "counting.json") is None
    assert "**quick**" in (tmp_path / "counting-quick.md").read_text()


def test_a_loss_is_an_error(counting: Counting, tmp_path: Path) -> None:
    """Exit code 1, and the table says what was lost."""
    counting.loses_at = 2
    assert run.main(["counting"], out=tmp_path) == run.EXIT_LOSS
    table = (tmp_path / "counting.md").read_text()
    assert "| acknowledged writes lost | 1 | 0 | **no** |" in table
    assert "write 7 is not there" in table


def test_an_unknown_figure_is_refused_with_the_nearest(counting: Counting) -> None:
    """Before anything is measured."""
    with pytest.raises(click.UsageError, match="counting"):
        run.main(["countin"])
    assert counting.asked == []


def test_a_damaged_record_is_not_overwritten(counting: Counting, tmp_path: Path) -> None:
    """Whoever has measured for an hour decides himself what to do with it."""
    (tmp_path / "counting.json").write_bytes(b'{"name":')
    assert run.main(["counting"], out=tmp_path) == run.EXIT_UNABLE
    assert (tmp_path / "counting.json").read_bytes() == b'{"name":'


def test_a_document_is_filled_in_from_what_was_measured(counting: Counting, tmp_path: Path) -> None:
    """Only between the marks; without names nothing is measured for it."""
    document = tmp_path / "doc.md"
    document.write_text("a\n<!-- figures:counting -->\nold\n<!-- /figures:counting -->\nb\n")
    run.main(["counting"], out=tmp_path)
    assert run.main([], out=tmp_path, write=document) == 0
    assert len(counting.asked) == 1
    text = document.read_text()
    assert text.startswith("a\n<!-- figures:counting -->\n    python -m")
    assert text.endswith("<!-- /figures:counting -->\nb\n")
    assert "old" not in text
    before = text
    fill_in(document, {"counting": markdown(counting, _record(tmp_path))})
    assert document.read_text() == before


def _record(folder: Path) -> Record:
    found = records.load(folder / "counting.json")
    assert found is not None
    return found


def test_a_document_without_a_place_is_left_alone(tmp_path: Path) -> None:
    """Nothing is written where nobody expects it."""
    document = tmp_path / "doc.md"
    document.write_text("a\n")
    with pytest.raises(NoSection):
        fill_in(document, {"counting": "table"})
    assert document.read_text() == "a\n"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_is_a_value_that_was_measured(values: list[float], share: float) -> None:
    """The least one that at least this share of all does not exceed."""
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


# --- the writers


class Shelf:
    """A door to a server that forgets the keys it is told to."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.forgets: set[int] = set()
        self.writes = 0

    async def request(
        self,
        node: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 5.0,
    ) -> Answer:
        """Puts and recursive gets; every seventh write is not answered."""
        del node, headers, timeout_s, params
        await asyncio.sleep(0)
        key = path.removeprefix("/v1/kv/")
        if method == "PUT":
            self.writes += 1
            if self.writes not in self.forgets:
                self.rows[key] = body
            if self.writes % 7 == 0:
                raise NoAnswer("lost on the way")
            return Answer(200, {}, b"true\n")
        rows = [
            {"Key": name, "Value": base64.b64encode(value).decode()}
            for name, value in self.rows.items()
            if name.startswith(key)
        ]
        return Answer(200 if rows else 404, {}, msgspec.json.encode(rows))

    @asynccontextmanager
    async def stream(
        self, node: str, path: str, *, params: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Nobody asks for one."""
        raise NotImplementedError
        yield

    async def resolve(self, node: str, name: str, kind: str, timeout_s: float = 2.0) -> list[str]:
        """Nobody asks."""
        raise NotImplementedError


async def _written(shelf: Shelf, count: int) -> Writers:
    writers = Writers(shelf, ["n1", "n2"], Random(1), workers=3, pause_s=0.0)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writers.run())
        writers.begin("1")
        async with asyncio.timeout(20):
            while True:
                if writers.total >= count:
                    break
                await asyncio.sleep(0)
        writers.stop()
    return writers


async def test_nothing_is_missing_where_all_was_kept() -> None:
    """Writes that were not answered may be there or not."""
    writers = await _written(Shelf(), 60)
    assert writers.unknown > 0
    assert await writers.missing_anywhere() == []


async def test_every_acknowledged_write_that_is_gone_is_found() -> None:
    """By its number, as a loss."""
    shelf = Shelf()
    shelf.forgets = {5, 14, 20}  # the 14th is not acknowledged either
    writers = await _written(shelf, 60)
    losses = await writers.missing_anywhere()
    assert len(losses) == 2
    assert all("acknowledged and is not there" in loss for loss in losses)


async def test_a_changed_value_is_a_loss_too() -> None:
    """The key alone is not enough."""
    shelf = Shelf()
    writers = await _written(shelf, 20)
    number = min(writers.acknowledged["1"])
    shelf.rows[writers.path("1", number)] = b"something else"
    assert len(await writers.missing("1")) == 1


def test_an_outage_is_the_longest_wait_for_an_acknowledgement() -> None:
    """Counted from the last one before the fault; one that has not ended counts as well."""
    writers = Writers(Shelf(), ["n1"], Random(1))
    writers.acks = [Ack(0.0, 0.9), Ack(0.5, 1.05), Ack(1.0, 1.8), Ack(1.7, 1.9)]
    assert writers.outage_s(1.0, 2.0) == pytest.approx(0.75)
    assert writers.outage_s(1.0, 3.5) == pytest.approx(1.6)
    writers.acks = []
    assert writers.outage_s(1.0, 3.5) == pytest.approx(2.5)


# --- opening damaged directories


async def _fill(folder: Path) -> None:
    settings = ReplicaSettings(
        name="figures",
        data_dir=str(folder),
        bind_host="127.0.0.1",
        bind_port=0,
        limits=CompactionLimits(entries_max=15, trailing_entries=5),
    )
    replica = open_replica(settings, RegistryMachine(), SystemClock(), Random(1))
    await replica.start()
    for number in range(50):
        command = KVOp(verb=KVVerb.SET, key=f"k{number}", value=b"value")
        await replica.propose(encode(command))
    await replica.until(lambda: len(list(folder.glob("snapshot-*.snap"))) == 2, 20)
    await replica.stop()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory of a real replica with a log and two snapshots."""
    folder = tmp_path_factory.mktemp("flips") / "raft"
    asyncio.run(_fill(folder))
    return folder


def _copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


async def test_an_unchanged_directory_opens_alike_each_time(
    directory: Path, tmp_path: Path
) -> None:
    """So whatever differs after a flip is the flip's doing."""
    first = await opened(_copy(directory, tmp_path / "a"))
    second = await opened(_copy(directory, tmp_path / "b"), first.applied)
    assert first.fault == ""
    assert first.applied > 50
    assert first.same_as(second)


@pytest.mark.parametrize("pattern", ["wal-*.seg", "snapshot-*.snap"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
async def test_a_flipped_byte_is_refused_or_changes_nothing(
    directory: Path, tmp_path: Path, pattern: str, share: float
) -> None:
    """The fault names the file; a start without fault is the same as that of the original."""
    whole = await opened(_copy(directory, tmp_path / "whole"))
    folder = _copy(directory, tmp_path / "flipped")
    path = max(folder.glob(pattern))
    _flip(path, int(path.stat().st_size * share))
    found = await opened(folder, whole.applied)
    assert found.file == path.name if found.fault else found.same_as(whole)


async def test_damage_in_what_a_start_does_not_read_is_found_when_it_is_read(
    directory: Path, tmp_path: Path
) -> None:
    """The older one of two snapshots."""
    folder = _copy(directory, tmp_path / "flipped")
    path = min(folder.glob("snapshot-*.snap"))
    assert not found_when_read(folder, path.name)
    _flip(path, path.stat().st_size // 2)
    assert found_when_read(folder, path.name)


async def test_a_lost_entry_is_not_taken_for_the_same(directory: Path, tmp_path: Path) -> None:
    """The comparison sees the log's content, not only that it opens."""
    whole = await opened(_copy(directory, tmp_path / "whole"))
    folder = _copy(directory, tmp_path / "other")
    settings = ReplicaSettings(
        name="figures", data_dir=str(folder), bind_host="127.0.0.1", bind_port=0
    )
    replica = open_replica(settings, RegistryMachine(), SystemClock(), Random(1))
    await replica.start()
    await replica.propose(encode(KVOp(verb=KVVerb.SET, key="one more")))
    await replica.stop()
    assert not (await opened(folder, whole.applied)).same_as(whole)
