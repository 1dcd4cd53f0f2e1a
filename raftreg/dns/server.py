"""The sockets of DNS: UDP and TCP at the same port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from prometheus_client import CollectorRegistry

from raftreg.clock import Clock
from raftreg.config import DnsSettings
from raftreg.core.catalog import Catalog
from raftreg.dns import datagram
from raftreg.dns.query import Doors
from raftreg.dns.responder import Responder
from raftreg.dns.stream import QUERY_BYTES_MAX, Stream

PORT_TRIES = 20


class DnsServer:
    """Answers DNS from a view of the catalog.

    Args:
        view: Gives the catalog as it is now.
        settings: How names are answered.
        host: Address to listen on.
        port: Port for UDP and TCP; 0 takes one that is free for both.
        clock: Source of the SOA's serial.
        rng: Source of chance.
        registry: Where answers are counted; None: nowhere else than here.
        doors: Whom to ask for what the view does not hold.

    Attributes:
        port: The port, once started.

    Raises:
        ConfigurationError: A recursor's address can't be read.
    """

    def __init__(
        self,
        view: Callable[[], Catalog],
        settings: DnsSettings,
        *,
        host: str,
        port: int,
        clock: Clock,
        rng: Random,
        registry: CollectorRegistry | None = None,
        doors: Doors = Doors(),  # noqa: B008 (frozen)
    ) -> None:
        self._settings = settings
        self._host = host
        self.port = port
        self._responder = Responder(view, settings, doors, clock, rng)
        self._streams: set[Stream] = set()
        self._udp: list[datagram.Listening] = []
        self._tcp: asyncio.Server | None = None
        if registry is not None:
            registry.register(self._responder.counts)

    async def start(self) -> None:
        """Opens the sockets.

        Raises:
            OSError: The address can't be listened on.
            ConfigurationError: A recursor is this very server.
        """
        await self._responder.start()
        try:
            await self._listen()
            self._responder.recursors.refuse_self(self._host, self.port)
        except BaseException:
            await self.stop()
            raise

    async def _listen(self) -> None:
        for last in range(PORT_TRIES - 1, -1, -1):
            tcp = await asyncio.start_server(
                self._connected, self._host, self.port, limit=QUERY_BYTES_MAX, backlog=256
            )
            port = tcp.sockets[0].getsockname()[1]
            try:
                self._udp = await datagram.listen(self._responder, self._host, port, tcp.sockets)
            except OSError:
                tcp.close()
                if self.port or not last:
                    raise
                continue  # the free TCP port was taken for UDP
            self._tcp, self.port = tcp, port
            return

    async def stop(self) -> None:
        """Closes the sockets and ends what is under way."""
        for udp in self._udp:
            udp.close()
        self._udp = []
        if self._tcp is not None:
            self._tcp.close()
        for stream in list(self._streams):
            stream.abort()
        await self._responder.stop()
        if self._tcp is not None:
            await self._tcp.wait_closed()
        self._tcp = None

    def query_count(self) -> int:
        """How many queries were answered since the start."""
        return self._responder.counts.total

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._streams) >= self._settings.tcp_connections_max:
            writer.transport.abort()
            return
        stream = Stream(
            reader,
            writer,
            self._responder,
            idle_s=self._settings.tcp_idle_s,
            queries_max=self._settings.tcp_queries_max,
        )
        self._streams.add(stream)
        try:
            await stream.serve()
        finally:
            self._streams.discard(stream)
