"""Answers put together from ready-made records, as bytes. Pure.

This is the short road to a packet for questions that come often: records are rendered once, and a
packet is their bytes in some order, with names pointing back to where they stand already (RFC 1035,
4.1.4). `raftreg.dns.fit` is the plain road, over dnspython; both put the same records in a packet.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import dns.name
import dns.rdatatype
import dns.rrset
import msgspec

from raftreg.dns.draft import Draft

HEADER_BYTES = 12
_QUESTION_POINTER = b"\xc0\x0c"
_POINTER = 0xC000
_POINTER_MAX = 0x3FFF  #: a pointer has 14 bits
_SRV_TARGET_AT = 18  #: in an SRV record with a pointer for an owner: 2 + 10 + 6 bytes before it


class WireName(msgspec.Struct, frozen=True):
    """A name as bytes, with its suffixes.

    Attributes:
        wire: The name, in full.
        suffixes: Each suffix in lower case, but for the root, and where it begins.
    """

    wire: bytes
    suffixes: tuple[tuple[bytes, int], ...]


class Extra(msgspec.Struct, frozen=True):
    """A record of the additional section.

    Attributes:
        owner: Its name.
        rest: All that follows the name.
        is_text: It is a TXT: such go before any answer does.
    """

    owner: WireName
    rest: bytes
    is_text: bool


class Piece(msgspec.Struct, frozen=True):
    """One answer to the question, with what helps with it.

    Attributes:
        record: The record; its owner is a pointer to the question.
        target: The target of an SRV record: names may point to it.
        extras: Records that help.
    """

    record: bytes
    target: WireName | None
    extras: tuple[Extra, ...]


class Body(msgspec.Struct, frozen=True):
    """All of a packet that does not depend on its query.

    Attributes:
        counts: Of answer, authority and additional section, as in the header.
        rest: What follows the question.
        answers: How many there are.
        is_cut: Answers were left out.
    """

    counts: bytes
    rest: bytes
    answers: int
    is_cut: bool


def wire_name(name: dns.name.Name) -> WireName:
    """The bytes of a name."""
    wire = name.to_wire()
    assert wire is not None
    lower, at, suffixes = wire.lower(), 0, []
    while wire[at]:
        suffixes.append((lower[at:], at))
        at += wire[at] + 1
    return WireName(wire, tuple(suffixes))


def pieces(draft: Draft, name: dns.name.Name) -> list[Piece] | None:
    """The answers of a draft as bytes; None when they are not all for the name in question."""
    if draft.additional or any(answer.name != name for answer in draft.answers):
        return None
    return [
        Piece(
            _QUESTION_POINTER + _rest(answer),
            wire_name(answer[0].target) if answer.rdtype == dns.rdatatype.SRV else None,
            tuple(
                Extra(wire_name(one.name), _rest(one), one.rdtype == dns.rdatatype.TXT)
                for one in extras
            ),
        )
        for answer, extras in zip(draft.answers, draft.extras, strict=True)
    ]


def authority(record: dns.rrset.RRset) -> bytes:
    """A record of the authority section, with its names in full."""
    return wire_name(record.name).wire + _rest(record)


def _rest(record: dns.rrset.RRset) -> bytes:
    """A record without its owner."""
    data: bytes = record[0].to_wire()
    return struct.pack("!HHIH", record.rdtype, record.rdclass, record.ttl, len(data)) + data


class Assembler:
    """Puts pieces together for one question and one way of asking it.

    Args:
        question: Its name.
        opt: The OPT record of the answer; empty when it gets none.
        bytes_max: Size of the packet.
        answers_max: Number of answers.
    """

    def __init__(self, question: WireName, opt: bytes, bytes_max: int, answers_max: int) -> None:
        self._opt = opt
        self._bytes_max = bytes_max
        self._answers_max = answers_max
        self._start = HEADER_BYTES + len(question.wire) + 4  # with type and class
        self._names = {suffix: HEADER_BYTES + at for suffix, at in question.suffixes}

    def nodata(self, soa: bytes) -> Body:
        """A packet without answers."""
        counts = struct.pack("!HHH", 0, 1, 1 if self._opt else 0)
        return Body(counts, soa + self._opt, 0, is_cut=False)

    def body(self, ordered: Sequence[Piece]) -> Body:
        """A packet with as many of the pieces, from the first one on, as fit.

        The rules are those of `raftreg.dns.fit.fit`.
        """
        total = min(len(ordered), self._answers_max)
        found = self._try(ordered, total, texts=True) or self._try(ordered, total, texts=False)
        low, high = 0, total
        while found is None and low < high:
            middle = (low + high + 1) // 2
            if self._try(ordered, middle, texts=False) is None:
                high = middle - 1
            else:
                low = middle
        if found is None and low:
            found = self._try(ordered, low, texts=False)
        for count in (min(total, 1), 0):
            found = found or self._try(ordered, count, texts=False, helped=False)
        assert found is not None  # the question alone always fits
        return found

    def _try(
        self, ordered: Sequence[Piece], count: int, *, texts: bool, helped: bool = True
    ) -> Body | None:
        chosen = ordered[:count]
        parts = [piece.record for piece in chosen]
        size = self._start + sum(map(len, parts)) + len(self._opt)
        extras = 0
        if helped and size <= self._bytes_max:
            helping = self._help(chosen, size - len(self._opt), texts=texts)
            size += sum(map(len, helping))
            extras = len(helping)
            parts += helping
        if size > self._bytes_max:
            return None
        if self._opt:
            parts.append(self._opt)
            extras += 1
        counts = struct.pack("!HHH", count, 0, extras)
        return Body(counts, b"".join(parts), count, is_cut=count < len(ordered))

    def _help(self, chosen: Sequence[Piece], offset: int, *, texts: bool) -> list[bytes]:
        """The additional section, which begins at an offset; each record once."""
        if not any(piece.extras for piece in chosen):
            return []
        names, at = dict(self._names), self._start
        for piece in chosen:
            if piece.target is not None:
                _learn(names, piece.target, at + _SRV_TARGET_AT, len(piece.target.suffixes))
            at += len(piece.record)
        found: list[bytes] = []
        seen: set[tuple[bytes, bytes]] = set()
        for extra in (extra for piece in chosen for extra in piece.extras):
            key = (extra.owner.wire, extra.rest)
            if key in seen or (extra.is_text and not texts):
                continue
            seen.add(key)
            record = _owner(names, extra.owner, offset) + extra.rest
            offset += len(record)
            found.append(record)
        return found


def _owner(names: dict[bytes, int], name: WireName, offset: int) -> bytes:
    """A name at an offset, as short as it can be written there."""
    for number, (suffix, at) in enumerate(name.suffixes):
        known = names.get(suffix)
        if known is not None:
            _learn(names, name, offset, number)
            return name.wire[:at] + (_POINTER | known).to_bytes(2, "big")
    _learn(names, name, offset, len(name.suffixes))
    return name.wire


def _learn(names: dict[bytes, int], name: WireName, offset: int, count: int) -> None:
    """Notes where the first suffixes of a name stand."""
    for suffix, at in name.suffixes[:count]:
        if offset + at <= _POINTER_MAX:
            names.setdefault(suffix, offset + at)
