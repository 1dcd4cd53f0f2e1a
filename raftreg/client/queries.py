"""Prepared queries: `client.query`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from raftreg.client import records
from raftreg.client.options import DEFAULT_READ, Read, flag, segment
from raftreg.client.records import QueryResult

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient

#: Consul's JSON object of a query, see https://developer.hashicorp.com/consul/api-docs/query.
Definition = Mapping[str, Any]
_Definitions = list[dict[str, Any]]  # inside QueryAPI, `list` is a method


class _Created(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="ID")


class _Explained(msgspec.Struct, frozen=True):
    query: dict[str, Any] = msgspec.field(name="Query")


class QueryAPI:
    """Look-ups that are kept in the registry under an id and a name."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    async def create(self, definition: Definition) -> str:
        """Creates a query; gives its id.

        Raises:
            InvalidRequest: It can't be used, or its name is taken.
        """
        response = await self._client.request("POST", "/v1/query", json=dict(definition))
        created: _Created = response.json(_Created)
        return created.id

    async def update(self, query_id: str, definition: Definition) -> None:
        """Replaces a query; without a `Name` it keeps its own.

        Raises:
            NotFound: There is none of this id.
            InvalidRequest: As for `create`.
        """
        path = f"/v1/query/{segment(query_id)}"
        await self._client.request("PUT", path, json=dict(definition))

    async def delete(self, query_id: str) -> None:
        """Deletes a query.

        Raises:
            NotFound: There is none of this id.
        """
        await self._client.request("DELETE", f"/v1/query/{segment(query_id)}")

    async def get(self, query_id: str, *, read: Read = DEFAULT_READ) -> dict[str, Any] | None:
        """One query as Consul's JSON object; None when there is none of this id."""
        path = f"/v1/query/{segment(query_id)}"
        response = await self._client.request("GET", path, params=read.params(), accept=(200, 404))
        if response.status == 404:
            return None
        (found,) = response.json(list[dict[str, Any]])
        definition: dict[str, Any] = found
        return definition

    async def list(self, *, read: Read = DEFAULT_READ) -> _Definitions:
        """All queries, by id."""
        response = await self._client.request("GET", "/v1/query", params=read.params())
        found: _Definitions = response.json(_Definitions)
        return found

    async def execute(
        self,
        id_or_name: str,
        *,
        near: str = "",
        limit: int = 0,
        connect: bool = False,
        read: Read = DEFAULT_READ,
        headers: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
    ) -> QueryResult | None:
        """Executes a query.

        Args:
            id_or_name: Which; for a template any name that begins with its own.
            near: Node to sort by distance from (`_agent`, `_ip`); "": as the query says.
            limit: Most instances to give, 0 for all.
            connect: Only Connect-capable instances.
            read: How to read.
            headers: Further headers.
            deadline_s: As in `RegistryClient.request`.

        Returns:
            What it found, None when there is no such query.
        """
        response = await self._client.request(
            "GET",
            f"/v1/query/{segment(id_or_name)}/execute",
            params=read.params(near=near or None, limit=limit or None, connect=flag(connect)),
            headers=headers,
            deadline_s=deadline_s,
            accept=(200, 404),
        )
        return None if response.status == 404 else records.query_result(response)

    async def explain(self, name: str, *, read: Read = DEFAULT_READ) -> dict[str, Any] | None:
        """The query that a name leads to, rendered; None when there is none."""
        path = f"/v1/query/{segment(name)}/explain"
        response = await self._client.request("GET", path, params=read.params(), accept=(200, 404))
        if response.status == 404:
            return None
        explained: _Explained = response.json(_Explained)
        return explained.query
