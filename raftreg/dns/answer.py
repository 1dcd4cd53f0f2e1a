"""Answers DNS queries from a view of the catalog. Pure: bytes, view, time and chance come in.

Whatever the bytes are, there is an answer, or silence (None) for what can't be a query; nothing is
raised. Rules: RFC 1034/1035, 2308 (negative answers), 2782 (SRV), 6891 (EDNS0), 7871 (client
subnet), 8020 (NXDOMAIN), and Consul's documentation of its DNS interface.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from random import Random

import dns.edns
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
from raftreg.dns.collect import Collector, Zone
from raftreg.dns.draft import Draft
from raftreg.dns.fit import fit
from raftreg.dns.known import NOTHING_KNOWN, Known, Needs, QueryAsk

HEADER_BYTES = 12
_QR, _OPCODE, _RD = 0x80, 0x78, 0x01  # bits of the third byte
EDNS_PAYLOAD_BYTES = 4096  #: what we take in one datagram, told in OPT
PLAIN_BYTES_MAX = 512  #: a UDP answer to a client without EDNS0 (RFC 1035, 4.2.1)
STREAM_BYTES_MAX = 65_535


class Transport(enum.Enum):
    """How a query came; it bounds the answer."""

    UDP = "udp"
    TCP = "tcp"


class Forward(msgspec.Struct, frozen=True):
    """The query is for the recursors; `failure` is the answer when none of them has one."""

    query: bytes
    failure: bytes


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
        self._collector = Collector(settings, rng, wall, datacenter or settings.datacenter)

    def answer(
        self, query: bytes, view: Catalog, transport: Transport, known: Known = NOTHING_KNOWN
    ) -> bytes | Forward | Needs | None:
        """Answers one query.

        Args:
            query: A whole message.
            view: The catalog as it is now.
            transport: How the query came.
            known: What has been found out for this query, when it was answered by `Needs`.

        Returns:
            A whole message; `Forward`; `Needs`, unless `known` is final; or None for what deserves
            no answer.
        """
        message = read_query(query)
        if not isinstance(message, dns.message.Message):
            return message
        refused = _refusal(message)
        if refused is not None:
            return self._bare(message, refused).to_wire()
        return self._answer(query, message, view, transport, known)

    def failure(self, query: bytes) -> bytes | None:
        """SERVFAIL, for what can't be answered now; None for what deserves no answer."""
        message = read_query(query)
        if isinstance(message, dns.message.Message):
            return self._bare(message, dns.rcode.SERVFAIL).to_wire()
        return message

    def shortened(self, query: bytes, reply: bytes, transport: Transport) -> bytes:
        """A reply of somebody else's, or one that says to ask by TCP if it is too long."""
        message = read_query(query)
        if not isinstance(message, dns.message.Message):
            return reply
        asked_bytes_max = message.payload if message.edns >= 0 else None
        bytes_max, _ = limits(self._settings, transport, asked_bytes_max)
        if len(reply) <= bytes_max:
            return reply
        short = self._bare(message, dns.rcode.NOERROR)
        short.flags |= dns.flags.TC
        return short.to_wire()

    def draft(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, view: Catalog) -> Draft:
        """The records for a question of which nothing but the view is known.

        A name outside of the domain, or one that needs more, gives a draft without topics.
        """
        return (
            self._collector.collect(name, rdtype, view, NOTHING_KNOWN, recursive=self._recursive)
            or Draft()
        )

    def zone(self, name: dns.name.Name) -> Zone:
        """The domain that a name is in."""
        return self._collector.zone(name)

    def soa(self, name: dns.name.Name) -> dns.rrset.RRset:
        """The SOA record of the domain that a name is in, as of now."""
        return self._collector.soa(self.zone(name))

    @property
    def _recursive(self) -> bool:
        return bool(self._settings.recursors)

    def _answer(
        self,
        query: bytes,
        message: dns.message.Message,
        view: Catalog,
        transport: Transport,
        known: Known,
    ) -> bytes | Forward | Needs:
        question = message.question[0]
        if question.rdtype in (dns.rdatatype.AXFR, dns.rdatatype.IXFR):
            return self._bare(message, dns.rcode.NOTIMP).to_wire()
        recursive = self._recursive and bool(message.flags & dns.flags.RD)
        draft = self._collector.collect(
            question.name, question.rdtype, view, known, recursive=recursive
        )
        if draft is None:
            return self._other_domain(query, message, recursive=recursive)
        if draft.missing and not known.final:
            return Needs(tuple(draft.missing), _subnet_address(message))
        return self._fitted(message, draft, transport, known)

    def _fitted(
        self, message: dns.message.Message, draft: Draft, transport: Transport, known: Known
    ) -> bytes:
        tailored = any(isinstance(ask, QueryAsk) for ask in known.queries)
        if draft.failed:
            return self._bare(message, dns.rcode.SERVFAIL).to_wire()
        rcode = dns.rcode.NOERROR if draft.exists else dns.rcode.NXDOMAIN
        reply = self._bare(message, rcode, tailored=tailored)
        reply.flags |= dns.flags.AA
        reply.authority = draft.authority
        if not draft.answers:
            reply.authority.append(self.soa(message.question[0].name))
        asked_bytes_max = message.payload if message.edns >= 0 else None
        bytes_max, answers_max = limits(self._settings, transport, asked_bytes_max)
        fitted = fit(
            reply,
            draft.answers,
            draft.extras,
            draft.additional,
            bytes_max,
            answers_max,
            compress=not self._settings.disable_compression,
        )
        if fitted.cut and self._settings.enable_truncate and transport is Transport.UDP:
            return fitted.with_flag(dns.flags.TC)
        return fitted.packet

    def _other_domain(
        self, query: bytes, message: dns.message.Message, *, recursive: bool
    ) -> bytes | Forward:
        if recursive:
            failure = self._bare(message, dns.rcode.SERVFAIL)
            return Forward(query, failure.to_wire())
        return self._bare(message, dns.rcode.REFUSED).to_wire()

    def _bare(
        self, message: dns.message.Message, rcode: dns.rcode.Rcode, *, tailored: bool = False
    ) -> dns.message.Message:
        """An answer without records: question and letter case as asked, OPT when asked with it.

        Args:
            message: The query.
            rcode: What became of it.
            tailored: The answer may be another for another client subnet.
        """
        reply = dns.message.make_response(message, recursion_available=self._recursive, pad=0)
        if message.edns >= 0:
            options: list[dns.edns.Option] = [
                dns.edns.ECSOption(one.address, one.srclen, one.srclen if tailored else 0)
                for one in message.options
                if isinstance(one, dns.edns.ECSOption)
            ]
            reply.use_edns(0, 0, EDNS_PAYLOAD_BYTES, options=options[:1])
        reply.set_rcode(rcode)
        return reply


