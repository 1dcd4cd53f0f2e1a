"""The sockets: real queries over UDP and TCP by dnspython's client and by dig."""

from __future__ import annotations

import asyncio
import shutil
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from raftreg.clock import SystemClock
from raftreg.config import DnsSettings
from raftreg.core.catalog import Catalog
from raftreg.dns import datagram
from raftreg.dns.query import Doors
from raftreg.dns.server import DnsServer
from raftreg.errors import ConfigurationError
from tests.dns.catalogs import sample

WEB = {"127.0.0.21", "127.0.0.22", "127.0.0.23"}
HOST = "127.0.0.1"


@asynccontextmanager
async def serving(
    view: Callable[[], Catalog] | None = None,
    *,
    host: str = HOST,
    port: int = 0,
    doors: Doors | None = None,
    **settings: Any,
) -> AsyncIterator[DnsServer]:
    """A server on a free port."""
    catalog = sample().catalog
    server = DnsServer(
        view or (lambda: catalog),
        DnsSettings(**settings),
        host=host,
        port=port,
        clock=SystemClock(),
        rng=Random(3),
        doors=doors or Doors(),
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def addresses(reply: dns.message.Message) -> set[str]:
    """Data of the answers."""
    return {str(rr) for one in reply.answer for rr in one}


def web_query() -> dns.message.Message:
    """A query that has an answer."""
    return dns.message.make_query("web.service.consul.", "A")


async def test_udp_and_tcp() -> None:
    """The same question is answered over both, and both are counted."""
    async with serving() as server:
        for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
            reply = await ask(web_query(), HOST, port=server.port, timeout=5)
            assert addresses(reply) == WEB
        assert server.query_count() == 2


async def test_udp_on_a_loop_that_watches_no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's own transport serves too: answers at once, later ones, and counts."""
    monkeypatch.setattr(datagram, "watches_sockets", lambda _: False)
    async with serving() as server, serving(recursors=(f"{HOST}:{server.port}",)) as relay:
        reply = await dns.asyncquery.udp(web_query(), HOST, port=server.port, timeout=5)
        assert addresses(reply) == WEB
        query = dns.message.make_query("example.org.", "A")
        reply = await dns.asyncquery.udp(query, HOST, port=relay.port, timeout=5)
        assert reply.rcode() == dns.rcode.REFUSED
        assert (server.query_count(), relay.query_count()) == (2, 1)


async def test_a_host_name_with_several_addresses() -> None:
    """Where TCP listens, UDP does."""
    async with serving(host="localhost") as server:
        for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
            assert addresses(await ask(web_query(), HOST, port=server.port, timeout=5)) == WEB


async def test_pipelined_queries_leave_others_their_turn() -> None:
    """However many come in one read, the process goes on with all else between their answers."""
    catalog, asked = sample().catalog, 0

    def view() -> Catalog:
        nonlocal asked
        asked += 1
        return catalog

    async with serving(view) as server:
        _, writer = await asyncio.open_connection(HOST, server.port)
        wire = web_query().to_wire()
        writer.write((struct.pack("!H", len(wire)) + wire) * 200)
        seen = most = 0
        while asked < 200:
            await asyncio.sleep(0)
            seen, most = asked, max(most, asked - seen)
        assert most <= 2
        writer.close()


async def test_pipelined_tcp() -> None:
    """Queries that are sent at once on one connection are all answered."""
    async with serving() as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        wires = {}
        for _ in range(20):
            query = web_query()
            wires[query.id] = query
            wire = query.to_wire()
            writer.write(struct.pack("!H", len(wire)) + wire)
        for _ in range(len(wires)):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            reply = dns.message.from_wire(await reader.readexactly(length))
            assert wires.pop(reply.id).is_response(reply)
        assert not wires
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("junk", [b"\0\0", b"\0\3abc", b"\xff\xff" + b"x" * 100, b"\0\x20" * 40])
async def test_junk_on_tcp_ends_that_connection_alone(junk: bytes) -> None:
    """A frame that can't be a query closes its connection; others are served on."""
    async with serving(tcp_idle_s=0.2) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(junk)
        await reader.read()
        writer.close()
        reply = await dns.asyncquery.tcp(web_query(), HOST, port=server.port, timeout=5)
        assert addresses(reply) == WEB


async def test_junk_on_udp() -> None:
    """Datagrams that are no query don't keep the next one from its answer."""
    async with serving() as server:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(HOST, server.port)
        )
        for size in (0, 1, 11, 12, 500):
            transport.sendto(b"\x01" * size)
        reply = await dns.asyncquery.udp(web_query(), HOST, port=server.port, timeout=5)
        transport.close()
        assert addresses(reply) == WEB


