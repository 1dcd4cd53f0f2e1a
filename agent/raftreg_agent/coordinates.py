"""This host's network coordinate: measured against servers, and told to the registry when it moved.

A round measures each of a few servers by `/v1/internal/ping`: the shortest of three requests on one
connection counts, since what a process adds to the way of a packet only makes it longer. Rounds are
quick at first, so that a new host is soon where it belongs, and rare later.

The registry is told (`Reporting`) when a server does not know the coordinate, when it moved by more
than `MOVED_S`, and from time to time (of a young one often, others reckon with it) if it moved at
all to speak of: a host that stays where it is costs no write.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Protocol

import msgspec
import structlog

from raftreg.client.api import RegistryClient
from raftreg.client.failures import BadAnswer
from raftreg.clock import Clock
from raftreg.core.catalog import Catalog
from raftreg.core.vivaldi import Position
from raftreg.errors import RaftregError
from raftreg.http.coordinate_body import coord_json
from raftreg.model import Coordinate

PING_PATH = "/v1/internal/ping"
UPDATE_PATH = "/v1/coordinate/update"
PING_TIMEOUT_S = 2.0
REPORT_TIMEOUT_S = 2.0
PROBES = 3
TARGETS_A_ROUND = 3
TARGETS_MAX = 64
YOUNG_ROUNDS = 16
#: Seconds between rounds: (rounds so far below, seconds). Each is spread by a fifth.
PACE_S = ((4, 1.0), (YOUNG_ROUNDS, 5.0))
SETTLED_PACE_S = 15.0
SPREAD = 0.2
MOVED_S = 1e-3
STIRRED_S = 50e-6
STIRRED_ERROR = 0.1
REPORT_EVERY_S = 60.0
REPORT_YOUNG_EVERY_S = 4.0
#: Metadata of the servers' own service that says where their HTTP API is.
HTTP_META = "raftreg-http"
SERVER_SERVICE = "consul"

log = structlog.get_logger(__name__)


class Pong(msgspec.Struct, frozen=True):
    """What a server answers to a ping.

    Attributes:
        node: Its node.
        coordinate: Where it is.
        known: Whether it holds a coordinate of this host.
        rtt_s: How long the shortest of the requests took, in seconds.
    """

    node: str
    coordinate: Coordinate
    known: bool
    rtt_s: float


class Prober(Protocol):
    """Measures round trips."""

    async def ping(self, address: str) -> Pong:
        """Measures the way to a server.

        Raises:
            RaftregError: It does not answer, or not as it should.
        """
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...


class _CoordAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    vec: tuple[float, ...]
    error: float
    adjustment: float
    height: float


class _PingAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    node: str
    coord: _CoordAnswer
    known: bool


class HttpProber:
    """Pings servers over HTTP, each over a connection of its own.

    Args:
        node: Name of this host.
        clock: Source of time.
        rng: Source of ids.
    """

    def __init__(self, node: str, clock: Clock, rng: Random) -> None:
        self._node = node
        self._clock = clock
        self._rng = rng
        self._clients: dict[str, RegistryClient] = {}

    async def ping(self, address: str) -> Pong:
        """See `Prober.ping`."""
        client = await self._client(address)
        shortest_s = math.inf
        for _ in range(PROBES):
            sent_s = self._clock.monotonic()
            response = await client.request(
                "GET", PING_PATH, params={"node": self._node}, deadline_s=PING_TIMEOUT_S
            )
            shortest_s = min(shortest_s, self._clock.monotonic() - sent_s)
        answer: _PingAnswer = response.json(_PingAnswer)
        coordinate = Coordinate(**msgspec.structs.asdict(answer.coord))
        return Pong(answer.node, coordinate, answer.known, shortest_s)

    async def _client(self, address: str) -> RegistryClient:
        client = self._clients.get(address)
        if client is None:
            if len(self._clients) >= TARGETS_MAX:
                await self.close()
            client = RegistryClient(
                [address], connections_max=1, clock=self._clock, rng=Random(self._rng.random())
            )
            self._clients[address] = client
        return client

    async def close(self) -> None:
        """See `Prober.close`."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()


