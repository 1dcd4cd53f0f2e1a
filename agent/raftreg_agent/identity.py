"""Parts of /v1/agent/self that tools read besides name, id and version.

https://developer.hashicorp.com/consul/api-docs/agent#read-configuration: `DebugConfig` and `Stats`
have no stable form there; here are the fields that clients look for, as far as they mean something.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from raftreg.config import AgentSettings
from raftreg.model import Node
from raftreg.version import build
from raftreg_agent.members import FAILED

BUILD_DATE = "1970-01-01T00:00:01Z"  #: what Consul's own builds say when nobody told them

Stats = dict[str, dict[str, str]]


def debug_config(settings: AgentSettings, node: Node) -> dict[str, Any]:
    """The settings in force."""
    return {
        "ACLsEnabled": False,
        "AdvertiseAddrLAN": node.address,
        "BindAddr": settings.bind,
        "ClientAddrs": [settings.client],
        "DNSDomain": settings.dns.domain,
        "DNSPort": settings.dns_port,
        "Datacenter": settings.datacenter,
        "EnableLocalScriptChecks": settings.enable_script_checks,
        "EnableRemoteScriptChecks": settings.enable_script_checks,
        "GRPCPort": -1,
        "HTTPPort": settings.http_port,
        "NodeID": node.id,
        "NodeName": node.name,
        "PrimaryDatacenter": settings.datacenter,
        "ServerMode": settings.server,
        "ServerPort": settings.raft_port,
        "Version": build(),
    }


def program_stats() -> Stats:
    """The groups `build` and `runtime` of `Stats`."""
    return {
        "build": {"prerelease": "", "revision": "", "version": build()},
        "runtime": {
            "arch": platform.machine(),
            "cpu_count": str(os.cpu_count() or 1),
            "os": platform.system().lower(),
            "version": f"python{platform.python_version()}",
        },
    }


def member_stats(members: Iterable[Mapping[str, Any]]) -> Stats:
    """The groups `serf_lan` (members by whether their lease holds; there is no gossip) and, of an
    agent that is no server, `consul`.
    """
    rows = list(members)
    statuses = Counter(row["Status"] for row in rows)
    servers = sum(row["Tags"]["role"] == "consul" for row in rows)
    return {
        "consul": {"server": "false", "known_servers": str(servers)},
        "serf_lan": {
            "encrypted": "false",
            "failed": str(statuses[FAILED]),
            "left": "0",
            "members": str(sum(statuses.values())),
        },
    }
