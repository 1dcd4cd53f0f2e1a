"""What must hold at every moment of a simulated cluster, whatever the faults.

The first five are the properties of figure 3 of the Raft paper (Ongaro and Ousterhout 2014):
election safety, append-only of what is committed, log matching, leader completeness, state machine
safety. The rest is what the safety envelope promises besides: nothing is acknowledged or voted
before it is on disk, a commit is durable on a majority, requests take effect once, reads are
linearizable, cluster time does not go back or run ahead.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from raftreg.raft.api import Role
from tests.sim.scheduler import Violation

if TYPE_CHECKING:
    from tests.sim.server import SimServer
    from tests.sim.world import World

#: Clocks of the servers run at most so much too fast.
DRIFT_MAX = 1.05


class Invariants:
    """The record of a run, and the checks on every step of it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.leaders: dict[int, str] = {}
        self.votes: dict[tuple[str, int], str] = {}
        #: (index, term) -> (term of the entry before, checksum of the command).
        self.entries: dict[tuple[int, int], tuple[int, int]] = {}
        #: index -> (term of the entry, lowest term in which it was seen committed).
        self.committed: dict[int, tuple[int, int]] = {}
        self.history: list[bytes] = []
        self.positions: dict[bytes, int] = {}
        self.acked: dict[bytes, int] = {}
        self.refused: set[bytes] = set()
        self.seen_by_reads = 0
        self.reads_done = 0

    # --- the log

    def appended(self, name: str, index: int, term: int, prev_term: int, command: bytes) -> None:
        """Log matching: entries of one index and term are the same, and so is what is before."""
        entry = (prev_term, zlib.crc32(command))
        known = self.entries.setdefault((index, term), entry)
        if known != entry:
            raise Violation(f"{name} appended another entry {index} of term {term}")

    def observe(self, server: SimServer) -> None:
        """Looks at a server after it did something."""
        node = server.node
        if node is None:
            return
        engine = node._engine
        term, commit, leads = engine.term, engine.commit_index, engine.role is Role.LEADER
        if term < server.term_seen or commit < server.commit_seen:
            raise Violation(
                f"{server.name} went back: term {server.term_seen} to {term}, "
                f"commit {server.commit_seen} to {commit}"
            )
        if commit > server.journal.last_index:
            raise Violation(f"{server.name} committed {commit} beyond its log")
        if leads and server.name != self.leaders.get(term):
            self._new_leader(server, term)
        if commit > server.commit_seen:
            self._committed(server, commit, term, leads)
        server.term_seen, server.commit_seen = term, commit
        server.configuration_seen = node.configuration

    def _new_leader(self, server: SimServer, term: int) -> None:
        """Election safety, and leader completeness."""
        first = self.leaders.setdefault(term, server.name)
        if first != server.name:
            raise Violation(f"{first} and {server.name} both lead term {term}")
        self._world.note(f"{server.name} leads term {term}")
        journal = server.journal
        for index, (entry_term, seen_in) in self.committed.items():
            if seen_in < term and index >= journal.first_index:
                found = journal.term_at(index)
                if found != entry_term:
                    raise Violation(
                        f"{server.name} leads term {term} without the committed entry {index} of "
                        f"term {entry_term} (its own: {found})"
                    )

    def _committed(self, server: SimServer, commit: int, term: int, leads: bool) -> None:
        """State machine safety at the level of the log; a leader's commit is on a majority."""
        journal = server.journal
        before = self.committed.get(commit)
        for index in range(max(server.commit_seen + 1, journal.first_index), commit + 1):
            entry_term = journal.term_at(index) or 0
            known, seen_in = self.committed.get(index, (entry_term, term))
            if known != entry_term:
                raise Violation(
                    f"{server.name} committed entry {index} of term {entry_term}, "
                    f"others that of term {known}"
                )
            self.committed[index] = (known, min(seen_in, term))
        # What a leader of an earlier term committed needs no proof of this one.
        proved = before is not None and before[1] < term
        if leads and server.commit_seen and server.term_seen == term and not proved:
            self._check_majority(server, commit, term)

    def _check_majority(self, server: SimServer, commit: int, term: int) -> None:
        entry_term = server.journal.term_at(commit)
        if entry_term != term:
            raise Violation(
                f"{server.name} in term {term} committed up to entry {commit} of term "
                f"{entry_term}: only an entry of its own term decides (section 5.4.2)"
            )
        assert server.node is not None
        voters = server.node.configuration.voters()
        holders = sum(self._world.holds(name, commit, term) for name in voters)
        if holders * 2 <= len(voters):
            raise Violation(
                f"{server.name} committed {commit}, durable on {holders} of {len(voters)} voters"
            )

    # --- messages that promise something

    def sending(self, source: str, target: str, message: dict[str, Any]) -> None:
        """What a message promises must be on disk; a vote is given once a term."""
        match message["type"]:
            case "response_vote":
                self._voted(source, message["term"], target)
                self._world.voted(source)
            case "request_vote":
                self._voted(source, message["term"], source)
            case "next_node_idx" if message["success"]:
                self._acknowledged(self._world.servers[source], message)

    def _voted(self, name: str, term: int, candidate: str) -> None:
        first = self.votes.setdefault((name, term), candidate)
        if first != candidate:
            raise Violation(f"{name} voted for {first} and {candidate} in term {term}")

    def recovered(self, name: str, term: int, voted_for: str | None) -> None:
        """A server that starts again must know the last vote that it gave."""
        given = [at for voter, at in self.votes if voter == name]
        if not given:
            return
        last, candidate = max(given), self.votes[name, max(given)]
        if term < last or (term == last and voted_for != candidate):
            raise Violation(
                f"{name} voted for {candidate} in term {last}, and came back in term {term} with "
                f"its vote for {voted_for}"
            )

    def _acknowledged(self, server: SimServer, message: dict[str, Any]) -> None:
        journal, upto = server.journal, message["next_node_idx"] - 1
        # One of an older term may be about entries that were replaced since.
        if journal.getCurrentTerm() == message.get("term") and journal.durable_index < upto:
            raise Violation(
                f"{server.name} acknowledged {upto}, durable up to {journal.durable_index}"
            )

    # --- the state machine

    def applied(self, name: str, position: int, command: bytes) -> None:
        """All servers apply the same list, each command once."""
        if position < len(self.history):
            if self.history[position] != command:
                raise Violation(
                    f"{name} applied {command!r} at {position}, others {self.history[position]!r}"
                )
            return
        if command in self.positions:
            raise Violation(f"{name} applied {command!r} twice")
        if command in self.refused:
            raise Violation(f"{command!r} was said not to happen, and {name} applied it")
        self.positions[command] = position
        self.history.append(command)

    def stamped(self, name: str, before_ms: int, time_ms: int) -> None:
        """Cluster time does not go back, and not ahead of the fastest clock."""
        if time_ms < before_ms:
            raise Violation(f"{name}: cluster time went back from {before_ms} to {time_ms}")
        elapsed_ms = (self._world.scheduler.now - self._world.began) * 1000
        if time_ms > elapsed_ms * DRIFT_MAX + 1:
            raise Violation(f"{name}: cluster time {time_ms} ms after {elapsed_ms:.0f} ms")

    # --- clients

    def write_acked(self, command: bytes, result: int) -> None:
        """A client was told that its write took effect."""
        if result > len(self.history) or self.history[result - 1] != command:
            raise Violation(f"{command!r} was acknowledged with another's result")
        self.acked[command] = result

    def write_refused(self, command: bytes) -> None:
        """A client was told that its write did not and will not take effect."""
        if command in self.positions:
            raise Violation(f"{command!r} was applied and then said not to happen")
        self.refused.add(command)

    def must_see(self) -> int:
        """How many commands a read that begins now must at least see."""
        acked = max(self.acked.values(), default=0)
        return max(acked, self.seen_by_reads)

    def read_answered(self, name: str, must_see: int, seen: int) -> None:
        """Reads are linearizable: they see what was acknowledged or read before they began."""
        self.reads_done += 1
        if seen < must_see:
            raise Violation(f"stale read at {name}: {seen} commands, {must_see} were known before")
        self.seen_by_reads = max(self.seen_by_reads, seen)
