"""The short road to a packet gives what the plain road gives."""

from __future__ import annotations

from random import Random
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.config import DnsSettings
from raftreg.dns import packets
from raftreg.dns.answer import Answerer, Transport
from raftreg.dns.packets import (
    BODIES_BYTES_MAX,
    RINGS_MAX,
    TEMPLATES_MAX,
    WAYS_MAX,
    PacketCache,
)
from raftreg.dns.wire import Assembler
from raftreg.model import Status, Weights
from tests.dns.catalogs import Builder, sample
from tests.dns.test_answer import WALL_S, crowd, texts, values

HOT = ("A", "AAAA", "SRV", "TXT", "ANY")


class Roads:
    """Both roads, over the same settings."""

    def __init__(self, transport: Transport = Transport.UDP, **settings: Any) -> None:
        made = DnsSettings(**settings)
        self.now_s = WALL_S
        self.transport = transport
        self.plain = Answerer(made, Random(1), lambda: self.now_s)
        self.short = PacketCache(self.plain, made, transport, Random(2), lambda: self.now_s)

    def ask(self, built: Builder, query: bytes) -> dns.message.Message | None:
        """By the short road; None when it does not lead there."""
        found = self.short.get(query, built.catalog)
        return None if found is None else dns.message.from_wire(found)

    def ask_plainly(
        self, built: Builder, query: bytes, transport: Transport | None = None
    ) -> dns.message.Message:
        """By the plain road."""
        found = self.plain.answer(query, built.catalog, transport or self.transport)
        assert isinstance(found, bytes)
        return dns.message.from_wire(found)


def folded(section: list[Any]) -> set[str]:
    """Records as text in lower case: names that point back to the question have its case."""
    return {text.lower() for text in texts(section)}


# -- the same answers ----------------------------------------------------------------------------

LABELS = st.sampled_from(["web", "Db-1", "x", "a-much-longer-name-of-a-service", "n0", "consul"])
ADDRESSES = st.sampled_from(
    ["", "127.0.0.1", "127.0.0.2", "10.255.255.254", "2001:db8::1", "::1", "db.example.org",
     "n0.node.consul", "web.service.consul", "nonsense\0"]
)  # fmt: skip
METAS = st.dictionaries(
    st.text(max_size=8).map("key-{}".format), st.text(max_size=40) | st.just("v" * 400), max_size=3
)
MESH: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"connect": {"Native": True}},
        {"kind": "connect-proxy", "proxy": {"DestinationServiceName": "web"}},
        {"kind": "connect-proxy", "proxy": {"DestinationServiceName": "Db-1"}},
    ]
)


@st.composite
def catalogs(draw: st.DrawFn) -> Builder:
    """Any small catalog."""
    built = Builder()
    for number in range(draw(st.integers(1, 6))):
        node = f"n{number}"
        built.node(node, draw(ADDRESSES), **draw(METAS))
        for instance in range(draw(st.integers(0, 8))):
            built.service(
                node,
                draw(LABELS),
                id=f"i{instance}",
                address=draw(ADDRESSES),
                port=draw(st.integers(0, 70_000)),
                tags=tuple(draw(st.lists(st.sampled_from(["v1", "V2", "a.b"]), max_size=2))),
                weights=Weights(draw(st.integers(0, 9)), draw(st.integers(0, 9))),
                **draw(MESH),
            )
        if draw(st.booleans()):
            built.check(
                node, draw(st.sampled_from(Status)), service=draw(st.just("i0") | st.just(""))
            )
    return built


@st.composite
def names(draw: st.DrawFn) -> str:
    """Names of services and nodes, in any letter case, and some that are neither."""
    name = draw(LABELS)
    form = draw(
        st.sampled_from(
            [
                "{}.service.consul.",
                "{}.service.dc1.consul.",
                "v1.{}.service.consul.",
                "_{}._tcp.service.consul.",
                "_{}._v2.consul.",
                "{}.node.consul.",
                "n1.node.dc1.consul.",
                "{}.connect.consul.",
                "{}.service.alt.test.",
                "service.consul.",
                "consul.",
                "{}.org.",
            ]
        )
    )
    text = form.format(name)
    return "".join(draw(st.sampled_from([char.lower(), char.upper()])) for char in text)


