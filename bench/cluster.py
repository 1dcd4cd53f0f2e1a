"""Real servers and agents on loopback addresses, ended by their process ids."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import aiohttp
import orjson
import psutil

from bench.failure import BenchFailure
from bench.generating import generate
from bench.generator.jobs import AnyJob, DnsJob, Job, Tally, WatchJob, WatchTally
from bench.systems import Raftreg, System
from raftreg_cli.demo import plan as plans
from raftreg_cli.demo.plan import Host, Plan
from raftreg_cli.demo.stage import Process

READY_S_MAX = 30.0
STOP_S_MAX = 8.0
_PAUSE_S = 0.005
#: Ports as in the demo, on addresses of their own: 127.9.x.y.
_HTTP_PORT, _DNS_PORT, _RAFT_PORT = 8500, 8600, 8300


_T = TypeVar("_T")


class Cluster:
    """Three servers and some agents in a directory.

    Args:
        system: Whose servers and agents they are.
        layout: Addresses and files.
        session: For requests outside the load.
    """

    def __init__(self, system: System, layout: Plan, session: aiohttp.ClientSession) -> None:
        self.system = system
        self.layout = layout
        self.session = session
        self.servers = {host.name: host for host in layout.servers}
        self.agents = {host.name: host for host in layout.agents}
        self.processes: dict[str, Process] = {}
        for host in layout.servers:
            self._add(host, system.server_command(layout, host))
        for host in layout.agents:
            self._add(host, system.agent_command(layout, host))

    def _add(self, host: Host, command: list[str]) -> None:
        log = self.layout.directory / "logs" / f"{host.name}.log"
        self.processes[host.name] = Process(host.name, command, log)

    async def start(self, names: list[str]) -> None:
        """Starts processes, or starts them again."""
        for name in names:
            await self.processes[name].start()

    async def kill(self, names: list[str]) -> float:
        """SIGKILL; gives the time of it (`time.perf_counter`)."""
        at = time.perf_counter()
        for name in names:
            self.processes[name].signal(signal.SIGKILL)
        for name in names:
            await self.processes[name].wait()
        return at

    def pause(self, name: str) -> float:
        """SIGSTOP: it falls silent; gives the time of it (`time.perf_counter`)."""
        at = time.perf_counter()
        self.processes[name].signal(signal.SIGSTOP)
        return at

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self.processes[name].signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Ends everything that runs."""
        agents = [self.processes[name] for name in self.agents]
        servers = [self.processes[name] for name in self.servers]
        for group in (agents, servers):
            for one in group:
                # Nobody looks at the data any more: leaving in order would only take time.
                one.signal(signal.SIGKILL)
            await asyncio.gather(*(one.wait() for one in group))

    def rss_bytes(self, name: str) -> int:
        """Resident memory of a process."""
        pid = self.processes[name].pid
        # The leash becomes the program by exec: it is the same process id.
        return int(psutil.Process(pid).memory_info().rss)

    def cpu_s(self, name: str) -> float:
        """Processor seconds that a process has used so far, in user mode and in the kernel."""
        times = psutil.Process(self.processes[name].pid).cpu_times()
        return float(times.user + times.system)

    def all_cpu_s(self) -> float:
        """The same of all processes that run."""
        return sum(self.cpu_s(name) for name, one in self.processes.items() if one.running)

    async def put(self, host: Host, path: str, body: bytes, timeout_s: float = 2.0) -> bool:
        """One PUT; True when the answer is 200."""
        try:
            async with self.session.put(
                f"http://{host.http}{path}",
                data=body,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                await answer.read()
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def get(self, host: Host, path: str, timeout_s: float = 5.0) -> tuple[int, bytes, int]:
        """One GET: status (0: no answer), body, X-Consul-Index."""
        try:
            async with self.session.get(
                f"http://{host.http}{path}", timeout=aiohttp.ClientTimeout(total=timeout_s)
            ) as answer:
                body = await answer.read()
                return answer.status, body, int(answer.headers.get("X-Consul-Index", "0"))
        except (aiohttp.ClientError, TimeoutError):
            return 0, b"", 0

    async def first_write(self, among: list[str], since: float) -> float:
        """Seconds from `since` to the first write that any of these servers accepts.

        Raises:
            BenchFailure: None did within half a minute.
        """
        tries = [asyncio.ensure_future(self._write_until(self.servers[n])) for n in among]  # noqa: TID251  # ended below
        try:
            done, _ = await asyncio.wait(
                tries, timeout=READY_S_MAX, return_when=asyncio.FIRST_COMPLETED
            )
            at = time.perf_counter()
        finally:
            for one in tries:
                one.cancel()
            await asyncio.gather(*tries, return_exceptions=True)
        if not done:
            raise BenchFailure(f"no server took a write in {READY_S_MAX:.0f} s{self._tails()}")
        return at - since

    async def _write_until(self, host: Host) -> None:
        # Nothing tells when a server will listen: this is the measurement.
        while not await self.put(host, "/v1/kv/first", b"x", READY_S_MAX):  # noqa: ASYNC110
            await asyncio.sleep(_PAUSE_S)

    def _tails(self) -> str:
        return "".join(
            f"\n--- {name}\n{process.log_tail()}" for name, process in self.processes.items()
        )

    async def leader(self) -> str:
        """Name of the server that leads.

        Raises:
            BenchFailure: None does within half a minute.
        """
        deadline = time.perf_counter() + READY_S_MAX
        while time.perf_counter() < deadline:
            for name, host in self.servers.items():
                if not self.processes[name].running:
                    continue
                status, body, _ = await self.get(host, "/v1/status/leader", 2.0)
                address = body.decode("utf-8", "replace").strip('"\n').rpartition(":")[0]
                for candidate, other in self.servers.items():
                    running = self.processes[candidate].running
                    if status == 200 and other.address == address and running:
                        return candidate
            await asyncio.sleep(_PAUSE_S * 10)
        raise BenchFailure(f"no leader in {READY_S_MAX:.0f} s{self._tails()}")

    async def until_answers(self, name: str) -> None:
        """Waits until a host answers a linearizable read: it is up, and has caught up.

        Raises:
            BenchFailure: It does not within half a minute.
        """
        deadline = time.perf_counter() + READY_S_MAX
        while time.perf_counter() < deadline:
            status, _, _ = await self.get(self.host(name), "/v1/kv/first", 2.0)
            if status in {200, 404}:
                return
            await asyncio.sleep(_PAUSE_S * 4)
        raise BenchFailure(f"{name} does not answer after {READY_S_MAX:.0f} s{self._tails()}")

    def host(self, name: str) -> Host:
        """A server or an agent."""
        return self.servers.get(name) or self.agents[name]

    async def ready(self) -> str:
        """Waits until all that run answer; gives the leader's name."""
        for name, process in self.processes.items():
            if process.running:
                await self.until_answers(name)
        return await self.leader()

    async def until_rows(self, host: Host, path: str, rows: int) -> None:
        """Waits until a list has so many rows there.

        Raises:
            BenchFailure: It does not within half a minute.
        """
        deadline = time.perf_counter() + READY_S_MAX
        status, body = 0, b""
        while time.perf_counter() < deadline:
            status, body, _ = await self.get(host, path)
            if status == 200 and len(orjson.loads(body)) == rows:
                return
            await asyncio.sleep(_PAUSE_S * 10)
        raise BenchFailure(
            f"{self.system.name}: {path} at {host.name} has not {rows} rows: "
            f"status {status}, {len(body)} B{self._tails()}"
        )

    async def load(self, job: Job | DnsJob) -> Tally:
        """Sends a load from a process of its own.

        Raises:
            BenchFailure: The generator failed, or requests did.
        """
        tally = await self._generate(job, Tally)
        if tally.failures:
            raise BenchFailure(
                f"{self.system.name}: load on {job.address}: not all was answered well: "
                f"{tally.failures} beside {tally.answers}: {job}{self._tails()}"
            )
        return tally

    async def watch(self, job: WatchJob) -> WatchTally:
        """Holds watchers in a process of their own.

        Raises:
            BenchFailure: They were not told.
        """
        return await self._generate(job, WatchTally)

    async def _generate(self, job: AnyJob, tally: type[_T]) -> _T:
        try:
            return await generate(job, tally)
        except BenchFailure as error:
            raise BenchFailure(f"{self.system.name}: {error.message}{self._tails()}") from error


@contextlib.asynccontextmanager
async def cluster(
    parent: Path | None, agents: int = 0, *, start: bool = True, system: System | None = None
) -> AsyncIterator[Cluster]:
    """A cluster in a fresh directory; its processes and files are gone after the block.

    Args:
        parent: Where the directory is made (None: where temporary files go); its disk is measured.
        agents: How many agents to run beside the three servers.
        start: Starts all and waits until they answer.
        system: What is started; None: raftreg.
    """
    system = system or Raftreg()
    directory = Path(tempfile.mkdtemp(prefix="raftreg-bench-", dir=parent))
    try:
        layout = _free_layout(directory, agents)
        system.write_files(layout)
        async with aiohttp.ClientSession() as session:
            made = Cluster(system, layout, session)
            try:
                if start:
                    await made.start([*made.servers, *made.agents])
                    await made.ready()
                yield made
            finally:
                await made.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _free_layout(directory: Path, agents: int) -> Plan:
    problem = ""
    for block in range(1, 255):
        layout = Plan(
            tuple(
                Host(f"server-{i + 1}", f"127.9.{block}.{i + 1}", _HTTP_PORT, _DNS_PORT, _RAFT_PORT)
                for i in range(3)
            ),
            tuple(
                Host(f"agent-{i + 1}", f"127.9.{block}.{i + 11}", _HTTP_PORT, _DNS_PORT)
                for i in range(agents)
            ),
            directory,
        )
        busy = plans.busy(layout)
        if busy is None:
            return layout
        problem = problem or busy
    raise BenchFailure(f"no free addresses: {problem}")
