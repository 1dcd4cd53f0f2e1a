"""One pass over a history: all that the report shows of it, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import msgspec

from jepsen_like.history import NEMESIS, Event, Operation, Type
from jepsen_like.report.bins import OUTCOMES, Latencies, TimeBins

BARS_MAX = 2_000  #: operations in the timeline, of those that were acknowledged; as many others
WINDOWS_MAX = 1_000
NOTES_MAX = 200
KINDS_MAX = 100
ERRORS_MAX = 200
TEXT_MAX = 160
OPEN_MAX = 100_000

_T = TypeVar("_T")


class Thinned(Generic[_T]):
    """One in `stride` of what it is given; the stride doubles whenever the limit is passed.

    Which ones is decided by a hash of their number (Knuth's multiplicative one), so that no rhythm
    in the input shows in the sample.

    Args:
        limit: How many are kept at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen = 0
        self._kept: list[tuple[int, _T]] = []
        self.stride = 1

    @property
    def kept(self) -> list[_T]:
        """The sample, in the order in which it was given."""
        return [item for _, item in self._kept]

    def add(self, item: _T) -> None:
        """Keeps it, or not."""
        mixed = (self._seen * 2_654_435_761 & 0xFFFF_FFFF) >> 8
        self._seen += 1
        if mixed % self.stride:
            return
        self._kept.append((mixed, item))
        while len(self._kept) > self._limit:
            self.stride *= 2
            self._kept = [pair for pair in self._kept if pair[0] % self.stride == 0]


class Window(msgspec.Struct):
    """One fault from its injection to its healing.

    Attributes:
        number: From 1, in the order of injection.
        fault: Its name.
        start_ns, stop_ns: When; stop is None where the history ends before.
        injected: What the nemesis said when it began.
        healed: What it said when it ended.
    """

    number: int
    fault: str
    start_ns: int
    stop_ns: int | None = None
    injected: object = None
    healed: object = None


class Note(msgspec.Struct, frozen=True):
    """Something else that the runner noted: a phase, a process that died, an interruption."""

    time_ns: int
    what: str
    value: object = None
    error: str | None = None


class Kind:
    """Operations of one f.

    Attributes:
        ended: How many, in the order of `OUTCOMES`.
        latencies: Of those that were acknowledged.
    """

    def __init__(self) -> None:
        self.ended = [0, 0, 0]
        self.latencies = Latencies()


class Survey:
    """What a history shows.

    Args:
        wanted: Indexes of the events whose operations must be kept whole.

    Attributes:
        events: How many there were.
        end_ns: Time of the last one.
        bins: Operations over time.
        kinds: By f; beyond `KINDS_MAX` names, all others are "(others)".
        errors: How often each (f, outcome, text) was given.
        windows: The faults; `windows_left_out` more came after them.
        notes: What else the runner noted; at most `NOTES_MAX`.
        acknowledged, others: Samples for the timeline: what was OK, and what was not.
        found: Operations by the wanted indexes.
        never_ended: Operations without completion.
        processes: Highest number of a process, and 1.
    """

    def __init__(self, wanted: Iterable[int] = ()) -> None:
        self._wanted = frozenset(wanted)
        self._open: dict[int, Event] = {}
        self._open_windows: dict[str, Window] = {}
        self.events = 0
        self.end_ns = 0
        self.bins = TimeBins()
        self.latencies = Latencies()
        self.kinds: dict[str, Kind] = {}
        self.errors: dict[tuple[str, Type, str], int] = {}
        self.windows: list[Window] = []
        self.windows_left_out = 0
        self.notes: list[Note] = []
        self.acknowledged: Thinned[Operation] = Thinned(BARS_MAX)
        self.others: Thinned[Operation] = Thinned(BARS_MAX)
        self.found: dict[int, Operation] = {}
        self.never_ended = 0
        self.processes = 0

    @property
    def ended(self) -> list[int]:
        """Operations in the order of `OUTCOMES`."""
        return [sum(kind.ended[place] for kind in self.kinds.values()) for place in range(3)]

    def take(self, events: Iterable[Event]) -> None:
        """Reads events in order. What `events` raises passes; what came before is kept."""
        for event in events:
            self.events += 1
            self.end_ns = max(self.end_ns, event.time_ns)
            if event.process == NEMESIS:
                self._nemesis(event)
            elif event.type is Type.INVOKE:
                self._invoked(event)
            else:
                self._completed(event)

    def finish(self) -> None:
        """Counts what never ended. Call it once, after the last event."""
        for invoke in self._open.values():
            self.never_ended += 1
            self._count(Operation(invoke, None))
        self._open.clear()

    def _invoked(self, event: Event) -> None:
        self.processes = max(self.processes, event.process + 1)
        left = self._open.pop(event.process, None)
        if left is not None:  # no history may hold it; the report shows what is there
            self.never_ended += 1
            self._count(Operation(left, None))
        if len(self._open) < OPEN_MAX:
            self._open[event.process] = event

    def _completed(self, event: Event) -> None:
        invoke = self._open.pop(event.process, None)
        if invoke is None:
            return
        self.bins.add(invoke.time_ns, event.time_ns, event.type)
        self._count(Operation(invoke, event))

    def _count(self, operation: Operation) -> None:
        outcome = operation.type
        kind = self._kind(operation.invoke.f)
        kind.ended[OUTCOMES.index(outcome)] += 1
        completion = operation.completion
        if outcome is Type.OK and completion is not None:
            latency_ns = completion.time_ns - operation.invoke.time_ns
            kind.latencies.add(latency_ns)
            self.latencies.add(latency_ns)
            self.acknowledged.add(operation)
        else:
            self.others.add(operation)
            self._note_error(operation)
        self._keep(operation)

    def _kind(self, f: str) -> Kind:
        name = f[:TEXT_MAX]
        if name not in self.kinds and len(self.kinds) >= KINDS_MAX:
            name = "(others)"
        return self.kinds.setdefault(name, Kind())

    def _note_error(self, operation: Operation) -> None:
        completion = operation.completion
        text = "never ended" if completion is None else (completion.error or "(no reason given)")
        key = (operation.invoke.f[:TEXT_MAX], operation.type, text[:TEXT_MAX])
        if key in self.errors or len(self.errors) < ERRORS_MAX:
            self.errors[key] = self.errors.get(key, 0) + 1

    def _keep(self, operation: Operation) -> None:
        for event in (operation.invoke, operation.completion):
            if event is not None and event.index in self._wanted:
                self.found[event.index] = operation

    def _nemesis(self, event: Event) -> None:
        begins, _, fault = event.f.partition("-")
        if begins == "start":
            self._begin_window(fault, event)
        elif begins == "stop" and (window := self._open_windows.pop(fault, None)) is not None:
            window.stop_ns = event.time_ns
            window.healed = event.value
        elif begins not in {"start", "stop"} and len(self.notes) < NOTES_MAX:
            self.notes.append(Note(event.time_ns, event.f, event.value, event.error))

    def _begin_window(self, fault: str, event: Event) -> None:
        if fault in self._open_windows:
            self._open_windows[fault].injected = event.value  # the same injection, now with facts
            return
        if len(self.windows) >= WINDOWS_MAX:
            self.windows_left_out += 1
            return
        window = Window(len(self.windows) + 1, fault, event.time_ns, injected=event.value)
        self.windows.append(window)
        self._open_windows[fault] = window
