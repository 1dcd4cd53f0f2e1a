"""Kinds that configure gateways and what is bound to them."""

from __future__ import annotations

from typing import Annotated, Literal, Required, TypedDict

from msgspec import Meta as Limits

from raftreg.core.entries.common import (
    CipherTLS,
    Count,
    Duration,
    Entry,
    HeaderMatch,
    HeaderModifiers,
    Opaque,
    Pairs,
    PassiveHealthCheck,
    Port,
    QueryMatch,
    ResourceReference,
    TLSVersions,
    UpstreamLimits,
)


class IngressSDS(TypedDict, total=False):
    """A certificate that Envoy fetches from elsewhere."""

    ClusterName: str
    CertResource: str


class IngressTLS(CipherTLS, total=False):
    """TLS of an ingress gateway or of one of its listeners."""

    SDS: IngressSDS


class IngressServiceTLS(TypedDict, total=False):
    """TLS for the hosts of one service."""

    SDS: IngressSDS


class IngressService(UpstreamLimits, total=False):
    """A service that a listener exposes; "*" stands for all of them."""

    Name: str
    Hosts: Annotated[list[str], Limits(max_length=256)]
    Namespace: str
    Partition: str
    TLS: IngressServiceTLS
    RequestHeaders: HeaderModifiers
    ResponseHeaders: HeaderModifiers
    PassiveHealthCheck: PassiveHealthCheck
    Meta: Pairs


class IngressListener(TypedDict, total=False):
    """A port of an ingress gateway."""

    Port: Port
    Protocol: str
    TLS: IngressTLS
    Services: Annotated[list[IngressService], Limits(max_length=4096)]


class IngressDefaults(UpstreamLimits, total=False):
    """Limits of all services of an ingress gateway."""

    PassiveHealthCheck: PassiveHealthCheck


class IngressGateway(Entry, total=False):
    """Listeners through which calls enter the mesh."""

    Kind: Required[Literal["ingress-gateway"]]
    TLS: IngressTLS
    Listeners: Annotated[list[IngressListener], Limits(max_length=256)]
    Defaults: IngressDefaults


class LinkedService(TypedDict, total=False):
    """A service outside the mesh, with what its TLS needs; "*" stands for all of them."""

    Name: str
    Namespace: str
    CAFile: str
    CertFile: str
    KeyFile: str
    SNI: str
    DisableAutoHostRewrite: bool


class TerminatingGateway(Entry, total=False):
    """Services outside the mesh that are reached through a gateway."""

    Kind: Required[Literal["terminating-gateway"]]
    Services: Annotated[list[LinkedService], Limits(max_length=4096)]


class APIGatewayTLS(TLSVersions, total=False):
    """Certificates of a listener."""

    Certificates: Annotated[list[ResourceReference], Limits(max_length=64)]


class APIGatewayJWTRequirement(TypedDict, total=False):
    """Tokens that requests must bring."""

    Providers: list[Opaque]


class APIGatewayPolicy(TypedDict, total=False):
    """What requests must bring."""

    JWT: APIGatewayJWTRequirement


class APIGatewayListener(TypedDict, total=False):
    """A port of an API gateway."""

    Name: str
    Hostname: str
    Port: Port
    Protocol: str
    TLS: APIGatewayTLS
    MaxRequestHeadersKB: Count
    Override: APIGatewayPolicy
    Default: APIGatewayPolicy


class APIGateway(Entry, total=False):
    """Listeners to which routes are bound."""

    Kind: Required[Literal["api-gateway"]]
    Listeners: Annotated[list[APIGatewayListener], Limits(max_length=256)]


class PathMatch(TypedDict, total=False):
    """A condition on a path."""

    Match: Literal["", "exact", "prefix", "regex"]
    Value: str


class RuleHeaderMatch(TypedDict, total=False):
    """A condition on a header."""

    Match: Literal["", "exact", "prefix", "suffix", "regex", "present"]
    Name: str
    Value: str


class RuleQueryMatch(TypedDict, total=False):
    """A condition on a parameter of the query."""

    Match: Literal["", "exact", "regex", "present"]
    Name: str
    Value: str


class RuleMatch(TypedDict, total=False):
    """Conditions of a rule; all of them must hold."""

    Headers: list[RuleHeaderMatch]
    Method: str
    Path: PathMatch
    Query: list[RuleQueryMatch]


class URLRewrite(TypedDict, total=False):
    """A new path."""

    Path: str


class RetryFilter(TypedDict, total=False):
    """When requests are sent again."""

    NumRetries: Count
    RetryOn: list[str]
    RetryOnStatusCodes: list[Count]
    RetryOnConnectFailure: bool


class TimeoutFilter(TypedDict, total=False):
    """How long requests may take."""

    RequestTimeout: Duration
    IdleTimeout: Duration


class JWTFilter(TypedDict, total=False):
    """Tokens that requests must bring."""

    Providers: list[Opaque]


class RuleFilters(TypedDict, total=False):
    """What is done to a request on its way."""

    Headers: list[HeaderModifiers]
    URLRewrite: URLRewrite
    RetryFilter: RetryFilter
    TimeoutFilter: TimeoutFilter
    JWT: JWTFilter


class RuleResponseFilters(TypedDict, total=False):
    """What is done to an answer on its way."""

    Headers: list[HeaderModifiers]


class HTTPRouteService(TypedDict, total=False):
    """Where a rule leads, with its share."""

    Name: str
    Weight: Count
    Filters: RuleFilters
    ResponseFilters: RuleResponseFilters
    Namespace: str
    Partition: str


class HTTPRouteRule(TypedDict, total=False):
    """One rule of an HTTP route."""

    Filters: RuleFilters
    ResponseFilters: RuleResponseFilters
    Matches: Annotated[list[RuleMatch], Limits(max_length=256)]
    Services: Annotated[list[HTTPRouteService], Limits(max_length=256)]


class HTTPRoute(Entry, total=False):
    """Rules for requests that arrive at API gateways."""

    Kind: Required[Literal["http-route"]]
    Parents: Annotated[list[ResourceReference], Limits(max_length=64)]
    Rules: Annotated[list[HTTPRouteRule], Limits(max_length=1024)]
    Hostnames: Annotated[list[str], Limits(max_length=256)]


class TCPRouteService(TypedDict, total=False):
    """Where connections go."""

    Name: str
    Namespace: str
    Partition: str


class TCPRoute(Entry, total=False):
    """The service behind a TCP listener of an API gateway."""

    Kind: Required[Literal["tcp-route"]]
    Parents: Annotated[list[ResourceReference], Limits(max_length=64)]
    Services: Annotated[list[TCPRouteService], Limits(max_length=1)]


class InlineCertificate(Entry, total=False):
    """A certificate with its key, PEM; the key is replicated and is no part of answers."""

    Kind: Required[Literal["inline-certificate"]]
    Certificate: str
    PrivateKey: str


__all__ = [
    "APIGateway",
    "HTTPRoute",
    "HeaderMatch",
    "IngressGateway",
    "IngressListener",
    "InlineCertificate",
    "QueryMatch",
    "TCPRoute",
    "TerminatingGateway",
]
