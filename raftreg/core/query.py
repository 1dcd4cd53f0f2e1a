"""Reads over the state, with the registry index of what each covers.

Index rules (all of them are here and in `Catalog.last_change`):

* An index is at least 1 and never goes back, not even over a restore (`index_floor`).
* When the value of a query changes, its index is higher than before.
* An index may rise without a change of the value: a watcher that comes back is then told early.
* A key: its ModifyIndex. A missing key: the index of its deletion, or else the floor that
  forgotten tombstones left.
* A prefix: the highest ModifyIndex and deletion under it, and that floor.
* Catalog: the last change of the topics that the query covers; a name without rows has the index
  at which any name of its kind last went, so a watcher of a service learns of its end and its
  return.
* A session: its CreateIndex; a missing one: the index at which a session last ended.

For each query there is a function `topics_…`: what a watcher of it waits on (see
`raftreg.core.changes`). Queries over the catalog alone also run on agents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import msgspec

from raftreg.core import connect_ca
from raftreg.core.catalog import Catalog
from raftreg.core.changes import Topic
from raftreg.core.config_table import CHAIN_KINDS
from raftreg.core.connect_ca import Authority
from raftreg.core.events import Event
from raftreg.core.state import State
from raftreg.model import Check, ConfigEntry, KVEntry, Node, ServiceInstance, Session, Status

_T = TypeVar("_T")
#: (key, value) pairs that the metadata of a node must hold, all of them.
MetaFilter = Sequence[tuple[str, str]]
ANY_STATE = "any"


class Found(msgspec.Struct, Generic[_T], frozen=True):
    """An answer.

    Attributes:
        index: Registry index of what the query covers (X-Consul-Index).
        value: The answer itself.
    """

    index: int
    value: _T


class ServiceEntry(msgspec.Struct, frozen=True):
    """One instance with its node and, in answers about health, the checks that decide over it."""

    node: Node
    service: ServiceInstance
    checks: tuple[Check, ...] = ()

    @property
    def status(self) -> Status:
        """The worst status of the checks."""
        return aggregate(self.checks)


class NodeEntry(msgspec.Struct, frozen=True):
    """A node with its instances."""

    node: Node
    services: tuple[ServiceInstance, ...]


def aggregate(checks: Iterable[Check]) -> Status:
    """Gives the worst status; passing when there is no check."""
    worst = Status.PASSING
    for check in checks:
        if check.status is Status.CRITICAL:
            return Status.CRITICAL
        if check.status is Status.WARNING:
            worst = Status.WARNING
    return worst


# -- keys ------------------------------------------------------------------------------------------


def kv_get(state: State, key: str) -> Found[KVEntry | None]:
    """One entry."""
    entry = state.kv.rows.get(key)
    if entry is not None:
        return Found(max(entry.modify_index, state.catalog.index_floor), entry)
    index = state.kv.tombstones.get(key, state.kv.floor)
    return Found(max(index, state.catalog.index_floor, 1), None)


def topics_kv(key: str) -> tuple[Topic, ...]:
    """What a watcher of `kv_get` waits on."""
    return (("kv", key),)


def kv_list(state: State, prefix: str) -> Found[list[KVEntry]]:
    """Entries under a prefix, by key."""
    entries = state.kv.under(prefix)
    index = max(
        max((entry.modify_index for entry in entries), default=0),
        max(state.kv.tombstones_under(prefix), default=0),
        state.kv.floor,
        state.index_floor,
        1,
    )
    return Found(index, entries)


def topics_kv_prefix(prefix: str) -> tuple[Topic, ...]:
    """What a watcher of `kv_list` and `kv_keys` waits on."""
    return (("kv-prefix", prefix),)


def kv_keys(state: State, prefix: str, separator: str = "") -> Found[list[str]]:
    """Keys under a prefix, in order, cut after the first separator behind the prefix."""
    entries = kv_list(state, prefix)
    keys = [entry.key for entry in entries.value]
    if separator:
        keys = list(dict.fromkeys(_cut(key, len(prefix), separator) for key in keys))
    return Found(entries.index, keys)


def _cut(key: str, start: int, separator: str) -> str:
    at = key.find(separator, start)
    return key if at < 0 else key[: at + len(separator)]


# -- nodes -----------------------------------------------------------------------------------------


def _has_meta(node: Node | None, wanted: MetaFilter) -> bool:
    return node is not None and all(node.meta.get(key) == value for key, value in wanted)


def nodes(catalog: Catalog, node_meta: MetaFilter = ()) -> Found[list[Node]]:
    """All nodes that have all of this metadata, by name."""
    index = catalog.last_change(topics_nodes())
    rows = [catalog.nodes[name] for name in sorted(catalog.nodes)]
    return Found(index, [row for row in rows if _has_meta(row, node_meta)] if node_meta else rows)


def topics_nodes() -> tuple[Topic, ...]:
    """What a watcher of `nodes` waits on."""
    return (("nodes", ""),)


def node(catalog: Catalog, name_or_id: str) -> Found[NodeEntry | None]:
    """One node with its instances."""
    index = catalog.last_change(topics_node(name_or_id))
    row = catalog.find_node(name_or_id)
    if row is None:
        return Found(index, None)
    return Found(index, NodeEntry(row, tuple(catalog.services_of(row.name))))


def topics_node(name_or_id: str) -> tuple[Topic, ...]:
    """What a watcher of `node` waits on."""
    return (("node", name_or_id),)


# -- services --------------------------------------------------------------------------------------


def services(catalog: Catalog, node_meta: MetaFilter = ()) -> Found[dict[str, list[str]]]:
    """Names of all services with the sorted union of their tags.

    Args:
        catalog: Where to look.
        node_meta: Only instances on nodes that have all of this metadata count.
    """
    index = catalog.last_change(topics_services(node_meta))
    names = sorted(catalog.service_names())
    if not node_meta:
        return Found(index, {name: catalog.tags_of(name) for name in names})
    tags: dict[str, set[str]] = {}
    for row in catalog.all_services():
        if _has_meta(catalog.nodes.get(row.node), node_meta):
            tags.setdefault(row.name, set()).update(row.tags)
    return Found(index, {name: sorted(tags[name]) for name in names if name in tags})


def topics_services(node_meta: MetaFilter = ()) -> tuple[Topic, ...]:
    """What a watcher of `services` waits on."""
    return topics_instances() if node_meta else (("services", ""),)


def topics_instances() -> tuple[Topic, ...]:
    """What a watcher of anything that an instance or its node has waits on."""
    return (("services", ""), ("instances", ""), ("nodes", ""))


def service_instances(
    catalog: Catalog,
    name: str,
    tags: Sequence[str] = (),
    node_meta: MetaFilter = (),
) -> Found[list[ServiceEntry]]:
    """Instances that have all of these tags, without their checks, by node and id."""
    index = catalog.last_change(topics_service(name))
    return Found(index, _entries(catalog, name, tags, node_meta))


def topics_service(name: str) -> tuple[Topic, ...]:
    """What a watcher of `service_instances` waits on."""
    return (("service", name),)


def _entries(
    catalog: Catalog, name: str, tags: Sequence[str], node_meta: MetaFilter
) -> list[ServiceEntry]:
    found = []
    for row in catalog.instances(name):
        owner = catalog.nodes.get(row.node)
        if owner is None or (tags and not has_tags(row, tags)):
            continue
        if not node_meta or _has_meta(owner, node_meta):
            found.append(ServiceEntry(owner, row))
    return found


def has_tags(row: ServiceInstance, tags: Sequence[str]) -> bool:
    """Tells whether an instance has all of these tags; letter case is ignored, as in Consul."""
    if all(tag in row.tags for tag in tags):
        return True
    lowered = {tag.lower() for tag in row.tags}
    return all(tag.lower() in lowered for tag in tags)


def health_service(
    catalog: Catalog,
    name: str,
    tags: Sequence[str] = (),
    passing_only: bool = False,
    node_meta: MetaFilter = (),
) -> Found[list[ServiceEntry]]:
    """Instances with the checks that decide over them: those of the node, then their own.

    Args:
        catalog: Where to look.
        name: The service.
        tags: Only instances that have all of these.
        passing_only: Only instances all of whose checks are passing (no warning either).
        node_meta: Only instances on nodes that have all of this metadata.
    """
    index = catalog.last_change(topics_health_service(name))
    found = []
    for entry in _entries(catalog, name, tags, node_meta):
        checks = (
            *catalog.checks_of_node_itself(entry.node.name),
            *catalog.checks_of_instance(entry.node.name, entry.service.id),
        )
        if not passing_only or aggregate(checks) is Status.PASSING:
            found.append(ServiceEntry(entry.node, entry.service, checks))
    return Found(index, found)


def topics_health_service(name: str) -> tuple[Topic, ...]:
    """What a watcher of `health_service` waits on."""
    return (("service", name), ("checks", name))


# -- checks ----------------------------------------------------------------------------------------


def checks_of_node(catalog: Catalog, name: str) -> Found[list[Check]]:
    """Checks of a node and of its instances, by id."""
    index = catalog.last_change(topics_checks_of_node(name))
    return Found(index, catalog.checks_of(name))


def topics_checks_of_node(name: str) -> tuple[Topic, ...]:
    """What a watcher of `checks_of_node` waits on."""
    return (("node-checks", name),)


def checks_of_service(
    catalog: Catalog, name: str, node_meta: MetaFilter = ()
) -> Found[list[Check]]:
    """Checks of the instances of a service themselves, by node and id."""
    index = catalog.last_change(topics_checks_of_service(name))
    checks = [
        check
        for entry in _entries(catalog, name, (), node_meta)
        for check in catalog.checks_of_instance(entry.node.name, entry.service.id)
    ]
    return Found(index, checks)


def topics_checks_of_service(name: str) -> tuple[Topic, ...]:
    """What a watcher of `checks_of_service` waits on."""
    return (("service", name), ("checks", name))


def checks_in_state(
    catalog: Catalog, status: Status | str, node_meta: MetaFilter = ()
) -> Found[list[Check]]:
    """Checks with a status ("any": all), by node and id.

    Args:
        catalog: Where to look.
        status: A `Status`, its value, or "any".
        node_meta: Only checks of nodes that have all of this metadata.

    Raises:
        ValueError: No such status.
    """
    index = catalog.last_change(topics_checks_in_state(status, node_meta))
    if status == ANY_STATE:
        checks = sorted(catalog.all_checks(), key=lambda row: (row.node, row.check_id))
    else:
        checks = catalog.checks_by_state(Status(status))
    if node_meta:
        checks = [row for row in checks if _has_meta(catalog.nodes.get(row.node), node_meta)]
    return Found(index, checks)


def topics_checks_in_state(status: Status | str, node_meta: MetaFilter = ()) -> tuple[Topic, ...]:
    """What a watcher of `checks_in_state` waits on.

    Raises:
        ValueError: No such status.
    """
    name = "" if status == ANY_STATE else Status(status).value
    return (("check-state", name), *(topics_nodes() if node_meta else ()))


# -- sessions and configuration --------------------------------------------------------------------


def session_info(state: State, session_id: str) -> Found[Session | None]:
    """One session."""
    session = state.sessions.get(session_id)
    index = state.sessions_ended if session is None else session.create_index
    return Found(max(index, state.index_floor, 1), session)


def topics_session(session_id: str) -> tuple[Topic, ...]:
    """What a watcher of `session_info` waits on."""
    return (("session", session_id),)


def sessions(state: State) -> Found[list[Session]]:
    """All sessions, by id."""
    rows = [state.sessions[session_id] for session_id in sorted(state.sessions)]
    return Found(max(state.sessions_changed, state.index_floor, 1), rows)


def topics_sessions() -> tuple[Topic, ...]:
    """What a watcher of `sessions` waits on."""
    return (("sessions", ""),)


def sessions_of_node(state: State, name: str) -> Found[list[Session]]:
    """Sessions of a node, by id."""
    rows = [state.sessions[session_id] for session_id in sorted(state.sessions_of.get(name, ()))]
    created = max((row.create_index for row in rows), default=0)
    return Found(max(created, state.sessions_ended, state.index_floor, 1), rows)


def topics_sessions_of_node(name: str) -> tuple[Topic, ...]:
    """What a watcher of `sessions_of_node` waits on."""
    return (("session-node", name),)


def config_get(state: State, kind: str, name: str) -> Found[ConfigEntry | None]:
    """One configuration entry."""
    entry = state.config.get((kind, name))
    index = state.config_deleted if entry is None else entry.modify_index
    return Found(max(index, state.index_floor, 1), entry)


def config_list(state: State, kind: str) -> Found[list[ConfigEntry]]:
    """Configuration entries of a kind, by name."""
    rows = list(state.config.of_kind(kind))
    changed = state.config.last_change(kind)
    return Found(max(changed, state.config_deleted, state.index_floor, 1), rows)


def topics_config(kind: str) -> tuple[Topic, ...]:
    """What a watcher of `config_get` and `config_list` waits on."""
    return (("config", kind),)


def topics_chain() -> tuple[Topic, ...]:
    """What a watcher of a compiled chain waits on."""
    kinds = ("service-defaults", "proxy-defaults", *CHAIN_KINDS)
    return (*(("config", kind) for kind in kinds), connect_ca.TOPIC)


def chain_index(state: State) -> int:
    """Index of the last change that may change a compiled chain."""
    written = max(state.config.last_change(kind) for _, kind in topics_chain() if kind)
    return max(written, state.config_deleted, state.connect.index, state.index_floor, 1)


def authority(state: State) -> Found[Authority]:
    """The certificate authority of the mesh, secret keys included."""
    return Found(max(state.connect.index, state.index_floor, 1), state.connect)


def topics_authority() -> tuple[Topic, ...]:
    """What a watcher of `authority` waits on."""
    return (connect_ca.TOPIC,)


def events(state: State) -> list[Event]:
    """The newest user events, the oldest first; their index is made of the last one's id."""
    return state.events.all()


def topics_events() -> tuple[Topic, ...]:
    """What a watcher of `events` waits on."""
    return (("events", ""),)
