"""The sockets of DNS: UDP, and TCP with any number of queries on a connection (RFC 7766).

Nothing that arrives can stop the server: a query that fails for a reason of ours is answered with
SERVFAIL and counted. Everything that waits is bounded: connections, their idle time, queries at
the recursors, bytes not yet sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from random import Random
from typing import cast

import dns.rcode
import structlog
from prometheus_client import CollectorRegistry, Counter

from raftreg.clock import Clock
from raftreg.config import DnsSettings
from raftreg.core.catalog import Catalog
from raftreg.dns.answer import HEADER_BYTES, Answerer, Forward, Transport
from raftreg.dns.query import QueryLookup, no_queries
from raftreg.dns.recursor import Recursors

QUERY_BYTES_MAX = 4_096
FORWARDS_MAX = 512
UNSENT_BYTES_MAX = 1 << 20
PORT_TRIES = 20

_log = structlog.get_logger(__name__)


class DnsServer:
    """Answers DNS from a view of the catalog.

    Args:
        view: Gives the catalog as it is now.
        settings: How names are answered.
        host: Address to listen on.
        port: Port for UDP and TCP; 0 takes one that is free for both.
        clock: Source of the SOA's serial.
        rng: Source of chance.
        datacenter: Overrides the one of the settings.
        registry: Where queries are counted; None: nowhere else than here.
        queries: Executes prepared queries.

    Attributes:
        port: The port, once started.
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
        datacenter: str = "",
        registry: CollectorRegistry | None = None,
        queries: QueryLookup = no_queries,
    ) -> None:
        self._view = view
        self._queries_door = queries
        self._settings = settings
        self._host = host
        self.port = port
        self._answerer = Answerer(settings, rng, clock.wall, datacenter=datacenter)
        self._recursors = Recursors(settings.recursors, settings.recursor_timeout_s, rng)
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.StreamWriter] = set()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._queries = Counter(
            "raftreg_dns_queries",
            "DNS queries answered, by transport and response code",
            ("transport", "rcode"),
            registry=registry or CollectorRegistry(),
        )

    async def start(self) -> None:
        """Opens the sockets.

        Raises:
            OSError: The address can't be listened on.
        """
        # The tasks of the group catch everything, so the group never cancels its parent and may
        # be left (in `stop`) by another task than entered it.
        await self._group.__aenter__()
        try:
            await self._listen()
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
                self._udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: _Udp(self), local_addr=(self._host, port)
                )
            except OSError:
                tcp.close()
                if self.port or not last:
                    raise
                continue  # the free TCP port was taken for UDP
            self._tcp, self.port = tcp, port
            return

    async def stop(self) -> None:
        """Closes the sockets and ends what is under way."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for writer in list(self._connections):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await self._group.__aexit__(None, None, None)
        if self._tcp is not None:
            await self._tcp.wait_closed()
        self._udp = self._tcp = None

    def query_count(self) -> int:
        """How many queries were answered since the start."""
        samples = (sample for metric in self._queries.collect() for sample in metric.samples)
        return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))

    # -- one query -----------------------------------------------------------------------------

    def answer(self, query: bytes, transport: Transport) -> bytes | Forward | None:
        """Answers what can be answered here; never raises."""
        try:
            found = self._answerer.answer(query, self._view(), transport)
        except Exception:  # noqa: BLE001 (a fault of ours must not take the name service down)
            _log.exception("dns query failed", transport=transport.value, bytes=len(query))
            found = _servfail(query)
        if isinstance(found, bytes):
            self.count(found, transport)
        return found

    def count(self, reply: bytes, transport: Transport) -> None:
        """Counts an answer."""
        rcode = dns.rcode.to_text(dns.rcode.Rcode(reply[3] & 0x0F))
        self._queries.labels(transport.value, rcode).inc()

    async def _forwarded(self, forward: Forward, transport: Transport) -> bytes:
        reply = await self._recursors.ask(forward.query, transport)
        found = forward.failure if reply is None else reply
        self.count(found, transport)
        return found

    # -- UDP -----------------------------------------------------------------------------------

    def forward_datagram(self, forward: Forward, send: Callable[[bytes], None]) -> None:
        """Asks the recursors and sends what they say; at once SERVFAIL when too many wait."""
        if len(self._tasks) >= FORWARDS_MAX:
            self.count(forward.failure, Transport.UDP)
            send(forward.failure)
            return
        task = self._group.create_task(self._forward_datagram(forward, send))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward_datagram(self, forward: Forward, send: Callable[[bytes], None]) -> None:
        try:
            send(await self._forwarded(forward, Transport.UDP))
        except Exception:  # noqa: BLE001 (as in `answer`)
            _log.exception("dns forward failed")

    # -- TCP -----------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._settings.tcp_connections_max:
            writer.transport.abort()
            return
        self._connections.add(writer)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the peer went away, or was idle for too long (TimeoutError)
        except Exception:  # noqa: BLE001 (as in `answer`)
            _log.exception("dns connection failed")
        finally:
            self._connections.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(self._settings.tcp_idle_s):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                if not HEADER_BYTES <= length <= QUERY_BYTES_MAX:
                    return
                query = await reader.readexactly(length)
            reply = self.answer(query, Transport.TCP)
            if isinstance(reply, Forward):
                reply = await self._forwarded(reply, Transport.TCP)
            if reply is None:
                return
            writer.write(struct.pack("!H", len(reply)) + reply)
            async with asyncio.timeout(self._settings.tcp_idle_s):
                await writer.drain()


class _Udp(asyncio.DatagramProtocol):
    """One datagram, one answer."""

    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not every loop's datagram transport is a subclass of asyncio's.
        self._transport = cast("asyncio.DatagramTransport", transport)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):  # a burst of queries should not be dropped
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._server.answer(data, Transport.UDP)
        if isinstance(reply, Forward):
            self._server.forward_datagram(reply, lambda found: self._send(found, addr))
        elif reply is not None:
            self._send(reply, addr)

    def _send(self, reply: bytes, addr: tuple[str, int]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        # Both event loops have the method; only the stubs do not.
        unsent = cast("asyncio.WriteTransport", transport).get_write_buffer_size()
        if unsent < UNSENT_BYTES_MAX:
            transport.sendto(reply, addr)

    def error_received(self, exc: Exception) -> None:
        """An earlier datagram could not be delivered; its asker is gone."""
        del exc


def _servfail(query: bytes) -> bytes | None:
    if len(query) < HEADER_BYTES:
        return None
    flags = 0x80 | query[2] & 0x79
    return bytes((query[0], query[1], flags, dns.rcode.SERVFAIL)) + bytes(8)
