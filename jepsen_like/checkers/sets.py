"""The set: elements are added, each once; what was acknowledged is there from then on.

Vocabulary:

* `add`: value int, unique in the run. OK acknowledged, FAIL definitely not added, INFO unknown.
* `read`: linearizable (default or consistent); result a list of ints in any order.

Rules: a read shows only what somebody added (and not what definitely failed), no element twice; it
shows every element whose add was acknowledged, or that another read had shown, before it began. The
workload reads at the end, when all adds are over (several times, on several servers): without such
a final read nothing is known about the last adds, and the verdict is UNKNOWN.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from jepsen_like.checkers.findings import Findings, completed, end_of, outcomes, value_of
from jepsen_like.checkers.verdict import Verdict
from jepsen_like.history import Event, MalformedHistory, Operation, Type, operations

#: Elements named in one message.
_NAMED_MAX = 8


class _Read:
    """An OK read: what it showed, and between which events it ran."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.completion = completed(operation)
        self.start = operation.invoke.index
        self.end = self.completion.index
        shown: list[int] = value_of(self.completion, list[int])
        self.shown = frozenset(shown)
        self.doubles = len(shown) - len(self.shown)


def check_set(events: Sequence[Event]) -> Verdict:
    """Checks a set; see the module for its vocabulary and rules.

    Raises:
        MalformedHistory: An element is added twice, or a value has another shape.
    """
    found = Findings("set")
    everything = operations(events)
    adds = _adds(everything)
    reads = sorted(
        (_Read(op) for op in everything if op.invoke.f == "read" and op.type is Type.OK),
        key=lambda read: read.end,
    )
    found.figures = outcomes(adds.values()) | {"reads": len(reads)}
    _check_shown(found, adds, reads, len(events))
    _check_missing(found, adds, reads)
    _say_unknown(found, adds, reads)
    return found.verdict()


def _adds(everything: Sequence[Operation]) -> dict[int, Operation]:
    adds: dict[int, Operation] = {}
    for operation in everything:
        if operation.invoke.f != "add":
            continue
        element: int = value_of(operation.invoke, int)
        if element in adds:
            raise MalformedHistory(f"event {operation.invoke.index}: {element} is added again")
        adds[element] = operation
    return adds


def _check_shown(
    found: Findings, adds: dict[int, Operation], reads: list[_Read], never: int
) -> None:
    """What a read shows was added, before the read was over."""
    begun = {
        element: add.invoke.index for element, add in adds.items() if add.type is not Type.FAIL
    }
    reported: set[int] = set()
    recovered: set[int] = set()
    for read in reads:
        if read.doubles:
            found.add("duplicate", f"a read shows {read.doubles} elements again", read.completion)
        for element in read.shown - reported:
            if begun.get(element, never) > read.end:
                reported.add(element)
                _report_phantom(found, adds.get(element), element, read)
            elif adds[element].type is Type.INFO:
                recovered.add(element)
    found.figures["recovered"] = len(recovered)


def _report_phantom(found: Findings, add: Operation | None, element: int, read: _Read) -> None:
    if add is None:
        found.add("phantom", f"a read shows {element}, which nobody added", read.completion)
    elif add.type is Type.FAIL:
        message = f"a read shows {element}, the add of which definitely failed"
        found.add("failed-add", message, add.completion, read.completion)
    else:
        message = f"a read shows {element} before its add began"
        found.add("phantom", message, add.invoke, read.completion)


def _check_missing(found: Findings, adds: dict[int, Operation], reads: list[_Read]) -> None:
    """A read shows all that was known to be there before it began."""
    proofs = _proofs(adds, reads)
    order = sorted(proofs, key=lambda element: proofs[element].index)
    known_at = [proofs[element].index for element in order]
    last = reads[-1].shown if reads else frozenset()
    lost: set[int] = set()
    for read in reads:
        due = bisect_left(known_at, read.start)
        known = read.shown & proofs.keys()
        there = sum(proofs[element].index < read.start for element in known)
        if there == due:
            continue
        missing = [element for element in order[:due] if element not in read.shown]
        for element in missing:
            if element not in last and element not in lost:
                lost.add(element)
                message = f"{element} was there for certain, then a read misses it for good"
                found.add(
                    "lost-element", message, proofs[element], read.operation.invoke, read.completion
                )
        late = [element for element in missing if element in last]
        if late:
            named = ", ".join(map(str, late[:_NAMED_MAX]))
            message = f"a read misses {len(late)} elements that were there: {named}"
            found.add(
                "stale-read", message, proofs[late[0]], read.operation.invoke, read.completion
            )


def _proofs(adds: dict[int, Operation], reads: list[_Read]) -> dict[int, Event]:
    """For each element that may be there, the first event after which it certainly is."""
    possible = {element for element, add in adds.items() if add.type is not Type.FAIL}
    proofs = {e: completed(add) for e, add in adds.items() if add.type is Type.OK}
    for read in reads:
        for element in read.shown & possible:
            if element not in proofs or proofs[element].index > read.end:
                proofs[element] = read.completion
    return proofs


def _say_unknown(found: Findings, adds: dict[int, Operation], reads: list[_Read]) -> None:
    ends = [end_of(add, -1) for add in adds.values() if add.type is Type.OK]
    if not ends:
        found.unknown("no add was acknowledged")
    elif not any(read.start > max(ends) for read in reads):
        found.unknown("nobody read after the last acknowledged add")
