"""Measures figures, one after the other, and keeps what was measured after every round."""

from __future__ import annotations

import asyncio
import difflib
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from jepsen_like.figures.compaction_kills import CompactionKills
from jepsen_like.figures.divergent import Divergent
from jepsen_like.figures.figure import Figure
from jepsen_like.figures.flips import Flips
from jepsen_like.figures.heal import Heal
from jepsen_like.figures.lab import Lab, Trouble
from jepsen_like.figures.leader_kills import LeaderKills
from jepsen_like.figures.power_cuts import PowerCuts
from jepsen_like.figures.record import Record, Round, Unreadable, load, machine, save
from jepsen_like.figures.tables import NoSection, fill_in, markdown
from jepsen_like.ground import sandbox
from jepsen_like.ground.api import Need
from jepsen_like.ground.build import NotReady
from jepsen_like.ground.capabilities import capabilities
from jepsen_like.ground.hosts import Busy

FIGURES: Final[dict[str, Figure]] = {
    figure.name: figure
    for figure in (LeaderKills(), Heal(), Divergent(), PowerCuts(), CompactionKills(), Flips())
}
EXIT_LOSS: Final = 1
EXIT_UNABLE: Final = 3
EXIT_INTERRUPTED: Final = 130
SEED: Final = 20_261_122


def main(
    names: Sequence[str], quick: bool = False, out: Path | None = None, write: Path | None = None
) -> int:
    """Measures, prints tables, keeps records in `out`.

    A record that is not complete is continued on a new cluster, a complete one is begun anew.

    Args:
        names: Figures to measure; none means all, or with `write` none at all: then the document
            is filled in from the records in `out`.
        quick: Few and small, to see that it works.
        out: Folder of the records; None is jepsen-results/figures.
        write: Document whose sections are filled in.

    Returns:
        0, or 1 when anything acknowledged was lost or damage went unseen, 3 when a figure could
        not be measured (here, or to its end), 130 after an interruption.

    Raises:
        click.UsageError: There is no such figure, or the document has no place for it.
    """
    folder = (out or Path("jepsen-results") / "figures").absolute()
    chosen = _chosen(names, measure_all=write is None)
    code = 0
    if chosen:
        if capabilities().missing(Need.NETWORK) is None and not sandbox.inside():
            code = sandbox.enter(_command(chosen, quick, folder))
        else:
            code = _measure_all(chosen, quick, folder)
    if write is not None and not sandbox.inside():
        _write(chosen or list(FIGURES), folder, write, quick)
    return code


def _chosen(names: Sequence[str], *, measure_all: bool) -> list[str]:
    for name in names:
        if name not in FIGURES:
            near = difflib.get_close_matches(name, FIGURES, 3) or sorted(FIGURES)
            raise click.UsageError(f"there is no figure {name!r}; near: {', '.join(near)}")
    return list(dict.fromkeys(names)) or (list(FIGURES) if measure_all else [])


def _command(names: Sequence[str], quick: bool, folder: Path) -> list[str]:
    flags = ["--quick"] if quick else []
    return [sys.executable, "-m", "jepsen_like", "figures", *names, *flags, "--out", str(folder)]


def _measure_all(names: Sequence[str], quick: bool, folder: Path) -> int:
    console = Console(highlight=False, soft_wrap=True)
    codes = []
    for name in names:
        try:
            codes.append(_measure(FIGURES[name], quick, folder, console))
        except Unreadable as error:
            console.print(f"error: {error}", style="red", markup=False)
            codes.append(EXIT_UNABLE)
        if codes[-1] == EXIT_INTERRUPTED:
            return EXIT_INTERRUPTED
    return EXIT_LOSS if EXIT_LOSS in codes else max(codes)


def _measure(figure: Figure, quick: bool, folder: Path, console: Console) -> int:
    lacks = [why for need in sorted(figure.needs, key=str) if (why := capabilities().missing(need))]
    if lacks:
        console.print(f"{figure.name}: not possible here: {'; '.join(lacks)}", markup=False)
        return EXIT_UNABLE
    path = _path(folder, figure.name, quick)
    record = _begun(figure, quick, path)
    begins = f"round {len(record.rounds) + 1} of {record.wanted}"
    console.print(f"{figure.name}: {begins}; all take about {figure.lasts}", markup=False)
    why = asyncio.run(_session(figure, record, path, console))
    table = markdown(figure, record)
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    console.print(table, markup=False)
    if record.all_losses:
        return EXIT_LOSS
    if why:
        console.print(f"{figure.name}: {why}", style="red", markup=False)
        return EXIT_INTERRUPTED if why == "interrupted" else EXIT_UNABLE
    return 0


def _path(folder: Path, name: str, quick: bool) -> Path:
    return folder / (f"{name}-quick.json" if quick else f"{name}.json")


def _begun(figure: Figure, quick: bool, path: Path) -> Record:
    """The record to go on with; a new one where there is none, or only a finished one."""
    wanted = figure.quick_rounds if quick else figure.rounds
    found = load(path)
    if found is not None and not found.complete and found.wanted == wanted:
        return found
    command = f"python -m jepsen_like figures {figure.name}{' --quick' if quick else ''}"
    return Record(figure.name, quick, wanted, command, machine())


async def _session(figure: Figure, record: Record, path: Path, console: Console) -> str:
    """Measures what is missing in a record; gives why it did not come to its end, or ""."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    record.sessions += 1
    record.load_average.append(round(os.getloadavg()[0], 2))

    def say(text: str) -> None:
        console.print(f"{figure.name}: {text}", markup=False)

    def done(one: Round) -> None:
        record.rounds.append(one)
        save(record, path)
        if line := figure.line(one):
            say(f"{one.number} of {record.wanted}: {line}")
        for loss in one.losses:
            say(f"LOST: {loss}")

    numbers = range(len(record.rounds) + 1, record.wanted + 1)
    with tempfile.TemporaryDirectory(prefix="figures-", dir=sandbox.scratch()) as scratch:
        lab = Lab(
            logs=path.with_suffix(".logs") / str(record.sessions),
            scratch=Path(scratch),
            quick=record.quick,
            seed=SEED + record.sessions,
            say=say,
        )
        why = ""
        try:
            record.losses += await figure.measure(lab, numbers, done)
        except* (Trouble, NotReady, Busy, OSError) as group:
            why = _first(group)
        except* asyncio.CancelledError:
            why = "interrupted"
        finally:
            save(record, path)
    return why


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    """The text of the first error in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


def _write(names: Sequence[str], folder: Path, document: Path, quick: bool) -> None:
    tables = {}
    for name in names:
        record = load(_path(folder, name, quick))
        if record is not None:
            tables[name] = markdown(FIGURES[name], record)
    try:
        fill_in(document, tables)
    except (NoSection, OSError) as error:
        raise click.UsageError(str(error)) from error
