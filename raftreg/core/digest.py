"""A hash of what is registered for a host: equal on agent and server for equal content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from raftreg.model import SERF_HEALTH, Check, Node, ServiceInstance

_encoder = msgspec.msgpack.Encoder(order="sorted")
_fallback = msgspec.msgpack.Encoder()


def node_digest(node: Node, services: Iterable[ServiceInstance], checks: Iterable[Check]) -> str:
    """Hashes a node's rows canonically (SHA-256 in hex over msgpack with sorted keys).

    Left out is what an agent does not decide: indexes, `serfHealth`, and what follows from other
    rows (the node's name inside its rows, service name and tags inside checks).

    Args:
        node: The node's row.
        services: Its instances, in any order.
        checks: Its checks and those of its instances, in any order.
    """
    digest = hashlib.sha256(_canonical(_node_fields(node)))
    for service in sorted(services, key=lambda row: row.id):
        digest.update(_canonical(_service_fields(service)))
    digest.update(b"\xc1")  # a byte that msgpack never uses: services end, checks begin
    for check in sorted(checks, key=lambda row: row.check_id):
        if check.check_id != SERF_HEALTH:
            digest.update(_canonical(_check_fields(check)))
    return digest.hexdigest()


def _canonical(fields: object) -> bytes:
    try:
        return _encoder.encode(fields)
    except TypeError:
        # JSON has text keys only, MessagePack bodies may have others, which have no order: taken
        # as they come, at worst an agent that orders them anew each time syncs once too often.
        return _fallback.encode(fields)


def _node_fields(row: Node) -> object:
    return (row.name, row.id, row.address, row.datacenter, row.tagged_addresses, row.meta)


def _service_fields(row: ServiceInstance) -> object:
    return (
        row.id,
        row.name,
        row.tags,
        row.address,
        row.port,
        row.meta,
        row.tagged_addresses,
        (row.weights.passing, row.weights.warning),
        row.enable_tag_override,
        row.kind,
        row.proxy,
        row.connect,
    )


def _check_fields(row: Check) -> object:
    return (
        row.check_id,
        row.name,
        row.status.value,
        row.notes,
        row.output,
        row.service_id,
        row.type,
        row.definition,
    )
