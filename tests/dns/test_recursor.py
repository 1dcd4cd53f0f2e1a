"""Other people's names: which resolver is asked, by which transport, and what comes back."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from raftreg.dns.answer import Transport
from raftreg.dns.known import HostAsk
from raftreg.dns.recursor import Recursors
from raftreg.errors import ConfigurationError
from tests.dns.test_server import HOST, addresses, serving

Reply = Callable[[dns.message.Message, str], dns.message.Message | bytes | None]


class Upstream(asyncio.DatagramProtocol):
    """A resolver that does what it is told.

    Attributes:
        asked: Transport and name of every query.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.asked: list[tuple[str, str]] = []
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> str:
        """As a setting names it."""
        return f"{HOST}:{self.port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the socket."""
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answers by UDP."""
        reply = self.reply(data, "udp")
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one query by TCP."""
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        reply = self.reply(await reader.readexactly(length), "tcp")
        if reply is not None:
            writer.write(struct.pack("!H", len(reply)) + reply)
        writer.close()
        await writer.wait_closed()

    def reply(self, data: bytes, transport: str) -> bytes | None:
        """What is said to a query."""
        query = dns.message.from_wire(data)
        self.asked.append((transport, query.question[0].name.to_text()))
        reply = self._reply(query, transport)
        return reply.to_wire() if isinstance(reply, dns.message.Message) else reply


@asynccontextmanager
async def upstream(reply: Reply) -> AsyncIterator[Upstream]:
    """A resolver at a free port."""
    made = Upstream(reply)
    server = await asyncio.start_server(made.stream, HOST, 0)
    made.port = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: made, local_addr=(HOST, made.port)
    )
    try:
        yield made
    finally:
        transport.close()
        server.close()


def with_addresses(*found: str) -> Reply:
    """Answers any A query with these."""

    def reply(query: dns.message.Message, transport: str) -> dns.message.Message:
        del transport
        made = dns.message.make_response(query, recursion_available=True)
        name = query.question[0].name
        if found and query.question[0].rdtype == dns.rdatatype.A:
            made.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *found))
        return made

    return reply


def with_rcode(rcode: dns.rcode.Rcode) -> Reply:
    """Answers with a code alone."""

    def reply(query: dns.message.Message, transport: str) -> dns.message.Message:
        del transport
        made = dns.message.make_response(query)
        made.set_rcode(rcode)
        return made

    return reply


def cut_over_udp(query: dns.message.Message, transport: str) -> dns.message.Message:
    """Says by UDP that it does not fit."""
    if transport == "tcp":
        return with_addresses("192.0.2.1")(query, transport)  # type: ignore[return-value]
    made = dns.message.make_response(query)
    made.flags |= dns.flags.TC
    return made


def query_for(name: str = "example.org.", rdtype: str = "A") -> dns.message.Message:
    """A query that wants recursion."""
    return dns.message.make_query(name, rdtype)


def recursors(*addresses_: str, timeout_s: float = 5.0) -> Recursors:
    """Asks these in order."""
    return Recursors(addresses_, timeout_s, Random(1))


async def ask(by: Recursors, query: dns.message.Message) -> dns.message.Message:
    """Asks by UDP."""
    reply = await by.ask(query.to_wire(), Transport.UDP)
    assert reply is not None
    read = dns.message.from_wire(reply)
    assert query.is_response(read)
    assert read.flags & dns.flags.RA
    return read


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_the_next_resolver_is_asked_when_one_fails(rcode: dns.rcode.Rcode) -> None:
    """A resolver that is silent, says nonsense or refuses is passed over."""
    async with (
        upstream(lambda query, transport: None) as silent,
        upstream(lambda query, transport: b"\0" * 40) as mad,
        upstream(with_rcode(rcode)) as failing,
        upstream(with_addresses("192.0.2.1")) as good,
    ):
        all_four = [one.address for one in (silent, mad, failing, good)]
        reply = await ask(recursors(*all_four, timeout_s=0.2), query_for())
        assert addresses(reply) == {"192.0.2.1"}
        assert all(len(one.asked) == 1 for one in (silent, mad, failing, good))
        # When nobody has a good answer, the last bad one says more than none.
        reply = await ask(recursors(silent.address, failing.address, timeout_s=0.2), query_for())
        assert reply.rcode() == rcode


async def test_that_there_is_no_such_name_is_an_answer() -> None:
    """NXDOMAIN of the first is not asked for again."""
    async with (
        upstream(with_rcode(dns.rcode.NXDOMAIN)) as first,
        upstream(with_addresses("192.0.2.1")) as second,
    ):
        reply = await ask(recursors(first.address, second.address), query_for())
        assert reply.rcode() == dns.rcode.NXDOMAIN
        assert not second.asked


async def test_equal_queries_on_their_way_are_sent_once() -> None:
    """Who asks what is being asked gets the same reply, each with the own id."""
    async with upstream(with_addresses("192.0.2.1")) as good:
        by = recursors(good.address)
        replies = await asyncio.gather(*(ask(by, query_for()) for _ in range(20)))
        assert all(addresses(reply) == {"192.0.2.1"} for reply in replies)
        assert len(good.asked) == 1
        await ask(by, query_for())
        assert len(good.asked) == 2


