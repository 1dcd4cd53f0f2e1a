"""Bulkhead: so many calls of an upstream at one time, so many waiting, and no more.

A slow upstream fills its own compartment and leaves the others dry (M. Nygard, Release It!, 2nd
ed., ch. 5). Who finds no room waits in a bounded queue for a bounded time; who finds that full is
refused at once. The queue is first come, first served; with `lifo_above` set, it turns round under
overload (adaptive LIFO; B. Maurer, "Fail at Scale", ACM Queue 13:8, 2015): then the newest is
served, whose caller still listens, and the oldest run out of time.

No timer is in here: whoever waits on a ticket waits until `until_s`, and then gives up.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict

import msgspec

from raftreg.mesh.adaptive import AdaptiveLimit, AdaptiveSettings, Sample
from raftreg.mesh.checked import within


class Stage(enum.Enum):
    """Where a call stands."""

    ADMITTED = "admitted"
    WAITING = "waiting"
    REFUSED = "refused"
    LEFT = "left"


class Overload(enum.Enum):
    """Why a call was refused: the detail of the reason `overload`."""

    QUEUE_FULL = "queue-full"
    WAITED_TOO_LONG = "waited-too-long"


class BulkheadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls an upstream may hold.

    Attributes:
        concurrent_max: Calls under way at one time, unless the limit finds itself.
        queue_max: Calls that wait; 0: none does.
        wait_s_max: How long one waits at most.
        lifo_above: Calls waiting above which the newest goes first; 0: never.
        adaptive: How the limit finds itself; None: it is `concurrent_max`.

    Raises:
        MeshConfigError: A value is out of bounds.
    """

    concurrent_max: int = 1024
    queue_max: int = 128
    wait_s_max: float = 1.0
    lifo_above: int = 0
    adaptive: AdaptiveSettings | None = None

    def __post_init__(self) -> None:
        """Checks each value."""
        within("concurrent_max", self.concurrent_max, 1, 100_000)
        within("queue_max", self.queue_max, 0, 100_000)
        within("wait_s_max", self.wait_s_max, 0, 3600)
        within("lifo_above", self.lifo_above, 0, self.queue_max)


class Ticket:
    """The place of one call in a bulkhead.

    Attributes:
        stage: Where it stands.
        overload: Why it was refused.
        until_s: Until when it may wait.
        since_s: When it came, and from its admission on, when it was admitted.
    """

    __slots__ = ("overload", "since_s", "stage", "until_s")

    def __init__(self, stage: Stage, since_s: float, until_s: float) -> None:
        self.stage = stage
        self.overload: Overload | None = None
        self.since_s = since_s
        self.until_s = until_s


class Bulkhead:
    """The compartment of one upstream. Every ticket that was not refused is handed back by `leave`.

    Args:
        settings: Its size.
    """

    __slots__ = ("_adaptive", "_limit", "_queue", "in_flight", "settings")

    def __init__(self, settings: BulkheadSettings) -> None:
        self.settings = settings
        self.in_flight = 0
        self._queue: OrderedDict[Ticket, None] = OrderedDict()
        self._limit = settings.concurrent_max
        self._adaptive: AdaptiveLimit | None = None
        if settings.adaptive is not None:
            self._adaptive = AdaptiveLimit(settings.adaptive)
            self._limit = self._adaptive.limit

    @property
    def limit(self) -> int:
        """Calls that may be under way now."""
        return self._limit

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._queue)

    def enter(self, now_s: float, deadline_s: float = math.inf) -> Ticket:
        """Asks for a place.

        Args:
            now_s: Monotonic seconds.
            deadline_s: When the call itself is out of time: it does not wait longer.

        Returns:
            A ticket that is admitted, waiting or refused.
        """
        if self.in_flight < self._limit and not self._queue:
            self.in_flight += 1
            return Ticket(Stage.ADMITTED, now_s, now_s)
        until_s = min(deadline_s, now_s + self.settings.wait_s_max)
        ticket = Ticket(Stage.WAITING, now_s, until_s)
        if len(self._queue) >= self.settings.queue_max:
            _refuse(ticket, Overload.QUEUE_FULL)
        elif until_s <= now_s:
            _refuse(ticket, Overload.WAITED_TOO_LONG)
        else:
            self._queue[ticket] = None
        return ticket

    def give_up(self, ticket: Ticket) -> bool:
        """Takes a ticket out of the queue: its time is up.

        Returns:
            True when it was waiting and is refused now; False when it was admitted meanwhile (then
            the call may go on, or must leave), refused or gone.
        """
        if ticket.stage is not Stage.WAITING:
            return False
        del self._queue[ticket]
        _refuse(ticket, Overload.WAITED_TOO_LONG)
        return True

    def leave(self, ticket: Ticket, sample: Sample, now_s: float) -> list[Ticket]:
        """Gives a place back, whether it was taken or only waited for; again is harmless.

        Args:
            ticket: Of the call that ended.
            sample: What it tells about the capacity, for a limit that finds itself.
            now_s: Monotonic seconds.

        Returns:
            Tickets that waited and wait no longer: admitted, or refused as out of time.
        """
        stage, ticket.stage = ticket.stage, Stage.LEFT
        if stage is Stage.WAITING:
            del self._queue[ticket]
        if stage is not Stage.ADMITTED:
            return []
        if self._adaptive is not None:
            self._adaptive.observe(sample, now_s - ticket.since_s, self.in_flight, now_s)
            self._limit = self._adaptive.limit
        self.in_flight -= 1
        return self._admit_waiting(now_s) if self._queue else []

    def _admit_waiting(self, now_s: float) -> list[Ticket]:
        """Fills free places from the queue; those out of time are refused on the way."""
        called: list[Ticket] = []
        while self._queue and self.in_flight < self._limit:
            newest = 0 < self.settings.lifo_above < len(self._queue)
            ticket, _ = self._queue.popitem(last=newest)
            if ticket.until_s <= now_s:
                _refuse(ticket, Overload.WAITED_TOO_LONG)
            else:
                ticket.stage = Stage.ADMITTED
                ticket.since_s = now_s
                self.in_flight += 1
            called.append(ticket)
        return called


def _refuse(ticket: Ticket, overload: Overload) -> None:
    ticket.stage = Stage.REFUSED
    ticket.overload = overload
