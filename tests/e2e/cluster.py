"""A cluster of real processes: servers and agents by name, each on an address of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from raftreg_cli import leash
from tests.e2e.ground import Ground

RAFT_PORT, HTTP_PORT, DNS_PORT = 8300, 8500, 8600
_STOP_S_MAX = 20.0
_TAIL_BYTES = 6000


class Member:
    """One host of a cluster: a server or an agent, running or not.

    Args:
        name: Its node name.
        kind: "server" or "agent".
        address: Its loopback address.
        directory: Its files.
    """

    def __init__(self, name: str, kind: str, address: str, directory: Path) -> None:
        self.name = name
        self.kind = kind
        self.address = address
        self.directory = directory
        self.flags: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data_dir(self) -> Path:
        """What it keeps over a restart."""
        return self.directory / "data"

    @property
    def definitions(self) -> Path:
        """Where an agent finds its service definitions."""
        return self.directory / "definitions"

    @property
    def url(self) -> str:
        """Its HTTP API."""
        return f"http://{self.address}:{HTTP_PORT}"

    @property
    def raft_address(self) -> str:
        """host:port of a server as its peers know it."""
        return f"{self.address}:{RAFT_PORT}"

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id; only while it runs.

        Raises:
            RuntimeError: It does not run.
        """
        if self._process is None or not self.running:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    def start(self, command: Sequence[str]) -> None:
        """Starts the process; it ends when this process does."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.definitions.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                leash.command([*command, *self.flags]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=clean_environment(),
            )

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if it runs."""
        if self._process is not None and self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it with SIGKILL: it gets no chance to say or write anything."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    async def stop(self) -> int:
        """Ends it with SIGTERM; gives its exit code.

        Raises:
            subprocess.TimeoutExpired: It does not end.
        """
        self.send(signal.SIGTERM)
        if self._process is None:
            return 0
        return await asyncio.to_thread(self._process.wait, _STOP_S_MAX)

    @property
    def log(self) -> Path:
        """Everything that it wrote, over all its starts."""
        return self.directory / "log"

    def log_tail(self) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(nothing)"
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")


class Cluster:
    """Servers and agents of one test, or of many that leave it as they found it.

    Args:
        ground: Gives addresses.
        directory: Holds all files.
        servers: How many servers.
        agents: How many agents.
        name: Begins the names of the hosts, so that two clusters can be told apart in logs.
    """

    def __init__(
        self, ground: Ground, directory: Path, *, servers: int = 3, agents: int = 2, name: str = ""
    ) -> None:
        self._ground = ground
        self._directory = directory
        net = ground.net()
        self.servers = [
            Member(f"{name}server-{i}", "server", f"{net}.{i}", directory / f"server-{i}")
            for i in range(1, servers + 1)
        ]
        self.agents = [
            Member(f"{name}agent-{i}", "agent", f"{net}.{10 + i}", directory / f"agent-{i}")
            for i in range(1, agents + 1)
        ]

    @property
    def members(self) -> list[Member]:
        """Servers, then agents."""
        return [*self.servers, *self.agents]

    def member(self, name: str) -> Member:
        """The host of this name."""
        return next(member for member in self.members if member.name == name)

    def start(self, members: Iterable[Member] | None = None) -> None:
        """Starts what does not run, of all or of the members given."""
        for member in self.members if members is None else members:
            if not member.running:
                member.start(self._command(member))

    def kill(self, members: Iterable[Member] | None = None) -> None:
        """Sends SIGKILL to all at once, then waits for their ends."""
        chosen = self.members if members is None else list(members)
        for member in chosen:
            member.send(signal.SIGKILL)
        for member in chosen:
            member.kill()

    def wipe(self, member: Member) -> None:
        """Removes all that a dead member has kept: its disk was replaced."""
        if member.running:
            raise RuntimeError(f"{member.name} runs: kill it before its disk goes")
        shutil.rmtree(member.data_dir, ignore_errors=True)

    def readdress(self, members: Iterable[Member] | None = None) -> None:
        """Moves dead members to another network; their files stay as they are."""
        net = self._ground.net()
        for member in self.members if members is None else members:
            if member.running:
                raise RuntimeError(f"{member.name} runs: kill it before it moves")
            member.address = f"{net}.{member.address.rpartition('.')[2]}"

    def others(self, member: Member) -> list[Member]:
        """The servers besides this one."""
        return [server for server in self.servers if server is not member]

    def _command(self, member: Member) -> list[str]:
        command = [
            *raftreg(member.kind),
            *("--node", member.name, "--data-dir", str(member.data_dir)),
            *("--bind", member.address, "--client", member.address),
        ]
        if member.kind == "agent":
            joins = [f"{server.address}:{HTTP_PORT}" for server in self.servers]
            command += ["--config-dir", str(member.definitions)]
        else:
            joins = [server.raft_address for server in self.servers]
            command += ["--bootstrap-expect", str(len(self.servers))]
        return [*command, *(part for join in joins for part in ("--join", join))]


def raftreg(*arguments: str) -> list[str]:
    """The command line of `raftreg`, in this interpreter's environment."""
    return [sys.executable, "-m", "raftreg_cli.main", *arguments]


def clean_environment() -> dict[str, str]:
    """This process's environment without settings that are meant for another registry."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAFTREG_", "CONSUL_", "COV_", "PYTEST_"))
    }
