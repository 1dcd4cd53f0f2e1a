"""The JSON bodies that requests may hold, as types: for the OpenAPI document.

What reads them is `raftreg.http.decode`, `rows` and the handlers, which take names in any letter
case and in snake case, and say what is wrong; a test sends what these types allow.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required, TypedDict

from msgspec import Meta as Limit

from raftreg.http.operation import Duration, Unsigned
from raftreg.http.shapes import StatusName

Name = Annotated[str, Limit(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:/-]+$")]
Port = Annotated[int, Limit(ge=0, le=65_535)]
Weight = Annotated[int, Limit(ge=1, le=65_535)]
MetaKey = Annotated[str, Limit(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_-]+$")]
MetaValue = Annotated[str, Limit(max_length=512)]
MetaMap = Annotated[dict[MetaKey, MetaValue], Limit(max_length=64)]
Host = Annotated[str, Limit(max_length=253, pattern=r"^[A-Za-z0-9.:-]*$")]
Tag = Annotated[str, Limit(max_length=255)]
Text = Annotated[str, Limit(max_length=4096)]
Base64 = Annotated[
    str, Limit(pattern=r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")
]
Count = Annotated[int, Limit(ge=0, le=1000)]


class WeightsBody(TypedDict, total=False):
    """How much traffic an instance takes: at least 1 while passing."""

    Passing: Weight
    Warning: Port


class AddressBody(TypedDict, total=False):
    """An address under a tag."""

    Address: Host
    Port: Port


class InstanceBody(TypedDict, total=False):
    """An instance, but for its name, which is called differently."""

    ID: Name
    Tags: list[Tag]
    Address: Host
    TaggedAddresses: dict[str, AddressBody]
    Port: Port
    Meta: MetaMap
    Weights: WeightsBody
    EnableTagOverride: bool
    Kind: str
    Proxy: dict[str, Any]
    Connect: dict[str, Any]


class CatalogServiceBody(InstanceBody, total=False):
    """An instance, as the catalog takes it."""

    Service: Required[Name]


class CatalogCheckBody(TypedDict, total=False):
    """A check, as the catalog takes it; critical by default."""

    Node: Name
    CheckID: Name
    Name: Required[Name]
    Status: StatusName
    Notes: Text
    Output: Text
    ServiceID: Name
    Definition: dict[str, Any]


class CatalogRegistrationBody(TypedDict, total=False):
    """A node, and with it an instance and checks."""

    ID: str
    Node: Required[Name]
    Address: Required[Host]
    Datacenter: str
    TaggedAddresses: dict[str, str]
    NodeMeta: MetaMap
    Service: CatalogServiceBody
    Check: CatalogCheckBody
    Checks: list[CatalogCheckBody]
    SkipNodeUpdate: bool


class CatalogDeregistrationBody(TypedDict, total=False):
    """What goes: an instance, a check, or (neither named) the node with all it has."""

    Node: Required[Name]
    Datacenter: str
    ServiceID: str
    CheckID: str


class CheckBody(TypedDict, total=False):
    """A check that an agent runs: exactly one of HTTP, TCP, UDP, GRPC, Args, Alias*, or a TTL."""

    CheckID: Name
    ID: Name
    Name: Name
    ServiceID: str
    Status: StatusName
    Notes: Text
    HTTP: str
    Method: str
    Header: dict[str, list[str]]
    Body: str
    TCP: str
    UDP: str
    GRPC: str
    GRPCUseTLS: bool
    Args: list[str]
    AliasNode: str
    AliasService: str
    Interval: Duration
    Timeout: Duration
    TTL: Duration
    SuccessBeforePassing: Count
    FailuresBeforeWarning: Count
    FailuresBeforeCritical: Count
    DeregisterCriticalServiceAfter: Duration
    TLSSkipVerify: bool
    TLSServerName: str
    OutputMaxSize: Count


class ServiceBody(InstanceBody, total=False):
    """An instance, as an agent takes it."""

    Name: Required[Name]
    Check: CheckBody
    Checks: list[CheckBody]
    Token: str


class CheckUpdateBody(TypedDict, total=False):
    """The word of a TTL check's owner."""

    Status: Required[StatusName]
    Output: Text


class SessionBody(TypedDict, total=False):
    """A session; all by default: the node that was asked, its liveness, `release`, no TTL."""

    Name: str
    Node: str
    LockDelay: Duration
    Behavior: Literal["release", "delete"]
    TTL: Annotated[str, Limit(pattern=r"^[1-9][0-9]s$")]
    Checks: list[str]
    NodeChecks: list[str]


class KVOperationBody(TypedDict, total=False):
    """An operation on a key."""

    Verb: Required[
        Literal[
            "set",
            "cas",
            "lock",
            "unlock",
            "get",
            "get-tree",
            "check-index",
            "check-session",
            "check-not-exists",
            "delete",
            "delete-tree",
            "delete-cas",
        ]
    ]
    Key: Required[Annotated[str, Limit(min_length=1, max_length=1024)]]
    Value: Base64
    Flags: Unsigned
    Index: Unsigned
    Session: str


CatalogVerbName = Literal["set", "cas", "get", "delete", "delete-cas"]


class NodeOperationBody(TypedDict):
    """An operation on a node."""

    Verb: CatalogVerbName
    Node: dict[str, Any]


class ServiceOperationBody(TypedDict):
    """An operation on an instance."""

    Verb: CatalogVerbName
    Node: Name
    Service: dict[str, Any]


class CheckOperationBody(TypedDict):
    """An operation on a check."""

    Verb: CatalogVerbName
    Check: dict[str, Any]


class TxnOperationBody(TypedDict, total=False):
    """One operation: exactly one of the four."""

    KV: KVOperationBody
    Node: NodeOperationBody
    Service: ServiceOperationBody
    Check: CheckOperationBody


TxnBody = Annotated[list[TxnOperationBody], Limit(max_length=64)]
