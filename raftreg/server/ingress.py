"""The ingress gateways of a service, for a server's name service."""

from __future__ import annotations

from raftreg.core.mesh_query import ingress_instances
from raftreg.dns.query import QueryAnswer, QueryRow
from raftreg.server.machine import RegistryMachine


class IngressDoor:
    """Finds gateways (a `raftreg.dns.query.QueryLookup`).

    Args:
        machine: Holds the state.
    """

    def __init__(self, machine: RegistryMachine) -> None:
        self._machine = machine

    async def __call__(self, name: str, source_address: str) -> QueryAnswer | None:
        """Instances of the gateways that expose a service; None when there are none."""
        del source_address
        found = ingress_instances(self._machine.state, name).value
        rows = tuple(
            QueryRow(node=entry.node, instance=entry.service, status=entry.status)
            for entry in found
        )
        return QueryAnswer(service=name, rows=rows) if rows else None
