"""Unique ids: no id is given twice.

Vocabulary: `generate`, the OK completion's value is the id (int or text), drawn by one transaction
or check-and-set. FAIL: none was given. INFO: unknown, so its id may be missing for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from jepsen_like.checkers.findings import Findings, completed, malformed, outcomes
from jepsen_like.checkers.verdict import Verdict
from jepsen_like.history import Event, Type, operations


def check_unique(events: Sequence[Event]) -> Verdict:
    """Checks ids; see the module for vocabulary and rules.

    Raises:
        MalformedHistory: An id is neither an int nor a text.
    """
    found = Findings("unique")
    generated = [op for op in operations(events) if op.invoke.f == "generate"]
    found.figures = outcomes(generated)
    first: dict[int | str, Event] = {}
    for operation in generated:
        if operation.type is not Type.OK:
            continue
        completion = completed(operation)
        identity = completion.value
        if isinstance(identity, bool) or not isinstance(identity, int | str):
            raise malformed(completion, f"an id is an int or a text, not {identity!r}")
        if identity in first:
            message = f"{identity!r} was given twice"
            found.add("id-twice", message, first[identity], completion)
        else:
            first[identity] = completion
    if not first:
        found.unknown("no id was given")
    return found.verdict()
