"""From a query to its answer, whatever it takes: at once, or after others were asked.

Nothing that arrives can stop it: a query that fails for a reason of ours is answered with SERVFAIL.
What waits is bounded in number and in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import dns.rcode
import msgspec
import structlog

from raftreg.clock import Clock
from raftreg.config import DnsSettings
from raftreg.core.catalog import Catalog
from raftreg.dns.answer import HEADER_BYTES, Answerer, Forward, Transport
from raftreg.dns.counts import AnswerCounts
from raftreg.dns.known import FAILED, Ask, Failed, Gateway, HostAsk, Known, Needs, QueryAsk
from raftreg.dns.packets import PacketCache
from raftreg.dns.query import Doors, QueryAnswer
from raftreg.dns.recursor import Recursors
from raftreg.dns.round import Round
from raftreg.errors import RaftregError

ROUNDS_MAX = 3  #: times that something new may be asked for, for one answer
QUERY_DEADLINE_S = 5.0  #: as long as most resolvers wait
#: A greatest age from which on it is not even looked at: ten years, the default.
FOREVER_S = 315_360_000.0
RCODE = 0x0F  # of the fourth byte

_log = structlog.get_logger(__name__)


class Unconfirmed(msgspec.Struct, frozen=True):
    """The view has to be confirmed before it is answered from."""


Pending = Forward | Needs | Unconfirmed


class Asker(msgspec.Struct, frozen=True):
    """A query, who asked it, and the way back.

    Attributes:
        query: A whole message.
        transport: How it came.
        address: IP address that it came from.
        send: Sends a message back; must not raise.
    """

    query: bytes
    transport: Transport
    address: str
    send: Callable[[bytes], None]


_UNCONFIRMED = Unconfirmed()


class Responder:
    """Answers queries from a view, and asks others for what is not in it.

    Args:
        view: Gives the catalog as it is now.
        settings: How names are answered.
        doors: Whom to ask.
        clock: Source of the SOA's serial.
        rng: Source of chance.

    Attributes:
        recursors: The resolvers for other domains.
        counts: What was answered.
    """

    def __init__(
        self,
        view: Callable[[], Catalog],
        settings: DnsSettings,
        doors: Doors,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._view = view
        self._settings = settings
        self._doors = doors
        self._answerer = Answerer(settings, rng, clock.wall)
        self.recursors = Recursors(
            settings.recursors,
            settings.recursor_timeout_s,
            rng,
            shuffled=settings.recursor_strategy == "random",
        )
        self._confirmed = Round(self._confirm)
        self.counts = AnswerCounts()
        self._desks = {
            transport: Desk(
                self,
                view,
                self._answerer,
                PacketCache(self._answerer, settings, transport, rng, clock.wall),
                transport,
            )
            for transport in Transport
        }
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Makes ready for queries that need others."""
        # The tasks of the group catch everything, so the group never cancels its parent and may
        # be left (in `stop`) by another task than entered it.
        await self._group.__aenter__()

    async def stop(self) -> None:
        """Ends what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def desk(self, transport: Transport) -> Desk:
        """What answers the queries of a transport."""
        return self._desks[transport]

    def later(self, asker: Asker, pending: Pending) -> asyncio.Task[None] | None:
        """Answers what others have to be asked for; at once SERVFAIL when too many wait.

        Returns:
            The task that does it; None when it has been answered.
        """
        if len(self._tasks) >= self._settings.recursions_max:
            self._send(asker, self.failure(asker.query, asker.transport))
            return None
        task = self._group.create_task(self._finish(asker, pending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _finish(self, asker: Asker, pending: Pending) -> None:
        try:
            async with asyncio.timeout(self._deadline_s()):
                reply = await self._complete(asker, pending)
        except (RaftregError, TimeoutError):
            reply = self.failure(asker.query, asker.transport)
        except Exception:  # noqa: BLE001 (as in `respond`)
            reply = self.fault(asker.query, asker.transport)
        self._send(asker, reply)

    def _send(self, asker: Asker, reply: bytes | None) -> None:
        if reply is not None:
            self.counts.add(reply, asker.transport)
            asker.send(reply)

    def failure(self, query: bytes, transport: Transport) -> bytes | None:
        """SERVFAIL for a query that can't be answered now."""
        try:
            return self._answerer.failure(query)
        except Exception:  # noqa: BLE001 (as in `respond`)
            return self.fault(query, transport)

    def _deadline_s(self) -> float:
        recursion_s = self._settings.recursor_timeout_s * max(1, len(self._settings.recursors))
        return QUERY_DEADLINE_S + 2 * recursion_s * ROUNDS_MAX

    def fault(self, query: bytes, transport: Transport) -> bytes | None:
        """SERVFAIL while an exception is handled that is a fault of ours."""
        _log.exception("dns query failed", transport=transport.value, bytes=len(query))
        return _servfail(query)

    # -- freshness -----------------------------------------------------------------------------

    @property
    def may_be_stale(self) -> bool:
        """Whether the age of the view matters at all."""
        settings = self._settings
        forever = settings.allow_stale and settings.max_stale_s >= FOREVER_S
        return self._doors.freshness is not None and not forever

    def is_stale(self) -> bool:
        """Whether the view has to be confirmed before the next answer."""
        settings, freshness = self._settings, self._doors.freshness
        if freshness is None:
            return False
        if not settings.allow_stale:
            return True
        age_s = freshness.age_s()
        return age_s is None or age_s > settings.max_stale_s

    async def _confirm(self) -> None:
        assert self._doors.freshness is not None
        async with asyncio.timeout(QUERY_DEADLINE_S):
            await self._doors.freshness.confirm()

    # -- asking others -------------------------------------------------------------------------

    async def _complete(self, asker: Asker, pending: Pending) -> bytes | None:
        query, transport = asker.query, asker.transport
        known, rounds = Known(), 0
        found: bytes | Pending | None = pending
        while True:
            match found:
                case Unconfirmed():
                    await self._confirmed.join()
                case Needs():
                    rounds += 1
                    source = found.source_address or asker.address
                    known = await self._learn(found.asks, known, source)
                    known = msgspec.structs.replace(known, final=rounds == ROUNDS_MAX)
                case Forward():
                    reply = await self.recursors.ask(found.query, transport)
                    if reply is None:
                        return found.failure
                    return self._answerer.shortened(query, reply, transport)
                case _:
                    return found
            found = self._answerer.answer(query, self._view(), transport, known)

    async def _learn(self, asks: tuple[Ask, ...], known: Known, source_address: str) -> Known:
        """Asks for several things at once."""
        queries = [ask for ask in asks if isinstance(ask, QueryAsk)]
        hosts = [ask for ask in asks if isinstance(ask, HostAsk)]
        async with asyncio.TaskGroup() as group:
            executed = [group.create_task(self._execute(ask, source_address)) for ask in queries]
            resolved = [group.create_task(self.recursors.addresses(ask)) for ask in hosts]
        return Known(
            queries={
                **known.queries,
                **{ask: task.result() for ask, task in zip(queries, executed, strict=True)},
            },
            hosts={
                **known.hosts,
                **{ask: task.result() for ask, task in zip(hosts, resolved, strict=True)},
            },
        )

    async def _execute(self, ask: QueryAsk, source_address: str) -> QueryAnswer | Failed | None:
        door = self._doors.ingress if ask.kind is Gateway.INGRESS else self._doors.queries
        try:
            async with asyncio.timeout(QUERY_DEADLINE_S):
                return await door(ask.name, source_address)
        except (RaftregError, TimeoutError) as error:
            _log.info("dns name could not be looked up", name=ask.name, error=str(error))
            return FAILED


