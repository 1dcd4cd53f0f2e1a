"""The timeline: a bar an operation, a row a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from jepsen_like.history import Operation, Type
from jepsen_like.report import words
from jepsen_like.report.axis import DRAWN_WINDOWS_MAX
from jepsen_like.report.survey import Survey

ROWS_MAX: Final = 64
ROW_HEIGHT: Final = 15
#: Of the whole timeline's width: narrower bars are widened to this, so that they are seen.
NARROWEST: Final = 1 / 900
#: (offset in the row, height): outcomes can be told apart without colour.
_SHAPES: Final = {Type.OK: (2, 11), Type.FAIL: (6, 4), Type.INFO: (2, 11)}
_MS: Final = 1_000_000
TITLE_CHARS_MAX: Final = 160


class Bar(msgspec.Struct, frozen=True):
    """An operation: x and widths in milliseconds, y in rows' units.

    Attributes:
        x, y, height: Where.
        width: As drawn when nothing is zoomed.
        true_width: What it really took.
        outcome: "ok", "fail" or "info".
        title: All about it.
    """

    x: float
    y: int
    width: float
    true_width: float
    height: int
    outcome: str
    title: str


class Stripe(msgspec.Struct, frozen=True):
    """A fault behind the bars, in milliseconds."""

    x: float
    width: float
    title: str


class Lanes(msgspec.Struct, frozen=True):
    """The whole timeline.

    Attributes:
        span: Its width in milliseconds (of hours, microseconds are too large for browsers).
        height: In units of which `ROW_HEIGHT` are a row.
        rows: The label of each row.
        bars, stripes: What is drawn.
        note: What was left out, in a sentence; "" for nothing.
    """

    span: float
    height: int
    rows: list[str]
    bars: list[Bar]
    stripes: list[Stripe]
    note: str


def lanes(survey: Survey, concurrency: int | None) -> Lanes:
    """Lays the timeline out.

    Args:
        survey: Holds the sample of operations that is drawn.
        concurrency: How many workers there were. After an unknown outcome a worker goes on under
            its process number plus this; None: not known.
    """
    chosen = sorted(
        {o.invoke.index: o for o in _sample(survey)}.values(), key=lambda o: o.invoke.index
    )
    rows = min(concurrency or survey.processes or 1, ROWS_MAX)
    span = max(survey.end_ns / _MS, 1.0)
    return Lanes(
        span=span,
        height=rows * ROW_HEIGHT,
        rows=[str(row) for row in range(rows)],
        bars=[_bar(o, o.invoke.process % (concurrency or rows) % rows, span) for o in chosen],
        stripes=list(_stripes(survey, span)),
        note=_note(survey, rows, concurrency),
    )


def _sample(survey: Survey) -> Iterator[Operation]:
    yield from survey.acknowledged.kept
    yield from survey.others.kept
    yield from survey.found.values()


def _bar(operation: Operation, row: int, span: float) -> Bar:
    start = max(operation.invoke.time_ns, 0) / _MS
    completion = operation.completion
    stop = span if completion is None else max(completion.time_ns / _MS, start)
    offset, height = _SHAPES[operation.type]
    return Bar(
        x=round(start, 3),
        y=row * ROW_HEIGHT + offset,
        width=round(max(stop - start, span * NARROWEST), 3),
        true_width=round(stop - start, 3),
        height=height,
        outcome=operation.type.value,
        title=words.value(describe(operation), TITLE_CHARS_MAX),
    )


def describe(operation: Operation) -> str:
    """An operation in a line: process, f, key, values, node, index, times."""
    invoke, completion = operation.invoke, operation.completion
    parts = [f"process {invoke.process}: {words.value(invoke.f, 40)}"]
    if invoke.key is not None:
        parts.append(words.value(invoke.key, 40))
    if invoke.value is not None:
        parts.append(words.value(invoke.value, 60))
    parts.append(f"→ {operation.type.value}")
    if completion is None:
        parts.append("(never ended)")
    else:
        parts += _ending(operation)
    return " ".join(parts)


def _ending(operation: Operation) -> Iterator[str]:
    invoke, completion = operation.invoke, operation.completion
    assert completion is not None
    if completion.value is not None and completion.value != invoke.value:
        yield words.value(completion.value, 80)
    if (node := completion.node or invoke.node) is not None:
        yield f"at {words.value(node, 30)}"
    if completion.raft_index is not None:
        yield f"index {completion.raft_index}"
    if completion.error:
        yield f"({words.value(completion.error, 100)})"
    yield f"· {words.moment(invoke.time_ns)}, {words.duration(completion.time_ns - invoke.time_ns)}"


def _stripes(survey: Survey, span: float) -> Iterator[Stripe]:
    for window in survey.windows[:DRAWN_WINDOWS_MAX]:
        stop = span if window.stop_ns is None else window.stop_ns / _MS
        start = window.start_ns / _MS
        yield Stripe(
            round(start, 3), round(max(stop - start, 1.0), 3), f"{window.number} {window.fault}"
        )


def _note(survey: Survey, rows: int, concurrency: int | None) -> str:
    parts = []
    for sample, what in ((survey.acknowledged, "acknowledged"), (survey.others, "other")):
        if sample.stride > 1:
            parts.append(f"one in {sample.stride} of the {what} operations")
    note = f"Drawn are {' and '.join(parts)}." if parts else ""
    if (concurrency or survey.processes) > rows:
        note += f" A row holds every {rows}th worker."
    return note.strip()
