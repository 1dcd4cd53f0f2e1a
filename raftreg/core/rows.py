"""The rows of the catalog with their secondary indexes: reads, and three primitive writes.

A primitive write takes a row or None (delete) and keeps every index right, and nothing else: what
a change means (cascades, indexes, topics) is decided in `raftreg.core.catalog`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

from raftreg.core.sharing import share_check, share_instance, share_node
from raftreg.model import Check, Node, ServiceInstance, Status

_K = TypeVar("_K")
_I = TypeVar("_I")
_V = TypeVar("_V")
_NO_KEYS: dict[tuple[str, str], ServiceInstance] = {}


class CatalogRows:
    """Nodes, instances and checks.

    Rows are immutable and tables keep the order of insertion, so that a snapshot in table order
    and a restore from it give the same tables again. Empty inner tables are removed for the same
    reason.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._services: dict[str, dict[str, ServiceInstance]] = {}
        self._checks: dict[str, dict[str, Check]] = {}
        self._name_of_id: dict[str, str] = {}
        self._instances: dict[str, dict[tuple[str, str], ServiceInstance]] = {}
        self._connected: dict[str, dict[tuple[str, str], ServiceInstance]] = {}
        self._tag_counts: dict[str, dict[str, int]] = {}
        # Most instances have one check: it stands for itself, and a dict is made for several.
        self._checks_of: dict[tuple[str, str], Check | dict[str, Check]] = {}
        self._by_status: dict[Status, dict[tuple[str, str], Check]] = {s: {} for s in Status}

    # -- reads -------------------------------------------------------------------------------

    def find_node(self, name_or_id: str) -> Node | None:
        """Gives a node by its name, or else by its id."""
        return self.nodes.get(name_or_id) or self.node_by_id(name_or_id)

    def node_by_id(self, node_id: str) -> Node | None:
        """Gives a node by its id."""
        name = self._name_of_id.get(node_id)
        return None if name is None else self.nodes[name]

    def service_names(self) -> Iterable[str]:
        """Names of all services that have an instance, in no useful order."""
        return self._instances.keys()

    def tags_of(self, name: str) -> list[str]:
        """Sorted union of the tags of all instances of a service."""
        return sorted(self._tag_counts.get(name, ()))

    def instances(self, name: str) -> list[ServiceInstance]:
        """Instances of a service, by node and id."""
        rows = self._instances.get(name)
        return [rows[key] for key in sorted(rows)] if rows else []

    def connected(self, name: str) -> list[ServiceInstance]:
        """Instances that speak the mesh's TLS for a service, by node and id.

        They are its proxies, and those of its own that need none.
        """
        rows = self._connected.get(name)
        return [rows[key] for key in sorted(rows)] if rows else []

    def service(self, node: str, service_id: str) -> ServiceInstance | None:
        """One instance by its key."""
        return self._services.get(node, {}).get(service_id)

    def services_of(self, node: str) -> list[ServiceInstance]:
        """Instances on a node, by id."""
        rows = self._services.get(node)
        return [rows[key] for key in sorted(rows)] if rows else []

    def check(self, node: str, check_id: str) -> Check | None:
        """One check by its key."""
        return self._checks.get(node, {}).get(check_id)

    def checks_of(self, node: str) -> list[Check]:
        """Checks of a node and of all its instances, by id."""
        rows = self._checks.get(node)
        return [rows[key] for key in sorted(rows)] if rows else []

    def checks_of_node_itself(self, node: str) -> list[Check]:
        """Checks of a node that belong to no instance, by id."""
        return self.checks_of_instance(node, "")

    def checks_of_instance(self, node: str, service_id: str) -> list[Check]:
        """Checks of one instance alone (without those of its node), by id."""
        rows = self._checks_of.get((node, service_id))
        if rows is None:
            return []
        return [rows[key] for key in sorted(rows)] if isinstance(rows, dict) else [rows]

    def checks_by_state(self, status: Status) -> list[Check]:
        """All checks with a status, by node and id."""
        rows = self._by_status[status]
        return [rows[key] for key in sorted(rows)]

    def all_services(self) -> list[ServiceInstance]:
        """All instances, in table order."""
        return [row for rows in self._services.values() for row in rows.values()]

    def all_checks(self) -> list[Check]:
        """All checks, in table order."""
        return [row for rows in self._checks.values() for row in rows.values()]

    def load(
        self, nodes: Iterable[Node], services: Iterable[ServiceInstance], checks: Iterable[Check]
    ) -> None:
        """Fills an empty catalog with rows as they are.

        Raises:
            ValueError: A row belongs to one that is not there.
        """
        for node in nodes:
            self._set_node(node.name, node)
        for service in services:
            if service.node not in self.nodes:
                raise ValueError(f"service {service.id!r} is on node {service.node!r}, missing")
            self._set_service(service.node, service.id, service)
        for check in checks:
            owner = self.service(check.node, check.service_id) if check.service_id else True
            if check.node not in self.nodes or owner is None:
                raise ValueError(f"check {check.check_id!r} of {check.node!r} belongs to nothing")
            self._set_check(check.node, check.check_id, check)

    # -- primitive writes --------------------------------------------------------------------

    def _set_node(self, name: str, row: Node | None) -> None:
        old = self.nodes.get(name)
        if old is not None and self._name_of_id.get(old.id) == name:
            del self._name_of_id[old.id]
        if row is None:
            self.nodes.pop(name, None)
            return
        share_node(row, old or next(reversed(self.nodes.values()), None))
        self.nodes[row.name] = row
        if row.id:
            self._name_of_id[row.id] = name

    def _set_service(self, node: str, service_id: str, row: ServiceInstance | None) -> bool:
        """Writes an instance; True when the service names or the tags of one changed."""
        old = self._services.get(node, {}).get(service_id)
        if row is not None:
            share_instance(row, self.nodes.get(node), old or self._neighbour(row.name))
            node, service_id = row.node, row.id
        _put(self._services, node, service_id, row)
        key = (node, service_id)
        if old is not None and (row is None or row.name != old.name):
            _put(self._instances, old.name, key, None)
        if row is not None:
            _put(self._instances, row.name, key, row)
        self._set_connected(key, old, row)
        tag_added = row is not None and self._count_tags(row.name, row.tags, 1)
        tag_gone = old is not None and self._count_tags(old.name, old.tags, -1)
        name_gone = old is not None and old.name not in self._instances
        name_added = (
            row is not None
            and (old is None or old.name != row.name)
            and len(self._instances[row.name]) == 1
        )
        return tag_added or tag_gone or name_gone or name_added

    def _set_connected(
        self, key: tuple[str, str], old: ServiceInstance | None, row: ServiceInstance | None
    ) -> None:
        before = "" if old is None else speaks_for(old)
        after = "" if row is None else speaks_for(row)
        if before and before != after:
            _put(self._connected, before, key, None)
        if row is not None and after:
            _put(self._connected, after, key, row)

    def _count_tags(self, name: str, tags: Iterable[str], by: int) -> bool:
        counts = self._tag_counts.setdefault(name, {})
        changed = False
        for tag in dict.fromkeys(tags):
            count = counts.get(tag, 0) + by
            changed |= count == max(by, 0)
            if count:
                counts[tag] = count
            else:
                del counts[tag]
        if not counts:
            del self._tag_counts[name]
        return changed

    def _set_check(self, node: str, check_id: str, row: Check | None) -> None:
        old = self._checks.get(node, {}).get(check_id)
        if row is not None:
            instance = self.service(node, row.service_id) if row.service_id else None
            share_check(row, instance, old or self._neighbouring_check(row))
            node, check_id = row.node, row.check_id
        _put(self._checks, node, check_id, row)
        if old is not None:
            if row is None or row.service_id != old.service_id:
                self._unlink_check((node, old.service_id), check_id)
            if row is None or row.status is not old.status:
                del self._by_status[old.status][node, check_id]
        if row is not None:
            self._link_check((node, row.service_id), row)
            self._by_status[row.status][node, check_id] = row

    def _link_check(self, key: tuple[str, str], row: Check) -> None:
        held = self._checks_of.get(key)
        if isinstance(held, dict):
            held[row.check_id] = row
        elif held is None or held.check_id == row.check_id:
            self._checks_of[key] = row
        else:
            self._checks_of[key] = {held.check_id: held, row.check_id: row}

    def _unlink_check(self, key: tuple[str, str], check_id: str) -> None:
        held = self._checks_of[key]
        if not isinstance(held, dict):
            del self._checks_of[key]
            return
        del held[check_id]
        if len(held) == 1:
            (self._checks_of[key],) = held.values()

    def _neighbour(self, name: str) -> ServiceInstance | None:
        """The instance of a service that came last."""
        rows = self._instances.get(name)
        return next(reversed(rows.values())) if rows else None

    def _neighbouring_check(self, row: Check) -> Check | None:
        """A check of the instance of the same service that came before, if it has one; else the
        check that came last with the same status.
        """
        for key in islice(reversed(self._instances.get(row.service_name, _NO_KEYS)), 2):
            if key != (row.node, row.service_id) and (checks := self.checks_of_instance(*key)):
                return checks[0]
        return next(reversed(self._by_status[row.status].values()), None)


def speaks_for(row: ServiceInstance) -> str:
    """The service for which an instance speaks the mesh's TLS, "" for none."""
    if row.kind == "connect-proxy":
        name = row.proxy.get("DestinationServiceName")
        return name if isinstance(name, str) else ""
    return row.name if row.connect.get("Native") is True else ""


def _put(table: dict[_K, dict[_I, _V]], outer: _K, inner: _I, row: _V | None) -> None:
    """Writes a row of a table of tables; None deletes it, and the inner table when it got empty."""
    if row is not None:
        table.setdefault(outer, {})[inner] = row
        return
    rows = table[outer]
    del rows[inner]
    if not rows:
        del table[outer]
