"""A whole cluster in one process, decided by a seed: simulated time, network, disks and faults.

The servers are the real `RaftNode`s over the real journal; messages pass through the real codec.
Nothing reads the host's clock or randomness, so a seed gives the same history and digest every
time.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from raftreg.raft.api import Role, Server
from raftreg.raft.compaction import CompactionLimits
from raftreg.raft.faults import DiskFailure
from raftreg.raft.journal import DurableJournal
from raftreg.raft.membership import Configuration
from raftreg.raft.node import RaftNode, Timing
from raftreg.raft.snapshots import SnapshotStore
from raftreg.raft.wire import decode_message, encode_message
from tests.sim.sim_disk import SimDisk

LIMITS = CompactionLimits(
    entries_max=40, log_bytes_max=1 << 20, trailing_entries=6, piece_bytes=512, retry_s=1.0
)


class Violation(AssertionError):
    """Something that must never happen did."""


class Scheduler:
    """Simulated time: a heap of calls."""

    def __init__(self) -> None:
        self.now = 100.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def clock(self) -> float:
        """Simulated monotonic seconds."""
        return self.now

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> None:
        """Runs a call after a simulated delay."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + max(delay_s, 0.0), self._count, fn))

    def run_until(self, time_s: float) -> None:
        """Runs all that is due up to a time."""
        while self._heap and self._heap[0][0] <= time_s:
            at, _, fn = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            fn()
        self.now = time_s


class ListMachine:
    """A state machine that keeps every command: the strongest witness of order and repetition."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self.commands: list[bytes] = []
        self.time_ms = 0

    def apply(self, command: bytes, time_ms: int) -> int:
        """Appends; the result is the position."""
        if time_ms < self.time_ms:
            raise Violation(f"{self._name}: cluster time went back")
        self.time_ms = time_ms
        self.commands.append(command)
        self._world.applied(self._name, len(self.commands) - 1, command)
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
                self._world.applied(self._name, len(self.commands) - 1, command)

    def encode_result(self, result: int) -> bytes:
        """Results are positions."""
        return msgspec.msgpack.encode(result)

    def decode_result(self, data: bytes) -> int:
        """See `encode_result`."""
        return msgspec.msgpack.decode(data, type=int)


class SimNetwork:
    """Links with delay, in order, one for each direction. A cut link loses what is on its way."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._up: set[tuple[str, str]] = set()
        self._blocked: set[tuple[str, str]] = set()
        self._epoch: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._last: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.delay_s = (0.0005, 0.005)
        self.sent = 0

    def send(self, source: str, target: str, message: dict[str, Any]) -> bool:
        """Queues a message; a link that is down drops it."""
        link = (source, target)
        if link not in self._up:
            return False
        self.sent += 1
        body = encode_message(message)
        scheduler, rng = self._world.scheduler, self._world.rng
        at = max(self._last[link], scheduler.now + rng.uniform(*self.delay_s))
        self._last[link] = at
        epoch = self._epoch[link]

        def deliver() -> None:
            if self._epoch[link] == epoch and link in self._up:
                self._world.deliver(source, target, decode_message(body))

        scheduler.call_later(at - scheduler.now, deliver)
        return True

    def block(self, source: str, target: str) -> None:
        """Breaks one direction until `unblock`."""
        self._blocked.add((source, target))
        self.down(source, target)

    def unblock_all(self) -> None:
        """Lets everything be connected again."""
        self._blocked.clear()
        self.connect_all()

    def down(self, source: str, target: str) -> None:
        """Breaks one direction now; it comes back when it is not blocked."""
        link = (source, target)
        if link in self._up:
            self._up.discard(link)
            self._epoch[link] += 1
            server = self._world.servers[source]
            if server.node is not None:
                server.node.peer_disconnected(target)
                server.poke()

    def isolate(self, name: str) -> None:
        """A process is gone: all its links are down."""
        for other in self._world.servers:
            if other != name:
                self.down(name, other)
                self.down(other, name)

    def connect_all(self) -> None:
        """Dials wherever both ends run and nothing blocks the way."""
        for source in sorted(self._world.servers):
            for target in sorted(self._world.servers):
                self._connect(source, target)

    def _connect(self, source: str, target: str) -> None:
        link = (source, target)
        if source == target or link in self._up or link in self._blocked:
            return
        ours, theirs = self._world.servers[source], self._world.servers[target]
        if ours.node is None or theirs.node is None:
            return
        self._up.add(link)
        ours.node.peer_connected(target)
        ours.poke()


