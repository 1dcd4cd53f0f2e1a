"""What a command prints: columns for people, JSON for programs."""

from __future__ import annotations

import enum
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

_STYLES = {
    "passing": "green",
    "warning": "yellow",
    "critical": "bold red",
    "alive": "green",
    "failed": "bold red",
    "leader": "bold cyan",
    "stopped": "bold red",
}


class Output(enum.Enum):
    """Form of the answer on stdout."""

    TABLE = "table"
    JSON = "json"


class Columns(msgspec.Struct, frozen=True):
    """A table: headers and rows of text, all of one length."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    empty: str = "Nothing found."


class Advance(Protocol):
    """Tells a progress bar how far the work is."""

    def __call__(self, steps: int) -> None:
        """Adds `steps` to what is done."""
        ...


def columns(headers: Sequence[str], rows: Sequence[Sequence[object]], empty: str = "") -> Columns:
    """Builds a table; cells become safe text."""
    texts = tuple(tuple(printable(str(cell)) for cell in row) for row in rows)
    return Columns(tuple(headers), texts, empty or "Nothing found.")


def printable(text: str) -> str:
    """Replaces what could steer a terminal: the registry's data is other people's text."""
    if text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c).startswith("C") else c for c in text
    )


def show(output: Output, data: Any, table: Columns | str) -> None:
    """Prints the answer of a command in the form that was asked for.

    Args:
        output: The form.
        data: What JSON shows: plain values (or structs) of a stable shape.
        table: What people see: columns, or finished lines of text.
    """
    if output is Output.JSON:
        click.echo(json_text(data))
    elif isinstance(table, str):
        click.echo(table)
    else:
        show_columns(table)


def show_line(output: Output, data: Any, text: str) -> None:
    """Prints one event of an endless command: a line of text, or JSON on one line."""
    if output is Output.JSON:
        click.echo(msgspec.json.encode(data))
    else:
        click.echo(text)
    sys.stdout.flush()


def json_text(data: Any) -> str:
    """Indented JSON."""
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def show_columns(table: Columns) -> None:
    """Prints columns: a styled table on a terminal, aligned plain text anywhere else."""
    if not table.rows:
        click.echo(table.empty, err=True)
    elif sys.stdout.isatty():
        Console().print(rich_table(table))
    else:
        for line in plain_lines(table):
            click.echo(line)


def plain_lines(table: Columns) -> Iterator[str]:
    """Lines with two spaces between aligned columns; nothing is cut."""
    widths = [
        max(len(row[i]) for row in (table.headers, *table.rows)) for i in range(len(table.headers))
    ]
    for row in (table.headers, *table.rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def rich_table(table: Columns, title: str | None = None) -> Table:
    """The columns as a table of rich; words of health have their colour."""
    result = Table(box=None, title=title, title_justify="left", header_style="bold", pad_edge=False)
    for header in table.headers:
        result.add_column(header, overflow="fold")
    for row in table.rows:
        result.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return result


@contextmanager
def progress(what: str, total: int | None, *, in_bytes: bool = False) -> Iterator[Advance]:
    """Shows a bar on stderr while something long runs; nothing where stderr is no terminal.

    Args:
        what: What is going on, for example "importing keys".
        total: Steps in all; None when unknown.
        in_bytes: The steps are bytes.
    """
    counter = DownloadColumn() if in_bytes else MofNCompleteColumn()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        counter,
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.update(task, advance=steps)
