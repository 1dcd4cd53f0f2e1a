"""What names answer, over a catalog in memory."""

from __future__ import annotations

from random import Random
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest

from raftreg.config import DnsSettings
from raftreg.dns.answer import Answerer, Forward, Transport
from raftreg.model import Status
from tests.dns.catalogs import Builder, sample

WALL_S = 1_700_000_000.0


def answerer(**settings: Any) -> Answerer:
    """An answerer with fixed chance and time."""
    return Answerer(DnsSettings(**settings), Random(7), lambda: WALL_S)


def ask(
    built: Builder,
    name: str,
    rdtype: str = "A",
    *,
    by: Answerer | None = None,
    transport: Transport = Transport.TCP,
    **query: Any,
) -> dns.message.Message:
    """Asks once; over TCP, where nothing is cut."""
    message = dns.message.make_query(name, rdtype, **query)
    reply = (by or answerer()).answer(message.to_wire(), built.catalog, transport)
    assert isinstance(reply, bytes)
    read = dns.message.from_wire(reply)
    assert message.is_response(read)
    return read


def texts(section: list[Any]) -> set[str]:
    """Records of a section as text."""
    return {
        f"{one.name} {one.ttl} {dns.rdatatype.to_text(one.rdtype)} {rr}"
        for one in section
        for rr in one
    }


def values(reply: dns.message.Message) -> list[str]:
    """The data of the answers, in order (the reader groups equal names)."""
    return [str(rr) for one in reply.answer for rr in one]


WEB = {"127.0.0.21", "127.0.0.22", "127.0.0.23"}


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        ("web.service.consul.", "A", WEB),
        ("web.service.dc1.consul.", "A", WEB),
        ("WEB.Service.DC1.conSUL.", "A", WEB),
        ("web.service.dc1.dc.consul.", "A", WEB),
        ("web.service.default.ns.consul.", "A", WEB),
        ("web.service.default.ns.default.ap.dc1.dc.consul.", "A", WEB),
        ("n1.node.default.ap.consul.", "A", {"127.0.0.21"}),
        ("_web._tcp.consul.", "A", WEB),
        ("_web._v2.dc1.consul.", "A", {"127.0.0.22"}),
        ("web.service.consul.", "ANY", WEB),
        ("v1.web.service.consul.", "A", {"127.0.0.21"}),
        ("V2.web.service.consul.", "A", {"127.0.0.22"}),
        ("a.b.web.service.consul.", "A", {"127.0.0.21"}),
        ("_web._tcp.service.consul.", "A", WEB),
        ("_web._v2.service.dc1.consul.", "A", {"127.0.0.22"}),
        ("mixed-case.service.consul.", "A", {"127.0.0.21"}),
        ("own.service.consul.", "A", {"127.0.9.9"}),
        ("six.service.consul.", "AAAA", {"2001:db8::1"}),
        ("alias.service.consul.", "A", {"db.example.org."}),
        ("inner.service.consul.", "A", {"n2.node.consul.", "127.0.0.22"}),
        ("loop.service.consul.", "A", {"127.0.0.21"}),
        ("consul.service.consul.", "A", {"127.0.0.22"}),
        ("ns.consul.", "A", {"127.0.0.22"}),
        ("n1.node.consul.", "A", {"127.0.0.21"}),
        ("n1.node.dc1.consul.", "TXT", {'"env=prod"', '"owner=team a"'}),
        ("N1.node.consul.", "ANY", {"127.0.0.21", '"env=prod"', '"owner=team a"'}),
        ("7f000015.addr.dc1.consul.", "A", {"127.0.0.21"}),
        ("20010db8000000000000000000000001.addr.consul.", "AAAA", {"2001:db8::1"}),
        ("21.0.0.127.in-addr.arpa.", "PTR", {"n1.node.dc1.consul."}),
        ("9.9.0.127.in-addr.arpa.", "PTR", {"own.service.dc1.consul."}),
        ("consul.", "NS", {"n2.node.dc1.consul."}),
        ("consul.", "SOA", {"ns.consul. hostmaster.consul. 1700000000 3600 600 86400 0"}),
    ],
)
def test_names_answer_what_is_registered(name: str, rdtype: str, expected: set[str]) -> None:
    """Each form of name gives its records, as an authoritative answer."""
    reply = ask(sample(), name, rdtype)
    assert reply.rcode() == dns.rcode.NOERROR
    assert set(values(reply)) == expected
    assert reply.flags & dns.flags.AA
    assert not reply.flags & dns.flags.RA


