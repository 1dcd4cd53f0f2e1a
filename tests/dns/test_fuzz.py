"""Whatever arrives, the answerer gives a message or silence."""

from __future__ import annotations

from random import Random

import dns.message
import dns.name
import dns.rdatatype
from hypothesis import example, given
from hypothesis import strategies as st

from raftreg.config import DnsSettings
from raftreg.dns.answer import Answerer, Forward, Transport
from raftreg.dns.known import Known, Needs
from tests.dns.catalogs import Builder, sample

VIEW = sample().catalog
BY = Answerer(DnsSettings(recursors=("127.0.0.1",)), Random(1), lambda: 0.0)
VALID = [
    dns.message.make_query(name, rdtype, use_edns=edns).to_wire()
    for name in ("web.service.consul.", "_web._tcp.service.consul.", "n1.node.consul.", ".")
    for rdtype in ("A", "SRV", "ANY", "TXT")
    for edns in (-1, 0)
]
WORDS = b"web _web _tcp service node addr query connect ingress virtual dc1 dc default ap consul ns"
labels = st.binary(min_size=1, max_size=63) | st.sampled_from(WORDS.split())


def check(query: bytes, transport: Transport) -> None:
    """The answer is None, a forward, or a response that can be read, with the query's id."""
    found = BY.answer(query, VIEW, transport)
    if isinstance(found, Needs):
        found = BY.answer(query, VIEW, transport, Known(final=True))
        assert not isinstance(found, Needs)
    if isinstance(found, Forward):
        found = found.failure
    if found is not None:
        assert dns.message.from_wire(found).id == int.from_bytes(query[:2], "big")
        assert found[2] & 0x80


@given(st.binary(max_size=600), st.sampled_from(Transport))
@example(b"\0\0\x01\0" + b"\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1", Transport.UDP)
def test_any_bytes(query: bytes, transport: Transport) -> None:
    """Random bytes never raise."""
    check(query, transport)


@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=8),
    st.integers(0, 80),
    st.sampled_from(Transport),
)
def test_damaged_queries(
    valid: bytes, changes: list[tuple[int, int]], cut: int, transport: Transport
) -> None:
    """A valid query with bytes changed or cut off never raises."""
    query = bytearray(valid)
    for at, value in changes:
        query[at % len(query)] = value
    check(bytes(query[: max(len(query) - cut, 0)] if cut < 40 else query), transport)


@given(st.lists(labels, max_size=6), st.sampled_from(list(dns.rdatatype.RdataType)))
def test_any_name_and_type(parts: list[bytes], rdtype: dns.rdatatype.RdataType) -> None:
    """Any labels below the domain, for any type, give an answer that can be read."""
    name = dns.name.Name((*parts[:3], b"consul", b""))
    check(dns.message.make_query(name, rdtype).to_wire(), Transport.UDP)


@given(
    st.text(max_size=80),
    st.text(max_size=300),
    st.text(max_size=80),
    st.dictionaries(st.text(max_size=20), st.text(max_size=300), max_size=5),
    st.integers(),
)
def test_any_rows(node: str, address: str, own: str, meta: dict[str, str], port: int) -> None:
    """Rows with any texts in them never raise, for any type of question."""
    built = Builder()
    built.node(node, address, **meta)
    built.service(node, "web", address=own, port=port)
    by = Answerer(DnsSettings(), Random(1), lambda: 0.0)
    for rdtype in ("A", "AAAA", "SRV", "ANY"):
        query = dns.message.make_query("web.service.consul.", rdtype)
        found = by.answer(query.to_wire(), built.catalog, Transport.UDP)
        assert isinstance(found, bytes)
        dns.message.from_wire(found)
