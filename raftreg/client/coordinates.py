"""Network coordinates: `client.coordinate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftreg.client import records
from raftreg.client.options import DEFAULT_READ, Read, segment
from raftreg.model import NodeCoordinate

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient


class CoordinateAPI:
    """Where hosts are in the space of network distances."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    async def nodes(self, *, read: Read = DEFAULT_READ) -> list[NodeCoordinate]:
        """The coordinates of all nodes that have one, by node and segment."""
        response = await self._client.request("GET", "/v1/coordinate/nodes", params=read.params())
        return records.node_coordinates(response)

    async def node(self, name: str, *, read: Read = DEFAULT_READ) -> list[NodeCoordinate]:
        """The coordinates of a node, one a segment; empty when it has none."""
        path = f"/v1/coordinate/node/{segment(name)}"
        response = await self._client.request("GET", path, params=read.params(), accept=(200, 404))
        return [] if response.status == 404 else records.node_coordinates(response)
