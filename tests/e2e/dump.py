"""Everything that a server holds, for comparison: rows with their indexes."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.waiting import until

_TABLES = {
    "kv": "/v1/kv/?recurse&stale",
    "nodes": "/v1/catalog/nodes?stale",
    "checks": "/v1/health/state/any?stale",
    "sessions": "/v1/session/list?stale",
}


async def dump(ask: Ask, server: Member) -> dict[str, Any]:
    """The tables of one server, as it has them without asking anybody."""
    found: dict[str, Any] = {}
    for table, path in _TABLES.items():
        answer = await ask.get(server, path)
        rows = [] if answer.status == 404 else answer.json()
        found[table] = sorted(rows, key=repr)
    names = (await ask.get(server, "/v1/catalog/services?stale")).json()
    for name in sorted(names):
        rows = (await ask.get(server, f"/v1/catalog/service/{name}?stale")).json()
        found[f"service {name}"] = sorted(rows, key=repr)
    return found


async def same_everywhere(ask: Ask, cluster: Cluster) -> dict[str, Any]:
    """Waits until all servers hold the same; gives it.

    Servers apply at their own pace, so two dumps may be of different moments; rows that differ
    for good are what this finds.
    """

    async def equal() -> dict[str, Any] | None:
        first, *others = await asyncio.gather(*(dump(ask, server) for server in cluster.servers))
        return first if all(other == first for other in others) else None

    return await until("the same content on every server", equal)
