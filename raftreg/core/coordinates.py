"""Network coordinates as a part of the registry: how they are written and read. Pure.

They have indexes and topics of their own: a coordinate that moves wakes nobody who waits for the
catalog.
"""

from __future__ import annotations

from raftreg.core.changes import Changes, Topic
from raftreg.core.commands import CoordinateUpdate
from raftreg.core.query import Found
from raftreg.core.state import State
from raftreg.model import NodeCoordinate


def update(state: State, command: CoordinateUpdate, changes: Changes) -> bool:
    """Writes coordinates; those of unknown nodes, and what is none, are passed over."""
    for row in command.rows:
        known = row.node in state.catalog.nodes
        if known and state.coordinates.put(row, state.index):
            _publish(row.node, changes)
    return True


def forget(state: State, node: str, changes: Changes) -> None:
    """Removes the coordinates of a node that is gone."""
    if state.coordinates.remove(node, state.index):
        _publish(node, changes)


def _publish(node: str, changes: Changes) -> None:
    changes.topics["coordinate", node] = None
    changes.topics["coordinates", ""] = None


def coordinates(state: State) -> Found[list[NodeCoordinate]]:
    """All coordinates, by node and segment."""
    table = state.coordinates
    rows = [row for node in sorted(table.rows) for row in table.of_node(node)]
    return Found(max(table.changed, state.index_floor, 1), rows)


def topics_coordinates() -> tuple[Topic, ...]:
    """What a watcher of `coordinates` waits on."""
    return (("coordinates", ""),)


def coordinates_of_node(state: State, node: str) -> Found[list[NodeCoordinate]]:
    """The coordinates of a node, by segment."""
    table = state.coordinates
    changed = [row.modify_index for row in table.rows.get(node, {}).values()]
    index = max(changed, default=table.dropped)
    return Found(max(index, state.index_floor, 1), table.of_node(node))


def topics_coordinates_of_node(node: str) -> tuple[Topic, ...]:
    """What a watcher of `coordinates_of_node` waits on."""
    return (("coordinate", node),)
