"""A whole cluster in one process, decided by a seed: simulated time, network, disks and clients.

The servers are the real `RaftNode`s over the real journal; messages pass through the real codec.
Nothing reads the host's clock or randomness, so a seed gives the same history and digest every
time.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

from raftreg.errors import RaftregError
from raftreg.raft.api import Server
from raftreg.raft.faults import ProtocolViolation
from raftreg.raft.membership import Configuration
from tests.sim.invariants import Invariants
from tests.sim.network import SimNetwork
from tests.sim.scheduler import Scheduler, Violation
from tests.sim.server import SimServer

NOTES_MAX = 20_000


class World:
    """The cluster, its clients' record, and what must hold at every moment.

    Args:
        seed: Decides everything.
        size: Voters at the start.
        spares: Servers that run from the start and belong to nothing yet.

    Attributes:
        servers: By id. A wiped server is gone for ever; the one in its place has another id.
        gone: Servers whose disk was wiped.
        notes: What happened, a line each: faults, leaders, stops.
        crash_votes: So many voters lose power right after their next vote.
        restart_mean_s: A supervisor starts what is down after this mean time; None: nobody does.
    """

    def __init__(self, seed: int, size: int = 3, spares: int = 0) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.scheduler = Scheduler()
        self.began = self.scheduler.now
        self.notes: list[str] = []
        self.invariants = Invariants(self)
        self.network = SimNetwork(self)
        self.writes = 0
        self.late_pieces = 0
        self.restart_mean_s: float | None = None
        self.crash_votes = 0
        self.gone: dict[str, SimServer] = {}
        names = [f"n{number}" for number in range(size + spares)]
        voters = Configuration.of(server_of(name) for name in names[:size])
        self.servers = {
            name: SimServer(self, name, voters if name in voters.voters() else None)
            for name in names
        }
        for server in self.servers.values():
            server.start()
        self.network.connect_all()

    def note(self, text: str) -> None:
        """Writes a line into the trace."""
        if len(self.notes) < NOTES_MAX:
            self.notes.append(f"{self.scheduler.now - self.began:8.4f} {text}")

    # --- clients

    def write(self, name: str, command: bytes, timeout_s: float = 4.0) -> None:
        """A client writes at a server and notes the answer."""
        server = self.servers[name]
        node = server.node
        if node is None:
            return
        answered: list[bool] = []

        def done(result: Any, error: RaftregError | None) -> None:
            answered.append(True)
            if error is None:
                self.invariants.write_acked(command, result)
            elif error.definite:
                self.invariants.write_refused(command)

        key = node.propose(command, done)
        server.poke()

        def give_up() -> None:
            if server.node is node and not answered and not node.abandon(key):
                self.invariants.write_refused(command)

        self.scheduler.call_later(timeout_s, give_up)

    def write_next(self, name: str, size_bytes: int = 1) -> bytes:
        """Writes a command that was never written before; gives it."""
        self.writes += 1
        command = f"w{self.writes}-".encode() + b"x" * size_bytes
        self.write(name, command)
        return command

    def read(self, name: str) -> list[int]:
        """A client reads at a server; the list holds what it saw once it was answered."""
        server = self.servers[name]
        node, must_see, answer = server.node, self.invariants.must_see(), list[int]()
        if node is None:
            return answer

        def done(index: int | None) -> None:
            if index is not None:
                answer.append(len(server.machine.commands))
                self.invariants.read_answered(name, must_see, answer[0])

        node.read(done)
        server.poke()
        return answer

    # --- the world's hand

    def deliver(self, source: str, target: str, message: dict[str, Any]) -> None:
        """A message arrives."""
        try:
            self.servers[target].receive(source, message)
        except ProtocolViolation as violation:
            # A piece of a snapshot that comes late spoils the next one, and is found out.
            if "serialized" not in message:
                raise Violation(f"a correct server was accused: {violation}") from violation
            self.late_pieces += 1

    def kill(self, name: str) -> None:
        """Kill -9: memory is lost, what was written to files stays."""
        server = self.servers[name]
        if server.node is not None:
            server.stop()
            server.disk.kill()
            self._gone_down(server)

    def voted(self, name: str) -> None:
        """A vote has just left."""
        if self.crash_votes == 0:
            return
        self.crash_votes -= 1

        def crash() -> None:
            self.note(f"{name} loses power after its vote")
            self.power_off(name)
            self.start(name)

        self.scheduler.call_later(0.0, crash)

    def _gone_down(self, server: SimServer) -> None:
        self.network.isolate(server.name)
        if self.restart_mean_s is not None:
            incarnation = server.incarnation

            def restart() -> None:
                if server.name in self.servers and server.incarnation == incarnation:
                    self.start(server.name)

            delay_s = self.rng.expovariate(1 / self.restart_mean_s)
            self.scheduler.call_later(delay_s, restart)

    def power_off(self, name: str) -> None:
        """Power loss: unsynced writes are lost, too, whole or in part."""
        server = self.servers[name]
        if server.node is not None:
            server.stop()
            server.disk.crash()
            self._gone_down(server)

    def wipe(self, name: str) -> str:
        """The disk of a server is lost; an empty server takes its place. Gives the new id."""
        self.kill(name)
        self.gone[name] = self.servers.pop(name)
        slot, _, number = name.partition("w")
        successor = f"{slot}w{int(number or 0) + 1}"
        self.servers[successor] = SimServer(self, successor, None)
        self.start(successor)
        return successor

    def start(self, name: str) -> None:
        """Starts a server that is down."""
        if self.servers[name].node is None:
            self.servers[name].start()
            self.network.connect_all()

    # --- looking

    def holds(self, name: str, index: int, term: int) -> bool:
        """Whether an entry is on the disk of a server, running or not."""
        server = self.servers.get(name) or self.gone.get(name)
        if server is None:
            return False
        journal = server.journal
        if index < journal.first_index:
            return True  # compacted, so it was committed here: what it was, is checked there
        return journal.durable_index >= index and journal.term_at(index) == term

    def leader(self) -> SimServer | None:
        """The leader of the highest term, when there is one."""
        running = [s for s in self.servers.values() if s.node is not None and s.node.leads]
        return max(running, key=lambda server: server.term_seen, default=None)

    def configurations(self) -> list[Configuration]:
        """The configuration in force at each server, by its own view."""
        return [server.configuration_seen for server in self.servers.values()]

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        self.scheduler.run_until(self.scheduler.now + seconds)

    def run_while(self, condition: Callable[[], bool], what: str, limit_s: float = 30.0) -> None:
        """Lets time pass while a condition holds.

        Raises:
            Violation: It still holds after `limit_s` simulated seconds.
        """
        end = self.scheduler.now + limit_s
        while condition():
            if self.scheduler.now > end:
                raise Violation(f"{what}: no progress in {limit_s} simulated seconds")
            self.run(0.02)

    def state(self) -> list[str]:
        """A line for each server: what it is and what it has."""
        return [_line(server) for _, server in sorted(self.servers.items())]

    def digest(self) -> str:
        """A hash over all that happened; the same for the same seed."""
        told = self.invariants
        text = repr((self.state(), told.history, sorted(told.acked), self.network.sent, self.notes))
        return hashlib.sha256(text.encode()).hexdigest()


def server_of(name: str, *, voter: bool = True) -> Server:
    """A server as a configuration names it."""
    return Server(id=name, name=name, address=f"{name}:1", voter=voter)


def _line(server: SimServer) -> str:
    applied = len(server.machine.commands)
    last = server.machine.commands[-1][:12] if applied else b""
    log = f"log {server.journal.first_index}..{server.journal.last_index}"
    if server.node is None:
        return f"{server.name}: down, term {server.journal.getCurrentTerm()}, {log}"
    status = server.node.status()
    members = ",".join(s.id if s.voter else f"({s.id})" for s in status.servers)
    return (
        f"{server.name}: {status.role.value} of {status.leader_id} in term {status.term}, {log}, "
        f"commit {status.commit_index}, applied {applied} commands, last {last!r}, sees {members}"
    )
