"""What entries of several kinds hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta as Limits

#: Marks text that is a duration: read as Go does, kept as Go writes it (`1m30s`).
DURATION = "duration"

Duration = Annotated[
    str,
    Limits(
        description="a duration in the form of Go: `10s`, `1m30s`, `500ms`; or nanoseconds",
        examples=["10s"],
        extra={DURATION: True},
        max_length=64,
    ),
]
Name = Annotated[str, Limits(min_length=1, max_length=1024)]
#: Values that only the reader of a proxy's configuration knows.
Opaque = dict[str, Any]
Pairs = dict[str, str]
Count = Annotated[int, Limits(ge=0, le=2**32 - 1)]
Port = Annotated[int, Limits(ge=0, le=65_535)]
HttpStatus = Annotated[int, Limits(ge=100, le=599)]
Percent = Annotated[float, Limits(ge=0, le=100)]
Method = Literal[
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"
]  # fmt: skip


class Entry(TypedDict, total=False):
    """What every entry may hold.

    `Namespace` and `Partition` can only say "default": there is one of each here, as in Consul's
    community edition.
    """

    Name: Name
    Namespace: str
    Partition: str
    Meta: Pairs


class MeshGateway(TypedDict, total=False):
    """How traffic leaves a datacenter."""

    Mode: Literal["", "none", "local", "remote"]


class TransparentProxy(TypedDict, total=False):
    """Redirection of all traffic of a host through its proxy."""

    OutboundListenerPort: Port
    DialedDirectly: bool


class ExposePath(TypedDict, total=False):
    """A path that is reachable through the proxy without mTLS."""

    ListenerPort: Port
    Path: str
    LocalPathPort: Port
    Protocol: Literal["", "http", "http2"]


class Expose(TypedDict, total=False):
    """What is reachable through the proxy without mTLS: checks, and single paths."""

    Checks: bool
    Paths: Annotated[list[ExposePath], Limits(max_length=256)]


class EnvoyExtension(TypedDict, total=False):
    """An extension of Envoy."""

    Name: str
    Required: bool
    Arguments: Opaque
    ConsulVersion: str
    EnvoyVersion: str


class HeaderModifiers(TypedDict, total=False):
    """Headers to add, set and remove."""

    Add: Pairs
    Set: Pairs
    Remove: Annotated[list[str], Limits(max_length=256)]


class HeaderMatch(TypedDict, total=False):
    """A condition on a header; exactly one of Present, Exact, Prefix, Suffix, Contains, Regex."""

    Name: str
    Present: bool
    Exact: str
    Prefix: str
    Suffix: str
    Contains: str
    Regex: str
    Invert: bool
    IgnoreCase: bool


class QueryMatch(TypedDict, total=False):
    """A condition on a parameter of the query; exactly one of Present, Exact, Regex."""

    Name: str
    Present: bool
    Exact: str
    Regex: str


class PassiveHealthCheck(TypedDict, total=False):
    """Outlier ejection: instances that fail are left out for a while."""

    Interval: Duration
    MaxFailures: Count
    EnforcingConsecutive5xx: Count
    MaxEjectionPercent: Count
    BaseEjectionTime: Duration


class UpstreamLimits(TypedDict, total=False):
    """Bounds of what is under way towards an upstream."""

    MaxConnections: Count
    MaxPendingRequests: Count
    MaxConcurrentRequests: Count


class CipherTLS(TypedDict, total=False):
    """TLS of a listener."""

    Enabled: bool
    TLSMinVersion: Literal["", "TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"]
    TLSMaxVersion: Literal["", "TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"]
    CipherSuites: list[str]


class TLSVersions(TypedDict, total=False):
    """Which versions of TLS are taken."""

    TLSMinVersion: Literal["", "TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"]
    TLSMaxVersion: Literal["", "TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"]
    CipherSuites: list[str]


class ResourceReference(TypedDict, total=False):
    """Another entry, by kind and name."""

    Kind: str
    Name: str
    SectionName: str
    Namespace: str
    Partition: str
