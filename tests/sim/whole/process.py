"""Simulated hosts with one process each: a whole server, or a whole agent.

What runs is what `raftreg server` and `raftreg agent` run (`raftreg_cli.host.serve`, `AgentApp`);
the disk outlives the process, its memory does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from signal import SIGTERM
from typing import TYPE_CHECKING, Any

import msgspec

from raftreg.config import AgentSettings, ServerSettings
from raftreg.errors import RaftregError
from raftreg.raft.compaction import CompactionLimits
from raftreg_agent.app import AgentApp
from raftreg_cli.host import Host, serve
from raftreg_cli.run_server import replica_settings
from tests.sim.sim_disk import SimDisk
from tests.sim.whole.loop import ProcessLoop
from tests.sim.whole.net import Machine
from tests.sim.whole.witness import Member, WatchedMachine, WatchedReplica

if TYPE_CHECKING:
    from tests.sim.whole.world import WholeWorld

LIMITS = CompactionLimits(
    entries_max=150, log_bytes_max=1 << 20, trailing_entries=20, piece_bytes=4096, retry_s=1.0
)
_EPOCH_S = 1.8e9  #: what the wall clocks show at the beginning


class SimClock:
    """The clocks of a process: the monotonic one is its loop's, the wall clock may jump.

    Attributes:
        monotonic: See `Clock.monotonic`; the most frequent call of a run, so nothing is around it.
    """

    def __init__(self, process: Process) -> None:
        self.monotonic: Callable[[], float] = process.loop.time
        self._process = process

    def wall(self) -> float:
        """See `Clock.wall`."""
        return _EPOCH_S + self._process.world.timeline.now + self._process.wall_jump_s


class ProcessDisk:
    """A disk as one process sees it: gone with the process, whatever its last words are."""

    def __init__(self, disk: SimDisk, loop: ProcessLoop) -> None:
        self._disk = disk
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        if self._loop.dead:
            raise OSError(9, "the process is gone")
        return getattr(self._disk, name)

    def close(self) -> None:
        """See `RealDisk.close`."""
        self._disk.wait_idle()


class Process:
    """A host and the process on it.

    Args:
        world: Where it is.
        name: Of the host.

    Attributes:
        loop: Of the process that runs now, or ran last.
        incarnation: Number of that process.
        wall_jump_s: How far the wall clock is off.
    """

    loop: ProcessLoop

    def __init__(self, world: WholeWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.machine: Machine = world.network.add(name)
        self.incarnation = 0
        self.running = False
        self.wall_jump_s = 0.0
        self.rng = Random(f"{world.seed}/{name}")
        self._ids = Random(f"{world.seed}/{name}/ids")
        self._made = 0

    def start(self) -> None:
        """Starts the process, unless it runs."""
        if self.running:
            return
        self.running = True
        self.incarnation += 1
        self.machine.regain_power()
        rng = self.rng
        # Monotonic clocks begin anywhere at every start, and none runs exactly right.
        # What a loop has besides (files, pipes, programs) is not there, and raises.
        self.loop = ProcessLoop(  # type: ignore[abstract]
            self.world.timeline,
            self.machine,
            Random(rng.getrandbits(64)),
            rate=rng.uniform(0.97, 1.03),
            offset_s=rng.uniform(0.0, 1000.0),
        )
        self.loop.on_fault(self._fault)
        self.machine.process = self.loop
        self.loop.call_soon(self._begin, Random(rng.getrandbits(64)))
        self.world.process_started(self)

    def _begin(self, rng: Random) -> None:
        loop = self.loop
        # Held, as asyncio holds tasks only weakly.
        self._main = task = loop.create_task(self.main(rng), name="main")
        task.add_done_callback(lambda ended: self._ended(loop, ended))

    def _ended(self, loop: ProcessLoop, task: asyncio.Task[None]) -> None:
        """The process has come to its end by itself."""
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not isinstance(fault, RaftregError):
            self.world.broken(f"{self.name} crashed", fault)
        self.world.note(f"{self.name} ends: {fault or 'in order'}")
        if self.loop is loop and self.running:
            # Not inside its own callback: closing what runs is not possible.
            self.world.timeline.call_later(0.0, self._gone)

    def _gone(self) -> None:
        if self.running:
            self.kill()

    def _fault(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.world.broken(f"{self.name}: {context.get('message')}", error)

    def main(self, rng: Random) -> Coroutine[Any, Any, None]:
        """What the process does."""
        raise NotImplementedError

    def kill(self) -> None:
        """Kill -9: memory is lost."""
        if self.running:
            self.machine.close_all(self.rng)
            self._end_process()

    def lose_power(self) -> None:
        """Nobody is told; the machine answers no more until it is started."""
        if self.running:
            self.machine.lose_power()
            self._end_process()

    def _end_process(self) -> None:
        self.running = False
        self.machine.process = None
        self.loop.kill()
        self.world.process_gone(self)

    def pause(self, seconds: float) -> None:
        """SIGSTOP and, later, SIGCONT."""
        if not self.running:
            return
        loop = self.loop
        loop.pause()
        self.world.timeline.call_later(seconds, loop.resume)

    def new_id(self) -> str:
        """An id, different each time and readable."""
        self._made += 1
        return f"{self.name}-{self._made}"

    def open_disk(self) -> ProcessDisk:
        """The data directory of the process that runs now."""
        raise NotImplementedError


class ServerProcess(Process):
    """A host with a server.

    Args:
        world: Where it is.
        name: Of the host and the server.
        expect: Size of the cluster that it begins with others; None: it joins one.

    Attributes:
        replica: Of the process that runs now, or ran last.
        machine_state: Its state machine.
        disk: Outlives processes.
    """

    replica: WatchedReplica
    registry: WatchedMachine

    def __init__(self, world: WholeWorld, name: str, expect: int | None) -> None:
        super().__init__(world, name)
        self.expect = expect
        self._terminated = 0
        self.disk = self._empty_disk()

    def _empty_disk(self) -> SimDisk:
        return SimDisk(Random(self.rng.getrandbits(64)), self._later)

    def _later(self, delay_s: float, fn: Any) -> None:
        self.loop.call_later(delay_s, fn)

    def open_disk(self) -> ProcessDisk:
        """See `Process.open_disk`."""
        return ProcessDisk(self.disk, self.loop)

    @property
    def member(self) -> Member | None:
        """The server of this process as the invariants know it; None before its log is open."""
        return getattr(getattr(self, "replica", None), "member", None)

    def _settings(self) -> ServerSettings:
        world = self.world
        return _SimSettings(
            node=self.name,
            data_dir="/simulated",
            bind=self.machine.address,
            client=self.machine.address,
            join=tuple(world.server_addresses()),
            bootstrap_expect=self.expect,
            dns_port=8600 if world.with_dns else -1,
        )

    def main(self, rng: Random) -> Coroutine[Any, Any, None]:
        """The whole server."""
        settings, clock = self._settings(), SimClock(self)
        self.registry = WatchedMachine(self.world.witness, f"{self.name}#{self.incarnation}")
        self.replica = WatchedReplica(
            msgspec.structs.replace(replica_settings(settings), limits=LIMITS),
            self.registry,
            clock,
            rng,
        )
        self.replica.witness = self.world.witness
        replica = self.replica
        host = Host(
            settings=settings,
            replica=replica,
            machine=self.registry,
            clock=clock,
            rng=rng,
            failed=lambda: replica.failed,
        )
        return serve(host)

    def kill(self) -> None:
        """See `Process.kill`; what was written to files stays."""
        if self.running:
            self.disk.kill()
            super().kill()

    def terminate(self) -> bool:
        """SIGTERM; the second one ends it at once, as production does. False: it can't take it."""
        ending = self.loop.signals.pop(SIGTERM, None) if self.running else None
        if ending is not None:
            self.loop.call_soon(ending)
        elif self._terminated == self.incarnation:
            self.kill()
        else:
            return False
        self._terminated = self.incarnation
        return True

    def lose_power(self) -> None:
        """See `Process.lose_power`; unsynced writes are lost, too, whole or in part."""
        if self.running:
            self.disk.crash()
            super().lose_power()

    def _end_process(self) -> None:
        member = self.member
        if member is not None:
            member.node = None
        super()._end_process()

    def wipe(self) -> None:
        """The disk is lost; an empty one takes its place."""
        self.kill()
        self.disk = self._empty_disk()
        self.start()

    @property
    def leads(self) -> bool:
        """Whether this server believes to lead, and may act on it."""
        member = self.member if self.running else None
        return member is not None and member.node is not None and member.node.leads

    @property
    def server_id(self) -> str:
        """Its id; "" before it has one."""
        return self.member.name if self.member is not None else ""


class AgentProcess(Process):
    """A host with an agent, which keeps nothing on disk."""

    app: AgentApp

    async def main(self, rng: Random) -> None:
        """The whole agent, until it is killed."""
        world = self.world
        settings = AgentSettings(
            node=self.name,
            bind=self.machine.address,
            client=self.machine.address,
            join=tuple(f"{address}:8500" for address in world.server_addresses()),
            dns_port=8600 if world.with_dns else -1,
        )
        self.app = AgentApp(settings, SimClock(self), rng)
        async with asyncio.TaskGroup() as tasks:
            await self.app.start(tasks)
            await asyncio.get_running_loop().create_future()


class ClientProcess(Process):
    """A host from which clients work."""

    async def main(self, rng: Random) -> None:
        """Only what it is told to do."""
        del rng
        await asyncio.get_running_loop().create_future()


class _SimSettings(ServerSettings, frozen=True, kw_only=True):
    """Settings of a simulated server: the agent in it keeps nothing on this machine's disk."""

    def agent(self) -> AgentSettings:
        """See `ServerSettings.agent`."""
        return msgspec.structs.replace(super().agent(), data_dir="")