async def test_idle_and_surplus_connections_are_closed() -> None:
    """A connection over the limit is closed at once, an idle one after its time."""
    async with serving(tcp_connections_max=1, tcp_idle_s=0.3) as server:
        idle, first = await asyncio.open_connection(HOST, server.port)
        surplus, second = await asyncio.open_connection(HOST, server.port)
        with suppress(ConnectionResetError):
            assert await surplus.read() == b""
        assert await idle.read() == b""
        first.close()
        second.close()


async def test_a_failing_view_gives_servfail() -> None:
    """A fault of ours is told to the asker, and the server goes on."""
    catalog, broken = sample().catalog, True

    def view() -> Catalog:
        if broken:
            raise RuntimeError("planted")
        return catalog

    async with serving(view) as server:
        reply = await dns.asyncquery.udp(web_query(), HOST, port=server.port, timeout=5)
        assert reply.rcode() == dns.rcode.SERVFAIL
        broken = False
        reply = await dns.asyncquery.udp(web_query(), HOST, port=server.port, timeout=5)
        assert addresses(reply) == WEB


async def test_other_domains_go_to_the_recursors() -> None:
    """Over UDP and TCP a query for another domain is answered by the first recursor that
    replies, with the asker's id and RA; when none does, SERVFAIL.
    """
    query = dns.message.make_query("web.service.other.", "A")
    # A second server plays the resolver: it has authority for another domain.
    async with (
        serving(domain="other") as upstream,
        serving(
            recursors=(f"{HOST}:1", f"{HOST}:{upstream.port}"), recursor_timeout_s=1.0
        ) as server,
        serving(recursors=(f"{HOST}:1",), recursor_timeout_s=0.2) as lonely,
    ):
        for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
            reply = await ask(query, HOST, port=server.port, timeout=5)
            assert addresses(reply) == WEB
            assert reply.flags & dns.flags.RA
            reply = await ask(query, HOST, port=lonely.port, timeout=5)
            assert reply.rcode() == dns.rcode.SERVFAIL


async def test_stop_ends_what_is_under_way() -> None:
    """Stopping does not wait for a silent recursor or an idle connection."""
    loop = asyncio.get_running_loop()
    silent, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(HOST, 0))
    port = silent.get_extra_info("sockname")[1]
    async with asyncio.timeout(10):
        async with serving(recursors=(f"{HOST}:{port}",), recursor_timeout_s=60.0) as server:
            _, writer = await asyncio.open_connection(HOST, server.port)
            asker, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=(HOST, server.port)
            )
            asker.sendto(dns.message.make_query("example.org.", "A").to_wire())
            await dns.asyncquery.udp(web_query(), HOST, port=server.port, timeout=5)
        writer.close()
        asker.close()
    silent.close()


def test_a_bad_recursor_is_refused_at_once() -> None:
    """An address that can't be read is an error before anything listens."""
    with pytest.raises(ConfigurationError, match="recursor"):
        DnsServer(
            lambda: Catalog(1),
            DnsSettings(recursors=("host:port:x:",)),
            host=HOST,
            port=0,
            clock=SystemClock(),
            rng=Random(3),
        )


async def dig(port: int, *arguments: str) -> str:
    """Runs dig; the CI installs it (package dnsutils)."""
    program = shutil.which("dig")
    assert program is not None, "dig is missing: install dnsutils (bind9-dnsutils)"
    process = await asyncio.create_subprocess_exec(
        program, f"@{HOST}", "-p", str(port), "+time=5", "+tries=1", *arguments,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode()


async def test_dig() -> None:
    """Dig gets A, SRV and NXDOMAIN, over UDP and TCP, and sees nothing odd."""
    async with serving() as server:
        plain = await dig(server.port, "web.service.consul")
        assert "status: NOERROR" in plain
        assert "flags: qr aa rd;" in plain
        assert all(address in plain for address in WEB)
        assert "malformed" not in plain.lower()
        short = await dig(server.port, "+short", "+tcp", "web.service.consul", "SRV")
        assert sorted(short.split("\n"))[1:] == [
            "1 1 8002 n2.node.dc1.consul.",
            "1 1 8003 n3.node.dc1.consul.",
            "1 10 8001 n1.node.dc1.consul.",
        ]
        missing = await dig(server.port, "+noedns", "nothing.service.consul")
        assert "status: NXDOMAIN" in missing
        assert "SOA\tns.consul. hostmaster.consul." in missing
        assert "n1.node.dc1.consul." in await dig(server.port, "-x", "127.0.0.21", "+short")
