"""The ingress gateways of a service, for an agent's name service."""

from __future__ import annotations

from raftreg.client import records
from raftreg.client.options import Consistency, Read, segment
from raftreg.dns.query import QueryAnswer, QueryRow
from raftreg_agent.queries import DEADLINE_S, QueryDoor

_READ = Read(consistency=Consistency.STALE)


class IngressDoor(QueryDoor):
    """Asks a server for them, and remembers its answer, as is done with queries."""

    async def _execute(self, name: str, source_address: str) -> QueryAnswer | None:
        del source_address
        response = await self._client.request(
            "GET",
            f"/v1/health/ingress/{segment(name)}",
            params=_READ.params(),
            deadline_s=DEADLINE_S,
        )
        rows = tuple(
            QueryRow(node=entry.node, instance=entry.service, status=entry.status)
            for entry in records.health_entries(response)
        )
        return QueryAnswer(service=name, rows=rows) if rows else None