@pytest.mark.parametrize(
    "name",
    [
        "nothing.service.consul.",
        "v9.web.service.consul.",
        "web.service.dc2.consul.",
        "web.service.a.b.consul.",
        "nobody.node.consul.",
        "web.service.other.ns.consul.",
        "web.service.dc2.dc.consul.",
        "web.service.dc1.dc.dc1.dc.consul.",
        "web.service.cluster-a.peer.consul.",
        "web.connect.consul.",
        "nothing.virtual.consul.",
        "xyz.addr.consul.",
        "7f00001.addr.consul.",
        "7f0000150000.addr.consul.",
        "a.7f000015.addr.consul.",
        "elsewhere.consul.",
    ],
)
def test_unknown_names_do_not_exist(name: str) -> None:
    """A name that is not there gives NXDOMAIN with the SOA."""
    reply = ask(sample(), name)
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert not reply.answer
    assert texts(reply.authority) == {
        "consul. 0 SOA ns.consul. hostmaster.consul. 1700000000 3600 600 86400 0"
    }


@pytest.mark.parametrize(
    ("name", "rdtype"),
    [
        ("web.service.consul.", "AAAA"),
        ("web.service.consul.", "MX"),
        ("n1.node.consul.", "SRV"),
        ("7f000015.addr.consul.", "AAAA"),
        ("service.consul.", "A"),
        ("service.dc1.consul.", "A"),
        ("dc1.consul.", "A"),
        ("_tcp.service.consul.", "A"),
        ("consul.", "A"),
    ],
)
def test_known_names_without_that_type(name: str, rdtype: str) -> None:
    """A name that is there, or has names below it, gives NOERROR with the SOA alone."""
    reply = ask(sample(), name, rdtype)
    assert reply.rcode() == dns.rcode.NOERROR
    assert not reply.answer
    assert [one.rdtype for one in reply.authority] == [dns.rdatatype.SOA]


def test_srv_names_its_targets() -> None:
    """SRV has priority, weight by health, port and target; its helpers are in additional."""
    built = sample()
    built.check("n2", Status.WARNING, service="web")
    reply = ask(built, "_web._tcp.service.consul.", "SRV", by=answerer(service_ttl_s=5))
    assert texts(reply.answer) == {
        "_web._tcp.service.consul. 5 SRV 1 10 8001 n1.node.dc1.consul.",
        "_web._tcp.service.consul. 5 SRV 1 1 8002 n2.node.dc1.consul.",
        "_web._tcp.service.consul. 5 SRV 1 1 8003 n3.node.dc1.consul.",
    }
    assert {
        "n1.node.dc1.consul. 5 A 127.0.0.21",
        'n1.node.dc1.consul. 0 TXT "env=prod"',
    } <= texts(reply.additional)


@pytest.mark.parametrize(
    ("service", "target"),
    [
        ("own", "7f000909.addr.dc1.consul."),
        ("six", "20010db8000000000000000000000001.addr.dc1.consul."),
        ("alias", "db.example.org."),
    ],
)
def test_srv_target_of_an_address_of_its_own(service: str, target: str) -> None:
    """An instance's own address stands as a hex name, its host name as itself."""
    reply = ask(sample(), f"{service}.service.consul.", "SRV")
    assert [str(rr.target) for rr in reply.answer[0]] == [target]


def test_critical_instances_are_left_out() -> None:
    """A critical check of the instance or of its node takes it out; a warning does not."""
    built = sample()
    built.check("n1", Status.CRITICAL, service="web")
    built.check("n2", Status.CRITICAL, check="serfHealth")
    built.check("n3", Status.WARNING, service="web")
    assert values(ask(built, "web.service.consul.")) == ["127.0.0.23"]
    reply = ask(built, "web.service.consul.", by=answerer(only_passing=True))
    assert reply.rcode() == dns.rcode.NXDOMAIN


def test_letter_case_is_kept() -> None:
    """The question and the owner names come back as they were asked (0x20 hardening)."""
    reply = ask(sample(), "wEb.SerVice.conSUL.")
    assert reply.question[0].name.to_text() == "wEb.SerVice.conSUL."
    assert reply.answer[0].name.to_text() == "wEb.SerVice.conSUL."


def test_other_domains_are_refused_or_forwarded() -> None:
    """Without recursors REFUSED; with them the query goes on, if recursion is desired."""
    assert ask(sample(), "example.org.").rcode() == dns.rcode.REFUSED
    assert ask(sample(), "1.2.3.4.in-addr.arpa.", "PTR").rcode() == dns.rcode.NXDOMAIN
    by = answerer(recursors=("127.0.0.1:1",))
    query = dns.message.make_query("example.org.", "A")
    forward = by.answer(query.to_wire(), sample().catalog, Transport.UDP)
    assert isinstance(forward, Forward)
    assert dns.message.from_wire(forward.failure).rcode() == dns.rcode.SERVFAIL
    assert ask(sample(), "web.service.consul.", by=by).flags & dns.flags.RA
    query.flags &= ~dns.flags.RD
    refused = by.answer(query.to_wire(), sample().catalog, Transport.UDP)
    assert isinstance(refused, bytes)
    assert dns.message.from_wire(refused).rcode() == dns.rcode.REFUSED


def crowd(count: int) -> Builder:
    """A service with many instances."""
    built = Builder()
    for number in range(count):
        built.node(f"node-{number}", f"10.0.{number // 250}.{number % 250 + 1}", zone="a")
        built.service(f"node-{number}", "big", port=number + 1)
    return built


