from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from bench.report import BEGIN, END, Goal, Report, Row, Times, markdown, published, put_into, show


def _row(**fields: Any) -> Row:
    return Row(**({"name": "gets", "unit": "/s", "samples": [90.0, 100.0, 110.0]} | fields))


def _report(*rows: Row) -> Report:
    return Report(machine={"cores": "2"}, load_before=0.5, load_after=1.0, rows=list(rows))


@pytest.mark.parametrize(
    ("fields", "ratio", "reached"),
    [
        ({"more_is_better": True, "consul": published(50), "goal": Times(2)}, 2.0, True),
        ({"more_is_better": True, "consul": published(40, 50), "goal": Times(2.1)}, 2.0, False),
        ({"consul": published(200, 300), "goal": Times(2)}, 2.0, True),
        ({"consul": published(50), "consul_samples": [300.0, 400.0, 500.0]}, 4.0, None),
        ({"goal": Times(2)}, None, None),
        ({"goal": Goal(100.0)}, None, True),
        ({"goal": Goal(100.0, worst=105.0)}, None, False),
        ({"more_is_better": True, "goal": Goal(101.0)}, None, False),
        ({"samples": [0.0], "consul": published(5.0)}, None, None),
    ],
)
def test_rows_are_judged(fields: dict[str, Any], ratio: float | None, reached: bool | None) -> None:
    """A ratio is how many times better, whichever way that is; a measured Consul comes before a
    published one; of a published range the end counts that is harder to beat.
    """
    row = _row(**fields)
    assert row.ratio == ratio
    assert row.reached is reached


def test_markdown_is_a_table_that_says_what_was_measured() -> None:
    """Every row has as many cells as the head; published figures are marked, missed goals too."""
    report = _report(
        _row(more_is_better=True, consul=published(500), goal=Times(2), note="a|b"),
        _row(
            name="told",
            unit="ms",
            consul_samples=[250.0],
            consul=published(9),
            others=0.25,
            load_average=1.5,
        ),
    )
    lines = [line for line in markdown(report).splitlines() if line.startswith("|")]
    cells = [line.replace("\\|", "/").count("|") for line in lines]
    assert cells == [cells[0]] * 4
    assert "500 published" in lines[2]
    assert "2 x Consul (missed)" in lines[2]
    assert "| 250 |" in lines[3]
    assert "published" not in lines[3]
    assert "1.5, 25%" in lines[3]


def test_terminal_table_shows_names_as_they_are() -> None:
    """Brackets in a note are no markup."""
    out = io.StringIO()
    show(_report(_row(note="[bold]x[/nonsense]")), Console(file=out, width=200))
    assert "[bold]x[/nonsense]" in out.getvalue()


def test_report_survives_its_file() -> None:
    """What was written with --json can be printed later."""
    report = _report(_row(goal=Times(2)), _row(goal=Goal(1.0, worst=2.0), consul=published(1, 2)))
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_table_takes_the_place_of_the_one_before() -> None:
    """The document around it stays; one without a place for it is refused."""
    document = f"# Performance\n{BEGIN}\nold\n{END}\nafter\n"
    once = put_into(document, "| new |\n")
    assert once == f"# Performance\n{BEGIN}\n\n| new |\n\n{END}\nafter\n"
    assert put_into(once, "| new |\n") == once
    with pytest.raises(ValueError, match="there is no"):
        put_into("# Performance\n", "")


def test_published_table_has_its_place() -> None:
    """`make bench ARGS="--into docs/performance.md"` finds it."""
    document = Path(__file__).parents[2] / "docs" / "performance.md"
    assert "| new |" in put_into(document.read_text(encoding="utf-8"), "| new |\n")
