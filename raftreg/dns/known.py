"""What an answer needs that the view does not hold, and what has been learnt of it.

The answerer is pure: where it lacks something it returns `Needs`, the shell finds it out and asks
again with what it has learnt. The rounds are bounded; in the last one nothing more is asked for.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import dns.name
import dns.rdatatype
import dns.rrset
import msgspec

from raftreg.dns.query import QueryAnswer

HOSTS_MAX = 4  #: host names of one answer that are asked for
HOST_RECORDS_MAX = 8  #: records that are taken over for one host name


class Gateway(enum.Enum):
    """What a name is looked up as, by the one who executes it."""

    QUERY = "query"
    INGRESS = "ingress"


class QueryAsk(msgspec.Struct, frozen=True):
    """A prepared query, or the gateways of a service, by name in lower case."""

    name: str
    kind: Gateway = Gateway.QUERY


class HostAsk(msgspec.Struct, frozen=True):
    """Addresses of a host name outside of the domain.

    Attributes:
        name: The absolute name as text, in lower case.
        rdtype: A or AAAA.
    """

    name: str
    rdtype: dns.rdatatype.RdataType


class Failed(msgspec.Struct, frozen=True):
    """A query could not be executed."""


FAILED = Failed()
Ask = QueryAsk | HostAsk


class Needs(msgspec.Struct, frozen=True):
    """The answer depends on these.

    Attributes:
        asks: What has to be found out.
        source_address: For whom: an address told by the asker's resolver, or empty.
    """

    asks: tuple[Ask, ...]
    source_address: str = ""


class Known(msgspec.Struct, frozen=True):
    """What has been found out.

    Attributes:
        queries: By the ask; None: there is no such query.
        hosts: By the ask; none: nothing was found.
        final: Nothing more is going to be found out.
    """

    queries: Mapping[QueryAsk, QueryAnswer | Failed | None] = {}
    hosts: Mapping[HostAsk, tuple[dns.rrset.RRset, ...]] = {}
    final: bool = False


NOTHING_KNOWN = Known()


def host_ask(name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> HostAsk:
    """The ask for a host name."""
    return HostAsk(name.to_text().lower(), rdtype)
