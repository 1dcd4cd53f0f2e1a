"""Executes prepared queries over this server's state: for HTTP and for the name service."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from raftreg.core import queries
from raftreg.core.distances import nearest_first, source_node
from raftreg.core.query import ServiceEntry
from raftreg.dns.query import QueryAnswer, QueryRow
from raftreg.errors import InvalidRequest
from raftreg.http.query_body import ttl_s
from raftreg.http.query_template import render
from raftreg.model import PreparedQuery
from raftreg.server.machine import RegistryMachine


class Asker(msgspec.Struct, frozen=True):
    """Who wants to know.

    Attributes:
        agent: Node of the agent that was asked; "" for this server's own.
        address: IP address that the question came from; "" when it is not known.
    """

    agent: str = ""
    address: str = ""


class Executed(msgspec.Struct, frozen=True):
    """What an execution gave.

    Attributes:
        query: The query, rendered.
        service: Name of the service that the entries belong to.
        entries: Nearest first, or shuffled.
        failovers: How many other places were tried.
    """

    query: PreparedQuery
    service: str
    entries: Sequence[ServiceEntry]
    failovers: int


class QueryRunner:
    """Finds queries and executes them.

    Args:
        machine: Holds the state.
        rng: Shuffles.
        datacenter: This datacenter.
        node: This server's own node.
    """

    def __init__(
        self, machine: RegistryMachine, rng: Random, *, datacenter: str, node: str
    ) -> None:
        self._machine = machine
        self._rng = rng
        self._datacenter = datacenter
        self._node = node

    def resolve(self, id_or_name: str) -> PreparedQuery | None:
        """The query of this id or name, rendered if it is a template; None when there is none.

        Raises:
            InvalidRequest: It is the id of a template, which answers to names only.
        """
        table = self._machine.state.queries
        query = table.rows.get(id_or_name)
        if query is not None:
            if query.template.type:
                raise InvalidRequest(
                    "prepared query templates can only be resolved up by name, not by ID"
                )
            return query
        query = table.named(id_or_name) if id_or_name else None
        return None if query is None else render(query, id_or_name)

    def execute(
        self,
        id_or_name: str,
        asker: Asker,
        *,
        near: str = "",
        limit: int = 0,
        connect: bool = False,
    ) -> Executed | None:
        """Executes a query.

        Args:
            id_or_name: Which.
            asker: Who asks.
            near: Node to sort by distance from, in the place of the query's own.
            limit: Most entries to give, 0 for all.
            connect: As if the query asked for Connect-capable instances.

        Returns:
            What it gave, None when there is no such query.

        Raises:
            InvalidRequest: It is the id of a template.
        """
        query = self.resolve(id_or_name)
        if query is None:
            return None
        catalog = self._machine.state.catalog
        found = queries.run(catalog, query.service, self._datacenter, connect=connect)
        entries = list(found.entries)
        self._rng.shuffle(entries)
        near = near or query.service.near
        if near:
            agent = asker.agent or self._node
            source = source_node(catalog, near, agent=agent, address=asker.address)
            entries = self._sorted(entries, source)
        if limit > 0:
            entries = entries[:limit]
        return Executed(query, found.service, entries, found.failovers)

    def _sorted(self, entries: list[ServiceEntry], source: str) -> list[ServiceEntry]:
        """Nearest first; what runs on the source itself comes before all others."""
        nodes = [entry.node.name for entry in entries]
        ordered = nearest_first(entries, nodes, source, self._machine.state.coordinates)
        return sorted(ordered, key=lambda entry: entry.node.name != source)

    async def answer(self, name: str, source_address: str) -> QueryAnswer | None:
        """Executes a query for the name service (a `raftreg.dns.query.QueryLookup`).

        A template's id is no name: it is answered as one that does not exist.
        """
        try:
            done = self.execute(name, Asker(address=source_address))
        except InvalidRequest:
            return None
        if done is None:
            return None
        seconds = ttl_s(done.query)
        return QueryAnswer(
            service=done.service,
            rows=tuple(
                QueryRow(node=entry.node, instance=entry.service, status=entry.status)
                for entry in done.entries
            ),
            ttl_s=None if seconds is None else min(int(seconds), (1 << 31) - 1),
        )