@given(
    catalogs(),
    names(),
    st.sampled_from([*HOT, "MX", "NS"]),
    st.none() | st.sampled_from([0, 511, 512, 513, 600, 900, 1232, 4096, 9000]),
    st.booleans(),
    st.sampled_from(Transport),
    st.fixed_dictionaries(
        {},
        optional={
            "service_ttl_s": st.just(9),
            "node_ttl_s": st.just(8),
            "only_passing": st.just(True),
            "node_meta_txt": st.just(False),
            "enable_truncate": st.just(True),
            "udp_answer_limit": st.integers(1, 5),
            "recursors": st.just(("127.0.0.1:1",)),
            "a_record_limit": st.just(2),
        },
    ),
)
def test_both_roads_lead_to_the_same_answer(
    built: Builder,
    name: str,
    rdtype: str,
    payload: int | None,
    recursive: bool,
    transport: Transport,
    settings: dict[str, Any],
) -> None:
    """Header, question, records with TTLs, authority, OPT are equal; where answers are cut, both
    are within the limits and hold records of the whole, and the short road no fewer.
    """
    roads = Roads(transport, alt_domain="alt.test", **settings)
    query = dns.message.make_query(name, rdtype)
    if not recursive:
        query.flags &= ~dns.flags.RD
    if payload is not None:
        query.use_edns(0, payload=payload)
    wire = query.to_wire()
    for _ in range(3):
        short = roads.ask(built, wire)
        if short is None:
            return
        plain = roads.ask_plainly(built, wire)
        assert short.id == plain.id
        assert short.question[0].name.labels == plain.question[0].name.labels  # letter case too
        assert (short.rcode(), short.edns, short.payload, short.options) == (
            plain.rcode(), plain.edns, plain.payload, plain.options,
        )  # fmt: skip
        assert folded(short.authority) == folded(plain.authority)
        whole = roads.ask_plainly(built, wire, Transport.TCP)
        size_max = 65_535 if transport is Transport.TCP else max(512, min(payload or 0, 4096))
        assert len(roads.short.get(wire, built.catalog) or b"") <= size_max
        if texts(plain.answer) == texts(whole.answer):
            assert texts(short.answer) == texts(plain.answer)
            assert short.flags == plain.flags
            assert folded(short.additional) >= folded(plain.additional)
            assert folded(short.additional) <= folded(whole.additional)
        else:
            assert bool(short.answer) or not plain.answer  # one may be too long by itself
            assert texts(short.answer) < texts(whole.answer)
            assert bool(short.flags & dns.flags.TC) == settings.get("enable_truncate", False)
            assert folded(short.additional) <= folded(whole.additional)


@pytest.mark.parametrize("rdtype", ["A", "SRV"])
@pytest.mark.parametrize("payload", [None, 513, 1232, 4096])
def test_the_short_road_fits_no_fewer_answers(rdtype: str, payload: int | None) -> None:
    """With records of equal size, as many answers are in a packet as by the plain road, or more."""
    roads, built = Roads(), crowd(100)
    query = dns.message.make_query("big.service.consul.", rdtype)
    if payload is not None:
        query.use_edns(0, payload=payload)
    plain = roads.ask_plainly(built, query.to_wire())
    for _ in range(40):
        short = roads.ask(built, query.to_wire())
        assert short is not None
        assert len(values(short)) >= len(values(plain))


def test_which_queries_take_the_short_road() -> None:
    """Everyday questions do; what has to be read closely does not."""
    roads, built = Roads(), sample()

    def takes(**query: Any) -> bool:
        wire = dns.message.make_query("web.service.consul.", "A", **query).to_wire()
        return roads.ask(built, wire) is not None

    subnet: list[dns.edns.Option] = [dns.edns.ECSOption("192.0.2.0", 24, 0)]
    cookie: list[dns.edns.Option] = [dns.edns.CookieOption(b"12345678", b"")]
    assert takes()
    assert takes(use_edns=0, payload=1232)
    assert takes(use_edns=0, options=cookie)
    assert takes(use_edns=0, want_dnssec=True)
    assert not takes(use_edns=0, options=subnet)
    assert not takes(use_edns=1)
    assert not takes(rdclass="CH")
    for name in ("alias.service.consul.", "consul.", "example.org.", "7f000001.addr.consul."):
        assert roads.ask(built, dns.message.make_query(name, "A").to_wire()) is None


@given(st.binary(max_size=80), st.integers(0, 255), st.integers(0, 80))
def test_any_bytes_are_harmless(tail: bytes, value: int, at: int) -> None:
    """Whatever is sent, the short road gives a message with its id, or leaves it to the plain."""
    roads, built = Roads(), sample()
    valid = dns.message.make_query("web.service.consul.", "A", use_edns=0).to_wire()
    damaged = bytearray(valid)
    damaged[at % len(damaged)] = value
    for query in (tail, valid[:12] + tail, valid + tail, bytes(damaged), valid[: len(tail)]):
        found = roads.short.get(query, built.catalog)
        if found is not None:
            assert found[:2] == query[:2]
            short = dns.message.from_wire(found)
            plain = roads.ask_plainly(built, query)
            assert (short.rcode(), texts(short.answer)) == (plain.rcode(), texts(plain.answer))


# -- chance, changes, bounds ---------------------------------------------------------------------