class _Port:
    """The network as one server sees it."""

    def __init__(self, network: SimNetwork, name: str) -> None:
        self._network = network
        self._name = name

    def send(self, peer: str, message: dict[str, Any]) -> bool:
        return self._network.send(self._name, peer, message)

    def buffered_bytes(self, peer: str) -> int:
        del peer
        return 0


class _SimWorker:
    """A thread beside a server: its jobs take simulated time."""

    def __init__(self, server: SimServer, incarnation: int) -> None:
        self._server = server
        self._incarnation = incarnation

    def run(self, job: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
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

        server.world.scheduler.call_later(server.world.rng.uniform(0.001, 0.2), later)

    def pause(self) -> None:
        """Simulated threads do not contend."""


class SimServer:
    """One server: a disk that outlives it, and a node while it runs."""

    def __init__(self, world: World, name: str, base: Configuration | None) -> None:
        self.world = world
        self.name = name
        self.base = base
        self.disk = SimDisk(random.Random(world.rng.getrandbits(64)), world.scheduler.call_later)
        self.node: RaftNode | None = None
        self.machine = ListMachine(world, name)
        self._incarnation = 0
        self._tick_at = float("inf")
        self._version = 0

    def start(self) -> None:
        """Opens the log and takes part."""
        self._incarnation += 1
        incarnation = self._incarnation
        self.machine = ListMachine(self.world, self.name)
        journal = DurableJournal.open(
            self.disk,
            segment_bytes=4096,
            on_durable=lambda _: self._on_durable(incarnation),
            on_failure=lambda _: self.world.kill(self.name),
        )
        scheduler = self.world.scheduler
        self.node = RaftNode(
            server=Server(id=self.name, name=self.name, address=f"{self.name}:1"),
            incarnation=f"{self.name}.{incarnation}",
            journal=journal,
            snapshots=SnapshotStore(self.disk),
            machine=self.machine,
            base=self.base,
            network=_Port(self.world.network, self.name),
            worker=_SimWorker(self, incarnation),
            clock=scheduler.clock,
            rng=random.Random(self.world.rng.getrandbits(64)),
            timing=Timing(),
            limits=LIMITS,
        )
        self.poke()

    def _on_durable(self, incarnation: int) -> None:
        if self.node is not None and self.runs(incarnation):
            self.node.log_durable()
            self.poke()

    def runs(self, incarnation: int) -> bool:
        """Whether the process of this number still runs."""
        return self.node is not None and incarnation == self._incarnation

    def stop(self) -> None:
        """The process is gone; nothing was said to anybody."""
        self.node = None
        self._incarnation += 1
        self._version += 1
        self._tick_at = float("inf")

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
            if version != self._version or self.node is None:
                return
            self._tick_at = float("inf")
            try:
                due = self.node.tick()
            except (OSError, DiskFailure):
                self.world.kill(self.name)
                return
            self.world.watch_roles(self)
            self._tick(max(due, self.world.scheduler.now + 0.00005))

        self.world.scheduler.call_later(at - self.world.scheduler.now, run)


class World:
    """The cluster, its clients' record, and what must hold at every moment.

    Args:
        seed: Decides everything.
        size: Voters at the start.
        spares: Servers that run from the start and belong to nothing yet.
    """

    def __init__(self, seed: int, size: int = 3, spares: int = 0) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.scheduler = Scheduler()
        self.network = SimNetwork(self)
        self.leaders: dict[int, str] = {}
        self.history: list[bytes] = []
        self.positions: dict[bytes, int] = {}
        self.acked: dict[bytes, int] = {}
        self.failed_definitely: set[bytes] = set()
        self.reads_done = 0
        self.trace: list[str] = []
        names = [f"n{number}" for number in range(size + spares)]
        voters = Configuration.of(
            Server(id=name, name=name, address=f"{name}:1") for name in names[:size]
        )
        self.servers = {
            name: SimServer(self, name, voters if name in voters.voters() else None)
            for name in names
        }
        for server in self.servers.values():
            server.start()
        self.network.connect_all()

    # --- what must hold

    def applied(self, name: str, position: int, command: bytes) -> None:
        """A server applied a command: all servers apply the same list, each command once."""
        if position < len(self.history):
            if self.history[position] != command:
                raise Violation(
                    f"{name} applied {command!r} at {position}, others {self.history[position]!r}"
                )
            return
        if command in self.positions:
            raise Violation(f"{name} applied {command!r} twice")
        if command in self.failed_definitely:
            raise Violation(f"{command!r} was said not to happen, and {name} applied it")
        self.positions[command] = position
        self.history.append(command)

    def watch_roles(self, server: SimServer) -> None:
        """At most one leader a term."""
        assert server.node is not None
        status = server.node.status()
        if status.role is Role.LEADER:
            first = self.leaders.setdefault(status.term, server.name)
            if first != server.name:
                raise Violation(f"{first} and {server.name} both lead term {status.term}")

    # --- clients

    def write(self, name: str, command: bytes, timeout_s: float = 4.0) -> None:
        """A client writes at a server and notes the answer."""
        node = self.servers[name].node
        if node is None:
            return

        def done(result: Any, error: Exception | None) -> None:
            if error is None:
                self.acked[command] = result
                if self.history[result - 1] != command:
                    raise Violation(f"{command!r} was acknowledged with another's result")
            elif getattr(error, "definite", False):
                self._refuse(command)

        key = node.propose(command, done)
        self.servers[name].poke()

        def give_up() -> None:
            if (
                self.servers[name].node is node
                and command not in self.acked
                and not node.abandon(key)
            ):
                self._refuse(command)

        self.scheduler.call_later(timeout_s, give_up)

    def _refuse(self, command: bytes) -> None:
        if command in self.positions:
            raise Violation(f"{command!r} was applied and then said not to happen")
        self.failed_definitely.add(command)

    def read(self, name: str) -> None:
        """A client reads at a server: it must see every write acknowledged before."""
        server = self.servers[name]
        node = server.node
        if node is None:
            return
        must_see = max((self.positions[c] for c in self.acked), default=-1)

        def done(index: int | None) -> None:
            if index is None:
                return
            self.reads_done += 1
            if len(server.machine.commands) <= must_see:
                raise Violation(f"stale read at {name}: {must_see} was acknowledged before it")

        node.read(done)
        server.poke()

    # --- the world's hand

    def deliver(self, source: str, target: str, message: dict[str, Any]) -> None:
        """A message arrives."""
        server = self.servers[target]
        if server.node is None:
            return
        try:
            server.node.receive(source, message)
            server.poke()
        except (OSError, DiskFailure) as error:
            self.trace.append(f"{self.scheduler.now:.4f} {target} stops: {error}")
            self.kill(target)

    def kill(self, name: str) -> None:
        """Kill -9: memory is lost, what was written to files stays."""
        server = self.servers[name]
        if server.node is not None:
            server.stop()
            server.disk.kill()
            self.network.isolate(name)

    def power_off(self, name: str) -> None:
        """Power loss: unsynced writes are lost, too, whole or in part."""
        server = self.servers[name]
        if server.node is not None:
            server.stop()
            server.disk.crash()
            self.network.isolate(name)

    def start(self, name: str) -> None:
        """Starts a server that is down."""
        if self.servers[name].node is None:
            self.servers[name].start()
            self.network.connect_all()

    def leader(self) -> SimServer | None:
        """The leader of the highest term, when there is one."""
        running = [s for s in self.servers.values() if s.node is not None and s.node.leads]
        return max(running, key=lambda s: s.node.status().term if s.node else 0, default=None)

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        self.scheduler.run_until(self.scheduler.now + seconds)

    def run_while(self, condition: Callable[[], bool], limit_s: float = 30.0) -> None:
        """Lets time pass while a condition holds.

        Raises:
            Violation: It still holds after `limit_s` simulated seconds.
        """
        end = self.scheduler.now + limit_s
        while condition():
            if self.scheduler.now > end:
                raise Violation(f"no progress in {limit_s} simulated seconds")
            self.run(0.02)

    def digest(self) -> str:
        """A hash over all that happened; the same for the same seed."""
        state = [
            (
                name,
                server.node and server.node.status().term,
                server.node and server.node.status().commit_index,
                len(server.machine.commands),
            )
            for name, server in sorted(self.servers.items())
        ]
        text = repr((state, self.history, sorted(self.acked), self.network.sent, self.trace))
        return hashlib.sha256(text.encode()).hexdigest()
