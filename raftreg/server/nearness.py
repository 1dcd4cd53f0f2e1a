"""`?near` of the catalog's reads: rows sorted by the estimated round trip from a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from raftreg.core.catalog import Catalog
from raftreg.core.distances import nearest_first, source_node
from raftreg.http.asker import address_of, agent_of
from raftreg.http.catalog_query import CatalogQuery
from raftreg.http.params import ReadOptions
from raftreg.server.machine import RegistryMachine


class NearSorter:
    """Sorts the rows of an answer; one whose coordinate is not known comes last.

    Args:
        machine: Holds the coordinates.
        node: This server's own node, which `_agent` means unless an agent handed the request on.
    """

    def __init__(self, machine: RegistryMachine, node: str) -> None:
        self._machine = machine
        self._node = node

    def __call__(
        self, request: web.Request, options: ReadOptions, asked: CatalogQuery
    ) -> CatalogQuery:
        """The same query with its answer sorted; as it is where there is nothing to sort by."""
        state = self._machine.state
        source = source_node(
            state.catalog,
            options.near,
            agent=agent_of(request) or self._node,
            address=address_of(request),
        )
        if source not in state.coordinates.rows:
            return asked

        def json(catalog: Catalog) -> Any:
            rows = asked.json(catalog)
            return self._sorted(rows, source) if isinstance(rows, list) else rows

        # A rendered answer is good as long as nothing moved.
        key = ("near", source, state.coordinates.changed, asked.key)
        return msgspec.structs.replace(asked, key=key, json=json)

    def _sorted(self, rows: Sequence[Any], source: str) -> list[Any]:
        nodes = [_node_of(row) for row in rows]
        return nearest_first(rows, nodes, source, self._machine.state.coordinates)


def _node_of(row: dict[str, Any]) -> str:
    """Name of the node of a rendered row: health entries hold the whole node."""
    node = row["Node"]
    return str(node["Node"] if isinstance(node, dict) else node)
