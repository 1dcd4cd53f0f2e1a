"""The catalog in the summaries of /v1/internal/ui, which Consul's page and other tools read. Pure.

Consul does not document these endpoints; fields and rules are those of its `agent/ui_endpoint.go`
(https://github.com/hashicorp/consul/blob/main/agent/ui_endpoint.go).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NotRequired, TypedDict

from raftreg.core.catalog import Catalog
from raftreg.core.query import ServiceEntry, aggregate
from raftreg.http.render import check_json, node_service_json
from raftreg.http.shapes import CheckJson, Meta, NodeServiceJson
from raftreg.model import Check, Node, ServiceInstance, Status

PROXY_KIND = "connect-proxy"
#: Kinds that are not a service of their own in a list of upstreams.
_SHOWN_IN_TOPOLOGY = frozenset({"", "ingress-gateway"})
_EXTERNAL_SOURCE = "external-source"

CheckKey = tuple[str, str]


class NodeDumpJson(TypedDict):
    """A host with all that it has."""

    ID: str
    Node: str
    Address: str
    TaggedAddresses: Meta | None
    Meta: Meta | None
    Services: list[NodeServiceJson]
    Checks: list[CheckJson]


class GatewayConfigJson(TypedDict, total=False):
    """What a gateway has to do with a service."""

    AssociatedServiceCount: int
    Addresses: list[str]


class SummaryJson(TypedDict):
    """A service, its instances counted and their checks."""

    Kind: NotRequired[str]
    Name: str
    Datacenter: str
    Tags: list[str] | None
    Nodes: list[str] | None
    ExternalSources: list[str] | None
    InstanceCount: int
    ChecksPassing: int
    ChecksWarning: int
    ChecksCritical: int
    GatewayConfig: GatewayConfigJson
    TransparentProxy: bool
    ConnectNative: bool


class ListedServiceJson(SummaryJson):
    """A service in the list of all."""

    ConnectedWithProxy: bool
    ConnectedWithGateway: bool


class HealthCountJson(TypedDict):
    """How many are how."""

    Name: NotRequired[str]
    Total: int
    Passing: int
    Warning: int
    Critical: int


class CatalogOverviewJson(TypedDict):
    """Hosts, instances by service, and checks by name, by their health."""

    Nodes: list[HealthCountJson]
    Services: list[HealthCountJson]
    Checks: list[HealthCountJson]


def node_dump_json(catalog: Catalog, node: Node) -> NodeDumpJson:
    """A host with its instances and all their checks."""
    return {
        "ID": node.id,
        "Node": node.name,
        "Address": node.address,
        "TaggedAddresses": node.tagged_addresses or None,
        "Meta": node.meta or None,
        "Services": [node_service_json(row) for row in catalog.services_of(node.name)],
        "Checks": [check_json(row) for row in catalog.checks_of(node.name)],
    }


def entries(catalog: Catalog) -> list[ServiceEntry]:
    """All instances with their hosts and the checks that decide over them."""
    found = []
    for row in catalog.all_services():
        node = catalog.nodes.get(row.node)
        if node is not None:
            own = catalog.checks_of_instance(row.node, row.id)
            checks = (*catalog.checks_of_node_itself(row.node), *own)
            found.append(ServiceEntry(node, row, checks))
    return found


# -- services --------------------------------------------------------------------------------------


class Summary:
    """What is gathered of one service.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = ""
        self.datacenter = ""
        self.instances = 0
        self.native = False
        self.connected_with_proxy = False
        self._tags: set[str] = set()
        self._nodes: set[str] = set()
        self._sources: dict[str, None] = {}
        self._checks: dict[CheckKey, Check] = {}
        #: Whether each of its proxies is transparent.
        self._transparent: list[bool] = []

    def add(self, entry: ServiceEntry) -> None:
        """Counts an instance."""
        row = entry.service
        self.kind, self.datacenter = row.kind, entry.node.datacenter
        self.instances += 1
        self.native |= row.connect.get("Native") is True
        self._nodes.add(entry.node.name)
        self._tags.update(row.tags)
        source = row.meta.get(_EXTERNAL_SOURCE)
        if source:
            self._sources[source] = None
        self._add_checks(entry.checks)

    def add_proxy(self, entry: ServiceEntry) -> None:
        """Takes note of a proxy of this service; its checks count for the service too."""
        self.connected_with_proxy = True
        self._transparent.append(entry.service.proxy.get("Mode") == "transparent")
        self._add_checks(entry.checks)

    def _add_checks(self, checks: Iterable[Check]) -> None:
        self._checks.update({(check.node, check.check_id): check for check in checks})

    def json(self) -> SummaryJson:
        """The JSON object; lists without elements are null."""
        counts = Counter(check.status for check in self._checks.values())
        out: SummaryJson = {
            "Name": self.name,
            "Datacenter": self.datacenter,
            "Tags": sorted(self._tags) or None,
            "Nodes": sorted(self._nodes) or None,
            "ExternalSources": list(self._sources) or None,
            "InstanceCount": self.instances,
            "ChecksPassing": counts[Status.PASSING],
            "ChecksWarning": counts[Status.WARNING],
            "ChecksCritical": counts[Status.CRITICAL],
            "GatewayConfig": {},
            "TransparentProxy": bool(self._transparent) and all(self._transparent),
            "ConnectNative": self.native,
        }
        if self.kind:
            out["Kind"] = self.kind
        return out


