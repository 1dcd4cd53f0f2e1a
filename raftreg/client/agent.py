"""The agent that the client is connected to: `client.agent`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from raftreg.client import records
from raftreg.client.options import Params, flag, segment
from raftreg.model import Check, ServiceInstance, Status

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient


class AggregatedHealth(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's judgement of one of its instances; `text` is "maintenance" in maintenance."""

    text: str
    http_status: int


_VERB = {Status.PASSING: "pass", Status.WARNING: "warn", Status.CRITICAL: "fail"}


class AgentAPI:
    """Instances and checks of one host. All of it may be repeated without further effect."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    async def self(self) -> dict[str, Any]:
        """Configuration and identity of the agent."""
        return await self._object("/v1/agent/self")

    async def members(self) -> list[dict[str, Any]]:
        """The members of the mesh as the agent knows them."""
        response = await self._client.request("GET", "/v1/agent/members")
        found: list[dict[str, Any]] = response.json(list[dict[str, Any]])
        return found

    async def services(self) -> dict[str, ServiceInstance]:
        """The agent's instances by id."""
        return records.agent_services(await self._client.request("GET", "/v1/agent/services"))

    async def service(self, service_id: str) -> dict[str, Any] | None:
        """The registration of an instance, None when there is none."""
        response = await self._client.request(
            "GET", f"/v1/agent/service/{segment(service_id)}", accept=(200, 404)
        )
        if response.status == 404:
            return None
        found: dict[str, Any] = response.json(dict[str, Any])
        return found

    async def checks(self) -> dict[str, Check]:
        """The agent's checks by id."""
        return records.agent_checks(await self._client.request("GET", "/v1/agent/checks"))

    async def register_service(
        self, definition: dict[str, Any], *, replace_existing_checks: bool = False
    ) -> None:
        """Registers an instance (Consul's JSON object: Name, ID, Port, Check, …)."""
        await self._put(
            "service/register",
            json=definition,
            query={"replace-existing-checks": flag(replace_existing_checks)},
        )

    async def deregister_service(self, service_id: str) -> None:
        """Removes an instance; one that is not there is no error."""
        await self._put(f"service/deregister/{segment(service_id)}", tolerate_missing=True)

    async def register_check(self, definition: dict[str, Any]) -> None:
        """Registers a check (Consul's JSON object)."""
        await self._put("check/register", json=definition)

    async def deregister_check(self, check_id: str) -> None:
        """Removes a check; one that is not there is no error."""
        await self._put(f"check/deregister/{segment(check_id)}", tolerate_missing=True)

    async def set_check(self, check_id: str, status: Status, *, note: str = "") -> None:
        """Reports the state of a TTL check."""
        await self._put(f"check/{_VERB[status]}/{segment(check_id)}", query={"note": note or None})

    async def update_check(self, check_id: str, status: Status, *, output: str = "") -> None:
        """Reports the state of a TTL check with a longer output."""
        await self._put(
            f"check/update/{segment(check_id)}", json={"Status": status.value, "Output": output}
        )

    async def maintenance(self, enable: bool, *, reason: str = "") -> None:
        """Takes the host out of discovery, or back."""
        await self._put("maintenance", query=_maintenance(enable, reason))

    async def service_maintenance(self, service_id: str, enable: bool, *, reason: str = "") -> None:
        """Takes an instance out of discovery, or back."""
        await self._put(
            f"service/maintenance/{segment(service_id)}",
            query=_maintenance(enable, reason),
        )

    async def service_health(self, service_id: str) -> AggregatedHealth | None:
        """The agent's judgement of an instance, None when it has no such instance."""
        response = await self._client.request(
            "GET",
            f"/v1/agent/health/service/id/{segment(service_id)}",
            params={"format": "text"},
            accept=(200, 404, 429, 503),
        )
        if response.status == 404:
            return None
        text = response.body.decode("utf-8", "replace").strip()
        return AggregatedHealth(text=text, http_status=response.status)

    async def leave(self) -> None:
        """Makes the agent deregister its host and stop."""
        await self._put("leave")

    async def reload(self) -> None:
        """Makes the agent read its definitions again."""
        await self._put("reload")

    async def _object(self, path: str) -> dict[str, Any]:
        response = await self._client.request("GET", path)
        found: dict[str, Any] = response.json(dict[str, Any])
        return found

    async def _put(
        self,
        path: str,
        *,
        json: Any = None,
        tolerate_missing: bool = False,
        query: Params | None = None,
    ) -> None:
        await self._client.request(
            "PUT",
            f"/v1/agent/{path}",
            params=query,
            json=json,
            accept=(200, 404) if tolerate_missing else (200,),
        )


def _maintenance(enable: bool, reason: str) -> Params:
    return {"enable": str(enable).lower(), "reason": reason or None}
