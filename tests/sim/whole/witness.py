"""Raft's own invariants, watched under whole servers (see `tests.sim.invariants`)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from raftreg.core.state import State
from raftreg.raft.journal import DurableJournal
from raftreg.raft.membership import Configuration
from raftreg.raft.node import RaftNode
from raftreg.raft.replica import Replica
from raftreg.raft.transport import PeerTransport
from raftreg.server.machine import RegistryMachine
from tests.sim.invariants import Invariants
from tests.sim.scheduler import Violation
from tests.sim.server import SimJournal
from tests.sim.whole.leases import LeasePromises

#: Index of an empty registry; each command adds one.
_FIRST_INDEX = State().index


class Member:
    """One server id: what Raft's invariants are about. A wiped server comes back as another one.

    Attributes:
        node: While its process runs.
        journal: Of the last process.
    """

    def __init__(self, name: str, journal: SimJournal) -> None:
        self.name = name
        self.node: RaftNode | None = None
        self.journal = journal
        self.begin(journal)

    def begin(self, journal: SimJournal) -> None:
        """A process of this server begins."""
        self.journal = journal
        self.term_seen = 0
        self.commit_seen = 0
        self.configuration_seen = Configuration()


class RegistryInvariants(Invariants):
    """The same state machine everywhere; commands may repeat, as two expiries of one lease do."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.leases = LeasePromises()

    def applied(self, name: str, position: int, command: bytes) -> None:
        """All servers apply the same list; what takes effect first breaks no lease."""
        history = self.history
        if position > len(history):
            raise Violation(f"{name} applied {position} before what comes before it")
        if position == len(history):
            history.append(command)
            self.leases.applied(command, self._world.scheduler.now)
        elif history[position] != command:
            raise Violation(
                f"{name} applied {command!r} at {position}, others {history[position]!r}"
            )


class Witness:
    """All members, and the invariants over them; the `world` that `Invariants` knows."""

    def __init__(self, timeline: Any, note: Any) -> None:
        self.scheduler = timeline
        self.began = timeline.now
        self.note = note
        self.servers: dict[str, Member] = {}
        self.invariants = RegistryInvariants(self)
        self.restores: defaultdict[str, int] = defaultdict(int)

    def opened(self, server_id: str, journal: SimJournal) -> Member:
        """A process has opened the log of a server."""
        member = self.servers.get(server_id)
        if member is None:
            member = self.servers[server_id] = Member(server_id, journal)
        member.begin(journal)

        def appended(index: int, term: int, prev_term: int, command: bytes) -> None:
            self.invariants.appended(server_id, index, term, prev_term, command)

        journal.witness = appended
        term, vote = journal.getCurrentTerm(), journal.getVotedForNodeId()
        self.invariants.recovered(server_id, term, vote)
        return member

    def voted(self, name: str) -> None:
        """A vote has left."""

    def holds(self, name: str, index: int, term: int) -> bool:
        """Whether an entry is on the disk of a server, running or not."""
        member = self.servers.get(name)
        if member is None:
            return False
        journal: DurableJournal = member.journal
        if index < journal.first_index:
            return True
        return journal.durable_index >= index and journal.term_at(index) == term


class WatchedReplica(Replica):
    """The real replica, looked at after every step."""

    witness: Witness
    member: Member

    def _open_parts(self) -> None:
        super()._open_parts()
        journal = self._journal
        assert isinstance(journal, SimJournal)
        self.member = self.witness.opened(self._server_id, journal)
        self.member.node = self.node

    def _tick(self) -> None:
        super()._tick()
        self._observe()

    def _on_message(self, sender: str, message: dict[str, Any]) -> None:
        super()._on_message(sender, message)
        self._observe()

    def _observe(self) -> None:
        if self._running:
            try:
                self.witness.invariants.observe(self.member)  # type: ignore[arg-type]
            except Violation as violation:
                self.witness.scheduler.violate(str(violation))


class WatchedTransport(PeerTransport):
    """The real transport; what a message promises must hold when it leaves."""

    witness: Witness

    def send(self, peer_id: str, message: dict[str, Any]) -> bool:
        """See `PeerTransport.send`."""
        if self.connected(peer_id):
            try:
                self.witness.invariants.sending(self._self_id, peer_id, message)
            except Violation as violation:
                self.witness.scheduler.violate(str(violation))
        return super().send(peer_id, message)


class WatchedMachine(RegistryMachine):
    """The real state machine; every server must apply the same."""

    def __init__(self, witness: Witness, name: str) -> None:
        super().__init__()
        self._witness = witness
        self._name = name
        self._time_ms = 0

    def apply(self, command: bytes, time_ms: int) -> Any:
        """See `RegistryMachine.apply`."""
        told, before = self._witness.invariants, self.state.index
        try:
            told.stamped(self._name, self._time_ms, time_ms)
            told.applied(self._name, before - _FIRST_INDEX, command)
        except Violation as violation:
            self._witness.scheduler.violate(str(violation))
        self._time_ms = time_ms
        result = super().apply(command, time_ms)
        if self.state.index != before + 1:
            self._witness.scheduler.violate(
                f"{self._name}: a command moved the index from {before} to {self.state.index}"
            )
        return result

    def restore(self, chunks: Any) -> None:
        """See `RegistryMachine.restore`."""
        super().restore(chunks)
        self._witness.restores[self._name] += 1