async def test_a_circle_of_name_servers_ends() -> None:
    """Two servers that take each other for the resolver send a query round once, then fail."""
    query = query_for()
    async with upstream(lambda query, transport: None) as placeholder:
        port = placeholder.port
    # The port is free now, so that the first can name the second before it is there.
    async with (
        serving(recursors=(f"{HOST}:{port}",), recursor_timeout_s=0.5) as first,
        serving(port=port, recursors=(f"{HOST}:{first.port}",), recursor_timeout_s=0.5) as second,
    ):
        reply = await dns.asyncquery.udp(query, HOST, port=first.port, timeout=5)
        assert reply.rcode() == dns.rcode.SERVFAIL
        assert second.query_count() <= 2


async def test_a_recursor_that_is_this_server_is_refused() -> None:
    """A server does not start with itself as its resolver."""
    async with upstream(lambda query, transport: None) as placeholder:
        port = placeholder.port
    with pytest.raises(ConfigurationError, match="this very name server"):
        async with serving(port=port, recursors=(f"{HOST}:{port}",)):
            pass


async def test_addresses_of_a_host_name_come_by_tcp_when_they_are_many() -> None:
    """A reply that was cut is asked for again by TCP."""
    async with upstream(cut_over_udp) as good:
        found = await recursors(good.address).addresses(HostAsk("host.test.", dns.rdatatype.A))
        assert [str(one[0]) for one in found] == ["192.0.2.1"]
        assert [transport for transport, _ in good.asked] == ["udp", "tcp"]


async def test_only_records_that_lead_on_are_taken_over() -> None:
    """CNAMEs are followed; records of other names and types are not believed."""

    def reply(query: dns.message.Message, transport: str) -> dns.message.Message:
        del transport
        made = dns.message.make_response(query)
        made.answer = [
            dns.rrset.from_text("host.test.", 60, "IN", "CNAME", "real.test."),
            dns.rrset.from_text("real.test.", 60, "IN", "A", "192.0.2.1"),
            dns.rrset.from_text("forged.test.", 60, "IN", "A", "192.0.2.66"),
            dns.rrset.from_text("real.test.", 60, "IN", "TXT", "x"),
        ]
        return made

    async with upstream(reply) as good:
        found = await recursors(good.address).addresses(HostAsk("host.test.", dns.rdatatype.A))
        assert [str(one[0]) for one in found] == ["real.test.", "192.0.2.1"]


async def test_a_service_at_a_host_name_is_answered_with_its_addresses() -> None:
    """CNAME and the address from the recursor; when it is silent, the CNAME alone."""
    async with upstream(with_addresses("192.0.2.9")) as good, upstream(_silent) as silent:
        query = query_for("alias.service.consul.")
        async with serving(recursors=(good.address,)) as server:
            reply = await dns.asyncquery.udp(query, HOST, port=server.port, timeout=5)
            assert addresses(reply) == {"db.example.org.", "192.0.2.9"}
        async with serving(recursors=(silent.address,), recursor_timeout_s=0.2) as server:
            reply = await dns.asyncquery.tcp(query, HOST, port=server.port, timeout=5)
            assert addresses(reply) == {"db.example.org."}


def _silent(query: dns.message.Message, transport: str) -> None:
    del query, transport


async def test_a_reply_longer_than_the_client_takes_is_cut() -> None:
    """By UDP such a reply becomes an empty one with TC; by TCP it comes whole."""
    many = [f"192.0.2.{number}" for number in range(1, 100)]
    async with (
        upstream(with_addresses(*many)) as good,
        serving(recursors=(good.address,)) as server,
    ):
        reply = await dns.asyncquery.udp(query_for(), HOST, port=server.port, timeout=5)
        assert reply.flags & dns.flags.TC
        assert not reply.answer
        reply = await dns.asyncquery.tcp(query_for(), HOST, port=server.port, timeout=5)
        assert len(addresses(reply)) == 99


async def test_queries_that_wait_are_limited() -> None:
    """More than `recursions_max` get SERVFAIL at once; names of ours are answered meanwhile."""
    async with (
        upstream(_silent) as silent,
        serving(recursors=(silent.address,), recursor_timeout_s=30.0, recursions_max=2) as server,
    ):
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(HOST, server.port)
        )
        for number in range(2):
            transport.sendto(query_for(f"n{number}.test.").to_wire())
        reply = await dns.asyncquery.udp(query_for("n3.test."), HOST, port=server.port, timeout=5)
        transport.close()
        assert reply.rcode() == dns.rcode.SERVFAIL
        reply = await dns.asyncquery.udp(
            query_for("web.service.consul."), HOST, port=server.port, timeout=5
        )
        assert len(addresses(reply)) == 3


async def test_a_slow_answer_holds_up_no_other_on_its_connection() -> None:
    """By TCP, answers come as they are ready, and all come although the client sends no more."""
    async with (
        upstream(with_addresses("192.0.2.1")) as good,
        upstream(_silent) as silent,
        serving(recursors=(silent.address, good.address), recursor_timeout_s=0.3) as server,
    ):
        reader, writer = await asyncio.open_connection(HOST, server.port)
        names = ["example.org.", "web.service.consul.", "n1.node.consul."]
        queries = {query.id: query for query in map(query_for, names)}
        for query in queries.values():
            wire = query.to_wire()
            writer.write(struct.pack("!H", len(wire)) + wire)
        writer.write_eof()
        order = []
        for _ in names:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            reply = dns.message.from_wire(await reader.readexactly(length))
            order.append(queries[reply.id].question[0].name.to_text())
        assert order == [*names[1:], names[0]]
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
