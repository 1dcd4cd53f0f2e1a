"""Answers DNS queries from a view of the catalog. Pure: bytes, view, time and chance come in.

Whatever the bytes are, there is an answer, or silence (None) for what can't be a query; nothing is
raised. Rules: RFC 1034/1035, 2308 (negative answers), 2782 (SRV), 6891 (EDNS0), 8020 (NXDOMAIN),
and Consul's documentation of its DNS interface.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from random import Random
from typing import assert_never

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import msgspec

from raftreg.config import DnsSettings
from raftreg.core.catalog import Catalog
from raftreg.dns import records
from raftreg.dns.cache import PacketCache
from raftreg.dns.fit import fit
from raftreg.dns.lookup import Names
from raftreg.dns.question import (
    AddressName,
    Apex,
    Between,
    Elsewhere,
    IPAddress,
    NameServer,
    NodeName,
    Nothing,
    ReverseName,
    ServiceName,
    read_name,
)
from raftreg.model import Node

HEADER_BYTES = 12
_QR, _OPCODE, _RD = 0x80, 0x78, 0x01  # bits of the third byte
EDNS_PAYLOAD_BYTES = 4096  #: what we take in one datagram, told in OPT
SERVERS_SERVICE = "consul"  #: the service under which servers register
NAME_SERVERS_MAX = 3
CNAME_CHAIN_MAX = 3

A, AAAA, ANY = dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.ANY
SRV, TXT, NS, SOA, PTR = (
    dns.rdatatype.SRV,
    dns.rdatatype.TXT,
    dns.rdatatype.NS,
    dns.rdatatype.SOA,
    dns.rdatatype.PTR,
)


class Transport(enum.Enum):
    """How a query came; it bounds the answer."""

    UDP = "udp"
    TCP = "tcp"


class Forward(msgspec.Struct, frozen=True):
    """The query is for the recursors; `failure` is the answer when none of them has one."""

    query: bytes
    failure: bytes


class Draft:
    """An answer before it is fitted into a packet.

    Attributes:
        answers: Records of the answer section, in order.
        extras: For the record at the same place: records that help with it.
        authority, additional: Records of these sections, whatever is cut.
        exists: False gives NXDOMAIN.
        aliases: How many CNAMEs led here.
    """

    def __init__(self, aliases: int = 0) -> None:
        self.aliases = aliases
        self.answers: list[dns.rrset.RRset] = []
        self.extras: list[list[dns.rrset.RRset]] = []
        self.authority: list[dns.rrset.RRset] = []
        self.additional: list[dns.rrset.RRset] = []
        self.exists = True

    def add(self, answer: dns.rrset.RRset, *extras: dns.rrset.RRset) -> None:
        """Adds an answer with what helps with it."""
        self.answers.append(answer)
        self.extras.append(list(extras))


class Answerer:
    """Answers queries by one set of settings.

    Args:
        settings: How names are answered.
        rng: Shuffles answers.
        wall: Seconds since the epoch, for the serial of SOA.
        datacenter: Overrides the one of the settings.
    """

    def __init__(
        self,
        settings: DnsSettings,
        rng: Random,
        wall: Callable[[], float],
        *,
        datacenter: str = "",
    ) -> None:
        self._settings = settings
        self._rng = rng
        self._wall = wall
        self._datacenter = datacenter or settings.datacenter
        self._domain = dns.name.from_text(settings.domain)
        self._namer = records.Namer(self._domain, self._datacenter)
        self._names = Names()
        self._cache = PacketCache(rng)

    def answer(self, query: bytes, view: Catalog, transport: Transport) -> bytes | Forward | None:
        """Answers one query.

        Args:
            query: A whole message.
            view: The catalog as it is now. When its content changes, its index changes (or it is
                another object): hot answers are kept as packets until then.
            transport: How the query came.

        Returns:
            A whole message; `Forward`; or None for what deserves no answer.
        """
        hot = self._cache.get(query, view, transport.value)
        if hot is not None:
            return hot
        if len(query) < HEADER_BYTES or query[2] & _QR:
            return None  # no query; answering a response could start a loop
        if query[2] & _OPCODE:
            return _header_only(query, dns.rcode.NOTIMP)
        try:
            message = dns.message.from_wire(query, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError, KeyError):
            return _header_only(query, dns.rcode.FORMERR)
        refused = _refusal(message)
        if refused is not None:
            return self._bare(message, refused).to_wire()
        return self._answer(query, message, view, transport)

    def _answer(
        self, query: bytes, message: dns.message.Message, view: Catalog, transport: Transport
    ) -> bytes | Forward:
        question = message.question[0]
        draft = self._draft(question.name, question.rdtype, view)
        if draft is None:
            return self._other_domain(query, message)
        reply = self._bare(message, dns.rcode.NOERROR if draft.exists else dns.rcode.NXDOMAIN)
        reply.flags |= dns.flags.AA
        packet = self._fitted(reply, draft, message, transport)
        if draft.answers and draft.answers[0].rdtype != SOA:
            self._cache.put(query, view, transport.value, packet)
        return packet

    def _fitted(
        self,
        reply: dns.message.Message,
        draft: Draft,
        message: dns.message.Message,
        transport: Transport,
    ) -> bytes:
        bytes_max, answers_max = 65_535, len(draft.answers)
        if transport is Transport.UDP:
            bytes_max = max(512, message.payload if message.edns >= 0 else 512)
            if bytes_max == 512:
                answers_max = min(answers_max, self._settings.udp_answer_limit)
        reply.authority = draft.authority
        fitted = fit(reply, draft.answers, draft.extras, draft.additional, bytes_max, answers_max)
        if fitted.cut and self._settings.enable_truncate and transport is Transport.UDP:
            return fitted.with_flag(dns.flags.TC)
        return fitted.packet

    def _other_domain(self, query: bytes, message: dns.message.Message) -> bytes | Forward:
        if self._settings.recursors and message.flags & dns.flags.RD:
            failure = self._bare(message, dns.rcode.SERVFAIL)
            return Forward(query, failure.to_wire())
        return self._bare(message, dns.rcode.REFUSED).to_wire()

    def _bare(self, message: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
        """An answer without records: question and letter case as asked, OPT when asked with it."""
        reply = dns.message.make_response(
            message,
            recursion_available=bool(self._settings.recursors),
            our_payload=EDNS_PAYLOAD_BYTES,
        )
        reply.set_rcode(rcode)
        return reply

    # -- what is answered ----------------------------------------------------------------------

    def _draft(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, view: Catalog
    ) -> Draft | None:
        """Collects the records for a question; None when another domain has to answer."""
        draft = Draft()
        if not self._collect(draft, name, rdtype, view):
            return None
        if not draft.answers:
            draft.authority.append(self._soa())
        return draft

    def _collect(  # noqa: C901 (one arm for each kind of name)
        self, draft: Draft, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, view: Catalog
    ) -> bool:
        lookup = read_name(name, self._domain, self._datacenter)
        match lookup:
            case ServiceName():
                self._service(draft, name, rdtype, view, lookup)
            case NodeName():
                self._node(draft, name, rdtype, view, lookup)
            case AddressName():
                self._address(draft, name, rdtype, lookup.address)
            case ReverseName():
                return self._reverse(draft, name, rdtype, view, lookup.address)
            case Apex():
                self._apex(draft, name, rdtype, view)
            case NameServer():
                for _, glue in self._name_servers(view):
                    self._if_asked(draft, name, rdtype, glue)
            case Between():
                pass
            case Nothing():
                draft.exists = False
            case Elsewhere():
                return False
            case _:
                assert_never(lookup)
        return True

    def _service(
        self,
        draft: Draft,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        view: Catalog,
        lookup: ServiceName,
    ) -> None:
        settings = self._settings
        found = self._names.instances(
            view, lookup.name, lookup.tag, only_passing=settings.only_passing
        )
        draft.exists = bool(found)
        self._rng.shuffle(found)
        aliases: list[dns.name.Name] = []
        seen: set[tuple[object, ...]] = set()
        for instance, node, status in found:
            target = self._namer.target(instance, node, name)
            if target is None:
                continue
            where = target.address or target.name
            key = (where, instance.port, node.name) if rdtype == SRV else (where,)
            if key in seen:
                continue
            seen.add(key)
            if rdtype == SRV:
                weight = records.weight(instance, status)
                answer = records.srv(
                    name, settings.service_ttl_s, weight, instance.port, target.name
                )
                draft.add(answer, *self._srv_extras(target, node))
            elif target.address is not None:
                self._if_asked(draft, name, rdtype, target.address)
            elif rdtype in (A, AAAA, ANY):
                aliases.append(target.name)
        if aliases and not draft.answers:
            # A name has one CNAME or none (RFC 1034, 3.6.2); addresses are the better answer.
            self._alias(draft, name, rdtype, view, aliases[0])

    def _srv_extras(self, target: records.Target, node: Node) -> list[dns.rrset.RRset]:
        ttl_s = self._settings.service_ttl_s
        extras = []
        if target.address is not None:
            extras.append(records.address_record(target.name, ttl_s, target.address))
        return [*extras, *self._node_texts(node)]

    def _node_texts(self, node: Node) -> list[dns.rrset.RRset]:
        owner = self._namer.of_node(node.name)
        return [] if owner is None else records.txt(owner, self._settings.node_ttl_s, node.meta)

    def _alias(
        self,
        draft: Draft,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        view: Catalog,
        target: dns.name.Name,
    ) -> None:
        """Answers with a CNAME and, when it points into the domain, with what is there."""
        draft.add(records.cname(name, self._settings.service_ttl_s, target))
        if draft.aliases >= CNAME_CHAIN_MAX or not target.is_subdomain(self._domain):
            return
        further = Draft(draft.aliases + 1)
        self._collect(further, target, rdtype, view)
        for answer in further.answers:
            if answer.name != name:  # a circle ends here
                draft.add(answer)

    def _node(
        self,
        draft: Draft,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        view: Catalog,
        lookup: NodeName,
    ) -> None:
        node = self._names.node(view, lookup.name)
        if node is None:
            draft.exists = False
            return
        ttl_s = self._settings.node_ttl_s
        target = self._namer.node_target(node)
        if target is not None and target.address is not None:
            self._if_asked(draft, name, rdtype, target.address, ttl_s=ttl_s)
        elif target is not None and target.name != name and rdtype in (A, AAAA, ANY):
            self._alias(draft, name, rdtype, view, target.name)
            return  # a CNAME has no other records beside it
        texts = records.txt(name, ttl_s, node.meta)
        if rdtype in (TXT, ANY):
            for text in texts:
                draft.add(text)
        elif draft.answers:
            draft.extras[-1].extend(texts)

    def _address(
        self,
        draft: Draft,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        address: IPAddress,
    ) -> None:
        self._if_asked(draft, name, rdtype, address)

    def _if_asked(
        self,
        draft: Draft,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        address: IPAddress,
        *,
        ttl_s: int | None = None,
    ) -> None:
        """Adds A or AAAA when the question is for that type or for any."""
        if rdtype in (ANY, A if address.version == 4 else AAAA):
            ttl_s = self._settings.service_ttl_s if ttl_s is None else ttl_s
            draft.add(records.address_record(name, ttl_s, address))

    def _reverse(
        self,
        draft: Draft,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        view: Catalog,
        address: IPAddress,
    ) -> bool:
        """Names of an address; one that we don't know is for other name servers."""
        nodes = self._names.nodes_at(view, address)
        if nodes:
            targets = [self._namer.of_node(one) for one in nodes]
        else:
            services = self._names.services_at(view, address)
            targets = [self._namer.of_service(one) for one in services]
        known = [target for target in targets if target is not None]
        if rdtype in (PTR, ANY):
            for target in known:
                draft.add(records.ptr(name, self._settings.node_ttl_s, target))
        return bool(known)

    def _apex(
        self, draft: Draft, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, view: Catalog
    ) -> None:
        if rdtype not in (NS, SOA, ANY):
            return
        found = self._name_servers(view)
        targets = [target for target, _ in found] or [dns.name.from_text("ns", self._domain)]
        servers = [records.ns(name, 0, target) for target in targets]
        draft.additional = [records.address_record(target, 0, address) for target, address in found]
        if rdtype == NS:
            for server in servers:
                draft.add(server)
            draft.authority.append(self._soa())
        else:
            draft.add(self._soa())
            draft.authority.extend(servers)

    def _name_servers(self, view: Catalog) -> list[tuple[dns.name.Name, IPAddress]]:
        """Names and addresses of up to three servers of the cluster."""
        found = self._names.instances(view, SERVERS_SERVICE, "", only_passing=False)
        self._rng.shuffle(found)
        targets = {
            target.name: target.address
            for target in (self._namer.node_target(node) for _, node, _ in found)
            if target is not None and target.address is not None
        }
        return list(targets.items())[:NAME_SERVERS_MAX]

    def _soa(self) -> dns.rrset.RRset:
        return records.soa(self._domain, int(self._wall()))


def _refusal(message: dns.message.Message) -> dns.rcode.Rcode | None:
    """Why a well-formed query is not answered; None when it is."""
    if message.edns > 0:
        return dns.rcode.BADVERS
    if len(message.question) != 1:
        return dns.rcode.FORMERR
    if message.question[0].rdclass not in (dns.rdataclass.IN, dns.rdataclass.ANY):
        return dns.rcode.REFUSED
    return None


def _header_only(query: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """An answer with the id, opcode and RD of a query that was not read any further."""
    flags = _QR | query[2] & (_OPCODE | _RD)
    return bytes((query[0], query[1], flags, rcode)) + bytes(8)
