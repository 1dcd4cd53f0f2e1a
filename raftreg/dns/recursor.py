"""Hands queries for other domains to resolvers, over the transport by which they came."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence
from random import Random

from raftreg.dns.answer import HEADER_BYTES, Transport
from raftreg.dns.lookup import as_ip
from raftreg.errors import ConfigurationError

PORT = 53
_REPLY_BYTES_MAX = 65_535
_RA = 0x80  # of the fourth byte


def parse_address(text: str) -> tuple[str, int]:
    """Reads "host", "host:port" or "[v6]:port".

    Raises:
        ConfigurationError: It is none of these.
    """
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif as_ip(text) is not None:  # also an IPv6 address without brackets
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    if not host or (port and not (port.isascii() and port.isdecimal() and int(port) < 65_536)):
        raise ConfigurationError(f"recursor {text!r} is not host or host:port")
    return host, int(port or PORT)


class _OneReply(asyncio.DatagramProtocol):
    """Waits on a connected socket for the reply to one query."""

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr
        if _answers(self._query, data) and not self.reply.done():
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


class Recursors:
    """The resolvers, asked in the order of the settings.

    Args:
        addresses: "host[:port]" of each.
        timeout_s: How long one may take, in seconds.
        rng: Makes the ids of queries, which a forger would have to guess.

    Raises:
        ConfigurationError: An address can't be read.
    """

    def __init__(self, addresses: Sequence[str], timeout_s: float, rng: Random) -> None:
        self._addresses = [parse_address(address) for address in addresses]
        self._timeout_s = timeout_s
        self._rng = rng

    async def ask(self, query: bytes, transport: Transport) -> bytes | None:
        """Gives the first reply, with the query's id; None when no resolver replied."""
        asked = struct.pack("!H", self._rng.getrandbits(16)) + query[2:]
        exchange = self._udp if transport is Transport.UDP else self._tcp
        for host, port in self._addresses:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(self._timeout_s):
                    reply = await exchange(asked, host, port)
                    if _answers(asked, reply):
                        return query[:2] + reply[2:3] + bytes((reply[3] | _RA,)) + reply[4:]
        return None

    async def _udp(self, query: bytes, host: str, port: int) -> bytes:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _OneReply(query), remote_addr=(host, port)
        )
        try:
            transport.sendto(query)
            return await protocol.reply
        finally:
            transport.close()

    async def _tcp(self, query: bytes, host: str, port: int) -> bytes:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(struct.pack("!H", len(query)) + query)
            await writer.drain()
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            return await reader.readexactly(length)
        finally:
            writer.close()


def _answers(query: bytes, reply: bytes) -> bool:
    """Tells whether a message is a response to this query: id, response bit, same question."""
    if not HEADER_BYTES <= len(reply) <= _REPLY_BYTES_MAX:
        return False
    if reply[:2] != query[:2] or not reply[2] & 0x80:
        return False
    asked = _question(query)
    # An error response may come without the question.
    return reply[4:6] == b"\0\0" or _question(reply) == asked


def _question(message: bytes) -> bytes:
    """The bytes of the first question, in lower case (they hold no compression)."""
    at = HEADER_BYTES
    while at < len(message) and message[at]:
        at += message[at] + 1
    return message[HEADER_BYTES : at + 5].lower()
