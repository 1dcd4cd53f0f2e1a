"""Forms of names and settings beyond the everyday ones."""

from __future__ import annotations

from random import Random
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftreg.config import DnsSettings
from raftreg.dns.answer import Answerer, Transport
from raftreg.dns.known import FAILED, Gateway, HostAsk, Known, Needs, QueryAsk
from raftreg.dns.query import QueryAnswer, QueryRow
from raftreg.dns.records import meta_text
from raftreg.dns.ttl import ServiceTtls
from raftreg.model import Node, ServiceAddress, ServiceInstance, Status
from tests.dns.catalogs import Builder, sample
from tests.dns.test_answer import WALL_S, answerer, ask, crowd, texts, values


def found(
    by: Answerer, built: Builder, query: dns.message.Message, known: Known | None = None
) -> dns.message.Message | Needs:
    """Asks by UDP with what is known; gives the answer, or what is missing."""
    reply = by.answer(query.to_wire(), built.catalog, Transport.UDP, known or Known())
    if isinstance(reply, Needs):
        return reply
    assert isinstance(reply, bytes)
    return dns.message.from_wire(reply)


def answered(*args: Any) -> dns.message.Message:
    """As `found`, for what can be answered."""
    reply = found(*args)
    assert isinstance(reply, dns.message.Message)
    return reply


# -- the mesh ------------------------------------------------------------------------------------


def mesh() -> Builder:
    """A service with proxies, one that speaks for itself, and one with a virtual address."""
    built = sample()
    for node, port in (("n1", 21000), ("n2", 21001)):
        built.service(
            node,
            "web-sidecar-proxy",
            port=port,
            kind="connect-proxy",
            proxy={"DestinationServiceName": "web"},
        )
    built.service("n3", "native", port=9, connect={"Native": True})
    built.service(
        "n2", "meshed", tagged_addresses={"consul-virtual": ServiceAddress("240.0.0.7", 80)}
    )
    return built


def test_connect_names_give_proxies_and_native_instances() -> None:
    """`name.connect` is what takes connections of the mesh for it; critical ones are left out."""
    built = mesh()
    assert {str(rr) for rr in ask(built, "web.connect.consul.", "SRV").answer[0]} == {
        "1 1 21000 n1.node.dc1.consul.",
        "1 1 21001 n2.node.dc1.consul.",
    }
    assert values(ask(built, "native.connect.dc1.consul.")) == ["127.0.0.23"]
    built.check("n1", Status.CRITICAL, service="web-sidecar-proxy")
    assert values(ask(built, "Web.Connect.consul.")) == ["127.0.0.22"]
    assert ask(built, "own.connect.consul.").rcode() == dns.rcode.NXDOMAIN


def test_virtual_names_give_the_address_for_all() -> None:
    """`name.virtual` gives the virtual address; without one there is no data, not no name."""
    built = mesh()
    assert values(ask(built, "meshed.virtual.consul.")) == ["240.0.0.7"]
    assert ask(built, "meshed.virtual.consul.", "AAAA").rcode() == dns.rcode.NOERROR
    reply = ask(built, "web.virtual.consul.")
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])
    assert ask(built, "nothing.virtual.consul.").rcode() == dns.rcode.NXDOMAIN


# -- prepared queries ----------------------------------------------------------------------------

ROWS = tuple(
    QueryRow(
        node=Node(name=f"n{number}", address=f"127.0.0.2{number}"),
        instance=ServiceInstance(node=f"n{number}", id="web", name="web", port=8000 + number),
    )
    for number in (3, 1, 2)
)


@pytest.mark.parametrize(
    ("name", "ask_for"),
    [
        ("Fast-Web.query.consul.", QueryAsk("fast-web")),
        ("fast-web.query.dc1.consul.", QueryAsk("fast-web")),
        ("geo.fast.web.query.consul.", QueryAsk("geo.fast.web")),
        ("_fast.web._tcp.query.consul.", QueryAsk("fast.web")),
    ],
)
def test_queries_are_asked_for_and_answered_in_their_order(name: str, ask_for: QueryAsk) -> None:
    """The first answer names what it needs; with that, rows come in order, with the query's TTL."""
    by, built = answerer(service_ttl={"web": 7}), Builder()
    query = dns.message.make_query(name, "A", use_edns=0, payload=1232)
    missing = found(by, built, query)
    assert isinstance(missing, Needs)
    assert missing.asks == (ask_for,)
    for ttl_s, expected in ((None, 7), (30, 30), (0, 0)):
        answer = QueryAnswer(service="web", rows=ROWS, ttl_s=ttl_s)
        reply = answered(by, built, query, Known(queries={ask_for: answer}))
        assert values(reply) == ["127.0.0.23", "127.0.0.21", "127.0.0.22"]
        assert reply.answer[0].ttl == expected
        assert reply.flags & dns.flags.AA


