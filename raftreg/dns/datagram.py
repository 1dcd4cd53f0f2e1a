"""DNS over UDP: one datagram, one answer.

The socket is read and written here, not by the event loop's own datagram transport: a wake-up then
takes many datagrams, and none of them costs a pass through the loop (docs/performance.md, "DNS").
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial
from typing import Any

from raftreg.dns.answer import Transport
from raftreg.dns.responder import Asker, Responder
from raftreg.dns.stream import QUERY_BYTES_MAX

BURST_MAX = 64  #: datagrams taken before others get their turn
BUFFER_BYTES = 1 << 20  #: a burst of queries should not be dropped

Address = tuple[Any, ...]


class Datagrams:
    """Answers the datagrams of a socket.

    Args:
        responder: Answers.
        loop: Watches the socket.
    """

    def __init__(self, responder: Responder, loop: asyncio.AbstractEventLoop) -> None:
        self._responder = responder
        self._respond = responder.desk(Transport.UDP).respond
        self._loop = loop
        self._socket: socket.socket | None = None

    def listen(self, family: int, address: Address) -> None:
        """Opens the socket.

        Raises:
            OSError: The address can't be listened on.
        """
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
        self._socket = sock
        self._loop.add_reader(sock.fileno(), self._readable)

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
                asker = Asker(query, Transport.UDP, address[0], partial(self._send_to, address))
                self._responder.later(asker, found)

    def _send_to(self, address: Address, reply: bytes) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(reply, address)
