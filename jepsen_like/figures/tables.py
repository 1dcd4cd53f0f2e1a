"""Records as Markdown, and their place in a document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from jepsen_like.figures.figure import Figure
from jepsen_like.figures.record import Record

_SECTION = r"(<!-- figures:{name} -->\n).*?(<!-- /figures:{name} -->)"


def markdown(figure: Figure, record: Record) -> str:
    """The table of a figure with the command for it; ends with a newline."""
    lines = [f"    {record.command}", ""]
    if not record.rounds:
        return "\n".join([*lines, "Not measured yet.", ""])
    lines += ["| what | result | goal | met |", "|---|---|---|---|"]
    for row in figure.rows(record):
        met = "" if row.met is None else ("yes" if row.met else "**no**")
        lines.append(f"| {_cell(row.what)} | {_cell(row.value)} | {_cell(row.goal)} | {met} |")
    lines += ["", _about(figure, record), ""]
    lines += [f"- **lost**: {_cell(loss)}" for loss in record.all_losses[:20]]
    return "\n".join(lines).rstrip("\n") + "\n"


def _about(figure: Figure, record: Record) -> str:
    parts = [f"{name} {value}" for name, value in record.machine.items()]
    loads = ", ".join(f"{load:.1f}" for load in record.load_average)
    text = f"{', '.join(parts)}; load average before: {loads}."
    if record.quick:
        text += (
            " A **quick** run, to see that it works: fewer and smaller than the figure asks for."
        )
    elif not record.complete:
        text += f" **Not finished**: {len(record.rounds)} of {record.wanted} rounds."
    if record.sessions > 1:
        text += f" Measured in {record.sessions} sessions, each on a new cluster."
    return f"{text} All rounds take about {figure.lasts}."


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


class NoSection(Exception):
    """A document has no place for a figure."""


def fill_in(document: Path, tables: Mapping[str, str]) -> None:
    """Replaces what is between `<!-- figures:NAME -->` and `<!-- /figures:NAME -->`.

    Raises:
        NoSection: A figure has no such place.
        OSError: The document can't be read or written.
    """
    text = document.read_text(encoding="utf-8")
    for name, table in tables.items():
        pattern = re.compile(_SECTION.format(name=re.escape(name)), re.DOTALL)
        found = pattern.search(text)
        if found is None:
            raise NoSection(f"{document} has no section <!-- figures:{name} -->")
        text = f"{text[: found.start()]}{found[1]}{table}{found[2]}{text[found.end() :]}"
    document.write_text(text, encoding="utf-8")
