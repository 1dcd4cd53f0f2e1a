"""The catalog: what is registered, and when each part of it last changed.

A server keeps one inside its `State`; an agent keeps one alone, fed by deltas (`apply_delta`). The
`put_*` and `delete_*` methods hold the rules (an identical row changes nothing; what belongs to a
deleted row goes with it) and record every change in a `Changes`.

Last changes are kept by topic, one registry index each. A name that has no rows any more keeps no
entry: for it counts the index at which any name of that kind last went (Consul's "last extinction
index"), which is never lower, so indexes do not go back and dead names cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TypeVar

import msgspec

from raftreg.core.changes import Changes, Topic
from raftreg.core.delta import CatalogDelta
from raftreg.core.rows import CatalogRows, speaks_for
from raftreg.model import Check, Node, ServiceInstance

_R = TypeVar("_R", Node, ServiceInstance, Check)

#: The topics whose last change is kept here.
_KINDS = frozenset(
    {
        "service",
        "checks",
        "connect",
        "connect-checks",
        "services",
        "instances",
        "node",
        "nodes",
        "node-checks",
        "check-state",
    }
)


class Catalog(CatalogRows):
    """Rows of the catalog with their last changes.

    Args:
        index_floor: No answer has a lower index; a view sets it to the index of its first content.

    Attributes:
        index: The last registry index seen.
        index_floor: See above; a restore raises it.
    """

    def __init__(self, index_floor: int = 0) -> None:
        super().__init__()
        self.index = index_floor
        self.index_floor = index_floor
        self._changed: dict[Topic, int] = {}
        self._gone: dict[str, int] = {}

    # -- last changes ------------------------------------------------------------------------

    def last_change(self, topics: Iterable[Topic]) -> int:
        """Index of the last change of what these topics cover; at least 1, never goes back."""
        index = max(self.index_floor, 1)
        for topic in topics:
            changed = self._changed.get(topic)
            index = max(index, self._gone.get(topic[0], 0) if changed is None else changed)
        return index

    def service_index(self, name: str) -> int:
        """Index of the last change of the instances of a service or of their nodes' rows."""
        return self.last_change((("service", name),))

    def node_index(self, name: str) -> int:
        """Index of the last change of a node's row or its instances."""
        return self.last_change((("node", name),))

    def commit(self, changes: Changes, index: int) -> None:
        """Makes the changes gathered count as made at this index."""
        self.index = max(self.index, index)
        for topic in changes.topics:
            if topic[0] not in _KINDS:
                continue  # a key or a session that went along: its own table knows its index
            if self._is_alive(topic):
                self._changed[topic] = max(index, self._changed.get(topic, 0))
            else:
                self._changed.pop(topic, None)
                self._gone[topic[0]] = max(index, self._gone.get(topic[0], 0))

    def _is_alive(self, topic: Topic) -> bool:
        kind, name = topic
        if kind in ("service", "checks"):
            return name in self._instances
        if kind in ("connect", "connect-checks"):
            return name in self._connected
        if kind in ("node", "node-checks"):
            return name in self.nodes or name in self._name_of_id
        return True

    def last_changes(self) -> tuple[list[tuple[str, str, int]], dict[str, int]]:
        """Everything `last_change` knows, for a snapshot: by topic, and of dead names by kind."""
        return [(*topic, index) for topic, index in self._changed.items()], dict(self._gone)

    def adopt_last_changes(
        self, changed: Iterable[tuple[str, str, int]], gone: dict[str, int]
    ) -> None:
        """Replaces what `last_change` knows by what a snapshot holds."""
        self._changed = {(kind, name): index for kind, name, index in changed}
        self._gone = dict(gone)

    # -- changes -----------------------------------------------------------------------------

    def put_node(self, row: Node, index: int, changes: Changes) -> Node:
        """Writes a node; gives the row as it is now.

        Another node with the same id is this one under its old name, and goes with all it has. A
        row without an id keeps the one that is known.
        """
        old = self.nodes.get(row.name)
        if not row.id and old is not None:
            row = msgspec.structs.replace(row, id=old.id)
        former = self._name_of_id.get(row.id)
        if former is not None and former != row.name:
            self.delete_node(former, index, changes)
        stamped = _stamp(row, old, index)
        if stamped is not old:
            self._write_node(row.name, stamped, index, changes)
        return stamped

    def put_service(self, row: ServiceInstance, index: int, changes: Changes) -> ServiceInstance:
        """Writes an instance on a node that exists; its checks follow its name and tags."""
        old = self.service(row.node, row.id)
        stamped = _stamp(row, old, index)
        if stamped is not old:
            self._write_service(row.node, row.id, stamped, index, changes)
            for check in self.checks_of_instance(row.node, row.id):
                self.put_check(check, index, changes)
        return stamped

    def put_check(self, row: Check, index: int, changes: Changes) -> Check:
        """Writes a check; its service name and tags are those of its instance."""
        instance = self.service(row.node, row.service_id) if row.service_id else None
        name, tags = (instance.name, instance.tags) if instance is not None else ("", ())
        if row.service_name != name or row.service_tags != tags:
            row = msgspec.structs.replace(row, service_name=name, service_tags=tags)
        old = self.check(row.node, row.check_id)
        stamped = _stamp(row, old, index)
        if stamped is not old:
            self._write_check(row.node, row.check_id, stamped, index, changes)
        return stamped

    def delete_node(self, name: str, index: int, changes: Changes) -> bool:
        """Deletes a node with everything it has; False when there is none."""
        if name not in self.nodes:
            return False
        for check in self.checks_of(name):
            self.delete_check(name, check.check_id, index, changes)
        for instance in self.services_of(name):
            self.delete_service(name, instance.id, index, changes)
        self._write_node(name, None, index, changes)
        return True

    def delete_service(self, node: str, service_id: str, index: int, changes: Changes) -> bool:
        """Deletes an instance with its checks; False when there is none."""
        if self.service(node, service_id) is None:
            return False
        for check in self.checks_of_instance(node, service_id):
            self.delete_check(node, check.check_id, index, changes)
        self._write_service(node, service_id, None, index, changes)
        return True

    def delete_check(self, node: str, check_id: str, index: int, changes: Changes) -> bool:
        """Deletes a check; False when there is none."""
        if self.check(node, check_id) is None:
            return False
        self._write_check(node, check_id, None, index, changes)
        return True

    # -- deltas ------------------------------------------------------------------------------

    def apply_delta(self, delta: CatalogDelta) -> tuple[Topic, ...]:
        """Writes one row as another catalog had it; gives the topics of what changed here."""
        changes = Changes()
        match delta.row:
            case None:
                self._apply_deletion(delta, changes)
            case Node():
                self._write_node(delta.node, delta.row, delta.index, changes)
            case ServiceInstance():
                self._write_service(delta.node, delta.id, delta.row, delta.index, changes)
            case Check():
                self._write_check(delta.node, delta.id, delta.row, delta.index, changes)
        self.commit(changes, delta.index)
        return tuple(changes.topics)

    def _apply_deletion(self, delta: CatalogDelta, changes: Changes) -> None:
        match delta.kind:
            case "node":
                self.delete_node(delta.node, delta.index, changes)
            case "service":
                self.delete_service(delta.node, delta.id, delta.index, changes)
            case "check":
                self.delete_check(delta.node, delta.id, delta.index, changes)

    def rows(self) -> Iterator[CatalogDelta]:
        """The whole content as deltas that build it up in an empty catalog."""
        for node in self.nodes.values():
            yield _delta("node", node.name, "", node, node.modify_index)
        for service in self.all_services():
            yield _delta("service", service.node, service.id, service, service.modify_index)
        for check in self.all_checks():
            yield _delta("check", check.node, check.check_id, check, check.modify_index)

    # -- one row, with its topics, its delta and its way back ----------------------------------

    def _write_node(self, name: str, row: Node | None, index: int, changes: Changes) -> None:
        old = self.nodes.get(name)
        self._set_node(name, row)
        topics = changes.topics
        topics["nodes", ""] = topics["node", name] = None
        for version in (old, row):
            if version is not None and version.id:
                topics["node", version.id] = None
        if row is None:
            topics["node-checks", name] = None
        for instance in self._services.get(name, {}).values():
            topics["service", instance.name] = None
            if served := speaks_for(instance):
                topics["connect", served] = None
        if changes.undo is not None:
            changes.undo.append(partial(self._set_node, name, old))
        changes.deltas.append(_delta("node", name, "", row, index))

    def _write_service(
        self, node: str, service_id: str, row: ServiceInstance | None, index: int, changes: Changes
    ) -> None:
        old = self.service(node, service_id)
        list_changed = self._set_service(node, service_id, row)
        topics = changes.topics
        for version in (old, row):
            if version is not None:
                topics["service", version.name] = None
                if version.name not in self._instances:
                    topics["checks", version.name] = None
                if served := speaks_for(version):
                    topics["connect", served] = topics["connect-checks", served] = None
        topics["instances", ""] = topics["node", node] = None
        owner = self.nodes.get(node)
        if owner is not None and owner.id:
            topics["node", owner.id] = None
        if list_changed:
            topics["services", ""] = None
        if changes.undo is not None:
            changes.undo.append(partial(self._set_service, node, service_id, old))
        changes.deltas.append(_delta("service", node, service_id, row, index))

    def _write_check(
        self, node: str, check_id: str, row: Check | None, index: int, changes: Changes
    ) -> None:
        old = self.check(node, check_id)
        self._set_check(node, check_id, row)
        topics = changes.topics
        topics["node-checks", node] = topics["check-state", ""] = None
        for version in (old, row):
            if version is not None:
                topics["check-state", version.status.value] = None
                for name in self._names_decided_by(version):
                    topics["checks", name] = None
                for name in self._served_under(version):
                    topics["connect-checks", name] = None
        if changes.undo is not None:
            changes.undo.append(partial(self._set_check, node, check_id, old))
        changes.deltas.append(_delta("check", node, check_id, row, index))

    def _names_decided_by(self, check: Check) -> Iterable[str]:
        """Names of the services over whose instances a check decides."""
        if not check.service_id:
            return [row.name for row in self._services.get(check.node, {}).values()]
        return (check.service_name,) if check.service_name else ()

    def _served_under(self, check: Check) -> Iterable[str]:
        """Names of the services that are served by instances over which a check decides."""
        if not self._connected:
            return ()
        if check.service_id:
            row = self.service(check.node, check.service_id)
            rows = [] if row is None else [row]
        else:
            rows = list(self._services.get(check.node, {}).values())
        return [served for row in rows if (served := speaks_for(row))]


def _delta(kind: str, node: str, row_id: str, row: object, index: int) -> CatalogDelta:
    return CatalogDelta(kind=kind, node=node, id=row_id, row=row, index=index)  # type: ignore[arg-type]


def _stamp(row: _R, old: _R | None, index: int) -> _R:
    """The row with its indexes: the old one itself when the content is the same."""
    if old is None:
        return msgspec.structs.replace(row, create_index=index, modify_index=index)
    replace = msgspec.structs.replace
    same = replace(row, create_index=old.create_index, modify_index=old.modify_index) == old
    return old if same else replace(row, create_index=old.create_index, modify_index=index)
