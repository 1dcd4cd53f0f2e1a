"""Makes an answer fit its packet: what helps goes first, then answers from the end."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import dns.exception
import dns.flags
import dns.message
import dns.rdatatype
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
        try:
            return reply.to_wire(max_size=bytes_max)
        except dns.exception.TooBig:
            return None

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
    if best is None:
        # Not one fits with its help: one without, or the bare reply.
        best = rendered(min(total, 1), texts=False, helped=False)
        best = best or rendered(0, texts=False, helped=False)
        best = best or _emptied(reply)
    return Fitted(best, True)


def _emptied(reply: dns.message.Message) -> bytes:
    reply.authority = []
    return reply.to_wire(max_size=512)
