"""`raftreg members` and `raftreg nodes`: who is there."""

from __future__ import annotations

from typing import Any

import click

from raftreg.client.options import Read
from raftreg.config import join_host_port
from raftreg.model import SERF_HEALTH
from raftreg_cli.call import Call, reads, with_client
from raftreg_cli.output import columns

#: Consul's numbers of a member's status.
_MEMBER_STATUS = {0: "none", 1: "alive", 2: "leaving", 3: "left", 4: "failed"}


@click.command()
@with_client
async def members(call: Call) -> None:
    """List servers and agents, as the agent asked sees them."""
    found = await call.client.agent.members()
    rows = sorted(_member_row(member) for member in found)
    headers = ("NODE", "ADDRESS", "STATUS", "ROLE", "VERSION", "DC")
    call.show(found, columns(headers, rows))


def _member_row(member: dict[str, Any]) -> tuple[str, ...]:
    tags = member.get("Tags") or {}
    role = "server" if tags.get("role") == "consul" else "agent"
    status = _MEMBER_STATUS.get(member.get("Status", 0), "none")
    address = join_host_port(str(member.get("Addr", "")), int(member.get("Port") or 0))
    version = str(tags.get("build", "")).split(":")[0]
    return (str(member.get("Name", "")), address, status, role, version, tags.get("dc", ""))


@click.command()
@click.option("--node-meta", multiple=True, metavar="KEY:VALUE", help="Only nodes with this.")
@reads
@with_client
async def nodes(call: Call, node_meta: tuple[str, ...], read: Read) -> None:
    """List the nodes of the catalog with the state of their lease."""
    found = await call.get("/v1/catalog/nodes", **read.params(**{"node-meta": list(node_meta)}))
    checks = await call.get("/v1/health/state/any", **read.params())
    alive = {c["Node"]: c["Status"] for c in checks if c["CheckID"] == SERF_HEALTH}
    rows = [
        (node["Node"], node["Address"], alive.get(node["Node"], "-"), node["ID"], _meta(node))
        for node in found
    ]
    call.show(found, columns(("NODE", "ADDRESS", "LEASE", "ID", "META"), rows))


def _meta(node: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted((node.get("Meta") or {}).items()))
