"""Hands queries for other domains to resolvers, over the transport by which they came."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence
from random import Random

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from raftreg.config import is_loopback, is_wildcard
from raftreg.dns import records
from raftreg.dns.answer import HEADER_BYTES, Transport
from raftreg.dns.known import HOST_RECORDS_MAX, HostAsk
from raftreg.dns.lookup import as_ip
from raftreg.errors import ConfigurationError

PORT = 53
_REPLY_BYTES_MAX = 65_535
_PAYLOAD_BYTES = 1_232  #: a datagram that no network cuts into pieces (DNS flag day 2020)
_TC = 0x02  # of the third byte
_RA, _RCODE = 0x80, 0x0F  # of the fourth byte


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
    """The resolvers: the first one that has an answer counts.

    A query that is on its way already is not sent again: who asks the same meanwhile gets the same
    reply. So a circle of resolvers that lead back here ends, with a time-out.

    Args:
        addresses: "host[:port]" of each.
        timeout_s: How long one may take, in seconds.
        rng: Makes the ids of queries, which a forger would have to guess, and the order.
        shuffled: Ask in any order instead of the given one.

    Raises:
        ConfigurationError: An address can't be read.
    """

    def __init__(
        self, addresses: Sequence[str], timeout_s: float, rng: Random, *, shuffled: bool = False
    ) -> None:
        self._addresses = [parse_address(address) for address in addresses]
        self._timeout_s = timeout_s
        self._rng = rng
        self._shuffled = shuffled
        self._on_their_way: dict[tuple[Transport, bytes], asyncio.Future[bytes | None]] = {}

    def refuse_self(self, host: str, port: int) -> None:
        """Makes sure that no recursor is the listener at this address.

        Raises:
            ConfigurationError: One is: queries would go in a circle.
        """
        for address, its_port in self._addresses:
            same = address == host or (is_wildcard(host) and is_loopback(address))
            if same and its_port == port:
                raise ConfigurationError(f"recursor {address}:{port} is this very name server")

    async def ask(self, query: bytes, transport: Transport) -> bytes | None:
        """Gives the first good reply, or else the last one, with the query's id.

        Good are those that say what there is, or that there is nothing (NXDOMAIN).

        Args:
            query: A whole message.
            transport: By which to ask. A reply by UDP may say that it was cut.
        """
        key = (transport, query[2:])
        running = self._on_their_way.get(key)
        if running is None:
            running = self._on_their_way[key] = asyncio.get_running_loop().create_future()
            try:
                running.set_result(await self._first_reply(query, transport))
            finally:
                del self._on_their_way[key]
                if not running.done():  # the one who asked was cancelled
                    running.set_result(None)
        reply = await asyncio.shield(running)
        if reply is None:
            return None
        return query[:2] + reply[2:3] + bytes((reply[3] | _RA,)) + reply[4:]

    async def addresses(self, host: HostAsk) -> tuple[dns.rrset.RRset, ...]:
        """Asks for the addresses of a host name, by TCP when they don't fit into UDP.

        Returns:
            Its CNAMEs and addresses, one record each; none when nothing was found.
        """
        message = dns.message.make_query(host.name, host.rdtype, use_edns=0, payload=_PAYLOAD_BYTES)
        message.id = self._rng.getrandbits(16)
        query = message.to_wire()
        reply = await self.ask(query, Transport.UDP)
        if reply is not None and reply[2] & _TC:
            reply = await self.ask(query, Transport.TCP) or reply
        return () if reply is None else _chain(reply, host)

    async def _first_reply(self, query: bytes, transport: Transport) -> bytes | None:
        exchange = self._udp if transport is Transport.UDP else self._tcp
        addresses = list(self._addresses)
        if self._shuffled:
            self._rng.shuffle(addresses)
        last = None
        for host, port in addresses:
            asked = struct.pack("!H", self._rng.getrandbits(16)) + query[2:]
            # A reply that is none counts as silence.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(self._timeout_s):
                    reply = await exchange(asked, host, port)
                if _answers(asked, reply):
                    last = reply
                    if reply[3] & _RCODE in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                        break
        return last

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


def _chain(reply: bytes, host: HostAsk) -> tuple[dns.rrset.RRset, ...]:
    """The records of a reply that lead from a host name to its addresses."""
    try:
        message = dns.message.from_wire(reply, ignore_trailing=True, one_rr_per_rrset=True)
    except (dns.exception.DNSException, ValueError, KeyError):
        return ()
    owners = {dns.name.from_text(host.name)}
    found = []
    for one in message.answer:
        if one.name not in owners or one.rdtype not in (dns.rdatatype.CNAME, host.rdtype):
            continue
        if one.rdtype == dns.rdatatype.CNAME:
            owners.add(one[0].target)
        found.append(records.with_ttl(one, one.ttl))
    return tuple(found[:HOST_RECORDS_MAX])