def summarize(found: Iterable[ServiceEntry]) -> dict[str, Summary]:
    """Gathers instances by service, in the order of names."""
    summaries: dict[str, Summary] = {}
    for entry in found:
        name = entry.service.name
        summaries.setdefault(name, Summary(name)).add(entry)
        destination = destination_of(entry.service)
        if destination:
            summaries.setdefault(destination, Summary(destination)).add_proxy(entry)
    return dict(sorted(summaries.items()))


def listed_services(found: Iterable[ServiceEntry]) -> list[ListedServiceJson]:
    """All services, by name."""
    return [
        ListedServiceJson(
            **summary.json(),
            ConnectedWithProxy=summary.connected_with_proxy,
            ConnectedWithGateway=False,
        )
        for summary in summarize(found).values()
    ]


# -- health ----------------------------------------------------------------------------------------


def overview(catalog: Catalog) -> CatalogOverviewJson:
    """How hosts, instances and checks are."""
    of_nodes = Counter(aggregate(catalog.checks_of_node_itself(name)) for name in catalog.nodes)
    of_services: dict[str, Counter[Status]] = {}
    for entry in entries(catalog):
        of_services.setdefault(entry.service.name, Counter())[entry.status] += 1
    of_checks: dict[str, Counter[Status]] = {}
    for check in catalog.all_checks():
        of_checks.setdefault(check.name, Counter())[check.status] += 1
    return {
        "Nodes": [_count(of_nodes)],
        "Services": [_named(name, count) for name, count in sorted(of_services.items())],
        "Checks": [_named(name, count) for name, count in sorted(of_checks.items())],
    }


def _count(counts: Counter[Status]) -> HealthCountJson:
    return {
        "Total": counts.total(),
        "Passing": counts[Status.PASSING],
        "Warning": counts[Status.WARNING],
        "Critical": counts[Status.CRITICAL],
    }


def _named(name: str, counts: Counter[Status]) -> HealthCountJson:
    return {"Name": name, **_count(counts)}


# -- topology --------------------------------------------------------------------------------------


def destination_of(proxy: ServiceInstance) -> str:
    """The service that a proxy stands before; "" for what is no proxy."""
    if proxy.kind != PROXY_KIND:
        return ""
    name = _field(proxy.proxy, "DestinationServiceName", "destination_service_name")
    return name if isinstance(name, str) else ""


def upstreams_of(proxy: ServiceInstance) -> set[str]:
    """Services that a proxy's registration names as upstreams."""
    listed = _field(proxy.proxy, "Upstreams", "upstreams")
    names = [
        _field(each, "DestinationName", "destination_name")
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict)
        and _field(each, "DestinationType", "destination_type") in {None, "", "service"}
    ]
    return {name for name in names if isinstance(name, str) and name}


def neighbours(catalog: Catalog, service: str) -> tuple[set[str], set[str]]:
    """Services that one calls, and those that call it, as registrations of proxies say."""
    upstreams: set[str] = set()
    downstreams: set[str] = set()
    for row in catalog.all_services():
        destination, named = destination_of(row), upstreams_of(row)
        if destination == service:
            upstreams |= named
        elif destination and service in named:
            downstreams.add(destination)
    return upstreams, downstreams


def summaries_of(catalog: Catalog, names: set[str]) -> list[SummaryJson]:
    """Summaries of the services of these names that have an instance, by name."""
    summaries = summarize(entries(catalog))
    return [
        summaries[name].json()
        for name in sorted(names)
        if name in summaries
        and summaries[name].instances
        and summaries[name].kind in _SHOWN_IN_TOPOLOGY
    ]


def _field(obj: dict[str, Any], *names: str) -> Any:
    return next((obj[name] for name in names if name in obj), None)
