"""Consul beside us: the same topology, its defaults but for what a benchmark would stumble over."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from bench.failure import BenchFailure
from raftreg_cli.demo.plan import Host, Plan

VERSION_S_MAX = 20.0
#: Its default of 200 would refuse the watchers.
CONNECTIONS_MAX = 20_000
_SERF_PORT = 8301


class Consul:
    """A Consul binary.

    Args:
        binary: Its path.
        version: What `consul version` says first, such as "Consul v1.8.7".
    """

    def __init__(self, binary: Path, version: str) -> None:
        self._binary = binary
        self.name = version

    def write_files(self, layout: Plan) -> None:
        """Writes a configuration for each host: ports have no flags of their own in all versions.

        `raft_multiplier` 1 is what its documentation recommends for production; the default is
        five times slower to notice a lost leader. Data is synced to disk, as by default.
        """
        for host in layout.hosts:
            server = bool(host.raft_port)
            ports = {"http": host.http_port, "dns": host.dns_port, "serf_lan": _SERF_PORT}
            if server:
                ports |= {"server": host.raft_port, "serf_wan": -1}
            text = msgspec.json.encode(
                {
                    "ports": ports,
                    "performance": {"raft_multiplier": 1},
                    "limits": {"http_max_conns_per_client": CONNECTIONS_MAX},
                    "disable_update_check": True,
                }
            )
            target = _configuration(layout, host)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(msgspec.json.format(text, indent=2))

    def server_command(self, layout: Plan, host: Host) -> list[str]:
        """`consul agent -server …`."""
        return [
            *self._agent(layout, host),
            "-server",
            f"-bootstrap-expect={len(layout.servers)}",
        ]

    def agent_command(self, layout: Plan, host: Host) -> list[str]:
        """`consul agent …`."""
        return self._agent(layout, host)

    def _agent(self, layout: Plan, host: Host) -> list[str]:
        return [
            *(str(self._binary), "agent"),
            f"-node={host.name}",
            f"-data-dir={layout.directory / host.name / 'data'}",
            f"-config-file={_configuration(layout, host)}",
            f"-bind={host.address}",
            f"-client={host.address}",
            *(f"-retry-join={server.address}:{_SERF_PORT}" for server in layout.servers),
            *("-retry-interval=1s", "-log-level=warn"),
        ]


def _configuration(layout: Plan, host: Host) -> Path:
    return layout.directory / host.name / "consul.json"


def find(wanted: Path | None) -> Consul:
    """The Consul to compare with.

    Args:
        wanted: Path of the binary; None: the one on the search path.

    Raises:
        BenchFailure: There is none, or it does not run; the text says so.
    """
    if wanted is None:
        found = shutil.which("consul")
        if found is None:
            raise BenchFailure("no Consul is installed here")
        wanted = Path(found)
    if not wanted.is_file() or not os.access(wanted, os.X_OK):
        raise BenchFailure(f"{wanted} is no program")
    return Consul(wanted.resolve(), _version(wanted))


def _version(binary: Path) -> str:
    try:
        told = subprocess.run(
            [binary, "version"], capture_output=True, timeout=VERSION_S_MAX, check=True, text=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchFailure(f"{binary} version: {error}") from error
    first = told.stdout.strip().partition("\n")[0]
    if not first.startswith("Consul"):
        raise BenchFailure(f"{binary} is no Consul: its version is {first[:80]!r}")
    return first
