"""DNS over UDP: one datagram, one answer.

Where the event loop can watch a socket, it is read and written here, not by the loop's own datagram
transport: a wake-up then takes many datagrams, and none of them costs a pass through the loop
(docs/performance.md, "DNS"). Other loops (Windows has one) get a protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol, cast

from raftreg.dns.answer import Transport
from raftreg.dns.responder import Asker, Responder
from raftreg.dns.stream import QUERY_BYTES_MAX

BURST_MAX = 64  #: datagrams taken before others get their turn
BUFFER_BYTES = 1 << 20  #: a burst of queries should not be dropped
UNSENT_BYTES_MAX = 1 << 20

Address = tuple[Any, ...]


class Listening(Protocol):
    """Something that listens."""

    def close(self) -> None:
        """Ends it."""
        ...


def watches_sockets(loop: asyncio.AbstractEventLoop) -> bool:
    """Tells whether `add_reader` of this loop works."""
    proactor = getattr(asyncio, "ProactorEventLoop", None)
    return proactor is None or not isinstance(loop, proactor)


async def listen(
    responder: Responder, host: str, port: int, beside: Iterable[socket.socket]
) -> list[Listening]:
    """Listens where TCP does already.

    Args:
        responder: Answers.
        host: Address or name to listen at.
        port: Port.
        beside: The sockets of TCP; a name may have several addresses.

    Raises:
        OSError: An address can't be listened on.
    """
    loop = asyncio.get_running_loop()
    if not watches_sockets(loop):
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Datagrams(responder), local_addr=(host, port)
        )
        return [transport]
    opened: list[Listening] = []
    try:
        for tcp in beside:
            address = tcp.getsockname()
            sock = _bound(tcp.family, (address[0], port, *address[2:]))
            opened.append(Bursts(responder, sock, loop))
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


def _bound(family: int, address: Address) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as with TCP
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


class Bursts:
    """Answers the datagrams of a socket, many at a time.

    Args:
        responder: Answers.
        sock: The socket, bound; closed with this.
        loop: Watches it.
    """

    def __init__(
        self, responder: Responder, sock: socket.socket, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._responder = responder
        self._respond = responder.desk(Transport.UDP).respond
        self._socket: socket.socket | None = sock
        self._loop = loop
        loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Closes the socket."""
        sock, self._socket = self._socket, None
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            sock.close()

    def _readable(self) -> None:
        sock, respond = self._socket, self._respond
        if sock is None:
            return
        receive, send = sock.recvfrom, sock.sendto
        for _ in range(BURST_MAX):
            try:
                query, address = receive(QUERY_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                continue  # an earlier datagram could not be delivered; its asker is gone
            found = respond(query)
            if isinstance(found, bytes):
                try:
                    send(found, address)
                except OSError:  # an answer that can't be sent is dropped: who needs it asks again
                    continue
            elif found is not None:
                asker = Asker(query, Transport.UDP, address[0], partial(self._send, address))
                self._responder.later(asker, found)

    def _send(self, address: Address, reply: bytes) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(reply, address)


class Datagrams(asyncio.DatagramProtocol):
    """Answers the datagrams of a transport.

    Args:
        responder: Answers.
    """

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._respond = responder.desk(Transport.UDP).respond
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the transport."""
        # Not every loop's datagram transport is a subclass of asyncio's.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Answers one."""
        found = self._respond(data)
        if isinstance(found, bytes):
            self._send(addr, found)
        elif found is not None:
            asker = Asker(data, Transport.UDP, addr[0], partial(self._send, addr))
            self._responder.later(asker, found)

    def error_received(self, exc: Exception) -> None:
        """An earlier datagram could not be delivered; its asker is gone."""
        del exc

    def _send(self, address: Address, reply: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        # All event loops have the method; only the stubs do not.
        unsent = cast("asyncio.WriteTransport", transport).get_write_buffer_size()
        if unsent < UNSENT_BYTES_MAX:
            transport.sendto(reply, address)
