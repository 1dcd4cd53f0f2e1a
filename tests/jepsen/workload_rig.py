"""A registry in this process for workloads: one server under several names, and two agents."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

from jepsen_like.checkers.verdict import Verdict
from jepsen_like.door import Door
from jepsen_like.history import Event, Type, read
from jepsen_like.http import Endpoint, HttpDoor
from jepsen_like.load import Load
from jepsen_like.recorder import Recorder
from jepsen_like.workloads.base import Workload
from raftreg.clock import SystemClock
from raftreg.config import AgentSettings, ServerSettings
from raftreg.dns.server import DnsServer
from raftreg.raft.api import Server
from raftreg.raft.solo import SoloReplica
from raftreg.server.app import RegistryServer
from raftreg.server.machine import RegistryMachine
from raftreg_agent.app import AgentApp
from tests.jepsen.lying import LyingDoor

HOST = "127.0.0.1"
SERVERS = ("n1", "n2")
AGENTS = ("a1", "a2")
FINAL_PROCESS = 1_000_000
CONCURRENCY = 5
RATE = 200.0

#: A run ends with so many operations acknowledged; one with lies when so many were told as well, of
#: which some never come to show: how long that takes is the machine's matter.
ENOUGH = 250
ENOUGH_AMONG_LIES = 120
ENOUGH_LIES = 20


def free_port() -> int:
    """A port that is free now, for both TCP and UDP as far as that can be known."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def registry(directory: Path, *, agents: bool = False) -> AsyncIterator[HttpDoor]:
    """A server without a disk, with its DNS, and agents if they are needed."""
    clock, rng = SystemClock(), Random(5)
    settings = ServerSettings(node="s1", data_dir="unused", http_port=0, dns_port=free_port())
    machine = RegistryMachine()
    replica = SoloReplica(Server(id="s1", name="s1", address=f"{HOST}:8300"), machine, clock)
    server = RegistryServer(settings, replica, machine, clock, rng)
    dns = DnsServer(
        lambda: machine.state.catalog,
        settings.dns,
        host=HOST,
        port=settings.dns_port,
        clock=clock,
        rng=rng,
    )
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as parts:
        await server.start(tasks)
        parts.push_async_callback(server.stop)
        await replica.start()
        parts.push_async_callback(replica.stop)
        await dns.start()
        parts.push_async_callback(dns.stop)
        endpoint = Endpoint(HOST, server.port, settings.dns_port)
        endpoints = dict.fromkeys(SERVERS, endpoint)
        for name in AGENTS if agents else ():
            endpoints[name] = await _agent(parts, tasks, directory, name, server.port)
        yield await parts.enter_async_context(HttpDoor(endpoints))


async def _agent(
    parts: AsyncExitStack, tasks: asyncio.TaskGroup, directory: Path, name: str, port: int
) -> Endpoint:
    settings = AgentSettings(
        node=name,
        http_port=0,
        dns_port=free_port(),
        data_dir=str(directory / name),
        join=(f"{HOST}:{port}",),
    )
    app = AgentApp(settings, SystemClock(), Random(name))
    await app.start(tasks)
    parts.push_async_callback(app.stop, leave=False)
    await app.dns_ready.wait()
    return Endpoint(HOST, app.http_port, app.dns_port)


async def history_of(
    workload: Workload,
    door: Door,
    directory: Path,
    *,
    final: bool = True,
) -> list[Event]:
    """Runs a workload without faults, with or without its final operations."""
    path = directory / "history.jsonl"
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    with Recorder(path, lambda: int((loop.time() - start_s) * 1e9)) as recorder:
        load = Load(
            workload=workload,
            door=door,
            servers=SERVERS,
            agents=AGENTS[: workload.agents],
            recorder=recorder,
            seed=1,
            concurrency=CONCURRENCY,
            rate=RATE,
        )
        await load.setup()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(stop))
            while not _is_enough(recorder, door):  # noqa: ASYNC110 - nothing tells of its growth
                await asyncio.sleep(0.01)
            stop.set()
        if final:
            await load.finish(FINAL_PROCESS)
    return read(path)


def _is_enough(recorder: Recorder, door: Door) -> bool:
    if isinstance(door, LyingDoor):
        return door.lies >= ENOUGH_LIES and recorder.counts[Type.OK] >= ENOUGH_AMONG_LIES
    return recorder.counts[Type.OK] >= ENOUGH


async def verdict_of(
    workload: Workload,
    directory: Path,
    lie: type[LyingDoor] | None = None,
    *,
    final: bool = True,
) -> Verdict:
    """Runs a workload at a registry of its own, perhaps told lies, and judges what was recorded."""
    async with registry(directory, agents=bool(workload.agents)) as door:
        between = door if lie is None else lie(door)
        events = await history_of(workload, between, directory, final=final)
    return workload.checker()(events)
