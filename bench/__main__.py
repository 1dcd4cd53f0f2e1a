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

from bench import machine
from bench.consul import Consul, find
from bench.failure import BenchFailure
from bench.lab import Lab
from bench.report import Report, Row, markdown, put_into, show
from bench.scenarios import SCENARIOS
from raftreg.errors import RaftregError

FILE_COLUMNS = 200  #: width of the table in a file or a pipe


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
@click.option(
    "--consul",
    "consul_binary",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Measure this Consul too, turn by turn with us. Default: the one on the search path; "
    "without any, published figures stand in its place.",
)
@click.option(
    "--markdown", "as_markdown", is_flag=True, help="Print the table as documents hold it."
)
@click.option(
    "--into",
    "document",
    type=click.Path(dir_okay=False, exists=True, writable=True, path_type=Path),
    help="Put the table into that document, in the place of the one it holds.",
)
@click.option(
    "--from",
    "earlier",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Measure nothing: print what an earlier run wrote with --json.",
)
def main(  # one argument an option is how click works
    only: tuple[str, ...],
    quick: bool,
    json_file: Path | None,
    directory: Path | None,
    consul_binary: Path | None,
    as_markdown: bool,
    document: Path | None,
    earlier: Path | None,
) -> None:
    """Measure three real servers on loopback, with fsync on."""
    notes = Console(stderr=True, highlight=False)
    if earlier is not None:
        report = msgspec.json.decode(earlier.read_bytes(), type=Report)
        _print(report, document, as_markdown=as_markdown)
        sys.exit(0)
    consul = _consul(consul_binary, notes)
    names = [name for name in SCENARIOS if not only or name in only]
    before = os.getloadavg()[0]
    run = _Run(notes)
    lab = Lab(
        directory=directory,
        quick=quick,
        say=run.say,
        beside=() if consul is None else (consul,),
    )
    try:
        asyncio.run(run.measure(names, lab))
    except (KeyboardInterrupt, asyncio.CancelledError):
        notes.print("interrupted; what was measured until then:")
        run.exit_code = 130
    report = Report(
        machine=machine.describe(),
        load_before=before,
        load_after=os.getloadavg()[0],
        rows=run.rows,
        consul="" if consul is None else consul.name,
    )
    if json_file is not None:
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        json_file.write_bytes(text + b"\n")
    if run.rows:
        _print(report, document, as_markdown=as_markdown)
    sys.exit(run.exit_code)


class _Run:
    """Scenarios one after the other.

    Args:
        notes: Where progress and troubles are shown.
    """

    def __init__(self, notes: Console) -> None:
        self.rows: list[Row] = []
        self.exit_code = 0
        self._notes = notes
        self._where = ""

    def say(self, what: str) -> None:
        """Shows what is being done."""
        self._notes.print(f"{self._where}: {what}", markup=False, soft_wrap=True)

    async def measure(self, names: list[str], lab: Lab) -> None:
        """Measures all; what fails does not keep the others from being measured."""
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        for position, name in enumerate(names, 1):
            self._where = f"[{position} of {len(names)}] {name}"
            try:
                self.rows += await SCENARIOS[name](lab)
            except RaftregError as error:
                self._notes.print(
                    f"error: {name}: {error.message}", style="red", markup=False, soft_wrap=True
                )
                self.exit_code = 1


def _consul(binary: Path | None, notes: Console) -> Consul | None:
    """The Consul to measure beside us, if there is one."""
    try:
        found = find(binary)
    except BenchFailure as error:
        notes.print(
            f"{error.message}: published figures of Consul 1.8 stand in its place",
            markup=False,
            soft_wrap=True,
        )
        return None
    notes.print(f"beside us: {found.name}", markup=False)
    return found


def _print(report: Report, document: Path | None, *, as_markdown: bool) -> None:
    if document is not None:
        try:
            text = put_into(document.read_text(encoding="utf-8"), markdown(report))
        except ValueError as error:
            raise click.BadParameter(f"{document}: {error}", param_hint="--into") from error
        document.write_text(text, encoding="utf-8")
    if as_markdown:
        print(markdown(report), end="")
        return
    console = Console()
    show(report, console if console.is_terminal else Console(width=FILE_COLUMNS))


if __name__ == "__main__":
    main()