def test_gateways_are_asked_for_and_the_healthy_ones_given() -> None:
    """`name.ingress` names gateways that are not critical; with `only_passing`, not warning."""
    key = QueryAsk("web", Gateway.INGRESS)
    query = dns.message.make_query("web.ingress.consul.", "SRV")
    rows = tuple(
        msgspec.structs.replace(row, status=status)
        for row, status in zip(ROWS, Status, strict=True)
    )
    known = Known(queries={key: QueryAnswer(service="web", rows=rows)})
    for only_passing, ports in ((False, {8003, 8001}), (True, {8003})):
        by = answerer(only_passing=only_passing)
        missing = found(by, Builder(), query)
        assert isinstance(missing, Needs)
        assert missing.asks == (key,)
        assert {rr.port for rr in answered(by, Builder(), query, known).answer[0]} == ports


def test_queries_that_give_nothing() -> None:
    """No such query, or no rows: NXDOMAIN. It failed, or is not known in the end: SERVFAIL."""
    by, built, key = answerer(), Builder(), QueryAsk("q")
    query = dns.message.make_query("q.query.consul.", "SRV")
    for answer in (None, QueryAnswer(service="web", rows=())):
        reply = answered(by, built, query, Known(queries={key: answer}))
        assert reply.rcode() == dns.rcode.NXDOMAIN
        assert [one.rdtype for one in reply.authority] == [dns.rdatatype.SOA]
    for known in (Known(queries={key: FAILED}), Known(final=True)):
        assert answered(by, built, query, known).rcode() == dns.rcode.SERVFAIL
    assert ask(built, "query.consul.").rcode() == dns.rcode.NOERROR
    assert ask(built, "q.query.dc2.consul.").rcode() == dns.rcode.NXDOMAIN


# -- host names ----------------------------------------------------------------------------------

DB = dns.name.from_text("db.example.org.")
DB_A = (
    dns.rrset.from_text("db.example.org.", 300, "IN", "CNAME", "db1.example.org."),
    dns.rrset.from_text("db1.example.org.", 60, "IN", "A", "192.0.2.1"),
)


def test_host_names_are_looked_up_at_recursors() -> None:
    """With recursors, a CNAME comes with what it leads to, never kept longer than our own TTL."""
    by = answerer(recursors=("127.0.0.1:1",), service_ttl_s=100)
    built = sample()
    query = dns.message.make_query("alias.service.consul.", "A")
    missing = found(by, built, query)
    assert isinstance(missing, Needs)
    key = HostAsk("db.example.org.", dns.rdatatype.A)
    assert missing.asks == (key,)
    assert texts(answered(by, built, query, Known(hosts={key: DB_A})).answer) == {
        "alias.service.consul. 100 CNAME db.example.org.",
        "db.example.org. 100 CNAME db1.example.org.",
        "db1.example.org. 60 A 192.0.2.1",
    }
    for known in (Known(hosts={key: ()}), Known(final=True)):
        assert values(answered(by, built, query, known)) == ["db.example.org."]


def test_host_names_are_not_looked_up_unasked() -> None:
    """Without recursors, or without RD, the CNAME stands alone."""
    query = dns.message.make_query("alias.service.consul.", "A")
    assert values(answered(answerer(), sample(), query)) == ["db.example.org."]
    query.flags &= ~dns.flags.RD
    by = answerer(recursors=("127.0.0.1:1",))
    assert values(answered(by, sample(), query)) == ["db.example.org."]


def test_srv_of_a_host_name_brings_its_addresses() -> None:
    """The target's addresses are in additional, from a recursor or from our own domain."""
    by = answerer(recursors=("127.0.0.1:1",))
    query = dns.message.make_query("alias.service.consul.", "SRV", use_edns=0)
    missing = found(by, sample(), query)
    assert isinstance(missing, Needs)
    keys = [HostAsk("db.example.org.", rdtype) for rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)]
    assert list(missing.asks) == keys
    known = Known(hosts={keys[0]: DB_A, keys[1]: ()})
    reply = answered(by, sample(), query, known)
    assert "db1.example.org. 0 A 192.0.2.1" in texts(reply.additional)
    inner = ask(sample(), "inner.service.consul.", "SRV")
    assert [str(rr.target) for rr in inner.answer[0]] == ["n2.node.consul."]
    assert "n2.node.consul. 0 A 127.0.0.22" in texts(inner.additional)


