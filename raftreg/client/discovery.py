"""Nodes, services and their health: `client.catalog` and `client.health`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

from raftreg.client import records
from raftreg.client.deltas import Delta, Table, deltas
from raftreg.client.http import Response
from raftreg.client.options import DEFAULT_READ, Read, flag, segment
from raftreg.client.records import HealthEntry, NodeEntry, ServiceSummary
from raftreg.client.watch import Change
from raftreg.model import Check, Node, Status

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient


class CatalogAPI:
    """What is registered, healthy or not."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    async def datacenters(self) -> list[str]:
        """Names of the datacenters."""
        response = await self._client.request("GET", "/v1/catalog/datacenters")
        found: list[str] = response.json(list[str])
        return found

    async def nodes(self, *, read: Read = DEFAULT_READ) -> list[Node]:
        """All nodes."""
        response = await self._client.request("GET", "/v1/catalog/nodes", params=read.params())
        return records.nodes(response)

    async def node(self, name: str, *, read: Read = DEFAULT_READ) -> NodeEntry | None:
        """A node by name or id with its instances, None when there is no such node."""
        response = await self._client.request(
            "GET", f"/v1/catalog/node/{segment(name)}", params=read.params(), accept=(200, 404)
        )
        return None if response.status == 404 else records.node_entry(response)

    async def services(self, *, read: Read = DEFAULT_READ) -> dict[str, list[str]]:
        """Names of all services with their tags."""
        response = await self._client.request("GET", "/v1/catalog/services", params=read.params())
        return _tags_by_name(response)

    async def service(
        self, name: str, *, tags: Sequence[str] = (), read: Read = DEFAULT_READ
    ) -> list[HealthEntry]:
        """All instances of a service that have all these tags; checks are not looked at."""
        response = await self._client.request(
            "GET",
            f"/v1/catalog/service/{segment(name)}",
            params=read.params(tag=tuple(tags)),
        )
        return records.catalog_services(response)

    async def register(self, registration: dict[str, Any]) -> bool:
        """Registers a node, and with it a service and checks (Consul's JSON object)."""
        response = await self._client.request("PUT", "/v1/catalog/register", json=registration)
        return bool(response.json(bool))

    async def deregister(self, node: str, *, service_id: str = "", check_id: str = "") -> bool:
        """Removes an instance, a check, or (neither given) a node with all it has."""
        body = {"Node": node, "ServiceID": service_id, "CheckID": check_id}
        response = await self._client.request(
            "PUT", "/v1/catalog/deregister", json={k: v for k, v in body.items() if v}
        )
        return bool(response.json(bool))

    def watch_services(
        self, *, read: Read = DEFAULT_READ, patience_s: float | None = None
    ) -> AsyncGenerator[Change[dict[str, list[str]]], None]:
        """Yields names and tags of all services, now and after each change."""
        return self._client.watch(
            "/v1/catalog/services", _tags_by_name, params=read.params(), patience_s=patience_s
        )

    def watch_services_deltas(
        self, *, read: Read = DEFAULT_READ, patience_s: float | None = None
    ) -> AsyncGenerator[Delta[tuple[str, tuple[str, ...]]], None]:
        """Yields which services came, changed their tags, and went; all there are at first."""
        return deltas(
            self._client,
            "/v1/catalog/services",
            Table(lambda row: (row["Name"], tuple(row["Tags"])), lambda row: row[0]),
            params=read.params(),
            patience_s=patience_s,
        )

    def watch_nodes(
        self, *, read: Read = DEFAULT_READ, patience_s: float | None = None
    ) -> AsyncGenerator[Change[list[Node]], None]:
        """Yields all nodes, now and after each change."""
        return self._client.watch(
            "/v1/catalog/nodes", records.nodes, params=read.params(), patience_s=patience_s
        )


class HealthAPI:
    """What is registered, with the state of its checks."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    async def service(
        self,
        name: str,
        *,
        passing: bool = False,
        tags: Sequence[str] = (),
        read: Read = DEFAULT_READ,
    ) -> list[HealthEntry]:
        """Instances of a service.

        Args:
            name: The service.
            passing: Only instances of which all checks pass.
            tags: Only instances with all these tags.
            read: How to read.
        """
        response = await self._client.request(
            "GET",
            f"/v1/health/service/{segment(name)}",
            params=read.params(passing=flag(passing), tag=tuple(tags)),
        )
        return records.health_entries(response)

    async def services(
        self,
        *,
        tags: Sequence[str] = (),
        status: Status | None = None,
        filter_: str = "",
        page_size: int = 100,
        read: Read = DEFAULT_READ,
    ) -> AsyncGenerator[ServiceSummary, None]:
        """Yields all services with their health, tags and metadata, page by page.

        Args:
            tags: Only instances with all these tags.
            status: Only instances with this status.
            filter_: Expression over the summaries, such as `Critical == 0 and "v2" in Tags`.
            page_size: Services asked for at once, at most 1,000.
            read: How to read.
        """
        chosen = read.params(
            **{"page-size": page_size},
            tag=tuple(tags),
            status=status.value if status else None,
            filter=filter_ or None,
        )
        after: str | None = None
        while after is None or after:
            response = await self._client.request(
                "GET", "/v1/health/services", params={**chosen, "after": after or None}
            )
            page = records.service_page(response)
            for summary in page.services:
                yield summary
            after = page.after

    async def node(self, name: str, *, read: Read = DEFAULT_READ) -> list[Check]:
        """All checks of a node and of its instances."""
        return await self._checks(f"node/{segment(name)}", read)

    async def checks(self, service: str, *, read: Read = DEFAULT_READ) -> list[Check]:
        """The checks of all instances of a service."""
        return await self._checks(f"checks/{segment(service)}", read)

    async def state(self, status: Status | None, *, read: Read = DEFAULT_READ) -> list[Check]:
        """All checks in a state; None: in any."""
        return await self._checks(f"state/{status.value if status else 'any'}", read)

    async def _checks(self, path: str, read: Read) -> list[Check]:
        response = await self._client.request("GET", f"/v1/health/{path}", params=read.params())
        return records.checks(response)

    def watch(
        self,
        name: str,
        *,
        passing: bool = False,
        tags: Sequence[str] = (),
        read: Read = DEFAULT_READ,
        patience_s: float | None = None,
    ) -> AsyncGenerator[Change[list[HealthEntry]], None]:
        """Yields the instances of a service, now and after each change of one of them."""
        return self._client.watch(
            f"/v1/health/service/{segment(name)}",
            records.health_entries,
            params=read.params(passing=flag(passing), tag=tuple(tags)),
            patience_s=patience_s,
        )

    def watch_deltas(
        self,
        name: str,
        *,
        passing: bool = False,
        tags: Sequence[str] = (),
        read: Read = DEFAULT_READ,
        patience_s: float | None = None,
    ) -> AsyncGenerator[Delta[HealthEntry], None]:
        """Yields which instances of a service came, changed and went; all there are at first.

        Raises:
            RaftregError: As `deltas.deltas`.
        """
        return deltas(
            self._client,
            f"/v1/health/service/{segment(name)}",
            Table(records.health_entry, lambda entry: (entry.node.name, entry.service.id)),
            params=read.params(passing=flag(passing), tag=tuple(tags)),
            patience_s=patience_s,
        )


def _tags_by_name(response: Response) -> dict[str, list[str]]:
    found: dict[str, list[str] | None] = response.json(dict[str, list[str] | None])
    return {name: tags or [] for name, tags in found.items()}
