"""What happens to calls, told as it happens: the closed union that metrics and logs are made of."""

from __future__ import annotations

import enum

import msgspec

from raftreg.mesh.breaker import Transition
from raftreg.mesh.nouns import Outcome, Reason
from raftreg.mesh.outlier import Ejection
from raftreg.mesh.retry import Stop


class Result(enum.Enum):
    """How a call ended."""

    ANSWERED = "answered"  #: with the answer of an instance, good or bad
    FELL_BACK = "fell-back"  #: with a fixed answer, or the last good one
    REFUSED = "refused"  #: by the mesh itself; the reason says why
    ABANDONED = "abandoned"  #: the caller left


class AttemptBegan(msgspec.Struct, frozen=True):
    """A request is sent."""

    upstream: str
    target: str
    instance: str
    number: int  #: 1 for the first attempt of a call


class AttemptEnded(msgspec.Struct, frozen=True):
    """It was answered or failed; `outcome` is None when the caller left before."""

    upstream: str
    target: str
    instance: str
    outcome: Outcome | None


class Repeated(msgspec.Struct, frozen=True):
    """A failed attempt will be repeated."""

    upstream: str
    wait_s: float


class NotRepeated(msgspec.Struct, frozen=True):
    """A failed attempt would be repeated, if something did not forbid it."""

    upstream: str
    why: Stop


class CallEnded(msgspec.Struct, frozen=True):
    """A call is over.

    Attributes:
        upstream: Service that was called.
        route: Rule that took it; "" when none did.
        source: Service that called.
        result: How it ended.
        reason: Why, when the mesh itself answered; None otherwise.
        status: What the caller got; 0 for nothing.
        attempts: Requests that were sent for it.
        duration_s: From its beginning to its end.
    """

    upstream: str
    route: str
    source: str
    result: Result
    reason: Reason | None
    status: int
    attempts: int
    duration_s: float


class BreakerChanged(msgspec.Struct, frozen=True):
    """A breaker changed its state; its name is in the transition."""

    upstream: str
    target: str
    transition: Transition


class Ejected(msgspec.Struct, frozen=True):
    """An instance is left out."""

    upstream: str
    target: str
    ejection: Ejection


class Returned(msgspec.Struct, frozen=True):
    """An instance is back."""

    upstream: str
    target: str
    instance: str


Event = (
    AttemptBegan
    | AttemptEnded
    | Repeated
    | NotRepeated
    | CallEnded
    | BreakerChanged
    | Ejected
    | Returned
)
