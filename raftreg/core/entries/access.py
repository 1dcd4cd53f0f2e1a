"""Kinds that say who may call whom, and settings of the mesh as a whole."""

from __future__ import annotations

from typing import Annotated, Literal, Required, TypedDict

from msgspec import Meta as Limits

from raftreg.core.entries.common import (
    Count,
    Duration,
    Entry,
    HeaderMatch,
    Opaque,
    Pairs,
    TLSVersions,
)

Action = Literal["", "allow", "deny"]


class ClaimVerification(TypedDict, total=False):
    """A claim that a token must hold."""

    Path: list[str]
    Value: str


class JWTRequirementProvider(TypedDict, total=False):
    """Whose tokens are taken."""

    Name: str
    VerifyClaims: list[ClaimVerification]


class JWTRequirement(TypedDict, total=False):
    """Tokens that requests must bring."""

    Providers: Annotated[list[JWTRequirementProvider], Limits(max_length=64)]


class HTTPPermission(TypedDict, total=False):
    """Conditions on a request; all of them must hold, and one kind of path at most."""

    PathExact: str
    PathPrefix: str
    PathRegex: str
    Header: Annotated[list[HeaderMatch], Limits(max_length=256)]
    Methods: list[str]


class Permission(TypedDict, total=False):
    """What a source may or may not do."""

    Action: Action
    HTTP: HTTPPermission
    JWT: JWTRequirement


class SourceIntention(TypedDict, total=False):
    """Whether one source may call: by `Action`, or request by request by `Permissions`.

    `Precedence` and the `Legacy…` fields are written by the registry.
    """

    Name: str
    Namespace: str
    Partition: str
    Peer: str
    SamenessGroup: str
    Action: Action
    Permissions: Annotated[list[Permission], Limits(max_length=1024)]
    Precedence: Count
    Type: Literal["", "consul"]
    Description: Annotated[str, Limits(max_length=512)]
    LegacyID: str
    LegacyMeta: Pairs
    LegacyCreateTime: str
    LegacyUpdateTime: str


class ServiceIntentions(Entry, total=False):
    """Who may call a service; the name "*" stands for all services."""

    Kind: Required[Literal["service-intentions"]]
    Sources: Annotated[list[SourceIntention], Limits(max_length=4096)]
    JWT: JWTRequirement


class MeshTransparentProxy(TypedDict, total=False):
    """What proxies do with calls to what is no service."""

    MeshDestinationsOnly: bool


class MeshDirectionalTLS(TypedDict, total=False):
    """TLS of the mesh by direction."""

    Incoming: TLSVersions
    Outgoing: TLSVersions


class MeshSanitizedHeader(TypedDict, total=False):
    """What is done about `X-Forwarded-Client-Cert`."""

    SanitizeXForwardedClientCert: bool
    Incoming: Opaque


class MeshPeering(TypedDict, total=False):
    """Peering through mesh gateways."""

    PeerThroughMeshGateways: bool


class Mesh(Entry, total=False):
    """Settings of the whole mesh; its name is "mesh"."""

    Kind: Required[Literal["mesh"]]
    TransparentProxy: MeshTransparentProxy
    AllowEnablingPermissiveMutualTLS: bool
    ValidateClusters: bool
    TLS: MeshDirectionalTLS
    HTTP: MeshSanitizedHeader
    Peering: MeshPeering


class ServiceConsumer(TypedDict, total=False):
    """Who may import a service."""

    Partition: str
    Peer: str
    SamenessGroup: str


class ExportedService(TypedDict, total=False):
    """A service that others may import."""

    Name: str
    Namespace: str
    Consumers: Annotated[list[ServiceConsumer], Limits(max_length=256)]


class ExportedServices(Entry, total=False):
    """Services that others may import; its name is "default"."""

    Kind: Required[Literal["exported-services"]]
    Services: Annotated[list[ExportedService], Limits(max_length=4096)]


class SamenessMember(TypedDict, total=False):
    """A member of a sameness group."""

    Partition: str
    Peer: str


class SamenessGroup(Entry, total=False):
    """Places whose services of one name are the same."""

    Kind: Required[Literal["sameness-group"]]
    DefaultForFailover: bool
    IncludeLocal: bool
    Members: Annotated[list[SamenessMember], Limits(max_length=256)]


class LocalKeySet(TypedDict, total=False):
    """Keys that are given in place."""

    JWKS: str
    Filename: str


class RemoteKeySet(TypedDict, total=False):
    """Keys that are fetched."""

    URI: str
    RequestTimeoutMs: Count
    CacheDuration: Duration
    FetchAsynchronously: bool
    RetryPolicy: Opaque
    JWKSCluster: Opaque


class JSONWebKeySet(TypedDict, total=False):
    """Keys that sign tokens: in place or remote, one of both."""

    Local: LocalKeySet
    Remote: RemoteKeySet


class TokenHeader(TypedDict, total=False):
    """A header that holds a token."""

    Name: str
    ValuePrefix: str
    Forward: bool


class TokenQueryParam(TypedDict, total=False):
    """A parameter of the query that holds a token."""

    Name: str


class TokenCookie(TypedDict, total=False):
    """A cookie that holds a token."""

    Name: str


class TokenLocation(TypedDict, total=False):
    """Where a token is looked for; exactly one of them."""

    Header: TokenHeader
    QueryParam: TokenQueryParam
    Cookie: TokenCookie


class TokenForwarding(TypedDict, total=False):
    """How a verified token travels on."""

    HeaderName: str
    PadForwardPayloadHeader: bool


class TokenCache(TypedDict, total=False):
    """How many verified tokens are remembered."""

    Size: Count


class JWTProvider(Entry, total=False):
    """Whose tokens are taken, and how they are verified."""

    Kind: Required[Literal["jwt-provider"]]
    JSONWebKeySet: JSONWebKeySet
    Issuer: str
    Audiences: list[str]
    Locations: Annotated[list[TokenLocation], Limits(max_length=64)]
    Forwarding: TokenForwarding
    ClockSkewSeconds: Count
    CacheConfig: TokenCache


class RequestRates(TypedDict, total=False):
    """Reads and writes a second."""

    ReadRate: float
    WriteRate: float


class ControlPlaneRequestLimit(Entry, total=False):
    """Limits on the requests that servers take."""

    Kind: Required[Literal["control-plane-request-limit"]]
    Mode: Literal["permissive", "enforcing", "disabled"]
    ReadRate: float
    WriteRate: float
    ACL: RequestRates
    Catalog: RequestRates
    ConfigEntry: RequestRates
    ConnectCA: RequestRates
    Coordinate: RequestRates
    DiscoveryChain: RequestRates
    Health: RequestRates
    Intention: RequestRates
    KV: RequestRates
    Tenancy: RequestRates
    PreparedQuery: RequestRates
    Session: RequestRates
    Txn: RequestRates