def test_every_instance_gets_its_share() -> None:
    """Over many queries each instance comes first, and is in the answer, about equally often."""
    roads, built = Roads(), crowd(10)
    wire = dns.message.make_query("big.service.consul.", "A").to_wire()
    firsts: dict[str, int] = {}
    named: dict[str, int] = {}
    rounds = 6_000
    for _ in range(rounds):
        short = roads.ask(built, wire)
        assert short is not None
        first, *rest = values(short)
        firsts[first] = firsts.get(first, 0) + 1
        for one in (first, *rest):
            named[one] = named.get(one, 0) + 1
    assert len(firsts) == 10
    assert min(firsts.values()) > rounds / 10 * 0.5
    assert max(firsts.values()) < rounds / 10 * 1.6
    assert min(named.values()) > rounds * 3 / 10 * 0.7
    assert max(named.values()) < rounds * 3 / 10 * 1.3


def test_a_change_shows_in_the_next_answer() -> None:
    """Health, rows and nodes: each change is in the next answer; others leave packets as they
    are; a name that goes is denied, one that comes back is answered.
    """
    roads, built = Roads(), sample()
    wire = dns.message.make_query("web.service.consul.", "A").to_wire()

    def addresses() -> set[str]:
        plain = roads.ask_plainly(built, wire)
        for _ in range(40):  # so that all packets are made
            short = roads.ask(built, wire)
            assert short is not None
            assert set(values(short)) == set(values(plain))
            assert short.rcode() == plain.rcode()
        return set(values(plain))

    everyone = {f"127.0.0.2{number}" for number in (1, 2, 3)}
    assert addresses() == everyone
    built.check("n1", Status.CRITICAL, service="web")
    assert addresses() == {"127.0.0.22", "127.0.0.23"}
    built.check("n2", Status.CRITICAL, check="serfHealth")
    assert addresses() == {"127.0.0.23"}
    built.node("n3", "127.0.0.33")
    assert addresses() == {"127.0.0.33"}
    built.check("n3", Status.CRITICAL, check="serfHealth")
    assert addresses() == set()
    for number in (1, 2, 3):
        built.remove_service(f"n{number}", "web")
    assert addresses() == set()
    built.service("n3", "web", id="again")
    built.check("n3", Status.PASSING, check="serfHealth")
    assert addresses() == {"127.0.0.33"}
    other = sample()
    short = roads.ask(other, wire)
    assert short is not None
    assert set(values(short)) == everyone


def test_the_serial_of_a_denial_is_of_its_second() -> None:
    """SOA of NODATA and NXDOMAIN tells the time of the answer."""
    roads, built = Roads(), sample()
    for name, rdtype in (("web.service.consul.", "AAAA"), ("nobody.service.consul.", "A")):
        wire = dns.message.make_query(name, rdtype).to_wire()
        for second in (0, 0, 1, 2):
            roads.now_s = WALL_S + second
            short = roads.ask(built, wire)
            assert short is not None
            assert short.authority[0][0].serial == int(WALL_S) + second


def test_long_answers_over_tcp_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for one again and again must not have it put together each time."""
    made = 0

    class Counted(Assembler):
        def body(self, found: Any) -> Any:
            nonlocal made
            made += 1
            return super().body(found)

    monkeypatch.setattr(packets, "Assembler", Counted)
    roads, built = Roads(Transport.TCP), Builder()
    for number in range(400):
        built.node(f"n{number}", f"127.1.{number >> 8}.{number & 255}")
        built.service(f"n{number}", "web")
    wire = dns.message.make_query("web.service.consul.", "SRV").to_wire()
    answers = {roads.short.get(wire, built.catalog) for _ in range(200)}
    assert min(len(answer or b"") for answer in answers) > 20_000
    assert made <= 8
    assert len(answers) > 1


def test_tables_are_bounded() -> None:
    """However questions vary, nothing grows without end, and answers stay right."""
    roads, built = Roads(), Builder()
    built.node("n1", "127.0.0.1")
    for number in range(TEMPLATES_MAX + 50):
        built.service("n1", f"s{number}", id=str(number))
    for number in range(TEMPLATES_MAX + 50):
        query = dns.message.make_query(f"s{number}.service.consul.", "A")
        assert roads.ask(built, query.to_wire()) is not None
    assert len(roads.short) <= TEMPLATES_MAX
    template = dns.message.make_query("s1.service.consul.", "A", use_edns=0, payload=1)
    for payload in range(512, 512 + 3 * RINGS_MAX):
        template.use_edns(0, payload=payload)
        assert roads.ask(built, template.to_wire()) is not None
    assert WAYS_MAX * 512 < 1 << 23
    assert BODIES_BYTES_MAX <= 64 << 20


def test_random_letter_case_does_not_grow_without_end() -> None:
    """Names in random letter case (0x20) share their records, and come back as they were asked."""
    roads, built, rng = Roads(), sample(), Random(5)
    for _ in range(300):
        text = "".join(rng.choice((char.upper(), char)) for char in "web.service.consul.")
        short = roads.ask(built, dns.message.make_query(text, "A").to_wire())
        assert short is not None
        assert short.question[0].name.to_text() == text
        assert short.answer[0].name.to_text() == text
    assert len(roads.short) == 1
