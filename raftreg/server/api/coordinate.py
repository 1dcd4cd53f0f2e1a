"""/v1/coordinate: https://developer.hashicorp.com/consul/api-docs/coordinate."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from raftreg.core import coordinates
from raftreg.core.vivaldi import origin
from raftreg.errors import InvalidRequest
from raftreg.http import json
from raftreg.http.coordinate_body import (
    CoordinateBody,
    DatacenterCoordinatesJson,
    NodeCoordinateJson,
    PingJson,
    coord_json,
    coordinates_json,
    node_coordinate_of,
)
from raftreg.http.discovery import options_of, query_of, read_head_bytes
from raftreg.http.fields import Fields
from raftreg.http.json import dumps
from raftreg.http.middleware import UNTIMED
from raftreg.http.operation import Param, operation
from raftreg.http.params import ReadOptions
from raftreg.http.problems import check_datacenter
from raftreg.http.reply import TEXT, Reply, json_reply
from raftreg.model import NodeCoordinate
from raftreg.server.api.context import Context
from raftreg.server.coordinates import CoordinateQueue
from raftreg.server.writes import read_body

BODY_BYTES_MAX = 16 * 1024
SERVER_SERVICE = "consul"
_SEGMENT = Param("segment", "only coordinates of this network segment")


class CoordinateRoutes:
    """The endpoints of coordinates.

    Args:
        context: The collaborators.
        queue: Takes updates.
    """

    def __init__(self, context: Context, queue: CoordinateQueue) -> None:
        self._context = context
        self._queue = queue
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.get("/v1/coordinate/datacenters", self.datacenters),
            web.get("/v1/coordinate/nodes", self.nodes),
            web.get("/v1/coordinate/node/{node:.*}", self.node),
            web.put("/v1/coordinate/update", self.update),
            web.get("/v1/internal/ping", self.ping),
        ]

    @operation(
        "Lists the coordinates of the servers by datacenter",
        tag="coordinate",
        answer=list[DatacenterCoordinatesJson],
    )
    async def datacenters(self, request: web.Request) -> Reply:
        """The servers of this datacenter, which is the only one."""
        options = options_of(request, self._datacenter)
        await self._context.reads.ready(options)
        state = self._context.reads.state
        servers = {row.node for row in state.catalog.instances(SERVER_SERVICE)}
        rows = [row for node in sorted(servers) for row in state.coordinates.of_node(node)]
        body: list[DatacenterCoordinatesJson] = [
            {
                "Datacenter": self._datacenter,
                "AreaID": "wan",
                "Coordinates": coordinates_json(rows),
            }
        ]
        return json_reply(request, dumps(body, pretty=options.pretty))

    @operation(
        "Lists the coordinates of all nodes",
        tag="coordinate",
        reads=True,
        query=(_SEGMENT,),
        answer=list[NodeCoordinateJson],
    )
    async def nodes(self, request: web.Request) -> Reply:
        """Coordinates of all nodes that have one."""
        options = self._options(request)
        found = await self._context.reads.find(
            options, coordinates.topics_coordinates(), coordinates.coordinates
        )
        return self._listed(request, options, found.index, found.value)

    @operation(
        "Shows the coordinates of a node",
        tag="coordinate",
        reads=True,
        query=(_SEGMENT,),
        answer=list[NodeCoordinateJson],
        also={404: "no such coordinate"},
    )
    async def node(self, request: web.Request) -> Reply:
        """Coordinates of one node; 404 when it has none."""
        name = request.match_info["node"]
        if not name:
            raise InvalidRequest("Missing node name")
        options = self._options(request)
        found = await self._context.reads.find(
            options,
            coordinates.topics_coordinates_of_node(name),
            lambda state: coordinates.coordinates_of_node(state, name),
        )
        if not _of_segment(request, found.value):
            head = read_head_bytes(found.index, self._context.reads.head(options))
            return Reply(b"", 404, TEXT, head)
        return self._listed(request, options, found.index, found.value)

    @operation(
        "Updates the coordinate of a node",
        tag="coordinate",
        about="Updates are gathered: one shows after a second at most. Of a node that is not "
        "registered it is passed over.",
        query=(Param("dc", "the datacenter: only this one's own name is known"),),
        body=CoordinateBody,
    )
    async def update(self, request: web.Request) -> Reply:
        """Takes an update; it is written with others, soon."""
        check_datacenter(query_of(request).get("dc", ""), self._datacenter)
        fields = Fields(json.loads(await read_body(request, BODY_BYTES_MAX)))
        check_datacenter(fields.text("Datacenter"), self._datacenter)
        self._queue.put(node_coordinate_of(fields))
        return Reply(b"", kind=TEXT)

    @operation(
        "Answers at once: for those who measure the round trip",
        tag="internal",
        query=(Param("node", "the node that asks"),),
        answer=PingJson,
    )
    async def ping(self, request: web.Request) -> Reply:
        """This server's coordinate, and whether the asker's is known."""
        table = self._context.reads.state.coordinates
        own = self._context.settings.node
        known = table.of_node(own)
        body: PingJson = {
            "Node": own,
            "Coord": coord_json(known[0].coordinate if known else origin()),
            "Known": query_of(request).get("node", "") in table.rows,
        }
        return Reply(dumps(body))

    def _options(self, request: web.Request) -> ReadOptions:
        options = options_of(request, self._datacenter)
        if options.index:
            request[UNTIMED] = True
        return options

    def _listed(
        self,
        request: web.Request,
        options: ReadOptions,
        index: int,
        rows: Sequence[NodeCoordinate],
    ) -> Reply:
        head = read_head_bytes(index, self._context.reads.head(options))
        body = dumps(coordinates_json(_of_segment(request, rows)), pretty=options.pretty)
        return json_reply(request, body, head)


def _of_segment(request: web.Request, rows: Sequence[NodeCoordinate]) -> list[NodeCoordinate]:
    """The rows of the segment that was asked for, all when none was."""
    params = query_of(request)
    if "segment" not in params:
        return list(rows)
    return [row for row in rows if row.segment == params["segment"]]