class Desk:
    """Answers the queries of one transport at once where that can be done.

    Args:
        responder: Does what takes longer.
        view: Gives the catalog as it is now.
        answerer: The plain road.
        packets: The short one.
        transport: How the queries come.
    """

    def __init__(
        self,
        responder: Responder,
        view: Callable[[], Catalog],
        answerer: Answerer,
        packets: PacketCache,
        transport: Transport,
    ) -> None:
        self._responder = responder
        self._view = view
        self._answerer = answerer
        self._packets = packets
        self._transport = transport
        self._counts = responder.counts.by_rcode[transport]
        self._may_be_stale = responder.may_be_stale

    def respond(self, query: bytes) -> bytes | Pending | None:
        """Answers one; never raises.

        Returns:
            The answer; None for what deserves none; or what `Responder.later` takes.
        """
        try:
            if self._may_be_stale and self._responder.is_stale():
                return _UNCONFIRMED
            view = self._view()
            found = self._packets.get(query, view) or self._answerer.answer(
                query, view, self._transport
            )
        except Exception:  # noqa: BLE001 (a fault of ours must not take the name service down)
            found = self._responder.fault(query, self._transport)
        if isinstance(found, bytes):
            self._counts[found[3] & RCODE] += 1
        return found


def _servfail(query: bytes) -> bytes | None:
    """SERVFAIL without the question, which may be what caused the fault."""
    if len(query) < HEADER_BYTES:
        return None
    flags = 0x80 | query[2] & 0x79
    return bytes((query[0], query[1], flags, dns.rcode.SERVFAIL)) + bytes(8)
