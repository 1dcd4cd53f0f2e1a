"""The demo's processes: started on a leash, stopped by pid, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from raftreg.errors import RaftregError
from raftreg_cli import leash
from raftreg_cli.demo import plan as plans
from raftreg_cli.demo.plan import Host, Plan

AGENT_GRACE_S = 6.0
#: Whoever is last has no majority to tell that it leaves; their data is of no more use.
SERVER_GRACE_S = 1.5
_LOG_TAIL_LINES = 15
_LOG_TAIL_BYTES = 64 * 1024


class DemoFailure(RaftregError):
    """The demo could not do what it shows."""

    code = "demo"


class Process:
    """A process of the demo, in a session of its own: the terminal's Ctrl-C is ours alone.

    Args:
        name: For people; its log is called so.
        command: Its argument list.
        log: File for its output.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Its process id; 0 before the start."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Starts it, or starts it again."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # One open of a file of ours, in the way of a process start anyway.
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *leash.command(self.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=_environment(),
            )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, by pid; nothing happens when it has ended."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def wait(self) -> int:
        """Waits for its end; gives the exit code as the system has it."""
        return await self._process.wait() if self._process else 0

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after `grace_s` seconds."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.wait()

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
            return "\n".join(lines[-_LOG_TAIL_LINES:])
        return ""


class Stage:
    """All processes of a plan.

    Args:
        layout: What to start.
    """

    def __init__(self, layout: Plan) -> None:
        self.plan = layout
        self.servers = {
            host.name: self._process(host.name, plans.server_command(layout, host))
            for host in layout.servers
        }
        self.agents = {
            host.name: self._process(host.name, plans.agent_command(layout, host))
            for host in layout.agents
        }
        self.samples = [
            self._process(f"{sample.name}-on-{host.name}", plans.sample_command(host, sample))
            for host in layout.agents
            for sample in host.samples
        ]
        #: Processes that were ended on purpose: their end is no failure.
        self.expected_down: set[str] = set()

    def _process(self, name: str, command: Sequence[str]) -> Process:
        return Process(name, command, self.plan.directory / "logs" / f"{name}.log")

    def all(self) -> list[Process]:
        """Every process, in the order of starting."""
        return [*self.samples, *self.servers.values(), *self.agents.values()]

    async def start(self) -> None:
        """Writes the files that the processes read, and starts them all."""
        write_files(self.plan)
        for process in self.all():
            await process.start()

    async def stop(self) -> None:
        """Ends all: agents first, so that they can leave; then servers and samples."""
        await asyncio.gather(*(one.stop(AGENT_GRACE_S) for one in self.agents.values()))
        others = [*self.servers.values(), *self.samples]
        await asyncio.gather(*(one.stop(SERVER_GRACE_S) for one in others))

    def check(self) -> None:
        """Looks whether a process has ended that should run.

        Raises:
            DemoFailure: One has; the text holds the end of its log.
        """
        for process in self.all():
            if process.pid and not process.running and process.name not in self.expected_down:
                raise DemoFailure(
                    f"{process.name} has ended. The last lines of {process.log}:\n"
                    f"{process.log_tail()}"
                )

    def server_at(self, address: str) -> Host | None:
        """The server whose Raft address is "host:port"."""
        host = address.rpartition(":")[0]
        return next((one for one in self.plan.servers if one.address == host), None)


@contextlib.asynccontextmanager
async def started(layout: Plan) -> AsyncIterator[Stage]:
    """Runs all processes while the block runs; they are gone when it is left, however it is."""
    stage = Stage(layout)
    try:
        await stage.start()
        yield stage
    finally:
        await stage.stop()


@contextlib.contextmanager
def directory(wanted: Path | None) -> Iterator[Path]:
    """The directory of the demo's files: one that is given stays, a temporary one goes."""
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.resolve()
        return
    made = Path(tempfile.mkdtemp(prefix="raftreg-demo-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_files(layout: Plan) -> None:
    """Writes the shared key and the agents' service definitions."""
    key = plans.key_file(layout)
    if not key.exists():
        with open(key, "w", opener=_private) as file:  # mode at creation
            file.write(secrets.token_hex(32))
    for host in layout.agents:
        target = plans.definitions_dir(layout, host)
        target.mkdir(parents=True, exist_ok=True)
        for sample in host.samples:
            text = msgspec.json.encode(plans.service_definition(host, sample))
            (target / f"{sample.name}.json").write_bytes(msgspec.json.format(text, indent=2))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _environment() -> Mapping[str, str]:
    """Ours, without settings of raftreg that were meant for something else."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("RAFTREG_", "CONSUL_"))}
