"""Draws the operations that show an anomaly, in the manner of Lamport's space-time diagrams.

A row a process, a bar an operation from its invocation to its completion. Horizontally there is
order, not duration: each event has a place of its own, further to the right than all that came
before it, with room for what is written in the bars. So whether one operation ended before another
began (the real-time order that linearizability is about) can be seen at a glance, also where
milliseconds and minutes meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from jepsen_like.checkers.verdict import Anomaly
from jepsen_like.history import Operation, Type
from jepsen_like.report import words
from jepsen_like.report.lanes import describe
from jepsen_like.report.survey import Survey, Window

ROW_HEIGHT: Final = 58.0
BAR_HEIGHT: Final = 42.0
TOP: Final = 30.0
LEFT: Final = 104.0
STEP: Final = 26.0  #: least distance of two events
CHAR_WIDTH: Final = 7.3
PADDING: Final = 14.0
TAIL: Final = 46.0  #: what an operation without known end reaches beyond the last event
TEXT_CHARS_MAX: Final = 44


class Box(msgspec.Struct, frozen=True):
    """One operation.

    Attributes:
        x, y, width: Where, in units of the drawing.
        outcome: "ok", "fail" or "info".
        first, second: The two lines of text in it.
        title: All about it.
        open: Its end is not known: it reaches to the right edge.
    """

    x: float
    y: float
    width: float
    outcome: str
    first: str
    second: str
    title: str
    open: bool


class Mark(msgspec.Struct, frozen=True):
    """A vertical line at an event, with its time where there is room."""

    x: float
    text: str


class Row(msgspec.Struct, frozen=True):
    """A process."""

    y: float
    text: str


class Step(msgspec.Struct, frozen=True):
    """An event as a line of the table below the drawing."""

    index: int
    time: str
    process: str
    type: str
    what: str
    node: str
    raft_index: str
    error: str


class Drawing(msgspec.Struct, frozen=True):
    """One anomaly.

    Attributes:
        number: From 1.
        checker, kind, message: What the checker said.
        width, height: Of the view box; 0 by 0 where there is nothing to draw.
        boxes, marks, rows: The drawing.
        steps: The same as a table.
        faults: The faults that were held meanwhile, in words.
        note: What is not drawn, in words.
    """

    number: int
    checker: str
    kind: str
    message: str
    width: float
    height: float
    boxes: list[Box]
    marks: list[Mark]
    rows: list[Row]
    steps: list[Step]
    faults: str
    note: str


def draw(number: int, checker: str, anomaly: Anomaly, survey: Survey) -> Drawing:
    """Lays an anomaly out.

    Args:
        number: Its number on the page.
        checker: Who found it.
        anomaly: What was found.
        survey: Holds the operations of its events.
    """
    found = {
        operation.invoke.index: operation
        for index in anomaly.events
        if (operation := survey.found.get(index)) is not None
    }
    chosen = [found[index] for index in sorted(found)]
    missing = sum(index not in survey.found for index in anomaly.events)
    places = _places(chosen)
    right = _right(chosen, places)
    processes = sorted({o.invoke.process for o in chosen})
    rows = {process: TOP + row * ROW_HEIGHT for row, process in enumerate(processes)}
    return Drawing(
        number=number,
        checker=checker,
        kind=anomaly.kind,
        message=anomaly.message,
        width=right + PADDING if chosen else 0.0,
        height=TOP + len(rows) * ROW_HEIGHT if chosen else 0.0,
        boxes=[_box(o, places, right, rows[o.invoke.process]) for o in chosen],
        marks=_marks(chosen, places),
        rows=[Row(y, f"process {process}") for process, y in rows.items()],
        steps=_steps(chosen),
        faults=_faults(chosen, survey),
        note=f"{words.counted(missing, 'event')} of it not drawn." if missing else "",
    )


def _texts(operation: Operation) -> tuple[str, str]:
    """What is done to what, and what came of it where."""
    invoke, completion = operation.invoke, operation.completion
    key = "" if invoke.key is None else f" {words.value(invoke.key, 16)}"
    first = f"{words.value(invoke.f, 16)}{key}"
    if invoke.value is not None:
        first += f" {words.value(invoke.value, 24)}"
    if completion is not None and operation.type is Type.OK and completion.value != invoke.value:
        first += f" → {words.value(completion.value, 26)}"
    return words.value(first, TEXT_CHARS_MAX), words.value(_second(operation), TEXT_CHARS_MAX)


def _second(operation: Operation) -> str:
    invoke, completion = operation.invoke, operation.completion
    parts = [operation.type.value if completion is not None else "never ended"]
    if node := (completion.node if completion is not None else None) or invoke.node:
        parts.append(words.value(node, 16))
    if operation.raft_index is not None:
        parts.append(f"index {operation.raft_index}")
    return " · ".join(parts)


def _places(chosen: Sequence[Operation]) -> dict[int, float]:
    """Where each event is: in order, and far enough from its partner for the bar's text."""
    events: list[tuple[int, Operation]] = []
    for operation in chosen:
        events.append((operation.invoke.index, operation))
        if operation.completion is not None:
            events.append((operation.completion.index, operation))
    places: dict[int, float] = {}
    x = LEFT - STEP
    for index, operation in sorted(events, key=lambda pair: pair[0]):
        x += STEP
        if index != operation.invoke.index:
            x = max(x, places[operation.invoke.index] + _text_width(operation))
        places[index] = x
    return places


