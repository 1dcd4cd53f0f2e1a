"""The doors through which the name service asks for what its view does not hold.

A prepared query (`name.query.domain`) is executed by a server: on a server from its state, on an
agent by HTTP. The gateways of a service (`name.ingress.domain`) come through a door of the same
form. The name service awaits a door with a deadline and renders whatever it gives.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from raftreg.model import Node, ServiceInstance, Status


class QueryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One instance to answer with.

    Attributes:
        node: Its node; name, address and meta are used.
        instance: The instance; address, port and weights are used.
        status: Its health with that of its node: chooses the weight of SRV.
    """

    node: Node
    instance: ServiceInstance
    status: Status = Status.PASSING


class QueryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a query gave.

    Attributes:
        service: The service that was found; its TTL counts when the query names none.
        rows: Instances in the order to answer in (nearest first, or shuffled), already filtered
            and limited; none gives NXDOMAIN.
        ttl_s: The query's `DNS.TTL` in seconds; None: it has none.
        datacenter: Where the instances are; empty: here.
    """

    service: str
    rows: tuple[QueryRow, ...]
    ttl_s: int | None = None
    datacenter: str = ""


class QueryLookup(Protocol):
    """Executes a prepared query by name or id."""

    async def __call__(self, name: str, source_address: str) -> QueryAnswer | None:
        """Executes it.

        Args:
            name: Name or id, in lower case as all of DNS (a name may hold dots).
            source_address: IP address of the asker (or of its EDNS client subnet), for `${agent…}`
                and `near=_ip`; empty when it is not known.

        Returns:
            None when there is no such query: NXDOMAIN.

        Raises:
            RaftregError: It could not be executed now: SERVFAIL.
        """
        ...


async def no_queries(name: str, source_address: str) -> QueryAnswer | None:
    """The door where there are no prepared queries: every name is unknown."""
    del name, source_address
    return None


class Freshness(Protocol):
    """Says how new the view is, and makes sure that it is new."""

    def age_s(self) -> float | None:
        """Seconds for which the view may be behind the leader; None: not known."""
        ...

    async def confirm(self) -> None:
        """Returns when the view holds all that was written before the call.

        Raises:
            RaftregError: No leader confirmed it in time.
        """
        ...


class Doors(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the name service asks.

    Attributes:
        queries: Executes prepared queries.
        ingress: Finds the ingress gateways of a service, by its name, in whatever health.
        freshness: Confirms the view, where the settings ask for it; None: it is as it is.
    """

    queries: QueryLookup = no_queries
    ingress: QueryLookup = no_queries
    freshness: Freshness | None = None
