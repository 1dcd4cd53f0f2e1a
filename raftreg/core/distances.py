"""Coordinates of nodes: the table, estimates of round trips, and sorting by them. Pure.

How segments are matched is Consul's: a host in one segment is measured there, one in several
(a server) in that of the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from raftreg.core.catalog import Catalog
from raftreg.core.vivaldi import is_valid, round_trip_s
from raftreg.model import Coordinate, NodeCoordinate

SEGMENTS_MAX = 16
#: Names of `?near` that stand for the host that asks.
NEAR_AGENT, NEAR_IP = "_agent", "_ip"

_T = TypeVar("_T")


class CoordinateRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row with the index at which it changed."""

    node: str
    segment: str
    coordinate: Coordinate
    modify_index: int


class Coordinates:
    """Coordinates by node and segment.

    Attributes:
        rows: Rows of each node by segment, in order of their first update.
        changed: Index at which one was last written or removed.
        dropped: Index at which one was last removed.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, CoordinateRow]] = {}
        self.changed = 0
        self.dropped = 0

    def load(self, rows: Iterable[CoordinateRow], *, changed: int, dropped: int) -> None:
        """Fills an empty table.

        Raises:
            ValueError: A coordinate is none.
        """
        for row in rows:
            if not is_valid(row.coordinate):
                raise ValueError(f"the coordinate of node {row.node!r} is none")
            self.rows.setdefault(row.node, {})[row.segment] = row
        self.changed, self.dropped = changed, dropped

    def all_rows(self) -> list[CoordinateRow]:
        """All rows, in table order."""
        return [row for rows in self.rows.values() for row in rows.values()]

    def of_node(self, node: str) -> list[NodeCoordinate]:
        """The coordinates of a node, by segment."""
        rows = self.rows.get(node, {})
        return [
            NodeCoordinate(node=node, segment=segment, coordinate=rows[segment].coordinate)
            for segment in sorted(rows)
        ]

    def put(self, row: NodeCoordinate, index: int) -> bool:
        """Writes a row; False when it is no coordinate, the same, or of one segment too many."""
        rows = self.rows.get(row.node, {})
        old = rows.get(row.segment)
        if not is_valid(row.coordinate) or (old is None and len(rows) >= SEGMENTS_MAX):
            return False
        if old is not None and old.coordinate == row.coordinate:
            return False
        self.rows.setdefault(row.node, rows)[row.segment] = CoordinateRow(
            node=row.node, segment=row.segment, coordinate=row.coordinate, modify_index=index
        )
        self.changed = index
        return True

    def remove(self, node: str, index: int) -> bool:
        """Removes all rows of a node; False when there is none."""
        if self.rows.pop(node, None) is None:
            return False
        self.changed = self.dropped = index
        return True

    def distance_s(self, one: str, other: str) -> float:
        """Estimated round trip between two nodes in seconds; infinite when it is not known."""
        return _distance_s(self.rows.get(one, {}), self.rows.get(other, {}))


def _distance_s(one: Mapping[str, CoordinateRow], other: Mapping[str, CoordinateRow]) -> float:
    segment = ""
    for rows in (one, other):
        if len(rows) == 1:
            segment = next(iter(rows))
    a, b = one.get(segment), other.get(segment)
    return math.inf if a is None or b is None else round_trip_s(a.coordinate, b.coordinate)


def nearest_first(
    rows: Sequence[_T], nodes: Sequence[str], source: str, coordinates: Coordinates
) -> list[_T]:
    """Sorts by the estimated round trip from a node; those that are not known come last.

    Rows at one distance, and all rows when the source has no coordinate, keep their order.

    Args:
        rows: What to sort.
        nodes: Name of the node of each row.
        source: The node to measure from.
        coordinates: Where nodes are.
    """
    if source not in coordinates.rows:
        return list(rows)
    known_s = {node: coordinates.distance_s(source, node) for node in dict.fromkeys(nodes)}
    order = sorted(range(len(rows)), key=lambda number: known_s[nodes[number]])
    return [rows[number] for number in order]


def source_node(catalog: Catalog, near: str, *, agent: str, address: str) -> str:
    """The node that `?near` means; "" when it means none.

    Args:
        catalog: Where nodes are found by their address.
        near: What was asked for: a name, `_agent` or `_ip`.
        agent: The node whose agent was asked.
        address: IP address that the question came from.
    """
    if near == NEAR_AGENT:
        return agent
    if near != NEAR_IP:
        return near
    if not address:
        return ""
    return next((node.name for node in catalog.nodes.values() if node.address == address), "")
