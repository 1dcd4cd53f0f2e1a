"""Reads of the catalog that DNS needs: names without letter case, addresses back to names.

The catalog's own keys are exact, so tables of lower-case names and of addresses are derived from
it, each when it is first needed after the catalog changed in that respect.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from raftreg.core.catalog import Catalog
from raftreg.core.changes import Topic
from raftreg.core.query import aggregate
from raftreg.core.rows import speaks_for
from raftreg.dns.question import IPAddress
from raftreg.model import Node, ServiceInstance, Status

T = TypeVar("T")

#: Tagged addresses of a service that hold its virtual address, as Consul names them.
VIRTUAL_TAGS = frozenset({"virtual", "consul-virtual"})


class _Derived(Generic[T]):
    """A value computed from a catalog, kept until one of these topics changes."""

    def __init__(self, topics: tuple[Topic, ...], compute: Callable[[Catalog], T]) -> None:
        self._topics = topics
        self._compute = compute
        self._of: Catalog | None = None
        self._index = 0
        self._value: T

    def get(self, view: Catalog) -> T:
        index = view.last_change(self._topics)
        if view is not self._of or index != self._index:
            self._value = self._compute(view)
            self._of, self._index = view, index
        return self._value


Row = tuple[ServiceInstance, Node, Status]  #: an instance, its node, and the health of both


class Names:
    """Finds rows of whatever catalog is given; remembers derived tables of the last one."""

    def __init__(self) -> None:
        self._services = _Derived((("services", ""),), _lower_services)
        self._nodes = _Derived((("nodes", ""),), _lower_nodes)
        self._node_of = _Derived((("nodes", ""),), _nodes_by_address)
        self._service_of = _Derived((("instances", ""),), _services_by_address)
        self._mesh = _Derived((("instances", ""),), _lower_in_mesh)

    def exact(self, view: Catalog, name: str) -> list[str]:
        """The services meant by a name in lower case: that very one, or those of other case."""
        if name in view.service_names():  # a view of keys: no search
            return [name]
        return self._services.get(view).get(name, [])

    def instances(self, view: Catalog, name: str, tag: str, *, only_passing: bool) -> list[Row]:
        """Instances that may be given out.

        Args:
            view: The catalog.
            name: The service in lower case.
            tag: A tag in lower case; "" for any.
            only_passing: Leave out warnings too.
        """
        rows = [row for one in self.exact(view, name) for row in view.instances(one)]
        tagged = (row for row in rows if _has_tag(row, tag))
        return _healthy(view, tagged, only_passing=only_passing)

    def exact_in_mesh(self, view: Catalog, name: str) -> list[str]:
        """As `exact`, for services that something speaks for in the mesh."""
        if view.connected(name):
            return [name]
        return self._mesh.get(view).get(name, [])

    def mesh(self, view: Catalog, name: str, *, only_passing: bool) -> list[Row]:
        """What takes connections of the mesh for a service, by its name in lower case."""
        return _healthy(view, self._connected(view, name), only_passing=only_passing)

    def _connected(self, view: Catalog, name: str) -> Iterable[ServiceInstance]:
        return (row for one in self.exact_in_mesh(view, name) for row in view.connected(one))

    def virtual(self, view: Catalog, name: str) -> list[IPAddress] | None:
        """Virtual addresses of a service by its name in lower case; None: no such service."""
        rows = [row for one in self.exact(view, name) for row in view.instances(one)]
        rows.extend(self._connected(view, name))
        texts = {
            tagged.address
            for row in rows
            for tag, tagged in row.tagged_addresses.items()
            if tag in VIRTUAL_TAGS
        }
        found = [one for one in map(as_ip, sorted(texts)) if one is not None]
        return found if rows else None

    def node(self, view: Catalog, name: str) -> Node | None:
        """A node by its name in lower case."""
        return view.nodes.get(name) or view.nodes.get(self._nodes.get(view).get(name, ""))

    def nodes_at(self, view: Catalog, address: IPAddress) -> list[str]:
        """Names of the nodes with this address."""
        return self._node_of.get(view).get(address, [])

    def services_at(self, view: Catalog, address: IPAddress) -> list[str]:
        """Names of the services with an instance that has this address of its own."""
        return self._service_of.get(view).get(address, [])


def is_given_out(status: Status, *, only_passing: bool) -> bool:
    """Tells whether an instance in this health is named in answers."""
    return status is Status.PASSING or (status is Status.WARNING and not only_passing)


def _healthy(view: Catalog, rows: Iterable[ServiceInstance], *, only_passing: bool) -> list[Row]:
    found = []
    for instance in rows:
        node = view.nodes.get(instance.node)
        status = health(view, instance)
        if node is not None and is_given_out(status, only_passing=only_passing):
            found.append((instance, node, status))
    return found


def health(view: Catalog, instance: ServiceInstance) -> Status:
    """The state of an instance by the checks of its node and its own."""
    own = view.checks_of_instance(instance.node, instance.id)
    return aggregate((*view.checks_of_node_itself(instance.node), *own))


def _has_tag(instance: ServiceInstance, tag: str) -> bool:
    return not tag or any(tag == one.lower() for one in instance.tags)


def as_ip(text: str) -> IPAddress | None:
    """Reads an address; None when it is a host name (or has a zone, which DNS can't carry)."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _lower_services(view: Catalog) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(view.service_names()):
        found.setdefault(name.lower(), []).append(name)
    return found


def _lower_nodes(view: Catalog) -> dict[str, str]:
    return {name.lower(): name for name in sorted(view.nodes, reverse=True)}


def _nodes_by_address(view: Catalog) -> dict[IPAddress, list[str]]:
    found: dict[IPAddress, list[str]] = {}
    for node in view.nodes.values():
        address = as_ip(node.address)
        if address is not None:
            found.setdefault(address, []).append(node.name)
    return found


def _services_by_address(view: Catalog) -> dict[IPAddress, list[str]]:
    found: dict[IPAddress, list[str]] = {}
    for instance in view.all_services():
        address = as_ip(instance.address)
        if address is not None:
            names = found.setdefault(address, [])
            if instance.name not in names:
                names.append(instance.name)
    return found


def _lower_in_mesh(view: Catalog) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted({speaks_for(row) for row in view.all_services()} - {""}):
        found.setdefault(name.lower(), []).append(name)
    return found
