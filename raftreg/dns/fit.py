"""Makes an answer fit its packet: what helps goes first, then answers from the end."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.renderer
import dns.rrset
import msgspec


class Fitted(msgspec.Struct, frozen=True):
    """A packet; `cut` tells that answers were left out."""

    packet: bytes
    cut: bool

    def with_flag(self, flag: dns.flags.Flag) -> bytes:
        """The packet with a further flag in its header."""
        flags = struct.unpack_from("!H", self.packet, 2)[0] | flag
        return self.packet[:2] + struct.pack("!H", flags) + self.packet[4:]


def fit(
    reply: dns.message.Message,
    answers: Sequence[dns.rrset.RRset],
    extras: Sequence[Sequence[dns.rrset.RRset]],
    additional: Sequence[dns.rrset.RRset],
    bytes_max: int,
    answers_max: int,
    *,
    compress: bool = True,
) -> Fitted:
    """Renders as many answers as fit.

    Args:
        reply: The reply with question, authority and OPT; its other sections are set here.
        answers: Records in the order of their worth.
        extras: For the answer at the same place: records of the additional section that go with
            it. Texts go before any answer does, addresses only with their answer.
        additional: Further records of the additional section.
        bytes_max: Size of the packet.
        answers_max: Number of answers.
        compress: Point back to names that were written before.
    """
    total = min(len(answers), answers_max)

    def rendered(count: int, *, texts: bool, helped: bool = True) -> bytes | None:
        reply.answer = list(answers[:count])
        more = [*additional, *(one for part in extras[:count] for one in part)] if helped else []
        reply.additional = list(
            {
                (one.name, one.rdtype, one[0]): one
                for one in more
                if texts or one.rdtype != dns.rdatatype.TXT
            }.values()
        )
        return _rendered(reply, bytes_max, compress=compress)

    packet = rendered(total, texts=True) or rendered(total, texts=False)
    if packet is not None:
        return Fitted(packet, total < len(answers))
    low, best = 0, None
    high = total
    while low < high:  # the most answers that fit: low always does, high may not
        middle = (low + high + 1) // 2
        found = rendered(middle, texts=False)
        if found is None:
            high = middle - 1
        else:
            low, best = middle, found
    if best is None:  # not one fits with its help: one without, or none
        best = rendered(min(total, 1), texts=False, helped=False)
        best = best or rendered(0, texts=False, helped=False)
    if best is None:
        reply.authority = []
        best = rendered(0, texts=False, helped=False)
    assert best is not None  # a question has 271 bytes at most, and 512 always fit
    return Fitted(best, True)


_Renderer: Any = dns.renderer.Renderer  # its methods carry no types


class _NoNames(dict[dns.name.Name, int]):
    """A table of written names that forgets them all, so that none is pointed back to."""

    def __setitem__(self, name: dns.name.Name, offset: int) -> None:
        del name, offset


def _rendered(reply: dns.message.Message, bytes_max: int, *, compress: bool) -> bytes | None:
    """The message as bytes, None when they are too many."""
    renderer: Any = _Renderer(reply.id, reply.flags, bytes_max)
    if not compress:
        renderer.compress = _NoNames()
    try:
        for one in reply.question:
            renderer.add_question(one.name, one.rdtype, one.rdclass)
        for number, section in enumerate((reply.answer, reply.authority, reply.additional), 1):
            for rrset in section:
                renderer.add_rrset(number, rrset)
        if reply.opt is not None:
            renderer.add_opt(reply.opt)
    except dns.exception.TooBig:
        return None
    renderer.write_header()
    return bytes(renderer.get_wire())
