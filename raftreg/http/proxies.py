"""What registrations say about the mesh: proxies, their upstreams, and sidecars. Pure.

A proxy is an instance with `Kind` and `Proxy`; one with `Connect.Native` speaks the TLS of the mesh
itself; `Connect.SidecarService` registers a proxy beside the service it is in. See
https://developer.hashicorp.com/consul/docs/connect/registration/service-registration.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypedDict

import msgspec
from msgspec import Meta as Limits

from raftreg.core.entries.common import (
    EnvoyExtension,
    Expose,
    MeshGateway,
    Opaque,
    Port,
    TransparentProxy,
)
from raftreg.core.entries.routing import AccessLogs
from raftreg.errors import InvalidRequest
from raftreg.http.config_body import typed
from raftreg.http.fields import Fields
from raftreg.model import ServiceInstance

CONNECT_PROXY: Final = "connect-proxy"
GATEWAYS: Final = frozenset(
    {"api-gateway", "ingress-gateway", "mesh-gateway", "terminating-gateway"}
)
SIDECAR_SUFFIX: Final = "-sidecar-proxy"
SIDECAR_PORT_MIN: Final = 21_000
SIDECAR_PORT_MAX: Final = 21_255
LOCAL_ADDRESS: Final = "127.0.0.1"


class Upstream(TypedDict, total=False):
    """A service that a proxy calls for its own, and where it listens for those calls."""

    DestinationType: Literal["", "service", "prepared_query"]
    DestinationNamespace: str
    DestinationPartition: str
    DestinationPeer: str
    DestinationName: str
    Datacenter: str
    LocalBindAddress: str
    LocalBindPort: Port
    LocalBindSocketPath: str
    LocalBindSocketMode: str
    Config: Opaque | None
    MeshGateway: MeshGateway
    IngressHosts: list[str]
    CentrallyConfigured: bool


class Proxy(TypedDict, total=False):
    """How a proxy works for the service behind it."""

    DestinationServiceName: str
    DestinationServiceID: str
    LocalServiceAddress: str
    LocalServicePort: Port
    LocalServiceSocketPath: str
    Mode: Literal["", "direct", "transparent"]
    Config: Opaque | None
    Upstreams: Annotated[list[Upstream], Limits(max_length=1024)]
    MeshGateway: MeshGateway
    Expose: Expose
    TransparentProxy: TransparentProxy
    MutualTLSMode: Literal["", "strict", "permissive"]
    AccessLogs: AccessLogs
    EnvoyExtensions: list[EnvoyExtension]


class Connect(TypedDict, total=False):
    """How a service takes part in the mesh."""

    Native: bool
    SidecarService: Opaque
    PeerMeta: Opaque


def mesh_parts(fields: Fields) -> tuple[dict[str, Any], dict[str, Any]]:
    """`Proxy` and `Connect` of a registration, in the form in which they are kept.

    `Connect.SidecarService` is no part of the row: it is a registration of its own (`nested`).

    Raises:
        InvalidRequest: They can't be read; the text names the field.
    """
    given, connect = fields.get("Proxy"), fields.get("Connect")
    proxy = {} if given is None else typed(Proxy, given, "Proxy")
    for upstream in proxy.get("Upstreams", ()):
        upstream["DestinationType"] = upstream.get("DestinationType") or "service"
        upstream.setdefault("MeshGateway", {})
    if proxy:
        proxy.setdefault("MeshGateway", {})
        proxy.setdefault("Expose", {})
    found = {} if connect is None else typed(Connect, connect, "Connect")
    native = {"Native": True} if found.get("Native") else {}
    return proxy, native


def nested(fields: Fields) -> dict[str, Any] | None:
    """`Connect.SidecarService` of a registration, as it came; None when there is none.

    Raises:
        InvalidRequest: It says what only the agent decides.
    """
    connect = fields.fields("Connect")
    found = None if connect is None else connect.get("SidecarService")
    if found is None:
        return None
    inner = Fields(found, "Connect.SidecarService")
    if inner.text("ID"):
        raise InvalidRequest(
            "Invalid SidecarService: A SidecarService cannot specify an ID as this is managed by "
            "the agent"
        )
    if inner.fields("Connect") is not None and nested(inner) is not None:
        raise InvalidRequest(
            "Invalid SidecarService: A SidecarService cannot have a nested SidecarService"
        )
    if fields.boolean("Native") or (connect is not None and connect.boolean("Native")):
        raise InvalidRequest("Invalid Connect: Native and SidecarService exclude each other")
    assert isinstance(found, dict)
    return found


def check_mesh_parts(row: ServiceInstance, *, sidecar: bool = False) -> None:
    """Holds an instance to the rules of its kind.

    Args:
        row: The instance.
        sidecar: The agent will give it a port.

    Raises:
        InvalidRequest: It breaks one.
    """
    if row.kind == CONNECT_PROXY:
        _check_proxy(row, sidecar=sidecar)
    elif row.kind in GATEWAYS and (
        row.proxy.get("DestinationServiceName") or row.proxy.get("DestinationServiceID")
    ):
        raise InvalidRequest(
            f"The Proxy.DestinationService* fields are not allowed for a {row.kind}"
        )


def _check_proxy(row: ServiceInstance, *, sidecar: bool) -> None:
    destination = row.proxy.get("DestinationServiceName", "")
    if not destination:
        raise InvalidRequest(
            "Proxy.DestinationServiceName must be non-empty for Connect proxy services"
        )
    if destination == "*":
        raise InvalidRequest(
            "Proxy.DestinationServiceName must not be a wildcard for Connect proxy services"
        )
    if not row.port and not sidecar:
        raise InvalidRequest("Port or SocketPath must be set for a Connect proxy")
    if row.connect.get("Native"):
        raise InvalidRequest("A Proxy cannot also be Connect Native, only typical services")
    transparent = row.proxy.get("Mode") == "transparent"
    seen: set[tuple[str, int]] = set()
    for at, upstream in enumerate(row.proxy.get("Upstreams", ())):
        _check_upstream(f"Proxy.Upstreams[{at}]", upstream, seen, transparent=transparent)


def _check_upstream(
    where: str, upstream: dict[str, Any], seen: set[tuple[str, int]], *, transparent: bool
) -> None:
    name = upstream.get("DestinationName", "")
    if not name or name == "*":
        raise InvalidRequest(f"{where}: upstream destination name cannot be empty or a wildcard")
    if upstream.get("DestinationPeer"):
        raise InvalidRequest(f"{where}: DestinationPeer is not supported: there are no peers")
    path, port = upstream.get("LocalBindSocketPath", ""), upstream.get("LocalBindPort", 0)
    if path and port:
        raise InvalidRequest(f"{where}: only one of LocalBindPort and LocalBindSocketPath counts")
    if not path and not port and not transparent:
        raise InvalidRequest(
            f"{where}: upstream local bind port or local socket path must be defined and nonzero"
        )
    place = (path or upstream.get("LocalBindAddress") or LOCAL_ADDRESS, port)
    if (path or port) and place in seen:
        raise InvalidRequest(
            f"{where}: upstreams cannot contain duplicates: local bind address and port or unix "
            f"socket path {place[0]}:{place[1]} is used twice"
        )
    seen.add(place)


def as_sidecar(row: ServiceInstance, of: ServiceInstance) -> ServiceInstance:
    """A sidecar with all that it takes from its service; its port may still be open (0)."""
    proxy = dict(row.proxy)
    proxy["DestinationServiceName"] = proxy.get("DestinationServiceName") or of.name
    proxy["DestinationServiceID"] = proxy.get("DestinationServiceID") or of.id
    if not proxy.get("LocalServiceSocketPath"):
        proxy["LocalServiceAddress"] = proxy.get("LocalServiceAddress") or LOCAL_ADDRESS
        proxy["LocalServicePort"] = proxy.get("LocalServicePort") or of.port
    proxy.setdefault("MeshGateway", {})
    proxy.setdefault("Expose", {})
    return msgspec.structs.replace(
        row,
        kind=row.kind or CONNECT_PROXY,
        tags=row.tags or of.tags,
        meta=row.meta or of.meta,
        address=row.address or of.address,
        proxy=proxy,
    )


def sidecar_id(service_id: str) -> str:
    """Id of the sidecar of an instance."""
    return service_id + SIDECAR_SUFFIX
