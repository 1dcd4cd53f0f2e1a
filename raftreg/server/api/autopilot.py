"""/v1/operator/autopilot and /v1/operator/usage: how the members are, by which rules, and how much.

https://developer.hashicorp.com/consul/api-docs/operator/autopilot. The rules are one row of the
registry, so every server judges by the same ones. `LastContactThreshold` and `MaxTrailingLogs`
decide when a member counts as healthy. The others are kept and given back, and do nothing here: a
server that died is removed when one of its name takes its place, or by an operator; a new one votes
as soon as it has caught up; zones and upgrade migrations are not of Consul's open edition either.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import web

from raftreg.core.commands import ConfigSet
from raftreg.core.durations import format_duration
from raftreg.core.state import State
from raftreg.errors import InvalidRequest
from raftreg.http import json
from raftreg.http.discovery import options_of, query_of
from raftreg.http.fields import Fields
from raftreg.http.json import dumps
from raftreg.http.operation import DATACENTER, Flag, Param, Unsigned, operation
from raftreg.http.params import Consistency, ReadOptions, parse_uint
from raftreg.http.reply import FALSE, TRUE, Reply
from raftreg.http.shapes import ClusterHealthJson, ServerHealthJson
from raftreg.model import ConfigEntry
from raftreg.raft.api import PeerStatus, ReplicaStatus, Role, Server
from raftreg.server.api.autopilot_shapes import (
    AutopilotBody,
    AutopilotJson,
    AutopilotServerJson,
    AutopilotStateJson,
    ServiceUsageJson,
    UsageJson,
)
from raftreg.server.api.context import Context
from raftreg.server.api.status import leaders_status
from raftreg.version import build

#: The configuration entry that holds the rules, beside `identity.IDENTITY`.
RULES = ("raftreg-registry", "autopilot")
_CONFIGURATION = "/v1/operator/autopilot/configuration"
_NUMBER_MAX = 1 << 31

_READ = (
    DATACENTER,
    Param("stale", "as this server knows it, also without a leader", Flag),
    Param("pretty", "indent", Flag),
)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Consul's rules of autopilot; see the module for which of them do something.

    Attributes:
        last_contact_threshold_s: A server that the leader has not heard for longer is unhealthy.
        max_trailing_logs: One that lies further behind in the log too.
    """

    cleanup_dead_servers: bool = False
    last_contact_threshold_s: float = 0.2
    max_trailing_logs: int = 250
    min_quorum: int = 0
    server_stabilization_time_s: float = 0.0
    redundancy_zone_tag: str = ""
    disable_upgrade_migration: bool = True
    upgrade_version_tag: str = ""


DEFAULT_RULES = Rules()


