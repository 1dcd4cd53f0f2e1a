"""The JSON objects of the API as types: what `raftreg.http.render` gives, and what bodies may hold.

Names are those of Consul's API (https://developer.hashicorp.com/consul/api-docs). The OpenAPI
document is made from them, and mypy holds the code that builds answers to them.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

StatusName = Literal["passing", "warning", "critical"]
Meta = dict[str, str]


class WeightsJson(TypedDict):
    """How much traffic an instance takes, by its health."""

    Passing: int
    Warning: int


class ServiceAddressJson(TypedDict):
    """An address of an instance under a tag, such as `lan` or `virtual`."""

    Address: str
    Port: int


class KVJson(TypedDict):
    """A key; `Value` is base64, `Session` there only while it is locked, `TTL` if it has one."""

    LockIndex: int
    Key: str
    Flags: int
    Value: str | None
    CreateIndex: int
    ModifyIndex: int
    Session: NotRequired[str]
    TTL: NotRequired[str]


class NodeJson(TypedDict):
    """A host."""

    ID: str
    Node: str
    Address: str
    Datacenter: str
    TaggedAddresses: Meta | None
    Meta: Meta | None
    CreateIndex: int
    ModifyIndex: int


class NodeServiceJson(TypedDict):
    """An instance, as health entries and /v1/catalog/node have it."""

    Kind: NotRequired[str]
    ID: str
    Service: str
    Tags: list[str]
    Address: str
    Meta: Meta | None
    Port: int
    Weights: WeightsJson
    EnableTagOverride: bool
    Proxy: dict[str, Any]
    Connect: dict[str, Any]
    CreateIndex: int
    ModifyIndex: int
    TaggedAddresses: NotRequired[dict[str, ServiceAddressJson]]


class CatalogServiceJson(TypedDict):
    """An instance with its node, as /v1/catalog/service has it."""

    ID: str
    Node: str
    Address: str
    Datacenter: str
    TaggedAddresses: Meta | None
    NodeMeta: Meta | None
    ServiceKind: str
    ServiceID: str
    ServiceName: str
    ServiceTags: list[str]
    ServiceAddress: str
    ServiceWeights: WeightsJson
    ServiceMeta: Meta
    ServicePort: int
    ServiceEnableTagOverride: bool
    ServiceProxy: dict[str, Any]
    ServiceConnect: dict[str, Any]
    CreateIndex: int
    ModifyIndex: int
    ServiceTaggedAddresses: NotRequired[dict[str, ServiceAddressJson]]


class CheckJson(TypedDict):
    """A check."""

    Node: str
    CheckID: str
    Name: str
    Status: StatusName
    Notes: str
    Output: str
    ServiceID: str
    ServiceName: str
    ServiceTags: list[str]
    Type: str
    Definition: dict[str, Any]
    CreateIndex: int
    ModifyIndex: int


class HealthEntryJson(TypedDict):
    """An instance, its node, and the checks of both."""

    Node: NodeJson
    Service: NodeServiceJson
    Checks: list[CheckJson]


class CatalogNodeJson(TypedDict):
    """A node with its instances by id."""

    Node: NodeJson
    Services: dict[str, NodeServiceJson]


class NodeServicesJson(TypedDict):
    """A node with its instances as a list."""

    Node: NodeJson
    Services: list[NodeServiceJson]


class AgentServiceJson(TypedDict):
    """An instance as its own agent tells of it."""

    Kind: NotRequired[str]
    ID: str
    Service: str
    Tags: list[str]
    Meta: Meta
    Port: int
    Address: str
    Weights: WeightsJson
    EnableTagOverride: bool
    TaggedAddresses: NotRequired[dict[str, ServiceAddressJson]]
    Proxy: NotRequired[dict[str, Any]]
    Connect: NotRequired[dict[str, Any]]
    Datacenter: NotRequired[str]


class AgentServiceHashJson(AgentServiceJson):
    """One instance, with the hash of its content to wait for the next one."""

    ContentHash: str


class AgentHealthJson(TypedDict):
    """How one instance of this agent is."""

    AggregatedStatus: Literal["passing", "warning", "critical", "maintenance"]
    Service: AgentServiceJson | None
    Checks: list[CheckJson] | None


class ServiceCheckJson(TypedDict):
    """A check that a session depends on."""

    ID: str
    Namespace: str


class SessionJson(TypedDict):
    """A session; `LockDelay` is in nanoseconds."""

    ID: str
    Name: str
    Node: str
    LockDelay: int
    Behavior: Literal["release", "delete"]
    TTL: str
    NodeChecks: list[str] | None
    ServiceChecks: list[ServiceCheckJson] | None
    CreateIndex: int
    ModifyIndex: int


class IdJson(TypedDict):
    """The id of what was made."""

    ID: str


class TxnErrorJson(TypedDict):
    """Why an operation of a transaction was refused."""

    OpIndex: int
    What: str


class TxnItemJson(TypedDict, total=False):
    """What one operation of a transaction gave."""

    KV: KVJson
    Node: NodeJson
    Service: NodeServiceJson
    Check: CheckJson | None


class TxnJson(TypedDict):
    """What a transaction did."""

    Results: list[TxnItemJson] | None
    Errors: list[TxnErrorJson] | None


class RaftServerJson(TypedDict):
    """A member of the cluster."""

    ID: str
    Node: str
    Address: str
    Leader: bool
    ProtocolVersion: str
    Voter: bool


class RaftConfigurationJson(TypedDict):
    """The members, as of an index of the log."""

    Servers: list[RaftServerJson]
    Index: int


class TransferJson(TypedDict):
    """Who leads now."""

    Success: bool
    Leader: str


class ServerHealthJson(TypedDict):
    """How a member is."""

    ID: str
    Name: str
    Address: str
    SerfStatus: str
    Version: str
    Leader: bool
    LastContact: str
    LastTerm: int
    LastIndex: int
    Healthy: bool
    Voter: bool


class ClusterHealthJson(TypedDict):
    """How the members are, and how many may fail."""

    Healthy: bool
    FailureTolerance: int
    Servers: list[ServerHealthJson]
