"""Reads about the mesh: who speaks its TLS for a service, and what stands behind gateways. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from raftreg.core.catalog import Catalog
from raftreg.core.changes import Topic
from raftreg.core.config_table import ConfigTable
from raftreg.core.entries import INGRESS_GATEWAY, TERMINATING_GATEWAY
from raftreg.core.entries.gateways import IngressGateway, LinkedService, TerminatingGateway
from raftreg.core.query import (
    Found,
    MetaFilter,
    ServiceEntry,
    aggregate,
    has_tags,
    topics_config,
    topics_instances,
)
from raftreg.core.state import State
from raftreg.model import ServiceInstance, Status

WILDCARD = "*"


class GatewayService(msgspec.Struct, frozen=True, kw_only=True):
    """A service behind a gateway.

    Attributes:
        linked: What a terminating gateway needs for its TLS; empty for an ingress gateway.
        from_wildcard: The gateway names all services, not this one.
    """

    gateway: str
    kind: str
    service: str
    port: int = 0
    protocol: str = ""
    hosts: tuple[str, ...] = ()
    linked: LinkedService = {}
    from_wildcard: bool = False
    create_index: int = 0
    modify_index: int = 0


def connected(
    catalog: Catalog, name: str, tags: Sequence[str] = (), node_meta: MetaFilter = ()
) -> Found[list[ServiceEntry]]:
    """Instances that speak the mesh's TLS for a service, by node and id."""
    index = catalog.last_change(topics_connected(name))
    return Found(index, _entries(catalog, catalog.connected(name), tags, node_meta))


def topics_connected(name: str) -> tuple[Topic, ...]:
    """What a watcher of `connected` waits on."""
    return (("connect", name),)


def health_connected(
    catalog: Catalog,
    name: str,
    tags: Sequence[str] = (),
    passing_only: bool = False,
    node_meta: MetaFilter = (),
) -> Found[list[ServiceEntry]]:
    """Likewise, with the checks that decide over them."""
    index = catalog.last_change(topics_health_connected(name))
    rows = _entries(catalog, catalog.connected(name), tags, node_meta)
    return Found(index, with_checks(catalog, rows, passing_only=passing_only))


def topics_health_connected(name: str) -> tuple[Topic, ...]:
    """What a watcher of `health_connected` waits on."""
    return (("connect", name), ("connect-checks", name))


def with_checks(
    catalog: Catalog, entries: Iterable[ServiceEntry], *, passing_only: bool
) -> list[ServiceEntry]:
    """Entries with the checks of their nodes and their own."""
    found = []
    for entry in entries:
        checks = (
            *catalog.checks_of_node_itself(entry.node.name),
            *catalog.checks_of_instance(entry.node.name, entry.service.id),
        )
        if not passing_only or aggregate(checks) is Status.PASSING:
            found.append(ServiceEntry(entry.node, entry.service, checks))
    return found


def _entries(
    catalog: Catalog,
    rows: Iterable[ServiceInstance],
    tags: Sequence[str],
    node_meta: MetaFilter,
) -> list[ServiceEntry]:
    found = []
    for row in rows:
        node = catalog.nodes.get(row.node)
        if node is None or (tags and not has_tags(row, tags)):
            continue
        if all(node.meta.get(key) == value for key, value in node_meta):
            found.append(ServiceEntry(node, row))
    return found


# -- gateways --------------------------------------------------------------------------------------


def gateway_services(state: State, gateway: str) -> Found[list[GatewayService]]:
    """Services behind a gateway; a wildcard stands for all that are registered."""
    found = [*_behind_ingress(state, gateway), *_behind_terminating(state, gateway)]
    return Found(_gateways_index(state), found)


def topics_gateway_services() -> tuple[Topic, ...]:
    """What a watcher of `gateway_services` waits on."""
    kinds = (*topics_config(INGRESS_GATEWAY), *topics_config(TERMINATING_GATEWAY))
    return (*kinds, ("services", ""), ("instances", ""))


def ingress_instances(
    state: State, service: str, *, passing_only: bool = False
) -> Found[list[ServiceEntry]]:
    """Instances of the ingress gateways that expose a service, with their checks."""
    names = [
        name
        for name in state.config.names(INGRESS_GATEWAY)
        if any(row.service == service for row in _behind_ingress(state, name))
    ]
    rows = [
        row
        for name in names
        for row in state.catalog.instances(name)
        if row.kind == INGRESS_GATEWAY
    ]
    entries = _entries(state.catalog, rows, (), ())
    found = with_checks(state.catalog, entries, passing_only=passing_only)
    index = max(_gateways_index(state), state.catalog.last_change(topics_ingress()))
    return Found(index, found)


def topics_ingress() -> tuple[Topic, ...]:
    """What a watcher of `ingress_instances` waits on."""
    return (*topics_config(INGRESS_GATEWAY), *topics_instances(), ("check-state", ""))


def _gateways_index(state: State) -> int:
    table = state.config
    return max(
        table.last_change(INGRESS_GATEWAY),
        table.last_change(TERMINATING_GATEWAY),
        state.config_deleted,
        state.catalog.last_change(topics_gateway_services()),
    )


def _behind_ingress(state: State, gateway: str) -> list[GatewayService]:
    table: ConfigTable = state.config
    body: IngressGateway | None = table.body(INGRESS_GATEWAY, gateway)
    if body is None:
        return []
    entry = table[INGRESS_GATEWAY, gateway]
    found = []
    for listener in body.get("Listeners", ()):
        protocol = listener.get("Protocol") or "tcp"
        for service in listener.get("Services", ()):
            wild = service.get("Name") == WILDCARD
            for name in _named(state, service.get("Name", ""), protocol):
                found.append(  # noqa: PERF401 - one row of many fields
                    GatewayService(
                        gateway=gateway,
                        kind=INGRESS_GATEWAY,
                        service=name,
                        port=listener.get("Port", 0),
                        protocol=protocol,
                        hosts=tuple(service.get("Hosts", ())),
                        from_wildcard=wild,
                        create_index=entry.create_index,
                        modify_index=entry.modify_index,
                    )
                )
    return found


def _behind_terminating(state: State, gateway: str) -> list[GatewayService]:
    table: ConfigTable = state.config
    body: TerminatingGateway | None = table.body(TERMINATING_GATEWAY, gateway)
    if body is None:
        return []
    entry = table[TERMINATING_GATEWAY, gateway]
    given = body.get("Services", [])
    named = {service.get("Name", "") for service in given}
    return [
        GatewayService(
            gateway=gateway,
            kind=TERMINATING_GATEWAY,
            service=name,
            linked=service,
            from_wildcard=service.get("Name") == WILDCARD,
            create_index=entry.create_index,
            modify_index=entry.modify_index,
        )
        for service in given
        for name in _named(state, service.get("Name", ""), "")
        if service.get("Name") != WILDCARD or name not in named
    ]


def _named(state: State, name: str, protocol: str) -> list[str]:
    """The service itself, or for a wildcard all of the protocol that are no proxies."""
    if name != WILDCARD:
        return [name] if name else []
    catalog = state.catalog
    return [
        each
        for each in sorted(catalog.service_names())
        if each != "consul"
        and any(not row.kind for row in catalog.instances(each))
        and protocol in ("", state.config.protocol(each))
    ]
