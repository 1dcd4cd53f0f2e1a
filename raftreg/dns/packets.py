"""Answers to questions that come often, kept as bytes until what they tell of changes.

Three tables, from the outside in: the bytes of a query (all but its id) lead to a `_Way`; ways of
asking the same question with the same limits share a `_Ring` of packets in different orders; rings
of the same question share a `_Template`, its records. A template is kept while none of its topics
changes, whatever else does. Everything is bounded; whoever floods a table makes it slower, no more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from random import Random

import dns.name
import dns.rcode
import dns.rdatatype

from raftreg.config import DnsSettings
from raftreg.core.catalog import Catalog
from raftreg.core.changes import Topic
from raftreg.dns.answer import EDNS_PAYLOAD_BYTES, HEADER_BYTES, Answerer, Transport, limits
from raftreg.dns.wire import Assembler, Body, Piece, authority, pieces, wire_name

WAYS_MAX = 8_192
TEMPLATES_MAX = 2_048
RINGS_MAX = 16  #: of one template
QUERY_BYTES_MAX = 512
LABEL_BYTES_MAX, NAME_BYTES_MAX = 63, 255  #: RFC 1035, 2.3.4
#: Longer ones are made for each query. Over TCP every answer fits: a long one takes milliseconds.
BODY_BYTES_MAX = {Transport.UDP: 4_096, Transport.TCP: 65_535}
BODIES_BYTES_MAX = 32 << 20
RING_BITS = 3  #: a ring has 8 packets …
USES = 16  #: … one of which is replaced every so many queries,
USES_BYTES = 256  #: and so many times more for every so many bytes, for they cost more to make

_RD = 0x01
_UNUSED = 0xCF  # of the fourth byte: all but AD and CD, which do not matter here
_QR_AA, _TC, _RA = 0x84, 0x02, 0x80
_COOKIE = 10
_OPT = b"\0\0\x29" + EDNS_PAYLOAD_BYTES.to_bytes(2, "big") + bytes(6)
_HOT_TYPES = frozenset(
    {
        dns.rdatatype.A,
        dns.rdatatype.AAAA,
        dns.rdatatype.SRV,
        dns.rdatatype.TXT,
        dns.rdatatype.ANY,
    }
)
_IN = b"\0\x01"


class _Ring:
    """Packets with the same answers in different orders."""

    __slots__ = ("assembler", "at", "bodies", "left", "order", "second", "slot")

    def __init__(self, assembler: Assembler) -> None:
        self.assembler = assembler
        self.clear()

    def clear(self) -> None:
        """Forgets the packets."""
        self.bodies: list[Body] = []
        self.left = 0
        self.slot = 0
        self.order: list[Piece] = []
        self.at = 0
        self.second = 0


class _Template:
    """The records for a question."""

    __slots__ = (
        "changed",
        "checked",
        "exists",
        "name",
        "pieces",
        "rdtype",
        "rings",
        "shuffles",
        "topics",
    )

    def __init__(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> None:
        self.name = name
        self.rdtype = rdtype
        self.rings: dict[tuple[int, int, bool], _Ring] = {}
        self.topics: tuple[Topic, ...] | None = None
        self.pieces: list[Piece] = []
        self.shuffles = False
        self.exists = False
        self.changed = 0
        self.checked = -1


class _Way:
    """One way of asking: the bytes of a query that its answer repeats."""

    __slots__ = ("cut_head", "head", "question", "ring", "template")

    def __init__(
        self, template: _Template, ring: _Ring, head: bytes, cut_head: bytes, question: bytes
    ) -> None:
        self.template = template
        self.ring = ring
        self.head = head
        self.cut_head = cut_head
        self.question = question


class PacketCache:
    """Answers by the bytes of their query, for one transport.

    Args:
        answerer: Knows the records for a question.
        settings: How names are answered.
        transport: How the queries come.
        rng: Chooses orders.
        wall: Seconds since the epoch, for the serial of SOA.
    """

    def __init__(
        self,
        answerer: Answerer,
        settings: DnsSettings,
        transport: Transport,
        rng: Random,
        wall: Callable[[], float],
    ) -> None:
        self._answerer = answerer
        self._settings = settings
        self._transport = transport
        self._body_bytes_max = BODY_BYTES_MAX[transport]
        # The order of answers is no secret, and the system's own chance costs a call.
        self._rng = Random(rng.getrandbits(128))
        self._random_bits = self._rng.getrandbits
        self._wall = wall
        #: Answers that are cut by number, or written out in full, take the plain road.
        self._is_off = bool(settings.a_record_limit) or settings.disable_compression
        self._view: Catalog | None = None
        self._ways: dict[bytes, _Way] = {}
        self._templates: OrderedDict[bytes, _Template] = OrderedDict()
        self._soas: dict[dns.name.Name, tuple[int, bytes]] = {}
        self._bodies_bytes = 0

    def __len__(self) -> int:
        return len(self._templates)

    def get(self, query: bytes, view: Catalog) -> bytes | None:
        """Gives an answer, None when the plain road has to."""
        way = self._ways.get(query[2:])
        if way is None or view is not self._view or not self._holds(way.template, view):
            way = self._admit(query, view)
            if way is None:
                return None
        template, ring = way.template, way.ring
        ring.left -= 1
        if ring.left < 0 or not template.pieces:
            body = self._next(template, ring)
        else:
            body = ring.bodies[self._random_bits(RING_BITS)]
        head = way.cut_head if body.is_cut else way.head
        return b"".join((query[:2], head, body.counts, way.question, body.rest))

    # -- a way of asking that is new -----------------------------------------------------------

    def _admit(self, query: bytes, view: Catalog) -> _Way | None:
        """Learns a way of asking; one for a name that does not exist serves this once."""
        if view is not self._view:
            self._forget()
            self._view = view
        end = None if self._is_off else _question_end(query)
        asked_bytes_max = 0 if end is None else _edns_bytes(query, end)
        if end is None or asked_bytes_max == 0:
            return None
        template = self._template(query[HEADER_BYTES:end], view)
        if template is None:
            return None
        way = self._way(query, end, template, asked_bytes_max)
        if template.exists:
            if len(self._ways) >= WAYS_MAX:
                self._ways.clear()
            self._ways[query[2:]] = way
        return way

    def _template(self, question: bytes, view: Catalog) -> _Template | None:
        key = question.lower()
        found = self._templates.get(key)
        if found is None:
            name = dns.name.from_wire(key, 0)[0]
            found = _Template(name, dns.rdatatype.RdataType(int.from_bytes(key[-4:-2], "big")))
        if not self._holds(found, view):
            self._templates.pop(key, None)
            return None if found.topics is None else found
        self._templates[key] = found
        self._templates.move_to_end(key)
        if len(self._templates) > TEMPLATES_MAX:
            self._templates.popitem(last=False)
            self._ways.clear()
        return found

    def _way(
        self, query: bytes, end: int, template: _Template, asked_bytes_max: int | None
    ) -> _Way:
        bytes_max, answers_max = limits(self._settings, self._transport, asked_bytes_max)
        key = (bytes_max, answers_max, asked_bytes_max is not None)
        ring = template.rings.get(key)
        if ring is None:
            if len(template.rings) >= RINGS_MAX:
                template.rings.clear()
                self._ways.clear()
            opt = b"" if asked_bytes_max is None else _OPT
            assembler = Assembler(wire_name(template.name), opt, bytes_max, answers_max)
            ring = template.rings[key] = _Ring(assembler)
        flags = _QR_AA | query[2] & _RD
        cut_flags = flags
        if self._settings.enable_truncate and self._transport is Transport.UDP:
            cut_flags |= _TC
        rcode = dns.rcode.NOERROR if template.exists else dns.rcode.NXDOMAIN
        last = bytes((rcode | (_RA if self._settings.recursors else 0), 0, 1))
        return _Way(
            template,
            ring,
            bytes((flags,)) + last,
            bytes((cut_flags,)) + last,
            query[HEADER_BYTES:end],
        )

    def _forget(self) -> None:
        self._ways.clear()
        self._templates.clear()
        self._bodies_bytes = 0

    # -- records -------------------------------------------------------------------------------

    def _holds(self, template: _Template, view: Catalog) -> bool:
        """Makes a template right for the view; False when it has nothing worth to be kept."""
        if template.checked == view.index:
            return template.exists
        topics = template.topics
        if topics is None or view.last_change(topics) != template.changed:
            draft = self._answerer.draft(template.name, template.rdtype, view)
            found = pieces(draft, template.name)
            template.topics = None if found is None else draft.topics
            template.exists = draft.exists and template.topics is not None
            template.pieces, template.shuffles = found or [], draft.shuffles
            template.changed = view.last_change(template.topics or ())
            for ring in template.rings.values():
                ring.clear()
        template.checked = view.index
        return template.exists

    # -- packets -------------------------------------------------------------------------------

    def _next(self, template: _Template, ring: _Ring) -> Body:
        """A packet in place of an older one of the ring."""
        if not template.pieces:
            return self._nodata(template, ring)
        body = ring.assembler.body(self._window(template, ring))
        ring.at += max(body.answers, 1)
        if len(body.rest) > self._body_bytes_max:
            ring.left = 0
            return body
        self._keep(template, ring, body)
        return body

    def _keep(self, template: _Template, ring: _Ring, body: Body) -> None:
        size = 1 << RING_BITS
        uses = USES * (1 + len(body.rest) // USES_BYTES)
        if not template.shuffles or len(template.pieces) == 1:
            ring.bodies, ring.left = [body] * size, 1 << 60
        elif len(ring.bodies) < size:
            ring.bodies.append(body)
            ring.left = uses if len(ring.bodies) == size else 0
        else:
            ring.bodies[ring.slot] = body
            ring.slot = (ring.slot + 1) % size
            ring.left = uses
            return
        self._bodies_bytes += len(body.rest)
        if self._bodies_bytes > BODIES_BYTES_MAX:
            self._forget()

    def _window(self, template: _Template, ring: _Ring) -> list[Piece]:
        """All pieces, beginning with those that did not come first for the longest time."""
        if not template.shuffles:
            return template.pieces
        if not ring.order or ring.at >= len(ring.order):
            ring.order = list(template.pieces)
            self._rng.shuffle(ring.order)
            ring.at = 0
        return ring.order[ring.at :] + ring.order[: ring.at]

    def _nodata(self, template: _Template, ring: _Ring) -> Body:
        """No records of this type: the SOA of this second."""
        second = int(self._wall())
        if ring.second != second or not ring.bodies:
            ring.bodies = [ring.assembler.nodata(self._soa(template.name, second))]
            ring.second = second
        return ring.bodies[0]

    def _soa(self, name: dns.name.Name, second: int) -> bytes:
        """The SOA of the zone of a name; made once a second."""
        zone = self._answerer.zone(name)
        made_at, record = self._soas.get(zone.domain, (-1, b""))
        if made_at != second:
            record = authority(self._answerer.soa(name))
            self._soas[zone.domain] = second, record
        return record


def _question_end(query: bytes) -> int | None:
    """Where the question ends; None when this is no plain query of a type that comes often."""
    size = len(query)
    if not HEADER_BYTES + 5 <= size <= QUERY_BYTES_MAX:
        return None
    if query[2] & ~_RD or query[3] & _UNUSED or query[4:10] != b"\0\x01\0\0\0\0":
        return None
    at = HEADER_BYTES
    while query[at]:
        if query[at] > LABEL_BYTES_MAX:
            return None
        at += query[at] + 1
        if at >= size:
            return None
    end = at + 5
    if at > HEADER_BYTES + NAME_BYTES_MAX - 1 or query[at + 3 : end] != _IN:
        return None
    return end if int.from_bytes(query[at + 1 : at + 3], "big") in _HOT_TYPES else None


def _edns_bytes(query: bytes, end: int) -> int | None:
    """The size that the client takes; None without EDNS0, 0 when the plain road has to read it."""
    if query[10:HEADER_BYTES] == b"\0\0":
        return None if len(query) == end else 0
    opt = query[end:]
    if query[10:HEADER_BYTES] != b"\0\x01" or len(opt) < 11 or opt[:3] != b"\0\0\x29":
        return 0
    if opt[5:7] != b"\0\0" or not _has_plain_options(opt):
        return 0
    return max(int.from_bytes(opt[3:5], "big"), 1)


def _has_plain_options(opt: bytes) -> bool:
    """Tells whether there is no option but a cookie (RFC 7873) that is as it should be."""
    size = len(opt) - 11
    if int.from_bytes(opt[9:11], "big") != size:
        return False
    if not size:
        return True
    is_whole = int.from_bytes(opt[11:13], "big") == _COOKIE and opt[13:15] == (size - 4).to_bytes(
        2, "big"
    )
    return is_whole and (size == 4 + 8 or 4 + 16 <= size <= 4 + 40)
