"""What an agent wants to see of an address before it takes it for a server's."""

from __future__ import annotations

from typing import Any

from raftreg.client.api import RegistryClient
from raftreg.errors import ConfigurationError, RaftregError, Rejected

CHECK_DEADLINE_S = 2.0
#: Consul's port for gossip: who joins by it means the server there.
_GOSSIP_PORT = ":8301"


def http_address(address: str) -> str:
    """Where the HTTP API of a server is, of which somebody may have given the gossip port."""
    return address.removesuffix(_GOSSIP_PORT)


async def check_server(address: str, datacenter: str) -> None:
    """Asks who answers there.

    Raises:
        Rejected: Nobody, no server, or one of another datacenter.
    """
    shown = address[:128]
    try:
        async with RegistryClient([http_address(address)]) as client:
            answer = await client.request("GET", "/v1/agent/self", deadline_s=CHECK_DEADLINE_S)
            config = _config(answer.json(dict))
    except (RaftregError, ConfigurationError) as error:
        raise Rejected(f"Failed to join {shown}: {error.message}") from error
    if config.get("Server") is not True:
        raise Rejected(f"Failed to join {shown}: it is no server")
    if config.get("Datacenter") != datacenter:
        raise Rejected(f"Failed to join {shown}: it is of datacenter {config.get('Datacenter')!r}")


def _config(body: dict[str, Any]) -> dict[str, Any]:
    config = body.get("Config")
    return config if isinstance(config, dict) else {}
