"""`python -m bench`: measures, prints the table, writes JSON."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console

from bench.lab import Lab
from bench.report import Report, Row, machine, show
from bench.scenarios import SCENARIOS
from raftreg.errors import RaftregError

FILE_COLUMNS = 170  #: width of the table in a file or a pipe


@click.command()
@click.option(
    "--only",
    type=click.Choice(list(SCENARIOS)),
    multiple=True,
    help="Measure this alone; may be repeated.",
)
@click.option("--quick", is_flag=True, help="Short and few: to see that it works.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the figures there too.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where data directories are made: it must be on the disk to measure.",
)
def main(
    only: tuple[str, ...], quick: bool, json_file: Path | None, directory: Path | None
) -> None:
    """Measure three real servers on loopback, with fsync on."""
    notes, console = Console(stderr=True, highlight=False), Console()
    if not console.is_terminal:
        console = Console(width=FILE_COLUMNS)
    names = [name for name in SCENARIOS if not only or name in only]
    before = os.getloadavg()[0]
    rows: list[Row] = []
    code = 0
    try:
        asyncio.run(_measure(names, quick, directory, notes, rows))
    except RaftregError as error:
        notes.print(f"error: {error.message}", style="red", markup=False)
        code = 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        notes.print("interrupted; what was measured until then:")
        code = 130
    report = Report(machine=machine(), load_before=before, load_after=os.getloadavg()[0], rows=rows)
    if rows:
        show(report, console)
    if json_file is not None:
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        json_file.write_bytes(text + b"\n")
    sys.exit(code)


async def _measure(
    names: list[str], quick: bool, directory: Path | None, notes: Console, rows: list[Row]
) -> None:
    """Runs scenarios one after the other; `rows` takes what each gives."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    for position, name in enumerate(names, 1):

        def say(what: str, position: int = position, name: str = name) -> None:
            notes.print(f"[{position} of {len(names)}] {name}: {what}", markup=False)

        rows += await SCENARIOS[name](Lab(directory=directory, quick=quick, say=say))


if __name__ == "__main__":
    main()
