"""A whole cluster in one process, decided by a seed: servers, agents and clients as they are."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from random import Random
from typing import Any

import aiohttp

from tests.sim.scheduler import Violation
from tests.sim.whole.loop import ProcessLoop
from tests.sim.whole.net import Network
from tests.sim.whole.process import AgentProcess, ClientProcess, Process, ServerProcess
from tests.sim.whole.timeline import Timeline
from tests.sim.whole.witness import Witness

NOTES_MAX = 20_000
#: Log lines worth a place in the trace.
_TOLD = frozenset(
    {
        "role_changed",
        "lease_lost",
        "hosts_are_back",
        "session_expired",
        "server_added",
        "server_promoted",
        "server_removed",
        "replacing_server",
        "server_not_admitted",
        "snapshot_installed",
        "expiry_not_applied",
        "replica_stopped",
        "log_tail_cut",
        "cluster_begins",
    }
)
#: Log lines that are a fault of ours wherever they come from.
_BROKEN = frozenset(
    {
        "request_failed",
        "task_failed",
        "transport_fault",
        "fault_callback_failed",
        "undecodable_command",
        "dns query failed",
        "dns connection failed",
        "snapshot_failed",
    }
)


class WholeWorld:
    """All hosts.

    Args:
        seed: Decides everything.
        size: Servers that begin the cluster.
        spares: Servers that are not started, and will join.
        agents: Hosts with an agent only.
        with_dns: Let servers and agents answer DNS.

    Attributes:
        servers, agents: By name.
        size: Servers that begin the cluster.
        clients: The host of the load.
        notes: What happened, a line each.
        on_start: Is told of each process that begins.
    """

    def __init__(
        self, seed: int, *, size: int = 3, spares: int = 0, agents: int = 0, with_dns: bool = False
    ) -> None:
        self.seed = seed
        self.with_dns = with_dns
        self.rng = Random(f"{seed}/world")
        self.timeline = Timeline()
        self.began = self.timeline.now
        self.notes: list[str] = []
        self.sessions: list[aiohttp.ClientSession] = []
        self._spawned: dict[asyncio.Task[Any], None] = {}
        self.network = Network(self.timeline, seed)
        self.witness = Witness(self.timeline, self.note)
        self.restart_mean_s: float | None = 1.0
        self.on_start: Callable[[Process], None] = lambda _: None
        self.size = size
        self.servers: dict[str, ServerProcess] = {}
        for number in range(1, size + spares + 1):
            expect = size if number <= size else None
            self.servers[f"n{number}"] = ServerProcess(self, f"n{number}", expect)
        self.agents = {
            f"a{number}": AgentProcess(self, f"a{number}") for number in range(1, agents + 1)
        }
        self.clients = ClientProcess(self, "clients")

    # --- what processes ask

    def process(self) -> Process:
        """The process that is running now."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop)
        return self.named(loop.name)

    def named(self, name: str) -> Process:
        """A host by its name."""
        found = self.servers.get(name) or self.agents.get(name)
        return found or self.clients

    def server_addresses(self) -> list[str]:
        """Addresses of the servers that begin the cluster."""
        names = list(self.servers)[: self.size]
        return [self.servers[name].machine.address for name in names]

    def addresses(self) -> dict[str, str]:
        """Address of every server and agent by name."""
        return {
            name: process.machine.address
            for name, process in [*self.servers.items(), *self.agents.items()]
        }

    # --- what happened

    def note(self, text: str) -> None:
        """Writes a line into the trace."""
        if len(self.notes) < NOTES_MAX:
            self.notes.append(f"{self.timeline.now - self.began:8.4f} {text}")

    def logged(self, level: str, line: Mapping[str, Any]) -> None:
        """A process has written a line to its log."""
        event = str(line.get("event"))
        if event in _BROKEN or level == "exception":
            self.broken(f"log: {dict(line)}", None)
        if event in _TOLD:
            details = " ".join(f"{key}={value}" for key, value in line.items() if key != "event")
            self.note(f"{self.process().name} says {event} {details}")

    def broken(self, what: str, error: BaseException | None) -> None:
        """Code under test failed in a way that no fault explains."""
        if isinstance(error, Violation):
            self.timeline.violation = self.timeline.violation or error
        elif self.timeline.violation is None:
            self.timeline.violation = Violation(f"{what}: {error!r}" if error else what)
            self.timeline.violation.__cause__ = error

    def process_started(self, process: Process) -> None:
        """A process begins."""
        self.on_start(process)

    def process_gone(self, process: Process) -> None:
        """A process was killed, or ended by itself: a supervisor starts it again."""
        if self.restart_mean_s is None:
            return
        incarnation = process.incarnation

        def restart() -> None:
            if process.incarnation == incarnation:
                process.start()

        self.timeline.call_later(self.rng.expovariate(1 / self.restart_mean_s), restart)

    # --- the world's hand

    def start(self) -> None:
        """Starts the first servers, all agents, and the host of the clients."""
        for name in list(self.servers)[: self.size]:
            self.servers[name].start()
        for process in [*self.agents.values(), self.clients]:
            process.start()

    def leader(self) -> ServerProcess | None:
        """The leader of the highest term, when there is one."""
        leading = [server for server in self.servers.values() if server.leads]
        return max(leading, key=lambda server: server.replica.member.term_seen, default=None)

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        self.timeline.run_until(self.timeline.now + seconds)

    def run_while(self, condition: Callable[[], bool], what: str, limit_s: float = 30.0) -> None:
        """Lets time pass while a condition holds.

        Raises:
            Violation: It still holds after `limit_s` simulated seconds.
        """
        end = self.timeline.now + limit_s
        while condition():
            if self.timeline.now > end:
                raise Violation(f"{what}: no progress in {limit_s:g} simulated seconds")
            self.run(0.05)

    def spawn(
        self, work: Callable[[], Coroutine[Any, Any, Any]], process: Process | None = None
    ) -> list[Any]:
        """Begins some work in a process (the clients' without one).

        Returns:
            A list that gets the result; None where the work failed or the process is gone. What
            fails at the clients is a fault of the harness.
        """
        target = process or self.clients
        loop, result = target.loop, list[Any]()

        def begin() -> None:
            task = loop.create_task(work(), name="spawned")
            self._spawned[task] = None
            task.add_done_callback(ended)

        def ended(task: asyncio.Task[Any]) -> None:
            del self._spawned[task]
            failed = task.cancelled() or task.exception() is not None
            if failed and target is self.clients:
                self.broken("the load failed", None if task.cancelled() else task.exception())
            result.append(None if failed else task.result())

        loop.call_soon(begin)
        return result

    def close(self) -> None:
        """Ends all processes; nothing of them is left to be swept up noisily."""
        self.restart_mean_s = None
        for process in [*self.servers.values(), *self.agents.values(), self.clients]:
            process.kill()
        for session in self.sessions:
            connector = session.connector
            session.detach()
            if connector is not None:
                connector._closed = True

    # --- looking

    def state(self) -> list[str]:
        """A line for each server."""
        return [_line(server) for server in self.servers.values() if server.incarnation]

    def digest(self, *more: object) -> str:
        """A hash over all that happened; the same for the same seed."""
        told = self.witness.invariants
        text = repr((self.state(), told.history, self.network.sent, self.notes, *more))
        return hashlib.sha256(text.encode()).hexdigest()


def _line(server: ServerProcess) -> str:
    member = server.member
    if member is None:
        return f"{server.name}: has not begun"
    log = f"log {member.journal.first_index}..{member.journal.last_index}"
    if not server.running or member.node is None:
        return f"{server.name} ({member.name}): down, {log}"
    status = member.node.status()
    members = ",".join(s.id if s.voter else f"({s.id})" for s in status.servers)
    return (
        f"{server.name} ({member.name}): {status.role.value} of {status.leader_id} in term "
        f"{status.term}, {log}, commit {status.commit_index}, registry index "
        f"{server.registry.state.index}, sees {members}"
    )
