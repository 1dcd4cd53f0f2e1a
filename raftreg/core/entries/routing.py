"""Kinds that say how calls to a service are routed, split and resolved, and their defaults."""

from __future__ import annotations

from typing import Annotated, Literal, Required, TypedDict

from msgspec import Meta as Limits

from raftreg.core.entries.common import (
    Count,
    Duration,
    Entry,
    EnvoyExtension,
    Expose,
    HeaderMatch,
    HeaderModifiers,
    HttpStatus,
    MeshGateway,
    Name,
    Opaque,
    Pairs,
    PassiveHealthCheck,
    Percent,
    Port,
    QueryMatch,
    TransparentProxy,
    UpstreamLimits,
)
from raftreg.core.entries.resilience import Resilience

# -- defaults --------------------------------------------------------------------------------------


class UpstreamConfig(TypedDict, total=False):
    """How a proxy treats one upstream, or all of them."""

    Name: str
    Namespace: str
    Partition: str
    Peer: str
    EnvoyListenerJSON: str
    EnvoyClusterJSON: str
    Protocol: str
    ConnectTimeoutMs: Count
    Limits: UpstreamLimits
    PassiveHealthCheck: PassiveHealthCheck
    MeshGateway: MeshGateway
    BalanceOutboundConnections: Literal["", "exact_balance"]


class UpstreamConfiguration(TypedDict, total=False):
    """Defaults for upstreams, and overrides for some of them."""

    Defaults: UpstreamConfig
    Overrides: Annotated[list[UpstreamConfig], Limits(max_length=1024)]


class Destination(TypedDict, total=False):
    """Where a service outside the mesh is, for terminating gateways."""

    Addresses: list[str]
    Port: Port


class InstanceLevelRateLimits(TypedDict, total=False):
    """Limits on the requests that each instance takes."""

    RequestsPerSecond: Count
    RequestsMaxBurst: Count
    Routes: list[Opaque]


class RateLimits(TypedDict, total=False):
    """Limits on the requests that a service takes."""

    InstanceLevel: InstanceLevelRateLimits


class ServiceDefaults(Entry, total=False):
    """Defaults of a service: its protocol, and how proxies treat its upstreams."""

    Kind: Required[Literal["service-defaults"]]
    Protocol: str
    Mode: Literal["", "direct", "transparent"]
    TransparentProxy: TransparentProxy
    MutualTLSMode: Literal["", "strict", "permissive"]
    MeshGateway: MeshGateway
    Expose: Expose
    ExternalSNI: str
    UpstreamConfig: UpstreamConfiguration
    Destination: Destination
    MaxInboundConnections: Count
    MaxRequestHeadersKB: Count
    LocalConnectTimeoutMs: Count
    LocalRequestTimeoutMs: Count
    BalanceInboundConnections: Literal["", "exact_balance"]
    RateLimits: RateLimits
    EnvoyExtensions: list[EnvoyExtension]
    Raftreg: Resilience


class AccessLogs(TypedDict, total=False):
    """Access logs of proxies."""

    Enabled: bool
    DisableListenerLogs: bool
    Type: Literal["", "file", "stderr", "stdout"]
    Path: str
    JSONFormat: str
    TextFormat: str


class FailoverPolicy(TypedDict, total=False):
    """In which order failover targets are tried."""

    Mode: Literal["", "default", "sequential", "order-by-locality"]
    Regions: list[str]


class PrioritizeByLocality(TypedDict, total=False):
    """Whether instances nearby are preferred."""

    Mode: Literal["", "none", "failover"]


class ProxyDefaults(Entry, total=False):
    """Defaults of all proxies; its name is "global"."""

    Kind: Required[Literal["proxy-defaults"]]
    Config: Opaque
    Mode: Literal["", "direct", "transparent"]
    TransparentProxy: TransparentProxy
    MutualTLSMode: Literal["", "strict", "permissive"]
    MeshGateway: MeshGateway
    Expose: Expose
    AccessLogs: AccessLogs
    EnvoyExtensions: list[EnvoyExtension]
    FailoverPolicy: FailoverPolicy
    PrioritizeByLocality: PrioritizeByLocality
    Raftreg: Resilience


# -- router ----------------------------------------------------------------------------------------


class RouteHTTPMatch(TypedDict, total=False):
    """Conditions on a request; all of them must hold, and one kind of path at most."""

    PathExact: str
    PathPrefix: str
    PathRegex: str
    CaseInsensitive: bool
    Header: Annotated[list[HeaderMatch], Limits(max_length=256)]
    QueryParam: Annotated[list[QueryMatch], Limits(max_length=256)]
    Methods: list[str]


class OwnRouteMatch(TypedDict, total=False):
    """Conditions that only raftreg knows: which services call, one of them."""

    Sources: Annotated[list[Name], Limits(max_length=256)]


