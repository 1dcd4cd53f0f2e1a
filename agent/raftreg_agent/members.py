"""Members of the mesh as clients of Consul's API know them: hosts whose agents hold a lease."""

from __future__ import annotations

from typing import Any

from raftreg.core.catalog import Catalog
from raftreg.model import SERF_HEALTH, Node, Status
from raftreg.version import build

SERVER_SERVICE = "consul"
LAN_PORT = 8301
ALIVE, FAILED = 1, 4

Json = dict[str, Any]


def members(catalog: Catalog) -> list[Json]:
    """The hosts of a catalog that are members, by name."""
    return [
        member(catalog, node)
        for _, node in sorted(catalog.nodes.items())
        if catalog.check(node.name, SERF_HEALTH) is not None
    ]


def member(catalog: Catalog, node: Node) -> Json:
    """One host; it is a server when it runs the servers' own service."""
    health = catalog.check(node.name, SERF_HEALTH)
    alive = health is None or health.status is not Status.CRITICAL
    server = next(
        (row for row in catalog.services_of(node.name) if row.name == SERVER_SERVICE), None
    )
    return member_json(node, raft_port=server.port if server else 0, alive=alive)


def member_json(node: Node, *, raft_port: int, alive: bool) -> Json:
    """The JSON object of a member.

    Args:
        node: Its row.
        raft_port: Port of its Raft listener when it is a server, else 0.
        alive: Whether its lease holds.
    """
    tags = {
        "role": "consul" if raft_port else "node",
        "dc": node.datacenter,
        "id": node.id,
        "build": build(),
        "vsn": "2",
        "vsn_min": "2",
        "vsn_max": "3",
        "segment": "",
    }
    if raft_port:
        tags |= {"port": str(raft_port), "raft_vsn": "3", "wan_join_port": str(raft_port)}
    return {
        "Name": node.name,
        "Addr": node.address,
        "Port": LAN_PORT,
        "Tags": tags,
        "Status": ALIVE if alive else FAILED,
        "ProtocolMin": 1,
        "ProtocolMax": 5,
        "ProtocolCur": 2,
        "DelegateMin": 2,
        "DelegateMax": 5,
        "DelegateCur": 4,
    }
