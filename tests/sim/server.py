"""One simulated server: a disk that outlives it, and a real node while it runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from raftreg.raft.api import Server
from raftreg.raft.compaction import CompactionLimits
from raftreg.raft.faults import DiskFailure
from raftreg.raft.journal import DurableJournal
from raftreg.raft.membership import Configuration
from raftreg.raft.node import RaftNode, Timing
from raftreg.raft.snapshots import SnapshotStore
from tests.sim.network import Port
from tests.sim.sim_disk import SimDisk

if TYPE_CHECKING:
    from tests.sim.world import World

LIMITS = CompactionLimits(
    entries_max=40, log_bytes_max=1 << 20, trailing_entries=6, piece_bytes=512, retry_s=1.0
)


class ListMachine:
    """A state machine that keeps every command: the strongest witness of order and repetition."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self.commands: list[bytes] = []
        self.time_ms = 0

    def apply(self, command: bytes, time_ms: int) -> int:
        """Appends; the result is the position."""
        self._world.invariants.stamped(self._name, self.time_ms, time_ms)
        self.time_ms = time_ms
        self.commands.append(command)
        self._world.invariants.applied(self._name, len(self.commands) - 1, command)
        return len(self.commands)

    def entry_applied(self, raft_index: int) -> None:
        """Nobody watches."""

    def snapshot(self) -> Iterator[bytes]:
        """All commands, ten a chunk."""
        copy, time_ms = list(self.commands), self.time_ms
        return (
            msgspec.msgpack.encode((time_ms, copy[at : at + 10]))
            for at in range(0, max(len(copy), 1), 10)
        )

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replaces the list; every command must be the one that the others applied."""
        self.commands = []
        for chunk in chunks:
            self.time_ms, part = msgspec.msgpack.decode(chunk, type=tuple[int, list[bytes]])
            for command in part:
                self.commands.append(command)
                self._world.invariants.applied(self._name, len(self.commands) - 1, command)

    def encode_result(self, result: int) -> bytes:
        """Results are positions."""
        return msgspec.msgpack.encode(result)

    def decode_result(self, data: bytes) -> int:
        """See `encode_result`."""
        return msgspec.msgpack.decode(data, type=int)


class SimJournal(DurableJournal):
    """The real journal, with a witness."""

    witness: Callable[[int, int, int, bytes], None]

    def add(self, command: bytes, idx: int, term: int) -> None:
        """See `DurableJournal.add`."""
        super().add(command, idx, term)
        prev_term = self.term_at(idx - 1)
        if prev_term is not None:
            self.witness(idx, term, prev_term, bytes(command))


class SimWorker:
    """A thread beside a server: its jobs take simulated time."""

    def __init__(self, server: SimServer) -> None:
        self._server = server
        self._incarnation = server.incarnation

    def run(self, job: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """See `Worker.run`."""
        server = self._server

        def later() -> None:
            if not server.runs(self._incarnation):
                return
            fault: BaseException | None = None
            try:
                job()
            except OSError as error:
                fault = error
            done(fault)
            server.poke()

        server.later(server.world.rng.uniform(0.001, 0.2), later)

    def pause(self) -> None:
        """Simulated threads do not contend."""


class SimServer:
    """A server of the simulated world.

    Args:
        world: Where it lives.
        name: Its id, too.
        base: The configuration it begins with, None where it waits to be added.

    Attributes:
        node: The node while it runs, else None.
        journal: The log, of the last process where none runs.
        incarnation: Number of the process.
    """

    def __init__(self, world: World, name: str, base: Configuration | None) -> None:
        self.world = world
        self.name = name
        self.base = base
        self.disk = SimDisk(random.Random(world.rng.getrandbits(64)), self.later)
        self.node: RaftNode | None = None
        self.journal: SimJournal
        self.machine = ListMachine(world, name)
        self.incarnation = 0
        self.term_seen = 0
        self.commit_seen = 0
        self.configuration_seen = base or Configuration()
        self._paused = False
        self._backlog: list[Callable[[], None]] = []
        self._clock_offset_s = 0.0
        self._clock_rate = 1.0
        self._tick_at = float("inf")
        self._version = 0

    # --- life

    def start(self) -> None:
        """Opens the log and takes part."""
        self.incarnation += 1
        incarnation, rng = self.incarnation, self.world.rng
        # Monotonic clocks begin anywhere at every start, and none runs exactly right.
        self._clock_offset_s = rng.uniform(-50.0, 1000.0)
        self._clock_rate = rng.uniform(0.97, 1.03)
        self.term_seen = self.commit_seen = 0
        self.machine = ListMachine(self.world, self.name)
        self.journal = SimJournal.open(
            self.disk,
            segment_bytes=4096,
            on_durable=lambda _: self._on_durable(incarnation),
            on_failure=lambda _: self.world.kill(self.name),
        )
        self.journal.witness = self._appended
        self.world.invariants.recovered(
            self.name, self.journal.getCurrentTerm(), self.journal.getVotedForNodeId()
        )
        self.node = RaftNode(
            server=Server(id=self.name, name=self.name, address=f"{self.name}:1"),
            incarnation=f"{self.name}.{incarnation}",
            journal=self.journal,
            snapshots=SnapshotStore(self.disk),
            machine=self.machine,
            base=self.base,
            network=Port(self.world.network, self.name),
            worker=SimWorker(self),
            clock=self.clock,
            rng=random.Random(rng.getrandbits(64)),
            timing=Timing(),
            limits=LIMITS,
        )
        self.poke()

    def stop(self) -> None:
        """The process is gone; nothing was said to anybody."""
        self.node = None
        self.incarnation += 1
        self._version += 1
        self._tick_at = float("inf")
        self._paused = False
        self._backlog.clear()

    def runs(self, incarnation: int) -> bool:
        """Whether the process of this number still runs."""
        return self.node is not None and incarnation == self.incarnation

    def _appended(self, index: int, term: int, prev_term: int, command: bytes) -> None:
        self.world.invariants.appended(self.name, index, term, prev_term, command)

    def _on_durable(self, incarnation: int) -> None:
        if self.node is not None and self.runs(incarnation):
            self.node.log_durable()
            self.poke()

    # --- time

    def clock(self) -> float:
        """This host's monotonic clock."""
        return self.world.scheduler.now * self._clock_rate + self._clock_offset_s

    def _world_time(self, local_s: float) -> float:
        return (local_s - self._clock_offset_s) / self._clock_rate

    def later(self, delay_s: float, fn: Callable[[], None]) -> None:
        """Runs a call after a delay, but not while this host is paused."""
        self.world.scheduler.call_later(delay_s, lambda: self.when_running(fn))

    def when_running(self, fn: Callable[[], None]) -> None:
        """Runs a call now, or when the pause is over."""
        if self._paused:
            self._backlog.append(fn)
        else:
            fn()

    def pause(self, seconds: float) -> None:
        """SIGSTOP and, later, SIGCONT: nothing runs, what arrives waits."""
        if self.node is None or self._paused:
            return
        self._paused = True
        incarnation = self.incarnation

        def resume() -> None:
            if not self.runs(incarnation):
                return
            self._paused = False
            backlog, self._backlog = self._backlog, []
            for fn in backlog:
                self.when_running(fn)

        self.world.scheduler.call_later(seconds, resume)

    # --- driving

    def receive(self, source: str, message: dict[str, Any]) -> None:
        """A message arrives."""
        incarnation = self.incarnation

        def take() -> None:
            if self.node is not None and self.runs(incarnation):
                self.node.receive(source, message)
                self.poke()

        self.when_running(lambda: self.guarded(take))

    def poke(self) -> None:
        """A tick is wanted now."""
        self._tick(self.world.scheduler.now)

    def _tick(self, at: float) -> None:
        if self._tick_at <= at:
            return
        self._tick_at = at
        self._version += 1
        version = self._version

        def run() -> None:
            if version == self._version and self.node is not None:
                self.guarded(self._run_tick)

        self.later(at - self.world.scheduler.now, run)

    def _run_tick(self) -> None:
        assert self.node is not None
        self._tick_at = float("inf")
        due = self._world_time(self.node.tick())
        self._tick(max(due, self.world.scheduler.now + 0.00005))

    def guarded(self, step: Callable[[], None]) -> None:
        """Runs a step of the node; a failed disk ends the process, as it must."""
        try:
            step()
        except (OSError, DiskFailure) as error:
            self.world.note(f"{self.name} stops: {error}")
            self.world.kill(self.name)
        else:
            self.world.invariants.observe(self)