# -- domains -------------------------------------------------------------------------------------


def test_alt_domain_answers_stay_in_it() -> None:
    """Both domains answer; names made for an answer are in the domain that was asked."""
    by = answerer(alt_domain="test.consul")
    reply = ask(sample(), "web.service.test.consul.", "SRV", by=by)
    assert {str(rr.target) for rr in reply.answer[0]} == {
        f"n{number}.node.dc1.test.consul." for number in (1, 2, 3)
    }
    missing = ask(sample(), "nothing.service.test.consul.", by=by)
    assert [str(one.name) for one in missing.authority] == ["test.consul."]
    assert values(ask(sample(), "test.consul.", "NS", by=by)) == ["n2.node.dc1.test.consul."]
    main = ask(sample(), "web.service.consul.", "SRV", by=by)
    assert {str(rr.target) for rr in main.answer[0]} == {
        f"n{number}.node.dc1.consul." for number in (1, 2, 3)
    }


def test_ip6_reverse_names() -> None:
    """Nodes and services with IPv6 addresses are found by them."""
    built = sample()
    built.node("six-node", "2001:db8::7")
    for address, expected in (
        ("2001:db8::7", "six-node.node.dc1.consul."),
        ("2001:db8::1", "six.service.dc1.consul."),
    ):
        name = dns.reversename.from_address(address)
        assert values(ask(built, name.to_text(), "PTR")) == [expected]
    unknown = ask(built, dns.reversename.from_address("2001:db8::9").to_text(), "PTR")
    assert unknown.rcode() == dns.rcode.NXDOMAIN


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ttl_s"),
    [("web", 30), ("db-1", 10), ("db-main-1", 20), ("other", 5), ("we", 5)],
)
def test_ttl_of_a_service(name: str, ttl_s: int) -> None:
    """An exact name counts before the longest prefix, that before `*`."""
    ttls = ServiceTtls({"Web": 30, "db-*": 10, "db-main-*": 20, "*": 5}, 1)
    assert ttls.of(name) == ttl_s
    assert ServiceTtls({"web": 30}, 1).of(name) == (30 if name == "web" else 1)


def test_ttls_and_soa_by_settings() -> None:
    """TTLs of services and nodes, and the times of SOA, are those of the settings."""
    by = answerer(
        node_ttl_s=11,
        service_ttl={"web": 22},
        soa_refresh_s=1,
        soa_retry_s=2,
        soa_expire_s=3,
        soa_min_ttl_s=4,
    )
    assert ask(sample(), "WEB.service.consul.", by=by).answer[0].ttl == 22
    assert ask(sample(), "own.service.consul.", by=by).answer[0].ttl == 0
    assert ask(sample(), "n1.node.consul.", by=by).answer[0].ttl == 11
    assert ask(sample(), "7f000001.addr.consul.", by=by).answer[0].ttl == 11
    assert ask(sample(), "21.0.0.127.in-addr.arpa.", "PTR", by=by).answer[0].ttl == 11
    assert texts(ask(sample(), "consul.", "SOA", by=by).answer) == {
        f"consul. 4 SOA ns.consul. hostmaster.consul. {int(WALL_S)} 1 2 3 4"
    }


def test_addresses_of_either_kind_are_found_in_any_order() -> None:
    """A and AAAA each find theirs among instances of both kinds, however these are shuffled."""
    built = Builder()
    built.node("n1", "127.0.0.1")
    built.service("n1", "both", id="4", address="127.0.0.4")
    built.service("n1", "both", id="6", address="2001:db8::6")
    by = answerer()
    for _ in range(20):
        assert values(ask(built, "both.service.consul.", "A", by=by)) == ["127.0.0.4"]
        assert values(ask(built, "both.service.consul.", "AAAA", by=by)) == ["2001:db8::6"]


def test_limit_of_addresses() -> None:
    """`a_record_limit` bounds addresses over any transport, and no SRV."""
    by = answerer(a_record_limit=4)
    assert len(values(ask(crowd(10), "big.service.consul.", by=by))) == 4
    assert len(values(ask(crowd(10), "big.service.consul.", "SRV", by=by))) == 10


