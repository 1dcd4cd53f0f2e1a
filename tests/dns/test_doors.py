"""Prepared queries and freshness, through the sockets."""

from __future__ import annotations

import asyncio

import dns.asyncquery
import dns.message
import dns.rcode

from raftreg.dns.query import Doors, QueryAnswer
from raftreg.errors import NoLeader
from tests.dns.test_forms import ROWS
from tests.dns.test_server import HOST, WEB, addresses, serving, web_query


async def test_prepared_queries_are_executed() -> None:
    """The door is asked with name and address of the asker; its error is SERVFAIL."""
    asked = []

    async def queries(name: str, source_address: str) -> QueryAnswer | None:
        asked.append((name, source_address))
        if name == "failing":
            raise NoLeader("planted")
        if name == "broken":
            raise RuntimeError("planted")
        return QueryAnswer(service="web", rows=ROWS, ttl_s=9) if name == "fast" else None

    expected = {
        "fast": dns.rcode.NOERROR,
        "unknown": dns.rcode.NXDOMAIN,
        "failing": dns.rcode.SERVFAIL,
        "broken": dns.rcode.SERVFAIL,
    }
    async with serving(doors=Doors(queries=queries)) as server:
        for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
            for name, rcode in expected.items():
                query = dns.message.make_query(f"{name}.query.consul.", "A")
                reply = await ask(query, HOST, port=server.port, timeout=5)
                assert reply.rcode() == rcode, name
                assert reply.question == query.question or name == "broken"
                if name == "fast":
                    assert reply.answer[0].ttl == 9
        assert asked == [(name, HOST) for name in (*expected, *expected)]


class Age:
    """Freshness as it is told.

    Attributes:
        confirmed: How often it was confirmed.
    """

    def __init__(self) -> None:
        self.seconds: float | None = 0.0
        self.leader = True
        self.confirmed = 0

    def age_s(self) -> float | None:
        """The age."""
        return self.seconds

    async def confirm(self) -> None:
        """Confirms."""
        await asyncio.sleep(0)
        if not self.leader:
            raise NoLeader("planted")
        self.confirmed += 1


async def test_stale_views_are_confirmed_first() -> None:
    """Up to `max_stale_s` answers come at once; beyond, they wait for the leader, or fail."""
    age = Age()
    async with serving(doors=Doors(freshness=age), max_stale_s=5.0) as server:

        async def ask() -> dns.message.Message:
            return await dns.asyncquery.udp(web_query(), HOST, port=server.port, timeout=5)

        age.leader = False
        assert addresses(await ask()) == WEB
        for seconds in (6.0, None):
            age.seconds, age.leader = seconds, False
            assert (await ask()).rcode() == dns.rcode.SERVFAIL
            age.leader = True
            assert addresses(await ask()) == WEB
        assert age.confirmed == 2


async def test_without_stale_reads_every_answer_is_confirmed() -> None:
    """`allow_stale = false` asks the leader for each answer; many share a round."""
    age = Age()
    async with serving(doors=Doors(freshness=age), allow_stale=False) as server:
        for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
            assert addresses(await ask(web_query(), HOST, port=server.port, timeout=5)) == WEB
        assert age.confirmed == 2
        replies = await asyncio.gather(
            *(dns.asyncquery.udp(web_query(), HOST, port=server.port, timeout=5) for _ in range(20))
        )
        assert all(addresses(reply) == WEB for reply in replies)
    async with serving(doors=Doors(freshness=age)) as server:
        age.leader = False
        reply = await dns.asyncquery.udp(web_query(), HOST, port=server.port, timeout=5)
        assert addresses(reply) == WEB
