"""Rows of the registry as the JSON objects that clients of Consul's API read. Pure.

Nulls and empty lists are as Consul 1.8 gives them (they differ between endpoints, and clients
rely on it): see the reference of each endpoint at https://developer.hashicorp.com/consul/api-docs.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Any

from raftreg.core.durations import format_duration
from raftreg.http.shapes import (
    AgentServiceJson,
    CatalogNodeJson,
    CatalogServiceJson,
    CheckJson,
    HealthEntryJson,
    KVJson,
    NodeJson,
    NodeServiceJson,
    ServiceAddressJson,
    SessionJson,
    WeightsJson,
)
from raftreg.model import Check, KVEntry, Node, ServiceAddress, ServiceInstance, Session, Weights

Json = dict[str, Any]


def kv_json(entry: KVEntry) -> KVJson:
    """An entry of /v1/kv; `Session` is absent while the key is free, `TTL` while it has none."""
    out: KVJson = {
        "LockIndex": entry.lock_index,
        "Key": entry.key,
        "Flags": entry.flags,
        "Value": b64encode(entry.value).decode("ascii") if entry.value else None,
        "CreateIndex": entry.create_index,
        "ModifyIndex": entry.modify_index,
    }
    if entry.session is not None:
        out["Session"] = entry.session
    if entry.ttl_ms:
        out["TTL"] = format_duration(entry.ttl_ms / 1000)
    return out


def node_json(node: Node) -> NodeJson:
    """A node of /v1/catalog/nodes and the `Node` of health entries."""
    return {
        "ID": node.id,
        "Node": node.name,
        "Address": node.address,
        "Datacenter": node.datacenter,
        "TaggedAddresses": node.tagged_addresses or None,
        "Meta": node.meta or None,
        "CreateIndex": node.create_index,
        "ModifyIndex": node.modify_index,
    }


def node_service_json(service: ServiceInstance) -> NodeServiceJson:
    """The `Service` of health entries and the values of `Services` of /v1/catalog/node."""
    out: NodeServiceJson = {
        "ID": service.id,
        "Service": service.name,
        "Tags": list(service.tags),
        "Address": service.address,
        "Meta": service.meta or None,
        "Port": service.port,
        "Weights": weights_json(service.weights),
        "EnableTagOverride": service.enable_tag_override,
        "Proxy": service.proxy or {"MeshGateway": {}, "Expose": {}},
        "Connect": service.connect,
        "CreateIndex": service.create_index,
        "ModifyIndex": service.modify_index,
    }
    if service.kind:
        out["Kind"] = service.kind
    if service.tagged_addresses:
        out["TaggedAddresses"] = service_addresses_json(service.tagged_addresses)
    return out


def catalog_service_json(node: Node, service: ServiceInstance) -> CatalogServiceJson:
    """An entry of /v1/catalog/service."""
    out: CatalogServiceJson = {
        "ID": node.id,
        "Node": node.name,
        "Address": node.address,
        "Datacenter": node.datacenter,
        "TaggedAddresses": node.tagged_addresses or None,
        "NodeMeta": node.meta or None,
        "ServiceKind": service.kind,
        "ServiceID": service.id,
        "ServiceName": service.name,
        "ServiceTags": list(service.tags),
        "ServiceAddress": service.address,
        "ServiceWeights": weights_json(service.weights),
        "ServiceMeta": service.meta,
        "ServicePort": service.port,
        "ServiceEnableTagOverride": service.enable_tag_override,
        "ServiceProxy": service.proxy or {"MeshGateway": {}, "Expose": {}},
        "ServiceConnect": service.connect,
        "CreateIndex": service.create_index,
        "ModifyIndex": service.modify_index,
    }
    if service.tagged_addresses:
        out["ServiceTaggedAddresses"] = service_addresses_json(service.tagged_addresses)
    return out


def check_json(check: Check) -> CheckJson:
    """A check of /v1/health/* and /v1/agent/checks."""
    return {
        "Node": check.node,
        "CheckID": check.check_id,
        "Name": check.name,
        "Status": check.status.value,
        "Notes": check.notes,
        "Output": check.output,
        "ServiceID": check.service_id,
        "ServiceName": check.service_name,
        "ServiceTags": list(check.service_tags),
        "Type": check.type,
        "Definition": check.definition,
        "CreateIndex": check.create_index,
        "ModifyIndex": check.modify_index,
    }


agent_check_json = check_json


def health_entry_json(
    node: Node, service: ServiceInstance, checks: Iterable[Check]
) -> HealthEntryJson:
    """An entry of /v1/health/service: the instance, its node, and the checks of both."""
    return {
        "Node": node_json(node),
        "Service": node_service_json(service),
        "Checks": [check_json(check) for check in checks],
    }


def catalog_node_json(node: Node, services: Iterable[ServiceInstance]) -> CatalogNodeJson:
    """The answer of /v1/catalog/node: services by their id."""
    return {
        "Node": node_json(node),
        "Services": {service.id: node_service_json(service) for service in services},
    }


def agent_service_json(service: ServiceInstance, *, datacenter: str = "") -> AgentServiceJson:
    """A service of /v1/agent/services; here `Tags` is never null and neither is `Meta`."""
    out: AgentServiceJson = {
        "ID": service.id,
        "Service": service.name,
        "Tags": list(service.tags),
        "Meta": service.meta,
        "Port": service.port,
        "Address": service.address,
        "Weights": weights_json(service.weights),
        "EnableTagOverride": service.enable_tag_override,
    }
    if service.kind:
        out["Kind"] = service.kind
    if service.tagged_addresses:
        out["TaggedAddresses"] = service_addresses_json(service.tagged_addresses)
    if service.proxy:
        out["Proxy"] = service.proxy
    if service.connect:
        out["Connect"] = service.connect
    if datacenter:
        out["Datacenter"] = datacenter
    return out


def session_json(session: Session) -> SessionJson:
    """A session; `LockDelay` is in nanoseconds, lists without elements are null."""
    return {
        "ID": session.id,
        "Name": session.name,
        "Node": session.node,
        "LockDelay": round(session.lock_delay_s * 1e9),
        "Behavior": session.behavior.value,
        "TTL": session.ttl,
        "NodeChecks": list(session.node_checks) or None,
        "ServiceChecks": [{"ID": check, "Namespace": ""} for check in session.service_checks]
        or None,
        "CreateIndex": session.create_index,
        "ModifyIndex": session.modify_index,
    }


def weights_json(weights: Weights) -> WeightsJson:
    """`Weights` of an instance."""
    return {"Passing": weights.passing, "Warning": weights.warning}


def service_addresses_json(addresses: dict[str, ServiceAddress]) -> dict[str, ServiceAddressJson]:
    """`TaggedAddresses` of an instance."""
    return {
        tag: {"Address": address.address, "Port": address.port}
        for tag, address in addresses.items()
    }
