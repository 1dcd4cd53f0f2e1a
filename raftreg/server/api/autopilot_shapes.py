"""The JSON objects of /v1/operator/autopilot and /v1/operator/usage as types."""

from __future__ import annotations

from typing import Literal, TypedDict


class AutopilotBody(TypedDict, total=False):
    """Rules to set; what is left out gets its first value."""

    CleanupDeadServers: bool
    LastContactThreshold: str | int
    MaxTrailingLogs: int
    MinQuorum: int
    ServerStabilizationTime: str | int
    RedundancyZoneTag: str
    DisableUpgradeMigration: bool
    UpgradeVersionTag: str


class AutopilotJson(TypedDict):
    """The rules by which members are judged."""

    CleanupDeadServers: bool
    LastContactThreshold: str
    MaxTrailingLogs: int
    MinQuorum: int
    ServerStabilizationTime: str
    RedundancyZoneTag: str
    DisableUpgradeMigration: bool
    UpgradeVersionTag: str
    CreateIndex: int
    ModifyIndex: int


class AutopilotServerJson(TypedDict):
    """How a member is."""

    ID: str
    Name: str
    Address: str
    NodeStatus: str
    Version: str
    LastContact: str
    LastTerm: int
    LastIndex: int
    Healthy: bool
    ReadReplica: bool
    Status: Literal["leader", "voter", "non-voter"]
    Meta: dict[str, str]
    NodeType: str


class AutopilotStateJson(TypedDict):
    """How the members are, by their ids."""

    Healthy: bool
    FailureTolerance: int
    OptimisticFailureTolerance: int
    Servers: dict[str, AutopilotServerJson]
    Leader: str
    Voters: list[str]
    Upgrade: None


class ServiceUsageJson(TypedDict):
    """How much is registered in a datacenter."""

    Nodes: int
    Services: int
    ServiceInstances: int
    ConnectServiceInstances: dict[str, int]
    BillableServiceInstances: int


class UsageJson(TypedDict):
    """How much is registered."""

    Usage: dict[str, ServiceUsageJson]
    Index: int
    LastContact: int
    KnownLeader: bool
    ConsistencyLevel: str
    NotModified: bool
    Backend: int
    ResultsFilteredByACLs: bool