def _text_width(operation: Operation) -> float:
    return max(map(len, _texts(operation))) * CHAR_WIDTH + PADDING


def _right(chosen: Sequence[Operation], places: dict[int, float]) -> float:
    """The right edge: behind all events and all texts of operations without known end."""
    texts = (places[o.invoke.index] + _text_width(o) for o in chosen if o.type is Type.INFO)
    return max([0.0, *places.values(), *texts]) + TAIL


def _box(operation: Operation, places: dict[int, float], right: float, y: float) -> Box:
    first, second = _texts(operation)
    start = places[operation.invoke.index]
    completion = operation.completion
    known = operation.type is not Type.INFO
    stop = places[completion.index] if known and completion is not None else right
    return Box(
        x=start,
        y=y,
        width=stop - start,
        outcome=operation.type.value,
        first=first,
        second=second,
        title=describe(operation),
        open=not known,
    )


def _marks(chosen: Sequence[Operation], places: dict[int, float]) -> list[Mark]:
    times = {o.invoke.index: o.invoke.time_ns for o in chosen}
    times |= {o.completion.index: o.completion.time_ns for o in chosen if o.completion is not None}
    marks: list[Mark] = []
    free_from = 0.0
    for index, x in places.items():
        text = words.moment(times[index])
        if x < free_from:
            text = ""
        else:
            free_from = x + len(text) * CHAR_WIDTH + 4
        marks.append(Mark(x, text))
    return marks


def _steps(chosen: Sequence[Operation]) -> list[Step]:
    events = [event for o in chosen for event in (o.invoke, o.completion) if event is not None]
    return [
        Step(
            index=event.index,
            time=words.moment(event.time_ns),
            process=str(event.process),
            type=event.type.value,
            what=" ".join(
                words.value(part, 160)
                for part in (event.f, event.key, event.value)
                if part is not None
            ),
            node=words.value(event.node or "", 40),
            raft_index="" if event.raft_index is None else str(event.raft_index),
            error=words.value(event.error or "", 160),
        )
        for event in sorted(events, key=lambda event: event.index)
    ]


def _faults(chosen: Sequence[Operation], survey: Survey) -> str:
    if not chosen:
        return ""
    start = min(o.invoke.time_ns for o in chosen)
    stop = max(survey.end_ns if o.completion is None else o.completion.time_ns for o in chosen)
    meanwhile = [_named(w) for w in survey.windows if _overlap(w, start, stop)]
    shown = ", ".join(meanwhile[:6])
    return f"{shown} and {len(meanwhile) - 6} more" if len(meanwhile) > 6 else shown


def _named(window: Window) -> str:
    stop = "the end" if window.stop_ns is None else words.moment(window.stop_ns)
    return f"{window.number} {window.fault} ({words.moment(window.start_ns)} to {stop})"


def _overlap(window: Window, start_ns: int, stop_ns: int) -> bool:
    return window.start_ns <= stop_ns and (window.stop_ns is None or window.stop_ns >= start_ns)
