"""Rows share what is equal: a large catalog holds the same few texts again and again.

Every row is decoded by itself, so each brings its own copy of its node's name, its service's name
and tags, its meta, and an empty table for every field without a value. Sharing the equal ones keeps
a third of the memory, and costs a comparison a field. Nothing is looked up in a pool that would
have to be emptied again: a row shares with rows that are next to it in the tables.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from raftreg.model import Check, Node, ServiceInstance

_Row = Node | ServiceInstance | Check
_NOTHING: dict[str, Any] = {}
_NODE = ("name", "datacenter", "tagged_addresses", "meta")
_INSTANCE = ("node", "id", "name", "tags", "meta", "tagged_addresses", "weights")
_CHECK = (
    "node", "check_id", "name", "notes", "output", "service_id", "service_name", "service_tags",
    "type",
)  # fmt: skip
#: Free JSON: of these only empty ones are shared, for values in them can be equal and yet not the
#: same (1 and True, or the order within).
_JSON_OF_INSTANCE = ("proxy", "connect")
_JSON_OF_CHECK = ("definition",)


def share_node(row: Node, like: Node | None) -> None:
    """Makes what a node has in common with another row the same objects."""
    _share(row, like, _NODE)


def share_instance(row: ServiceInstance, node: Node | None, like: ServiceInstance | None) -> None:
    """Likewise of an instance: with its node, and with another instance of its service."""
    _share(row, like, _INSTANCE)
    _share(row, None, _JSON_OF_INSTANCE)
    if node is not None:
        _share_text(row, "node", node.name)


def share_check(row: Check, instance: ServiceInstance | None, like: Check | None) -> None:
    """Likewise of a check: with its instance, and with another check of that service."""
    _share(row, like, _CHECK)
    _share(row, None, _JSON_OF_CHECK)
    if instance is not None:
        _share_text(row, "node", instance.node)
        _share_text(row, "service_id", instance.id)
        _share_text(row, "service_name", instance.name)
        if row.service_tags == instance.tags:
            msgspec.structs.force_setattr(row, "service_tags", instance.tags)


def _share(row: _Row, like: _Row | None, fields: tuple[str, ...]) -> None:
    if row.modify_index == row.create_index:
        msgspec.structs.force_setattr(row, "modify_index", row.create_index)
    for field in fields:
        value = getattr(row, field)
        if value.__class__ is dict and not value:
            # Rows are values: nobody writes into their tables, so one empty table does for all.
            msgspec.structs.force_setattr(row, field, _NOTHING)
        elif like is not None:
            other = getattr(like, field)
            if other is not value and other == value and _same_order(other, value):
                msgspec.structs.force_setattr(row, field, other)


def _same_order(other: object, value: object) -> bool:
    """Tables are written in their order, also into snapshots."""
    return not isinstance(value, dict) or list(value) == list(cast(dict[str, object], other))


def _share_text(row: _Row, field: str, text: str) -> None:
    if getattr(row, field) == text:
        msgspec.structs.force_setattr(row, field, text)
