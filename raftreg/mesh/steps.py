"""What is to be done for a call next: the closed union that the shells of the mesh carry out."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from raftreg.mesh.fault import Bandwidth
from raftreg.mesh.last_good import Answer
from raftreg.mesh.nouns import Instance, Reason
from raftreg.mesh.route import Routed, Target


class Send(msgspec.Struct, frozen=True):
    """Send the request, then tell `Passage.finished` what became of it.

    Attributes:
        instance: Where to.
        target: What the instance stands for: its name in TLS, the time to connect.
        routed: What is changed on the way.
        number: 1 for the first attempt.
        timeout_s: Seconds to the head of the answer; infinite when there is no limit.
        deadline_s: When the whole call must have ended, in monotonic seconds; may be infinite.
        bandwidth: The answer trickles, on purpose; None: as fast as it comes.
    """

    instance: Instance
    target: Target
    routed: Routed
    number: int
    timeout_s: float
    deadline_s: float
    bandwidth: Bandwidth | None = None


class WaitFor(enum.Enum):
    """What a call waits for."""

    PLACE = "place"  #: in the bulkhead: the passage's `wake` is called when there is one
    REPEAT = "repeat"  #: before the next attempt
    FAULT = "fault"  #: on purpose


class Wait(msgspec.Struct, frozen=True):
    """Wait, then ask `Passage.resume`; earlier if woken.

    Attributes:
        what: What for.
        until_s: Until when, in monotonic seconds.
    """

    what: WaitFor
    until_s: float


class Refusal(msgspec.Struct, frozen=True):
    """The mesh answers itself. The call is over.

    Attributes:
        reason: Why.
        status: HTTP status; 0: the connection is reset.
        retry_after_s: When another try may do better; 0 when nobody knows.
        detail: More of why, for people and metrics; of bounded variety.
    """

    reason: Reason
    status: int
    retry_after_s: float = 0.0
    detail: str = ""


class Done(msgspec.Struct, frozen=True):
    """Pass the answer on, with the route's changes to its headers; then tell `Passage.close`.

    Attributes:
        routed: What is changed on the way.
        bandwidth: It trickles, on purpose; None: as fast as it comes.
    """

    routed: Routed
    bandwidth: Bandwidth | None = None


class Substitute(msgspec.Struct, frozen=True):
    """Give the caller this answer instead of one of the upstream. The call is over.

    Attributes:
        answer: A fixed one, or the last good one; it is marked as such.
        reason: Why.
    """

    answer: Answer
    reason: Reason


Step = Send | Wait | Refusal | Substitute | Done

#: Statuses of answers that the mesh gives itself; those of faults are their own.
STATUSES: Final[Mapping[Reason, int]] = {
    Reason.NO_ROUTE: 404,
    Reason.NO_INSTANCE: 503,
    Reason.CIRCUIT_OPEN: 503,
    Reason.OVERLOAD: 503,
    Reason.RATE_LIMIT: 429,
    Reason.DEADLINE: 504,
    Reason.DENIED: 403,
    Reason.UPSTREAM_FAILED: 502,
    Reason.BAD_REQUEST: 400,
}
