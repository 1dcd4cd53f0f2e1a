"""Ports of sidecars that were registered without one. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from raftreg.errors import Rejected
from raftreg.http.decode import ServiceDefinition, with_port
from raftreg.http.proxies import SIDECAR_PORT_MAX, SIDECAR_PORT_MIN
from raftreg.model import ServiceInstance


def placed(
    sidecar: ServiceDefinition, services: Mapping[str, ServiceInstance]
) -> ServiceDefinition:
    """A sidecar with its port: its own, the one that it had, or the lowest that is free here.

    Args:
        sidecar: As it was registered.
        services: Instances of this host by id.

    Raises:
        Rejected: No port is left.
    """
    row = sidecar.service
    return with_port(sidecar, row.port or _free_port(row.id, services))


def _free_port(service_id: str, services: Mapping[str, ServiceInstance]) -> int:
    present = services.get(service_id)
    if present is not None and SIDECAR_PORT_MIN <= present.port <= SIDECAR_PORT_MAX:
        return present.port
    used = {row.port for row in services.values()}
    for port in range(SIDECAR_PORT_MIN, SIDECAR_PORT_MAX + 1):
        if port not in used:
            return port
    raise Rejected(
        "no port provided for sidecar_service and none left in the configured range "
        f"[{SIDECAR_PORT_MIN}, {SIDECAR_PORT_MAX}]"
    )