class Reporting:
    """Decides when the registry is to be told. Pure.

    Attributes:
        told: The coordinate that it was told last.
    """

    def __init__(self) -> None:
        self.told: Coordinate | None = None
        self._told_at_s = -math.inf

    def is_due(self, coordinate: Coordinate, now_s: float, *, known: bool, young: bool) -> bool:
        """Tells whether it is time.

        Args:
            coordinate: Where the host is.
            now_s: Monotonic seconds.
            known: Whether the servers hold a coordinate of this host.
            young: Whether it has only begun to measure.
        """
        if self.told is None or not known:
            return True
        moved_s = movement_s(self.told, coordinate)
        if moved_s > MOVED_S:
            return True
        stirred = moved_s > STIRRED_S or abs(self.told.error - coordinate.error) > STIRRED_ERROR
        every_s = REPORT_YOUNG_EVERY_S if young else REPORT_EVERY_S
        return stirred and now_s - self._told_at_s >= every_s

    def reported(self, coordinate: Coordinate, now_s: float) -> None:
        """Takes note that the registry was told."""
        self.told, self._told_at_s = coordinate, now_s


def movement_s(one: Coordinate, other: Coordinate) -> float:
    """How much an estimated round trip can differ between two places of a host, in seconds."""
    return (
        math.dist(one.vec, other.vec)
        + abs(one.height - other.height)
        + abs(one.adjustment - other.adjustment)
    )


def pace_s(rounds: int) -> float:
    """Seconds from one round to the next, after so many."""
    return next((seconds for below, seconds in PACE_S if rounds < below), SETTLED_PACE_S)


def servers_of(catalog: Catalog) -> list[str]:
    """HTTP addresses of the servers of a catalog, as they say themselves."""
    rows = catalog.instances(SERVER_SERVICE)
    return list(dict.fromkeys(row.meta[HTTP_META] for row in rows if HTTP_META in row.meta))


class CoordinateKeeper:
    """Keeps this host's coordinate.

    Args:
        node: Name of this host.
        client: Where the registry is told.
        targets: Gives the HTTP addresses of the servers to measure.
        prober: Measures.
        clock: Source of time.
        rng: Chooses the order, the spread of rounds, and directions.
    """

    def __init__(
        self,
        node: str,
        client: RegistryClient,
        targets: Callable[[], Iterable[str]],
        prober: Prober,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._node = node
        self._client = client
        self._targets = targets
        self._prober = prober
        self._clock = clock
        self._rng = rng
        self._position = Position(rng)
        self._reporting = Reporting()
        self._turn = 0
        self.rounds = 0
        self.reports = 0

    @property
    def coordinate(self) -> Coordinate:
        """Where this host is."""
        return self._position.coordinate

    async def run(self) -> None:
        """Measures and reports until it is cancelled."""
        try:
            while True:
                await self.round()
                spread = 1 + SPREAD * (2 * self._rng.random() - 1)
                await asyncio.sleep(pace_s(self.rounds) * spread)
        finally:
            await self._prober.close()

    async def round(self) -> None:
        """Measures some servers, and tells the registry if it is time."""
        known = True
        for address in self._next_targets():
            try:
                pong = await self._prober.ping(address)
            except RaftregError as error:
                log.debug("server not measured", server=address, error=error.message)
                continue
            known = known and pong.known
            if pong.node != self._node:
                self._position.measured(pong.node, pong.coordinate, pong.rtt_s)
        self.rounds += 1
        now_s, young = self._clock.monotonic(), self.rounds <= YOUNG_ROUNDS
        if self._reporting.is_due(self.coordinate, now_s, known=known, young=young):
            await self._report()

    def _next_targets(self) -> Sequence[str]:
        """The servers whose turn it is."""
        targets = list(self._targets())[:TARGETS_MAX]
        if len(targets) <= TARGETS_A_ROUND:
            return targets
        first = self._turn % len(targets)
        self._turn += TARGETS_A_ROUND
        return (targets + targets)[first : first + TARGETS_A_ROUND]

    async def _report(self) -> None:
        coordinate = self.coordinate
        body = {"Node": self._node, "Segment": "", "Coord": coord_json(coordinate)}
        try:
            await self._client.request(
                "PUT", UPDATE_PATH, json=body, deadline_s=REPORT_TIMEOUT_S, idempotent=True
            )
        except (RaftregError, BadAnswer) as error:
            log.debug("coordinate not told", error=error.message)
            return
        self.reports += 1
        self._reporting.reported(coordinate, self._clock.monotonic())
