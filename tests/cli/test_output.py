"""What commands print: plain columns where nobody looks, and nothing that steers a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg_cli.output import Output, columns, plain_lines, printable, show


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    """Whatever a registry holds, no escape sequence, line break or bidi control is printed."""
    safe = printable(text)
    assert len(safe) == len(text)
    assert "\x1b" not in safe
    assert "\n" not in safe
    assert "\u202e" not in safe


@given(st.lists(st.tuples(st.text(), st.integers()), max_size=5))
def test_columns_line_up_and_lose_nothing(rows: list[tuple[str, int]]) -> None:
    """Each row is one line that begins with its first cell; the second column starts in line."""
    table = columns(("NAME", "N"), rows)
    lines = list(plain_lines(table))
    width = max(len(row[0]) for row in (table.headers, *table.rows))
    assert len(lines) == len(rows) + 1
    for line, row in zip(lines[1:], table.rows, strict=True):
        assert line.startswith(row[0].rstrip())
        assert line[width:].strip() == row[1]


def test_nothing_found_is_said_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table leaves stdout empty, so that a script counts no line."""
    show(Output.TABLE, [], columns(("A",), []))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Nothing found.\n"


def test_json_of_bytes_is_base64(capsys: pytest.CaptureFixture[str]) -> None:
    """Values of any bytes can be shown."""
    show(Output.JSON, {"value": b"\xff\x00"}, "")
    assert capsys.readouterr().out == '{\n  "value": "/wA="\n}\n'
