"""Network coordinates as JSON: bodies in, rows out. Pure.

See https://developer.hashicorp.com/consul/api-docs/coordinate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NotRequired, TypedDict

from msgspec import Meta

from raftreg.core.vivaldi import DIMENSIONS, PART_MAX_S, is_valid
from raftreg.errors import InvalidRequest
from raftreg.http.fields import Fields, name_of
from raftreg.model import Coordinate, NodeCoordinate

_Part = Annotated[float, Meta(ge=-PART_MAX_S, le=PART_MAX_S)]
_Length = Annotated[float, Meta(ge=0, le=PART_MAX_S)]


class CoordJson(TypedDict):
    """A point in the space of network distances; in seconds, but for `Error`."""

    Vec: Annotated[list[_Part], Meta(min_length=DIMENSIONS, max_length=DIMENSIONS)]
    Error: _Length
    Adjustment: _Part
    Height: _Length


class NodeCoordinateJson(TypedDict):
    """The coordinate of a node in a network segment."""

    Node: str
    Segment: str
    Coord: CoordJson


class DatacenterCoordinatesJson(TypedDict):
    """The coordinates of the servers of a datacenter."""

    Datacenter: str
    AreaID: str
    Coordinates: list[NodeCoordinateJson]


class CoordinateBody(TypedDict):
    """An update."""

    Node: Annotated[str, Meta(min_length=1, max_length=128)]
    Segment: NotRequired[Annotated[str, Meta(max_length=128)]]
    Coord: CoordJson


class PingJson(TypedDict):
    """What a server tells those who measure the round trip to it.

    `Known`: whether it holds a coordinate of the node that asks.
    """

    Node: str
    Coord: CoordJson
    Known: bool


def node_coordinate_of(fields: Fields) -> NodeCoordinate:
    """Reads an update.

    Raises:
        InvalidRequest: The node is missing, or the coordinate is none.
    """
    node = fields.text("Node")
    if not node:
        raise InvalidRequest("Must provide node")
    return NodeCoordinate(
        node=name_of(node, "node name"),
        segment=name_of(fields.text("Segment"), "segment"),
        coordinate=coordinate_of(fields.fields("Coord") or Fields({}, "Coord")),
    )


def coordinate_of(fields: Fields) -> Coordinate:
    """Reads a coordinate.

    Raises:
        InvalidRequest: It is of another number of dimensions, or not finite, or huge.
    """
    vec = [_number(part) for part in fields.items("Vec")]
    if len(vec) != DIMENSIONS:
        raise InvalidRequest(
            f"incompatible coordinate: it has {len(vec)} dimensions, {DIMENSIONS} are needed"
        )
    coordinate = Coordinate(
        vec=tuple(vec),
        error=_number(fields.get("Error")),
        adjustment=_number(fields.get("Adjustment")),
        height=_number(fields.get("Height")),
    )
    if not is_valid(coordinate):
        raise InvalidRequest(
            "invalid coordinate: a part of it is not finite, negative or too large"
        )
    return coordinate


def _number(value: object) -> float:
    """A number; one that is missing is 0, as in Go."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest("Request decode failed: a part of a coordinate must be a number")
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequest("invalid coordinate: a part of it is too large") from None


def coord_json(coordinate: Coordinate) -> CoordJson:
    """A coordinate as answers show it."""
    return {
        "Vec": list(coordinate.vec),
        "Error": coordinate.error,
        "Adjustment": coordinate.adjustment,
        "Height": coordinate.height,
    }


def coordinates_json(rows: Iterable[NodeCoordinate]) -> list[NodeCoordinateJson]:
    """Rows as answers show them."""
    return [
        {"Node": row.node, "Segment": row.segment, "Coord": coord_json(row.coordinate)}
        for row in rows
    ]