def limits(
    settings: DnsSettings, transport: Transport, asked_bytes_max: int | None
) -> tuple[int, int]:
    """How many bytes and how many answers a message may have.

    Args:
        settings: How names are answered.
        transport: How the query came.
        asked_bytes_max: What its EDNS0 says that the client takes; None without EDNS0.
    """
    if transport is Transport.TCP:
        return STREAM_BYTES_MAX, STREAM_BYTES_MAX
    bytes_max = PLAIN_BYTES_MAX
    if asked_bytes_max is not None:
        bytes_max = max(bytes_max, min(asked_bytes_max, settings.udp_bytes_max))
    if bytes_max == PLAIN_BYTES_MAX:
        return bytes_max, settings.udp_answer_limit
    return bytes_max, STREAM_BYTES_MAX


def read_query(query: bytes) -> dns.message.Message | bytes | None:
    """Reads a query; gives the answer instead to what can't be read, None to what is no query."""
    if len(query) < HEADER_BYTES or query[2] & _QR:
        return None  # answering a response could start a loop
    if query[2] & _OPCODE:
        return _header_only(query, dns.rcode.NOTIMP)
    try:
        return dns.message.from_wire(query, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, KeyError):
        return _header_only(query, dns.rcode.FORMERR)


def _subnet_address(message: dns.message.Message) -> str:
    """The address of the client subnet, when the asker's resolver told it (RFC 7871)."""
    options = (one for one in message.options if isinstance(one, dns.edns.ECSOption))
    return next((one.address for one in options), "")


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
