"""What the demo starts: names, addresses, commands, definitions. Pure but for the look at ports."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from raftreg.config import join_host_port
from raftreg.errors import ConfigurationError

HTTP_PORT_DEFAULT = 8500
#: Third byte of 127.0.x.y, in the order of trying.
BLOCKS = tuple(range(10, 251, 10))
SERVERS = 3
AGENTS = 3
_FIRST_AGENT_BYTE = 11


class Sample(msgspec.Struct, frozen=True):
    """A sample service: its name, port, tags, and whether it is checked by HTTP (else by TCP)."""

    name: str
    port: int
    tags: tuple[str, ...]
    http_check: bool = True


WEB = Sample("web", 8080, ("v1", "demo"))
API = Sample("api", 8081, ("demo",))
DB = Sample("db", 5432, ("primary",), http_check=False)
#: What runs on the hosts of agent-1, agent-2, agent-3.
PLACED = ((WEB, API), (WEB, API), (WEB, DB))


class Host(msgspec.Struct, frozen=True):
    """A pretended host: an address with a server or an agent.

    Attributes:
        name: Node name.
        address: Its loopback address.
        http_port, dns_port, raft_port: Its listeners; a plain agent has no Raft.
        samples: Sample services on it.
    """

    name: str
    address: str
    http_port: int
    dns_port: int
    raft_port: int = 0
    samples: tuple[Sample, ...] = ()

    @property
    def http(self) -> str:
        """host:port of its HTTP API."""
        return join_host_port(self.address, self.http_port)


class Plan(msgspec.Struct, frozen=True):
    """All hosts, and the directory with all files."""

    servers: tuple[Host, ...]
    agents: tuple[Host, ...]
    directory: Path

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Servers, then agents."""
        return (*self.servers, *self.agents)


def plan(directory: Path, block: int, base_port: int) -> Plan:
    """Lays out the demo on 127.0.`block`.y; DNS is 100 above HTTP, Raft 200 below."""
    ports = (base_port, base_port + 100)
    servers = tuple(
        Host(f"server-{i + 1}", f"127.0.{block}.{i + 1}", *ports, base_port - 200)
        for i in range(SERVERS)
    )
    agents = tuple(
        Host(
            f"agent-{i + 1}",
            f"127.0.{block}.{_FIRST_AGENT_BYTE + i}",
            *ports,
            samples=PLACED[i],
        )
        for i in range(AGENTS)
    )
    return Plan(servers, agents, directory)


def free_plan(directory: Path, base_port: int, blocks: Iterable[int] = BLOCKS) -> Plan:
    """The first layout whose addresses and ports are all free.

    Raises:
        ConfigurationError: None is; the text says what was busy.
    """
    problem = ""
    for block in blocks:
        candidate = plan(directory, block, base_port)
        found = busy(candidate)
        if found is None:
            return candidate
        problem = problem or found
    raise ConfigurationError(
        f"no free addresses for the demo: {problem}. Something may listen on all addresses of "
        "this host; stop it, or choose other ports with --base-port"
    )


def busy(candidate: Plan) -> str | None:
    """Tells which address or port is taken, None when all are free."""
    for host in candidate.hosts:
        tcp = [host.http_port, host.dns_port, *(sample.port for sample in host.samples)]
        if host.raft_port:
            tcp.append(host.raft_port)
        wanted = [(socket.SOCK_STREAM, port) for port in tcp]
        for kind, port in [*wanted, (socket.SOCK_DGRAM, host.dns_port)]:
            if (reason := _taken(host.address, port, kind)) is not None:
                return reason
    return None


def _taken(address: str, port: int, kind: socket.SocketKind) -> str | None:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            # As the listeners do: connections of an earlier run that still linger are no matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
            where = f"{address}:{port}/{protocol}"
            if error.errno == errno.EADDRINUSE:
                return f"{where} is in use"
            return f"{where} can't be used ({error.strerror})"
    return None


def server_command(layout: Plan, host: Host) -> list[str]:
    """The command line of a server."""
    joins = [
        part
        for server in layout.servers
        for part in ("--join", join_host_port(server.address, server.raft_port))
    ]
    return [
        *_raftreg("server", layout, host),
        *("--raft-port", str(host.raft_port)),
        *("--bootstrap-expect", str(len(layout.servers))),
        *("--encrypt-key-file", str(key_file(layout))),
        *joins,
    ]


def agent_command(layout: Plan, host: Host) -> list[str]:
    """The command line of an agent."""
    joins = [part for server in layout.servers for part in ("--join", server.http)]
    definitions = ("--config-dir", str(definitions_dir(layout, host)))
    return [*_raftreg("agent", layout, host), *definitions, *joins]


def _raftreg(kind: str, layout: Plan, host: Host) -> list[str]:
    return [
        *(sys.executable, "-m", "raftreg_cli.main", kind),
        *("--node", host.name, "--data-dir", str(layout.directory / host.name / "data")),
        *("--bind", host.address, "--client", host.address),
        *("--http-port", str(host.http_port), "--dns-port", str(host.dns_port)),
    ]


def sample_command(host: Host, sample: Sample) -> list[str]:
    """The command line of a sample service."""
    return [
        *(sys.executable, "-m", "raftreg_cli.demo.sample_service"),
        *("--name", sample.name, "--bind", host.address, "--port", str(sample.port)),
    ]


def key_file(layout: Plan) -> Path:
    """The key that the servers share."""
    return layout.directory / "encrypt.key"


def definitions_dir(layout: Plan, host: Host) -> Path:
    """Where an agent finds its service definitions."""
    return layout.directory / host.name / "definitions"


def service_definition(host: Host, sample: Sample) -> dict[str, Any]:
    """A definition file, as users write them."""
    target = join_host_port(host.address, sample.port)
    check = {"http": f"http://{target}/health"} if sample.http_check else {"tcp": target}
    return {
        "service": {
            "id": f"{sample.name}-{host.name.removeprefix('agent-')}",
            "name": sample.name,
            "tags": list(sample.tags),
            "port": sample.port,
            "meta": {"started-by": "raftreg demo"},
            "check": {**check, "interval": "1s", "timeout": "1s"},
        }
    }


def sample_counts(layout: Plan) -> dict[str, int]:
    """How many instances of each sample service there are to be."""
    counts: dict[str, int] = {}
    for host in layout.agents:
        for sample in host.samples:
            counts[sample.name] = counts.get(sample.name, 0) + 1
    return counts
