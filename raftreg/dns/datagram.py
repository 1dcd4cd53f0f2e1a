"""DNS over UDP: one datagram, one answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import cast

from raftreg.dns.answer import Transport
from raftreg.dns.responder import Asker, Responder

UNSENT_BYTES_MAX = 1 << 20
RECEIVE_BYTES = 1 << 20  #: a burst of queries should not be dropped

Address = tuple[str, int]


class Datagrams(asyncio.DatagramProtocol):
    """Answers datagrams.

    Args:
        responder: Answers.
    """

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the transport."""
        # Not every loop's datagram transport is a subclass of asyncio's.
        self._transport = cast("asyncio.DatagramTransport", transport)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Answers one."""
        found = self._responder.respond(data, Transport.UDP)
        if isinstance(found, bytes):
            self._send(found, addr)
        elif found is not None:
            asker = Asker(data, Transport.UDP, addr[0], lambda reply: self._send(reply, addr))
            self._responder.later(asker, found)

    def error_received(self, exc: Exception) -> None:
        """An earlier datagram could not be delivered; its asker is gone."""
        del exc

    def _send(self, reply: bytes, addr: Address) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        # Both event loops have the method; only the stubs do not.
        unsent = cast("asyncio.WriteTransport", transport).get_write_buffer_size()
        if unsent < UNSENT_BYTES_MAX:
            transport.sendto(reply, addr)
