"""The kinds of central configuration entries: what each may hold, as types.

Names and meanings are Consul's (https://developer.hashicorp.com/consul/docs/connect/config-entries).
The types serve three readers: `raftreg.http.config_body` reads bodies by them, `raftreg.core` holds
what comes out of the log to them, and the OpenAPI document shows them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

from raftreg.core.entries import access, gateways, routing

SERVICE_DEFAULTS: Final = "service-defaults"
PROXY_DEFAULTS: Final = "proxy-defaults"
SERVICE_ROUTER: Final = "service-router"
SERVICE_SPLITTER: Final = "service-splitter"
SERVICE_RESOLVER: Final = "service-resolver"
INGRESS_GATEWAY: Final = "ingress-gateway"
TERMINATING_GATEWAY: Final = "terminating-gateway"
SERVICE_INTENTIONS: Final = "service-intentions"
MESH: Final = "mesh"

KINDS: Final = MappingProxyType[str, Any](
    {
        SERVICE_DEFAULTS: routing.ServiceDefaults,
        PROXY_DEFAULTS: routing.ProxyDefaults,
        SERVICE_ROUTER: routing.ServiceRouter,
        SERVICE_SPLITTER: routing.ServiceSplitter,
        SERVICE_RESOLVER: routing.ServiceResolver,
        INGRESS_GATEWAY: gateways.IngressGateway,
        TERMINATING_GATEWAY: gateways.TerminatingGateway,
        SERVICE_INTENTIONS: access.ServiceIntentions,
        MESH: access.Mesh,
        "exported-services": access.ExportedServices,
        "api-gateway": gateways.APIGateway,
        "http-route": gateways.HTTPRoute,
        "tcp-route": gateways.TCPRoute,
        "inline-certificate": gateways.InlineCertificate,
        "sameness-group": access.SamenessGroup,
        "jwt-provider": access.JWTProvider,
        "control-plane-request-limit": access.ControlPlaneRequestLimit,
    }
)

AnyEntry = (
    routing.ServiceDefaults
    | routing.ProxyDefaults
    | routing.ServiceRouter
    | routing.ServiceSplitter
    | routing.ServiceResolver
    | gateways.IngressGateway
    | gateways.TerminatingGateway
    | access.ServiceIntentions
    | access.Mesh
    | access.ExportedServices
    | gateways.APIGateway
    | gateways.HTTPRoute
    | gateways.TCPRoute
    | gateways.InlineCertificate
    | access.SamenessGroup
    | access.JWTProvider
    | access.ControlPlaneRequestLimit
)