class RouteMatch(TypedDict, total=False):
    """What a route takes; all conditions must hold."""

    HTTP: RouteHTTPMatch
    Raftreg: OwnRouteMatch


class RouteDestination(TypedDict, total=False):
    """Where a route leads, and how requests are sent there."""

    Service: str
    ServiceSubset: str
    Namespace: str
    Partition: str
    PrefixRewrite: str
    RequestTimeout: Duration
    IdleTimeout: Duration
    NumRetries: Count
    RetryOnConnectFailure: bool
    RetryOn: list[str]
    RetryOnStatusCodes: list[HttpStatus]
    RequestHeaders: HeaderModifiers
    ResponseHeaders: HeaderModifiers


class Route(TypedDict, total=False):
    """One route."""

    Match: RouteMatch
    Destination: RouteDestination


class ServiceRouter(Entry, total=False):
    """Routes of a service; the first that matches is taken, none leads to the service itself."""

    Kind: Required[Literal["service-router"]]
    Routes: Annotated[list[Route], Limits(max_length=1024)]


# -- splitter --------------------------------------------------------------------------------------


class Split(TypedDict, total=False):
    """A share of the traffic, in percent with two decimals."""

    Weight: Percent
    Service: str
    ServiceSubset: str
    Namespace: str
    Partition: str
    RequestHeaders: HeaderModifiers
    ResponseHeaders: HeaderModifiers


class ServiceSplitter(Entry, total=False):
    """How the calls to a service are shared among subsets and other services."""

    Kind: Required[Literal["service-splitter"]]
    Splits: Annotated[list[Split], Limits(max_length=256)]


# -- resolver --------------------------------------------------------------------------------------


class Subset(TypedDict, total=False):
    """A part of a service's instances, by a filter over health entries."""

    Filter: Annotated[str, Limits(max_length=4096)]
    OnlyPassing: bool


class Redirect(TypedDict, total=False):
    """What is resolved in place of the service."""

    Service: str
    ServiceSubset: str
    Namespace: str
    Partition: str
    Datacenter: str
    Peer: str
    SamenessGroup: str


class FailoverTarget(TypedDict, total=False):
    """What is tried when a service has no healthy instance."""

    Service: str
    ServiceSubset: str
    Namespace: str
    Partition: str
    Datacenter: str
    Peer: str


class Failover(TypedDict, total=False):
    """Where calls go when a subset has no healthy instance."""

    Service: str
    ServiceSubset: str
    Namespace: str
    Datacenters: Annotated[list[Name], Limits(max_length=64)]
    Targets: Annotated[list[FailoverTarget], Limits(max_length=64)]
    Policy: FailoverPolicy
    SamenessGroup: str


class RingHashConfig(TypedDict, total=False):
    """Size of a hash ring."""

    MinimumRingSize: Count
    MaximumRingSize: Count


class LeastRequestConfig(TypedDict, total=False):
    """How many instances are drawn, of which the least busy one is taken."""

    ChoiceCount: Count


class CookieConfig(TypedDict, total=False):
    """A cookie that is made where a client brings none."""

    Session: bool
    TTL: Duration
    Path: str


class HashPolicy(TypedDict, total=False):
    """What of a request decides over its instance."""

    Field: Literal["", "header", "cookie", "query_parameter"]
    FieldValue: str
    CookieConfig: CookieConfig
    SourceIP: bool
    Terminal: bool


class LoadBalancer(TypedDict, total=False):
    """How an instance is chosen."""

    Policy: Literal["", "random", "round_robin", "least_request", "ring_hash", "maglev"]
    RingHashConfig: RingHashConfig
    LeastRequestConfig: LeastRequestConfig
    HashPolicies: Annotated[list[HashPolicy], Limits(max_length=64)]


class ServiceResolver(Entry, total=False):
    """Which instances stand for a service."""

    Kind: Required[Literal["service-resolver"]]
    DefaultSubset: str
    Subsets: Annotated[dict[str, Subset], Limits(max_length=256)]
    Redirect: Redirect
    Failover: Annotated[dict[str, Failover], Limits(max_length=256)]
    ConnectTimeout: Duration
    RequestTimeout: Duration
    LoadBalancer: LoadBalancer
    PrioritizeByLocality: PrioritizeByLocality


__all__ = [
    "Failover",
    "FailoverTarget",
    "HashPolicy",
    "LoadBalancer",
    "Pairs",
    "ProxyDefaults",
    "Redirect",
    "Route",
    "RouteDestination",
    "RouteHTTPMatch",
    "ServiceDefaults",
    "ServiceResolver",
    "ServiceRouter",
    "ServiceSplitter",
    "Split",
    "Subset",
    "UpstreamConfig",
]
