"""What the checkers share: gathering anomalies, reading values, the times of faults."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from jepsen_like.checkers.verdict import Anomaly, Valid, Verdict
from jepsen_like.history import NEMESIS, Event, MalformedHistory, Operation, Type

ANOMALIES_MAX: Final = 100
#: A registry that was just healed elects and catches up; what is slow then is no anomaly.
RECOVERY_S: Final = 10.0
_NS: Final = 1_000_000_000


class Findings:
    """Anomalies as they are found: the first hundred whole, the others counted.

    Args:
        checker: Name of the checker.
    """

    def __init__(self, checker: str) -> None:
        self._checker = checker
        self._anomalies: list[Anomaly] = []
        self._unknown: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.figures: dict[str, Any] = {}

    def add(self, kind: str, message: str, *events: Event | None) -> None:
        """Notes an anomaly.

        Args:
            kind: Its kind.
            message: What happened, with names and values.
            events: Those that show it; None is left out.
        """
        self.kinds[kind] += 1
        if len(self._anomalies) < ANOMALIES_MAX:
            shown = sorted({event.index for event in events if event is not None})
            self._anomalies.append(Anomaly(kind, message, tuple(shown)))

    def unknown(self, why: str) -> None:
        """Notes why the history can't show that all is well."""
        self._unknown.append(why)

    def verdict(self) -> Verdict:
        """FALSE with an anomaly; else UNKNOWN with a reason for that; else TRUE."""
        valid = Valid.UNKNOWN if self._unknown else Valid.TRUE
        if self._anomalies:
            valid = Valid.FALSE
        return Verdict(
            checker=self._checker,
            valid=valid,
            anomalies=tuple(self._anomalies),
            why_unknown="; ".join(self._unknown) if valid is Valid.UNKNOWN else "",
            figures={**self.figures, **self.kinds},
        )


def outcomes(found: Iterable[Operation]) -> dict[str, int]:
    """Counts operations by outcome, as figures."""
    counts = Counter(operation.type for operation in found)
    return {
        "operations": counts.total(),
        "acknowledged": counts[Type.OK],
        "failed": counts[Type.FAIL],
        "unknown": counts[Type.INFO],
    }


def malformed(event: Event, what: str) -> MalformedHistory:
    """An error about the value of an event."""
    return MalformedHistory(f"event {event.index}: {event.f}: {what}")


def value_of(event: Event, type_: Any) -> Any:
    """Gives the value of an event as a type.

    Args:
        event: The event.
        type_: Any type that msgspec converts to.

    Raises:
        MalformedHistory: It does not fit; the text names the event.
    """
    try:
        return msgspec.convert(event.value, type_)
    except msgspec.ValidationError as error:
        raise malformed(event, str(error)) from error


def key_of(event: Event) -> str:
    """Gives the key of an event.

    Raises:
        MalformedHistory: It has none.
    """
    if event.key is None:
        raise malformed(event, "the key is missing")
    return event.key


def completed(operation: Operation) -> Event:
    """The completion of an operation that has one."""
    assert operation.completion is not None
    return operation.completion


def end_of(operation: Operation, never: int) -> int:
    """Index of the completion of an operation, `never` when its outcome is unknown."""
    completion = operation.completion
    return never if completion is None or completion.type is Type.INFO else completion.index


class Fault:
    """A fault while it was active.

    Attributes:
        name: Its name.
        start_ns, end_ns: From when to when; the end of the history for one that was never healed.
        facts: The values of its events.
    """

    def __init__(self, name: str, start_ns: int, facts: Any) -> None:
        self.name = name
        self.start_ns = start_ns
        self.end_ns: int | None = None
        self.facts = [facts]

    def names(self, host: str) -> bool:
        """Tells whether its facts speak of a host."""
        return _mentions(self.facts, host)


def _mentions(value: Any, name: str) -> bool:
    if isinstance(value, dict):
        return any(_mentions(part, name) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return any(_mentions(part, name) for part in value)
    return bool(value == name)


class Faults:
    """The faults of a history: `start-<fault>` and `stop-<fault>` by the nemesis.

    Args:
        events: The history.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.all: list[Fault] = []
        #: When the nemesis last injected or healed something; 0 when it never did.
        self.last_ns = 0
        open_faults: dict[str, Fault] = {}
        for event in events:
            if event.process == NEMESIS:
                self._note(event, open_faults)
        self._ends = self._longest_ends()

    def _note(self, event: Event, open_faults: dict[str, Fault]) -> None:
        act, _, name = event.f.partition("-")
        if act in {"start", "stop"}:  # the rest are notes of the runner
            self.last_ns = event.time_ns
        if act == "start" and name in open_faults:
            open_faults[name].facts.append(event.value)  # it is in force now
        elif act == "start":
            open_faults[name] = Fault(name, event.time_ns, event.value)
            self.all.append(open_faults[name])
        elif act == "stop" and name in open_faults:
            fault = open_faults.pop(name)
            fault.end_ns = event.time_ns
            fault.facts.append(event.value)

    def _longest_ends(self) -> list[float]:
        """For each fault, the latest end among it and those that began before."""
        latest, ends = 0.0, []
        for fault in self.all:
            latest = max(latest, float("inf") if fault.end_ns is None else fault.end_ns)
            ends.append(latest)
        return ends

    def quiet(self, start_ns: int, end_ns: int) -> bool:
        """Tells whether no fault was active in a time, nor shortly before it."""
        begun = bisect_right(self.all, end_ns, key=lambda fault: fault.start_ns)
        return not begun or self._ends[begun - 1] + RECOVERY_S * _NS < start_ns

    def hit(self, host: str, start_ns: int, end_ns: int) -> bool:
        """Tells whether a fault that names a host was active in a time, or shortly before it."""
        slack_ns = int(RECOVERY_S * _NS)
        return any(
            fault.start_ns <= end_ns
            and (fault.end_ns is None or fault.end_ns + slack_ns >= start_ns)
            and fault.names(host)
            for fault in self.all
        )


def settled_ns(events: Sequence[Event], changes: Iterable[Operation], settle_s: float) -> int:
    """From when on a registry must have settled: some time after the last fault and change.

    Args:
        events: The history.
        changes: The operations that change something; the end of those that never end is unknown,
            so their beginning counts.
        settle_s: How long it may take.
    """
    last_ns = Faults(events).last_ns
    for change in changes:
        last_ns = max(last_ns, (change.completion or change.invoke).time_ns)
    return last_ns + int(settle_s * _NS)