class Autopilot:
    """The endpoints.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.get(_CONFIGURATION, self.rules),
            web.put(_CONFIGURATION, self.set_rules),
            web.get("/v1/operator/autopilot/health", self.health),
            web.get("/v1/operator/autopilot/state", self.state),
            web.get("/v1/operator/usage", self.usage),
        ]

    @operation(
        "Gives the rules by which members are judged",
        tag="operator",
        query=_READ,
        answer=AutopilotJson,
    )
    async def rules(self, request: web.Request) -> Reply:
        """The rules as they were set, or the first ones."""
        options = options_of(request, self._datacenter)
        await self._context.reads.ready(options)
        entry = self._state.config.get(RULES)
        return Reply(dumps(rules_json(rules_of(self._state), entry), pretty=options.pretty))

    @operation(
        "Sets the rules by which members are judged",
        tag="operator",
        about="`LastContactThreshold` and `MaxTrailingLogs` take effect; the others are kept.",
        query=(DATACENTER, Param("cas", "only if this is their ModifyIndex still", Unsigned)),
        body=AutopilotBody,
        answer=bool,
    )
    async def set_rules(self, request: web.Request) -> Reply:
        """Replaces all of them; what the body leaves out gets its first value."""
        options_of(request, self._datacenter)
        cas_text = query_of(request).get("cas")
        cas = None if cas_text is None else parse_uint(cas_text, "Error parsing cas value")
        rules = read_rules(json.loads(await request.read()))
        kind, name = RULES
        entry = ConfigEntry(kind=kind, name=name, body=msgspec.to_builtins(rules))
        outcome = await self._context.writes.run(request, ConfigSet(entry=entry, cas=cas))
        return Reply(TRUE if outcome.result else FALSE)

    @operation(
        "Tells how the members are",
        tag="operator",
        query=_READ,
        answer=ClusterHealthJson,
        also={429: ClusterHealthJson},
    )
    async def health(self, request: web.Request) -> Reply:
        """How each member stands; 429 when the cluster is not healthy, as in Consul."""
        options = options_of(request, self._datacenter)
        body = await self._health(options)
        return Reply(dumps(body, pretty=options.pretty), 200 if body["Healthy"] else 429)

    @operation(
        "Tells how the members are, by their ids",
        tag="operator",
        query=_READ,
        answer=AutopilotStateJson,
    )
    async def state(self, request: web.Request) -> Reply:
        """The same with who leads and who votes."""
        options = options_of(request, self._datacenter)
        health = await self._health(options)
        return Reply(dumps(state_json(health), pretty=options.pretty))

    @operation(
        "Counts hosts, services and instances",
        tag="operator",
        query=(*_READ, Param("global", "of all datacenters: this one", Flag)),
        answer=UsageJson,
    )
    async def usage(self, request: web.Request) -> Reply:
        """How much is registered."""
        options = options_of(request, self._datacenter)
        await self._context.reads.ready(options)
        body: UsageJson = {
            "Usage": {self._datacenter: usage_json(self._state)},
            "Index": self._state.index,
            "LastContact": 0,
            "KnownLeader": self._context.replica.status().leader_id is not None,
            "ConsistencyLevel": "stale" if _is_stale(options) else "leader",
            "NotModified": False,
            "Backend": 0,
            "ResultsFilteredByACLs": False,
        }
        return Reply(dumps(body, pretty=options.pretty))

    @property
    def _state(self) -> State:
        return self._context.machine.state

    async def _health(self, options: ReadOptions) -> ClusterHealthJson:
        status = await leaders_status(self._context.replica, options)
        return health_json(status, rules_of(self._state))


def _is_stale(options: ReadOptions) -> bool:
    return options.consistency is Consistency.STALE


# -- rules -----------------------------------------------------------------------------------------


def rules_of(state: State) -> Rules:
    """The rules in force."""
    entry = state.config.get(RULES)
    if entry is None:
        return DEFAULT_RULES
    try:
        return msgspec.convert(entry.body, Rules)
    except msgspec.ValidationError:  # of another version: what it means is not known here
        return DEFAULT_RULES


def read_rules(obj: object) -> Rules:
    """Reads the body of a change.

    Raises:
        InvalidRequest: A field has the wrong type, or is out of range.
    """
    fields, first = Fields(obj), DEFAULT_RULES
    rules = Rules(
        cleanup_dead_servers=fields.boolean(
            "CleanupDeadServers", default=first.cleanup_dead_servers
        ),
        last_contact_threshold_s=fields.duration_s(
            "LastContactThreshold", default=first.last_contact_threshold_s
        ),
        max_trailing_logs=fields.integer("MaxTrailingLogs", default=first.max_trailing_logs, low=0),
        min_quorum=fields.integer("MinQuorum", low=0),
        server_stabilization_time_s=fields.duration_s("ServerStabilizationTime"),
        redundancy_zone_tag=fields.text("RedundancyZoneTag"),
        disable_upgrade_migration=fields.boolean(
            "DisableUpgradeMigration", default=first.disable_upgrade_migration
        ),
        upgrade_version_tag=fields.text("UpgradeVersionTag"),
    )
    for what, value in (
        ("LastContactThreshold", rules.last_contact_threshold_s),
        ("ServerStabilizationTime", rules.server_stabilization_time_s),
    ):
        if value < 0:
            raise InvalidRequest(f"Error parsing autopilot config: {what} must not be negative")
    for what, number in (
        ("MaxTrailingLogs", rules.max_trailing_logs),
        ("MinQuorum", rules.min_quorum),
    ):
        if number > _NUMBER_MAX:
            raise InvalidRequest(f"Error parsing autopilot config: {what} is out of range")
    return rules


def rules_json(rules: Rules, entry: ConfigEntry | None) -> AutopilotJson:
    """The rules as clients read them."""
    return {
        "CleanupDeadServers": rules.cleanup_dead_servers,
        "LastContactThreshold": format_duration(rules.last_contact_threshold_s),
        "MaxTrailingLogs": rules.max_trailing_logs,
        "MinQuorum": rules.min_quorum,
        "ServerStabilizationTime": format_duration(rules.server_stabilization_time_s),
        "RedundancyZoneTag": rules.redundancy_zone_tag,
        "DisableUpgradeMigration": rules.disable_upgrade_migration,
        "UpgradeVersionTag": rules.upgrade_version_tag,
        "CreateIndex": 0 if entry is None else entry.create_index,
        "ModifyIndex": 0 if entry is None else entry.modify_index,
    }


# -- health ----------------------------------------------------------------------------------------


def health_json(status: ReplicaStatus, rules: Rules = DEFAULT_RULES) -> ClusterHealthJson:
    """Autopilot's health: each member's, the cluster's, and how many may fail."""
    servers = [_health_of(server, status, rules) for server in status.servers]
    voters = [entry for entry in servers if entry["Voter"]]
    healthy = sum(1 for entry in voters if entry["Healthy"])
    quorum = len(voters) // 2 + 1
    return {
        "Healthy": bool(servers) and all(entry["Healthy"] for entry in servers),
        "FailureTolerance": max(healthy - quorum, 0),
        "Servers": servers,
    }


