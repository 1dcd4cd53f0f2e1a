"""What a template can ask of the registry, and how the answers look inside it."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, assert_never

import msgspec

from raftreg.client import records
from raftreg.client.http import Response
from raftreg.client.options import Consistency, Params, Read, flag, key_path, segment
from raftreg.client.records import HealthEntry
from raftreg.model import Node

#: Any server's state, or the agent's view of it, will do: a watch brings what is newer.
_READ = Read(consistency=Consistency.STALE)
_FOUND = (200,)
_FOUND_OR_NOT = (200, 404)


class Services(msgspec.Struct, frozen=True, tag=True):
    """The names of all services."""


class Service(msgspec.Struct, frozen=True, tag=True):
    """The instances of a service; see `HealthAPI.service`."""

    name: str
    passing: bool = True
    tags: tuple[str, ...] = ()
    near: str = ""


class Nodes(msgspec.Struct, frozen=True, tag=True):
    """All nodes."""


class Key(msgspec.Struct, frozen=True, tag=True):
    """The value of a key."""

    key: str


class Tree(msgspec.Struct, frozen=True, tag=True):
    """All keys under a prefix."""

    prefix: str


Query = Services | Service | Nodes | Key | Tree


class ServiceName(msgspec.Struct, frozen=True):
    """A service: its name, and the tags of all its instances."""

    name: str
    tags: tuple[str, ...]


class Weights(msgspec.Struct, frozen=True):
    """What DNS and load balancers are told by status."""

    passing: int
    warning: int


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance of a service, as templates see it.

    Attributes:
        id: Unique on its node.
        name: The service.
        address: Where to connect: its own address, or its node's.
        port: Port, 0 when it has none.
        tags: Its tags.
        meta: Its metadata.
        weights: Its weights.
        weight: The one of `weights` that counts for its status.
        status: passing, warning or critical.
        node: Name of its node.
        node_address: Address of its node.
        node_meta: Metadata of its node.
        datacenter: Where.
    """

    id: str
    name: str
    address: str
    port: int
    tags: tuple[str, ...]
    meta: dict[str, str]
    weights: Weights
    weight: int
    status: str
    node: str
    node_address: str
    node_meta: dict[str, str]
    datacenter: str


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node, as templates see it."""

    name: str
    id: str
    address: str
    meta: dict[str, str]
    datacenter: str


class Request(msgspec.Struct, frozen=True):
    """A read of the API that answers a query."""

    path: str
    params: Params
    decode: Callable[[Response], Any]
    accept: Container[int] = _FOUND


def request(query: Query) -> Request:
    """How to ask the registry."""
    match query:
        case Services():
            return Request("/v1/catalog/services", _READ.params(), _service_names)
        case Service():
            return _service_request(query)
        case Nodes():
            return Request("/v1/catalog/nodes", _READ.params(), _nodes)
        case Key():
            return Request(key_path(query.key), _READ.params(), _value, _FOUND_OR_NOT)
        case Tree():
            params = _READ.params(recurse="")
            return Request(key_path(query.prefix), params, _tree(query.prefix), _FOUND_OR_NOT)
        case _:
            assert_never(query)


def _service_request(query: Service) -> Request:
    params = _READ.params(passing=flag(query.passing), tag=query.tags, near=query.near or None)
    # Without `near` the order means nothing: sorted, the same instances give the same file.
    decode = _instances if query.near else _sorted_instances
    return Request(f"/v1/health/service/{segment(query.name)}", params, decode)


def nothing(query: Query) -> Any:
    """What stands in for an answer that is not there yet."""
    match query:
        case Key():
            return None
        case Tree():
            return {}
        case Services() | Service() | Nodes():
            return ()
        case _:
            assert_never(query)


def _service_names(response: Response) -> tuple[ServiceName, ...]:
    found: dict[str, list[str] | None] = response.json(dict[str, list[str] | None])
    return tuple(
        ServiceName(name, tuple(sorted(tags or ()))) for name, tags in sorted(found.items())
    )


def _instances(response: Response) -> tuple[Instance, ...]:
    return tuple(_instance(entry) for entry in records.health_entries(response))


def _sorted_instances(response: Response) -> tuple[Instance, ...]:
    return tuple(sorted(_instances(response), key=lambda one: (one.node, one.id)))


def _instance(entry: HealthEntry) -> Instance:
    service, node = entry.service, entry.node
    weights = Weights(service.weights.passing, service.weights.warning)
    status = entry.status.value
    return Instance(
        id=service.id,
        name=service.name,
        address=entry.address,
        port=service.port,
        tags=service.tags,
        meta=dict(service.meta),
        weights=weights,
        weight=weights.warning if status == "warning" else weights.passing,
        status=status,
        node=node.name,
        node_address=node.address,
        node_meta=dict(node.meta),
        datacenter=node.datacenter,
    )


def _nodes(response: Response) -> tuple[NodeView, ...]:
    found = sorted(records.nodes(response), key=lambda node: node.name)
    return tuple(_node(node) for node in found)


def _node(node: Node) -> NodeView:
    return NodeView(
        name=node.name,
        id=node.id,
        address=node.address,
        meta=dict(node.meta),
        datacenter=node.datacenter,
    )


def _value(response: Response) -> bytes | None:
    entries = records.kv_entries(response)
    return entries[0].value if entries else None


def _tree(prefix: str) -> Callable[[Response], dict[str, bytes]]:
    def decode(response: Response) -> dict[str, bytes]:
        return {
            entry.key.removeprefix(prefix): entry.value for entry in records.kv_entries(response)
        }

    return decode