def test_meta_data_of_nodes_can_be_left_out() -> None:
    """Without `node_meta_txt` TXT comes only when it is asked for."""
    by = answerer(node_meta_txt=False)
    assert not ask(sample(), "n1.node.consul.", by=by).additional
    reply = ask(sample(), "web.service.consul.", "SRV", by=by)
    assert {one.rdtype for one in reply.additional} == {dns.rdatatype.A}
    assert len(values(ask(sample(), "n1.node.consul.", "TXT", by=by))) == 2


def test_uncompressed_answers() -> None:
    """Every name is written in full, and the answer still fits its packet."""
    by = answerer(disable_compression=True)
    query = dns.message.make_query("web.service.consul.", "SRV").to_wire()
    plain = by.answer(query, sample().catalog, Transport.UDP)
    packed = answerer().answer(query, sample().catalog, Transport.UDP)
    assert isinstance(plain, bytes)
    assert isinstance(packed, bytes)
    assert plain.count(b"\x03web\x07service\x06consul\0") == 4
    assert len(packed) < len(plain) <= 512
    many = by.answer(query.replace(b"\x03web", b"\x03big"), crowd(99).catalog, Transport.UDP)
    assert isinstance(many, bytes)
    assert len(many) <= 512


# -- EDNS ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("subnet", ["198.51.100.0", "2001:d00::"])
def test_client_subnet_is_echoed(subnet: str) -> None:
    """The option comes back with scope 0; for a query, with the scope that was asked (RFC 7871)."""
    option = dns.edns.ECSOption(subnet, 24, 0)
    by, key = answerer(), QueryAsk("q")
    for name, scope in (("web.service.consul.", 0), ("q.query.consul.", 24)):
        query = dns.message.make_query(name, "A", use_edns=0, options=[option])
        known = Known()
        if scope:
            missing = found(by, sample(), query)
            assert isinstance(missing, Needs)
            assert missing.source_address == option.address
            known = Known(queries={key: QueryAnswer(service="web", rows=ROWS)})
        (echoed,) = answered(by, sample(), query, known).options
        assert isinstance(echoed, dns.edns.ECSOption)
        assert (echoed.address, echoed.srclen, echoed.scopelen) == (option.address, 24, scope)


def test_unknown_options_are_passed_over() -> None:
    """An option that is not known, or a cookie, changes nothing."""
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    unknown = dns.edns.GenericOption(dns.edns.OptionType.make(65_001), b"abc")
    options: list[dns.edns.Option] = [cookie, unknown]
    query = dns.message.make_query("web.service.consul.", "A", use_edns=0, options=options)
    reply = answered(answerer(), sample(), query)
    assert len(values(reply)) == 3
    assert reply.options == ()


@settings(max_examples=40)
@given(st.integers(0, 70_000), st.sampled_from(["A", "SRV", "ANY", "TXT", "NS"]), st.booleans())
def test_udp_answers_never_amplify_beyond_bounds(size: int, rdtype: str, whole: bool) -> None:
    """An answer by UDP has at most what the client takes, and at most 4096 bytes."""
    query = dns.message.make_query("big.service.consul.", rdtype)
    if whole:
        query.use_edns(0, payload=min(size, 65_535))
    by = Answerer(DnsSettings(), Random(size), lambda: WALL_S)
    reply = by.answer(query.to_wire(), BIG.catalog, Transport.UDP)
    assert isinstance(reply, bytes)
    assert len(reply) <= (min(max(size, 512), 4096) if whole else 512)


BIG = crowd(100)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("color", "blue", "color=blue"),
        ("a=a", "b=c", "a`=a=b=c"),
        ("a`b", "c`d", "a``b=c``d"),
        ("  x ", "1", "` ` x` =1"),
        ("rfc1035-raw", "v=spf1 `", "v=spf1 `"),
        ("", "empty", "=empty"),
    ],
)
def test_meta_data_as_text(key: str, value: str, expected: str) -> None:
    """Pairs are quoted as RFC 1464 says; keys that begin with rfc1035- give the value alone."""
    assert meta_text(key, value) == expected


def test_zone_transfers_are_not_implemented() -> None:
    """AXFR gets NOTIMP: there is no zone file."""
    assert ask(sample(), "consul.", "AXFR").rcode() == dns.rcode.NOTIMP