def _health_of(server: Server, status: ReplicaStatus, rules: Rules) -> ServerHealthJson:
    is_self = server.id == status.id
    peer = status.peers.get(server.id)
    contact_s = 0.0 if is_self else _contact_s(peer)
    last_index = status.last_log_index if is_self else (peer.match_index if peer else 0)
    trailing = status.last_log_index - last_index
    healthy = is_self or (
        peer is not None
        and peer.connected
        and contact_s is not None
        and contact_s <= rules.last_contact_threshold_s
        and trailing <= rules.max_trailing_logs
    )
    return {
        "ID": server.id,
        "Name": server.name,
        "Address": server.address,
        "SerfStatus": "alive" if is_self or (peer and peer.connected) else "failed",
        "Version": build(),
        "Leader": server.id == status.leader_id and status.role is Role.LEADER,
        "LastContact": "never" if contact_s is None else f"{contact_s * 1000:.3f}ms",
        "LastTerm": status.term,
        "LastIndex": last_index,
        "Healthy": healthy,
        "Voter": server.voter,
    }


def _contact_s(peer: PeerStatus | None) -> float | None:
    return None if peer is None else peer.contact_age_s


def state_json(health: ClusterHealthJson) -> AutopilotStateJson:
    """The same health in the form of /v1/operator/autopilot/state."""
    servers = {entry["ID"]: _server_json(entry) for entry in health["Servers"]}
    leader = next((id_ for id_, entry in servers.items() if entry["Status"] == "leader"), "")
    return {
        "Healthy": health["Healthy"],
        "FailureTolerance": health["FailureTolerance"],
        "OptimisticFailureTolerance": health["FailureTolerance"],
        "Servers": servers,
        "Leader": leader,
        "Voters": [entry["ID"] for entry in health["Servers"] if entry["Voter"]],
        "Upgrade": None,
    }


def _server_json(entry: ServerHealthJson) -> AutopilotServerJson:
    standing: Literal["leader", "voter", "non-voter"] = "voter" if entry["Voter"] else "non-voter"
    if entry["Leader"]:
        standing = "leader"
    return {
        "ID": entry["ID"],
        "Name": entry["Name"],
        "Address": entry["Address"],
        "NodeStatus": entry["SerfStatus"],
        "Version": entry["Version"],
        "LastContact": entry["LastContact"],
        "LastTerm": entry["LastTerm"],
        "LastIndex": entry["LastIndex"],
        "Healthy": entry["Healthy"],
        "ReadReplica": False,
        "Status": standing,
        "Meta": {},
        "NodeType": "voter",
    }


# -- usage -----------------------------------------------------------------------------------------

_PROXY_KINDS = (
    "connect-proxy",
    "ingress-gateway",
    "mesh-gateway",
    "terminating-gateway",
    "api-gateway",
)


def usage_json(state: State) -> ServiceUsageJson:
    """How many hosts, names and instances there are, and how many of those are of the mesh."""
    rows = state.catalog.all_services()
    by_kind = dict.fromkeys(("connect-native", *_PROXY_KINDS), 0)
    for row in rows:
        if row.kind in by_kind:
            by_kind[row.kind] += 1
        if row.connect.get("Native") is True:
            by_kind["connect-native"] += 1
    billable = sum(not row.kind and row.name != "consul" for row in rows)
    return {
        "Nodes": len(state.catalog.nodes),
        "Services": sum(1 for _ in state.catalog.service_names()),
        "ServiceInstances": len(rows),
        "ConnectServiceInstances": by_kind,
        "BillableServiceInstances": billable,
    }