def test_udp_without_edns_gives_three() -> None:
    """Without EDNS0 three answers in 512 bytes; TC only when it is asked for."""
    built = crowd(40)
    reply = ask(built, "big.service.consul.", transport=Transport.UDP)
    assert len(values(reply)) == 3
    assert not reply.flags & dns.flags.TC
    by = answerer(enable_truncate=True, udp_answer_limit=5)
    reply = ask(built, "big.service.consul.", transport=Transport.UDP, by=by)
    assert len(values(reply)) == 5
    assert reply.flags & dns.flags.TC


@pytest.mark.parametrize("payload", [512, 513, 700, 1232, 4096, 65_000])
@pytest.mark.parametrize("rdtype", ["A", "SRV", "ANY"])
def test_udp_with_edns_fills_the_clients_size(payload: int, rdtype: str) -> None:
    """With EDNS0 an answer fits the client's size, holds as much as fits, and carries OPT."""
    built = crowd(120)
    query = dns.message.make_query("big.service.consul.", rdtype, use_edns=0, payload=payload)
    found = answerer().answer(query.to_wire(), built.catalog, Transport.UDP)
    assert isinstance(found, bytes)
    assert len(found) <= payload
    reply = dns.message.from_wire(found)
    assert reply.edns == 0
    assert reply.answer
    taken = min(payload, 4096)  # so much at most: a forged sender is not to be flooded
    assert len(found) <= taken
    if payload > 512 and len(values(reply)) < 120:
        assert len(found) > taken - 80  # one more would not have fitted


def test_tcp_gives_all() -> None:
    """Over TCP nothing is cut until the 64 KiB of a frame are full."""
    assert len(values(ask(crowd(120), "big.service.consul.", "SRV"))) == 120
    message = dns.message.make_query("big.service.consul.", "SRV")
    found = answerer().answer(message.to_wire(), crowd(2_000).catalog, Transport.TCP)
    assert isinstance(found, bytes)
    assert len(found) <= 65_535
    assert dns.message.from_wire(found).answer


def test_answers_are_shuffled_and_follow_the_view() -> None:
    """Repeated queries see other orders, every instance comes first now and then, and a change
    of the view is seen at once.
    """
    built, by = crowd(10), answerer()
    firsts = {
        values(ask(built, "big.service.consul.", by=by, transport=Transport.UDP))[0]
        for _ in range(400)
    }
    assert len(firsts) == 10
    for number in range(1, 10):
        built.remove_service(f"node-{number}", "big")
    assert values(ask(built, "big.service.consul.", by=by)) == ["10.0.0.1"]


def test_odd_queries() -> None:
    """Other opcodes, classes, EDNS versions and question counts get their error; responses
    and scraps get nothing.
    """
    by, view = answerer(), sample().catalog
    base = dns.message.make_query("web.service.consul.", "A")

    def rcode_of(wire: bytes) -> dns.rcode.Rcode:
        reply = by.answer(wire, view, Transport.UDP)
        assert isinstance(reply, bytes)
        return dns.message.from_wire(reply).rcode()

    wire = base.to_wire()
    assert rcode_of(wire[:2] + b"\x28\0" + wire[4:]) == dns.rcode.NOTIMP
    assert rcode_of(wire[:5] + b"\0" + wire[6:12]) == dns.rcode.FORMERR
    assert rcode_of(wire[:-3]) == dns.rcode.FORMERR
    chaos = dns.message.make_query("version.bind.", "TXT", rdclass="CH")
    assert rcode_of(chaos.to_wire()) == dns.rcode.REFUSED
    future = dns.message.make_query("web.service.consul.", "A", use_edns=1)
    assert rcode_of(future.to_wire()) == dns.rcode.BADVERS
    assert by.answer(dns.message.make_response(base).to_wire(), view, Transport.UDP) is None
    assert by.answer(wire[:11], view, Transport.UDP) is None


def test_rows_that_are_no_dns_names() -> None:
    """Names and addresses that DNS can't carry make an instance less reachable, not an error."""
    built = Builder()
    long = "x" * 70
    built.node(long, "127.0.0.31", **{"k" * 300: "v" * 600})
    built.service(long, "odd", port=99_999)
    built.node("broken", "not an address\x00..")
    built.service("broken", "odd")
    built.node("far", "far.example.org")
    built.service("far", "odd", id="2")
    assert set(values(ask(built, "odd.service.consul.", "SRV"))) == {
        "1 1 65535 7f00001f.addr.dc1.consul.",
        "1 1 8080 far.example.org.",
    }
    assert values(ask(built, "far.node.consul.")) == ["far.example.org."]


def test_a_circle_of_names_ends() -> None:
    """Host names that point at each other give a short answer."""
    built = Builder()
    built.node("n", "127.0.0.1")
    built.service("n", "a", address="b.service.consul")
    built.service("n", "b", address="a.service.consul")
    assert len(values(ask(built, "a.service.consul."))) <= 4
