"""What a checker says."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jepsen_like.history import Event


class Valid(enum.Enum):
    """Whether the history is what it should be. UNKNOWN is a failure, too."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class Anomaly(msgspec.Struct, frozen=True):
    """One thing that must not be.

    Attributes:
        kind: Short name of the kind, such as "lost-write", "G1c", "not-linearizable".
        message: What happened, in a sentence with names and values.
        events: Indexes of the events that show it, as few as possible, ascending.
    """

    kind: str
    message: str
    events: tuple[int, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """The result of one checker over one history.

    Attributes:
        checker: Its name.
        valid: The verdict.
        anomalies: Why it is FALSE; at most 100.
        why_unknown: Why it is UNKNOWN (nothing was acknowledged, or the budget ran out).
        figures: Counts worth showing ("operations", "acknowledged", "lost", …).
    """

    checker: str
    valid: Valid
    anomalies: tuple[Anomaly, ...] = ()
    why_unknown: str = ""
    figures: dict[str, Any] = {}


Checker = Callable[[Sequence[Event]], Verdict]
