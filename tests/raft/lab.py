"""Our engine in its envelope, stepped by hand; the counterpart of `plain_engine.py`."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from raftreg.raft.api import Role, Server
from raftreg.raft.compaction import CompactionLimits
from raftreg.raft.entries import Batch, Proposal, encode_batch
from raftreg.raft.journal import DurableJournal
from raftreg.raft.membership import Configuration
from raftreg.raft.node import RaftNode, Timing
from raftreg.raft.snapshots import SnapshotStore
from raftreg.raft.wire import decode_message, encode_message
from tests.sim.scheduler import Scheduler
from tests.sim.sim_disk import SimDisk

#: No election by itself, no step-down: the schedule decides.
BY_HAND = Timing(heartbeat_s=0.1, election_min_s=1e6, election_max_s=2e6, fallback_s=1e6)


class CountingMachine:
    """Counts how often each key was written."""

    def __init__(self, applied: Callable[[str], None]) -> None:
        self._applied = applied
        self.values: dict[str, int] = {}

    def apply(self, command: bytes, time_ms: int) -> int:
        """Total: a key named poison is refused with a value."""
        key = command.split(b" ", 1)[0].decode()
        if key == "poison":
            return -1
        self.values[key] = self.values.get(key, 0) + 1
        self._applied(key)
        return self.values[key]

    def entry_applied(self, raft_index: int) -> None:
        """Nobody watches."""

    def snapshot(self) -> Iterator[bytes]:
        """The table, a key a chunk."""
        return iter([msgspec.msgpack.encode(row) for row in self.values.items()])

    def restore(self, chunks: Iterable[bytes]) -> None:
        """See `StateMachine.restore`."""
        self.values = dict(msgspec.msgpack.decode(chunk, type=tuple[str, int]) for chunk in chunks)

    def encode_result(self, result: int) -> bytes:
        """See `StateMachine.encode_result`."""
        return msgspec.msgpack.encode(result)

    def decode_result(self, data: bytes) -> int:
        """See `StateMachine.decode_result`."""
        return msgspec.msgpack.decode(data, type=int)


class _Worker:
    def run(self, job: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        job()
        done(None)

    def pause(self) -> None:
        """Nothing else runs."""


class _Port:
    def __init__(self, lab: EnvelopeLab, name: str) -> None:
        self._lab = lab
        self._name = name

    def send(self, peer: str, message: dict[str, Any]) -> bool:
        link = (self._name, peer)
        if link in self._lab.up:
            self._lab.queues[link].append(encode_message(message))
        return link in self._lab.up

    def buffered_bytes(self, peer: str) -> int:
        del peer
        return 0


class EnvelopeLab:
    """A cluster of our nodes; see `audit_scenarios.Lab`.

    A write at a leader goes straight into its engine, so that several are on their way at once; it
    counts as acknowledged ("ok") when the server it was made at has applied it.

    Args:
        ids: One letter a server.
        options: `timing` and `compact_after` (entries); options of the plain engine are ignored.
    """

    kind = "envelope"

    def __init__(self, ids: str, **options: Any) -> None:
        self.ids = list(ids)
        self.up: set[tuple[str, str]] = set()
        self.queues: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.nodes: dict[str, RaftNode] = {}
        self.machines: dict[str, CountingMachine] = {}
        self.journals: dict[str, DurableJournal] = {}
        self.faults = 0
        self.failed: list[str] = []
        self.scheduler = Scheduler()
        self.disks = {
            name: SimDisk(random.Random(0), self.scheduler.call_later, sync_delay_s=(0.0, 0.0))
            for name in ids
        }
        self._timing: Timing = options.get("timing", BY_HAND)
        self._compact_after = int(options.get("compact_after", 30))
        self._told: dict[tuple[str, str], list[str]] = {}
        self._sequence = 0
        self._starts = 0
        self._base = Configuration.of(_server(name) for name in ids)
        for name in ids:
            self.start(name)
        for a in ids:
            for b in ids:
                if a < b:
                    self.connect(a, b)

    def start(self, name: str) -> None:
        """Opens a server on what its disk holds."""
        self._starts += 1
        self.machines[name] = CountingMachine(lambda key: self._applied(name, key))
        self.journals[name] = DurableJournal.open(
            self.disks[name],
            on_durable=lambda _: self._durable(name),
            on_failure=lambda _: self.failed.append(name),
        )
        self.nodes[name] = RaftNode(
            server=_server(name),
            incarnation=f"{name}.{self._starts}",
            journal=self.journals[name],
            snapshots=SnapshotStore(self.disks[name]),
            machine=self.machines[name],
            base=self._base,
            network=_Port(self, name),
            worker=_Worker(),
            clock=self.scheduler.clock,
            rng=random.Random(name),
            timing=self._timing,
            limits=CompactionLimits(
                entries_max=self._compact_after, trailing_entries=2, piece_bytes=64, retry_s=1.0
            ),
        )
        for other in self.ids:
            if (name, other) in self.up:
                self.nodes[name].peer_connected(other)

    def _durable(self, name: str) -> None:
        if name in self.nodes:
            self.nodes[name].log_durable()

    def _applied(self, name: str, key: str) -> None:
        if (name, key) in self._told:
            self._told[name, key].append("ok")

    def crash(self, name: str) -> None:
        """Power loss."""
        del self.nodes[name]
        self.disks[name].crash()
        for other in self.ids:
            self.queues[name, other].clear()
            self.queues[other, name].clear()

    def connect(self, a: str, b: str) -> None:
        """Both directions."""
        for link in ((a, b), (b, a)):
            if link not in self.up:
                self.up.add(link)
                if link[0] in self.nodes:
                    self.nodes[link[0]].peer_connected(link[1])

    def cut(self, a: str, b: str) -> None:
        """Both directions; what was on its way is lost."""
        for link in ((a, b), (b, a)):
            if link in self.up:
                self.up.discard(link)
                self.queues[link].clear()
                if link[0] in self.nodes:
                    self.nodes[link[0]].peer_disconnected(link[1])

    def tick(self, *names: str, dt: float = 0.11) -> None:
        """Lets time pass, the disks work, and these servers do what is due."""
        self.scheduler.run_until(self.scheduler.now + dt)
        for name in names:
            for _ in range(2):
                self._run(name)
                self.scheduler.run_until(self.scheduler.now)

    def _run(self, name: str) -> None:
        try:
            if name in self.nodes:
                self.nodes[name].tick()
        except RuntimeError:
            self.faults += 1

    def deliver(self, source: str, target: str, count: int | None = None) -> int:
        """Hands over what is on its way, all or so many; then the receiver runs."""
        queue = self.queues[source, target]
        batch = queue[:count]
        del queue[: len(batch)]
        for body in batch:
            if target in self.nodes:
                self.nodes[target].receive(source, decode_message(body))
        if batch:
            self.tick(target, dt=0.0)
        return len(batch)

    def flow(self, names: str, rounds: int = 6) -> None:
        """Several rounds of ticks and deliveries among these."""
        for _ in range(rounds):
            self.tick(*names)
            for a in names:
                for b in names:
                    self.deliver(a, b)

    def stand(self, name: str) -> None:
        """Stands for election at once, without a pre-vote."""
        self.nodes[name]._engine.start_election()
        self.tick(name, dt=0.01)

    def elect(self, name: str, voters: str) -> bool:
        """Stands, and lets these vote."""
        self.stand(name)
        for voter in voters:
            self.deliver(name, voter)
        for voter in voters:
            self.deliver(voter, name)
        return self.leads(name)

    def write(self, name: str, key: str, size_bytes: int = 0, *, fails: bool = False) -> list[str]:
        """See the class; `fails`: the caller's callback raises (through `propose`)."""
        told = self._told[name, key] = []
        command = key.encode() + b" " + b"x" * size_bytes
        if fails or not self.leads(name):
            self.nodes[name].propose(command, _raise if fails else _ignore)
            return told
        self._sequence += 1
        proposal = Proposal("lab", self._sequence, 0, command)
        self.nodes[name]._engine.submit(encode_batch(Batch(0, [proposal])))
        return told

    def compact(self, name: str) -> None:
        """Happens by itself after `compact_after` entries."""

    def drop(self, source: str, target: str) -> None:
        """Loses what is on its way, without breaking the connection."""
        self.queues[source, target].clear()

    def stall_disks(self) -> None:
        """From now on nothing is synced any more."""
        for disk in self.disks.values():
            disk.stall(1e9)

    def lose_unsynced_tail(self, name: str) -> None:
        """Power loss and a new start."""
        self.crash(name)
        self.start(name)

    def leads(self, name: str) -> bool:
        """Whether it is a leader by its own view."""
        return name in self.nodes and self.nodes[name]._engine.role is Role.LEADER

    def term(self, name: str) -> int:
        """Its present term."""
        return self.nodes[name]._engine.term

    def last(self, name: str) -> tuple[int, int]:
        """Index and term of its last entry."""
        return self.journals[name].last_index, self.journals[name].last_term

    def values(self, name: str) -> dict[str, int]:
        """Its state machine."""
        return dict(self.machines[name].values)


def _server(name: str) -> Server:
    return Server(id=name, name=name, address=f"{name}:1")


def _ignore(_result: Any, _error: Exception | None) -> None:
    """What was applied is known from the state machine."""


def _raise(_result: Any, _error: Exception | None) -> None:
    raise RuntimeError("the caller went away")
