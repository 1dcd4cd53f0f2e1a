"""Reads on the short way: at once, after a confirmation, or when something changes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from raftreg.errors import RaftregError
from raftreg.http.discovery import blocking_index
from raftreg.http.middleware import RequestMeter
from raftreg.http.params import Consistency, ReadOptions
from raftreg.http.watch import ALL, Topic, WatchHub
from raftreg.http.wire.answers import Answer, DateLine, refusal
from raftreg.http.wire.gate import ReadGate
from raftreg.http.wire.road import Caller

_log = structlog.get_logger(__name__)

#: Answers to woken queries that are written in one turn of the loop.
WOKEN_IN_A_TURN_MAX: Final = 2000


class Woken(Protocol):
    """A blocked query of which something has changed."""

    def look(self) -> None:
        """Looks whether it has its answer, when all of the change is there."""
        ...


class ReadDesk:
    """What the short reads of one process share.

    Args:
        hub: Wakes blocking queries.
        meter: Counts answers.
        now: Monotonic seconds.
        jitter: A random share in [0, 1), to spread the ends of waits.
        gate: Confirms that the state is new enough; None for a view, which says how old it is.
    """

    def __init__(
        self,
        hub: WatchHub,
        meter: RequestMeter,
        now: Callable[[], float],
        jitter: Callable[[], float],
        gate: ReadGate | None = None,
    ) -> None:
        self.hub = hub
        self.meter = meter
        self.now = now
        self.jitter = jitter
        self.gate = gate
        self.dates = DateLine()
        self._woken: list[Woken] = []

    def wake(self, woken: Woken) -> None:
        """Lets a blocked query look soon; all that were woken in one pass."""
        if not self._woken:
            asyncio.get_running_loop().call_soon(self._look)
        self._woken.append(woken)

    def _look(self) -> None:
        woken, self._woken = self._woken, []
        rest = woken[WOKEN_IN_A_TURN_MAX:]
        if rest:
            self._woken = rest
            asyncio.get_running_loop().call_soon(self._look)
        for blocked in woken[:WOKEN_IN_A_TURN_MAX]:
            try:
                blocked.look()
            except Exception:  # noqa: BLE001 - one's fault must not take the others' answers
                _log.exception("short_way_failed")


class ReadRoute(ABC):
    """One read, as a request line asks for it.

    Args:
        desk: What it shares with others.
        label: Path pattern, for the figures.
        options: Its options.
        topics: What its answer depends on.
    """

    __slots__ = ("_desk", "_label", "_options", "topics")

    def __init__(
        self, desk: ReadDesk, label: str, options: ReadOptions, topics: tuple[Topic, ...]
    ) -> None:
        self._desk = desk
        self._label = label
        self._options = options
        self.topics = (*topics, (ALL, ""))

    @abstractmethod
    def index(self) -> int:
        """Index of what the query covers, now."""

    @abstractmethod
    def newest(self) -> int:
        """Index of the whole state, now."""

    @abstractmethod
    def answer(self, *, gzip: bool) -> Answer:
        """The answer of now."""

    def serve(self, caller: Caller) -> bool:
        """See `ShortRoute.serve`."""
        gate = self._desk.gate
        if gate is None or self._options.consistency is Consistency.STALE:
            self.confirmed(caller, None)
        else:
            gate.join(self, caller)
        return True

    def confirmed(self, caller: Caller, error: RaftregError | None) -> None:
        """See `Confirmed.confirmed`."""
        if error is not None:
            self.refuse(caller, error)
            return
        index = self._options.index
        if index:
            index = blocking_index(index, self.newest(), self._options)
        if index and self.index() <= index:
            self._block(caller, index)
        else:
            self.tell(caller)

    def tell(self, caller: Caller) -> None:
        """Answers with what is there now."""
        answer = self.answer(gzip=caller.gzip)
        settle(self._desk, self._label, caller, answer, timed=not self._options.index)

    def refuse(self, caller: Caller, error: RaftregError) -> None:
        """Answers that it can't be told."""
        refuse(self._desk, self._label, caller, error, timed=not self._options.index)

    def gone(self) -> None:
        """A client left before its answer."""
        self._desk.meter.observe(self._label, "GET", 499, 0.0)

    def _block(self, caller: Caller, index: int) -> None:
        blocked = _Blocked(self._desk, self, caller, index)
        try:
            self._desk.hub.join(blocked)
        except RaftregError as error:
            self.refuse(caller, error)
            return
        wait_s = self._options.wait_s * (1 + self._desk.jitter() / 16)
        blocked.start(wait_s)


def settle(desk: ReadDesk, label: str, caller: Caller, answer: Answer, *, timed: bool) -> None:
    """Answers a read, and counts it.

    Args:
        desk: Dates and figures.
        label: Path pattern.
        caller: Who waits.
        answer: What is sent.
        timed: Whether its time counts: what a blocking query waits is no latency.
    """
    now_s = desk.now()
    caller.reply(answer.at(desk.dates.at(now_s)), answer.tail)
    desk.meter.observe(label, "GET", answer.status, now_s - caller.began_s if timed else 0.0)


def refuse(desk: ReadDesk, label: str, caller: Caller, error: RaftregError, *, timed: bool) -> None:
    """Answers that a read can't be told, and counts it; arguments as of `settle`."""
    now_s = desk.now()
    caller.reply(refusal(error, desk.dates.at(now_s)))
    desk.meter.observe(label, "GET", error.http_status, now_s - caller.began_s if timed else 0.0)


class _Blocked:
    """A query that waits for a change; a `Waiter` of the hub."""

    __slots__ = ("_caller", "_desk", "_due", "_index", "_over", "_route", "_timer", "topics")

    def __init__(self, desk: ReadDesk, route: ReadRoute, caller: Caller, index: int) -> None:
        self._desk = desk
        self._route = route
        self._caller = caller
        self._index = index
        self._due = False
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self.topics = route.topics

    def start(self, wait_s: float) -> None:
        """Waits for so many seconds at most."""
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._tell)
        if not self._caller.wait(self._gone):
            self._gone()

    def wake(self) -> None:
        """Something changed; the answer is looked for when all of the change is there."""
        if not self._due:
            self._due = True
            self._desk.wake(self)

    def fail(self, reason: RaftregError) -> None:
        """No answer will come."""
        if not self._over:
            self._leave()
            self._route.refuse(self._caller, reason)

    def look(self) -> None:
        """Answers if the index has passed the client's."""
        self._due = False
        if not self._over and self._route.index() > self._index:
            self._tell()

    def _tell(self) -> None:
        self._leave()
        self._route.tell(self._caller)

    def _gone(self) -> None:
        self._leave()
        self._route.gone()

    def _leave(self) -> None:
        self._over = True
        self._caller.on_gone = None
        self._desk.hub.leave(self)
        if self._timer is not None:
            self._timer.cancel()
