"""An answer before it is fitted into a packet."""

from __future__ import annotations

import dns.rrset

from raftreg.core.changes import Topic
from raftreg.dns.known import Ask


class Draft:
    """Collects records.

    Attributes:
        answers: Records of the answer section, in order.
        extras: For the record at the same place: records that help with it.
        authority, additional: Records of these sections, whatever is cut.
        exists: False gives NXDOMAIN.
        failed: True gives SERVFAIL.
        aliases: How many CNAMEs led here.
        missing: What has to be found out before the answer is complete.
        topics: The answer stays the same (but for its order) while none of these changes; None:
            it depends on more than the catalog, or is not worth to be kept.
        shuffles: The order of the answers is by chance.
    """

    def __init__(self, aliases: int = 0) -> None:
        self.aliases = aliases
        self.answers: list[dns.rrset.RRset] = []
        self.extras: list[list[dns.rrset.RRset]] = []
        self.authority: list[dns.rrset.RRset] = []
        self.additional: list[dns.rrset.RRset] = []
        self.exists = True
        self.failed = False
        self.missing: dict[Ask, None] = {}
        self.topics: tuple[Topic, ...] | None = None
        self.shuffles = False

    def add(self, answer: dns.rrset.RRset, *extras: dns.rrset.RRset) -> None:
        """Adds an answer with what helps with it."""
        self.answers.append(answer)
        self.extras.append(list(extras))
