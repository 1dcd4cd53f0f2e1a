"""Bodies of the catalog API as rows of the registry. Pure."""

from __future__ import annotations

import msgspec

from raftreg.core.commands import Deregister, Register
from raftreg.errors import InvalidRequest
from raftreg.http.fields import (
    Fields,
    meta_of,
    name_of,
    node_id_of,
    port_of,
    status_of,
    tagged_addresses_of,
    weights_of,
)
from raftreg.http.proxies import check_mesh_parts, mesh_parts
from raftreg.model import Check, Node, ServiceInstance, Status


def catalog_registration(obj: object, *, datacenter: str) -> Register:
    """Reads the body of PUT /v1/catalog/register.

    Args:
        obj: The decoded JSON object.
        datacenter: This datacenter, for the node's row (the caller has compared the body's own).

    Raises:
        InvalidRequest: It can't be used; the text says why.
    """
    fields = Fields(obj)
    skip_node_update = fields.boolean("SkipNodeUpdate")
    node = node_row(fields, datacenter=datacenter)
    if not node.address and not skip_node_update:
        raise InvalidRequest("Must provide address if SkipNodeUpdate is not set")
    service_fields = fields.fields("Service")
    service = None if service_fields is None else service_row(service_fields, node.name)
    checks = [item for item in fields.items("Checks") if item is not None]
    if "Check" in fields:
        checks.append(fields.get("Check"))
    return Register(
        node=node,
        service=service,
        checks=tuple(_registered_check(item, node.name, service) for item in checks),
        skip_node_update=skip_node_update,
    )


def datacenter_of(obj: object) -> str:
    """The `Datacenter` that a body names, "" when it names none."""
    return Fields(obj).text("Datacenter")


def node_row(fields: Fields, *, datacenter: str, meta_field: str = "NodeMeta") -> Node:
    """Reads a node from a body that names it by `Node`.

    Raises:
        InvalidRequest: The name is missing, or an id or address is malformed.
    """
    name = fields.text("Node")
    if not name:
        raise InvalidRequest("Must provide node")
    return Node(
        name=name_of(name, "node name"),
        id=node_id_of(fields.text("ID")),
        address=name_of(fields.text("Address"), "address"),
        datacenter=datacenter,
        tagged_addresses=fields.text_map("TaggedAddresses"),
        meta=meta_of(fields.text_map(meta_field), "Node"),
    )


def service_row(fields: Fields, node: str) -> ServiceInstance:
    """Reads an instance as the catalog and transactions give it.

    Raises:
        InvalidRequest: It can't be used; the text says why.
    """
    name, service_id = fields.text("Service"), fields.text("ID")
    if not name:
        raise InvalidRequest("Must provide service name with ID")
    proxy, connect = mesh_parts(fields)
    row = ServiceInstance(
        node=node,
        id=name_of(service_id or name, "service ID"),
        name=name_of(name, "service name"),
        tags=fields.texts("Tags"),
        address=fields.text("Address"),
        port=port_of(fields.integer("Port")),
        meta=meta_of(fields.text_map("Meta"), "Service"),
        tagged_addresses=tagged_addresses_of(fields),
        weights=weights_of(fields),
        enable_tag_override=fields.boolean("EnableTagOverride"),
        kind=fields.text("Kind"),
        proxy=proxy,
        connect=connect,
    )
    check_mesh_parts(row)
    return row


def _registered_check(item: object, node: str, service: ServiceInstance | None) -> Check:
    """A check of a catalog registration: for its node, or for the service that it names."""
    check = check_row(Fields(item, "Check"), node)
    if service is not None and check.service_id == service.id:
        return msgspec.structs.replace(check, service_name=service.name, service_tags=service.tags)
    return check


def check_row(fields: Fields, node: str) -> Check:
    """Reads a check as the catalog and transactions give it; its status is critical by default.

    Raises:
        InvalidRequest: It can't be used; the text says why.
    """
    name, check_id = fields.text("Name"), fields.text("CheckID", "ID")
    if not name and not check_id:
        raise InvalidRequest("Must provide a name or a CheckID with a check")
    return Check(
        node=fields.text("Node") or node,
        check_id=name_of(check_id or name, "check ID"),
        name=name_of(name or check_id, "check name"),
        status=status_of(fields.text("Status")) or Status.CRITICAL,
        notes=fields.text("Notes"),
        output=fields.text("Output"),
        service_id=fields.text("ServiceID"),
        service_name=fields.text("ServiceName"),
        service_tags=fields.texts("ServiceTags"),
        type=fields.text("Type"),
        definition=fields.mapping("Definition"),
    )


def catalog_deregistration(obj: object) -> Deregister:
    """Reads the body of PUT /v1/catalog/deregister.

    Raises:
        InvalidRequest: No node is named.
    """
    fields = Fields(obj)
    node = fields.text("Node")
    if not node:
        raise InvalidRequest("Must provide node")
    return Deregister(
        node=node, service_id=fields.text("ServiceID"), check_id=fields.text("CheckID")
    )
