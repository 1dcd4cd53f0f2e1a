"""Linearizable reads of one node: the leader's rounds, a follower's questions, and the waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any

from raftreg.errors import NotProposed
from raftreg.raft.api import Role
from raftreg.raft.engine import Engine
from raftreg.raft.membership import Configuration
from raftreg.raft.read_index import Echoers, ReadDone, ReadRequests, ReadRounds

Message = dict[str, Any]
#: A round that the first peers asked have not closed by then goes to all: on a local network, some
#: tens of round trips.
HEDGE_S = 0.01


class LinearReads:
    """Drives `ReadRounds` and `ReadRequests` over the network.

    Args:
        engine: Role, term and indexes of this server.
        server_id: This server.
        configuration: Gives the configuration in force.
        leads: Whether this server's state holds all that was committed before its term.
        connected: Ids of the peers that can be sent to.
        send: Sends a message to a peer.
        retry_s: Seconds after which a question to the leader is repeated.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        server_id: str,
        configuration: Callable[[], Configuration],
        leads: Callable[[], bool],
        connected: Collection[str],
        send: Callable[[str, Message], bool],
        retry_s: float,
    ) -> None:
        self._engine = engine
        self._server_id = server_id
        self._configuration = configuration
        self._leads = leads
        self._connected = connected
        self._send = send
        self._rounds = ReadRounds()
        self._requests = ReadRequests(retry_s)
        self._waiting: deque[tuple[int, ReadDone]] = deque()
        self._echoers = Echoers()
        self._pinged_at = 0.0
        self._pinged_all = True
        self.handlers: dict[str, Callable[[str, Message], None]] = {
            "read_ping": self._on_ping,
            "read_echo": self._on_echo,
            "read_request": self._on_request,
            "read_reply": self._on_reply,
        }

    @property
    def rounds_total(self) -> int:
        """Rounds of echoes that this server has led."""
        return self._rounds.rounds_total

    def read(self, done: ReadDone) -> None:
        """Asks for a read index; `done` is called once this server has applied it.

        Raises:
            NotProposed: Too many readers wait.
        """
        if self._engine.role is Role.LEADER:
            queued = self._rounds.ask(self._when_applied(done))
        else:
            queued = self._requests.ask(done)
        if not queued:
            raise NotProposed("too many reads are waiting; try again later")

    def drive(self, now: float) -> None:
        """Starts what can be started now."""
        if self._engine.role is not Role.LEADER:
            self._rounds.fail()
            self._ask_leader(now)
            return
        for done in self._requests.take_all():
            self._rounds.ask(self._when_applied(done))
        if self._leads() and self._rounds.idle_with_work:
            self._rounds.start(self._engine.commit_index)
            self._ping_first(now)
            self._rounds.close_if(self._configuration().majority())
        elif self._rounds.open_sequence is not None and now >= self._ping_due():
            self._ping(now, self._peers())  # the first one may be lost
            self._pinged_all = True

    def release(self) -> None:
        """Lets those read whose index is applied by now."""
        if self._waiting:
            waiting, self._waiting = self._waiting, deque()
            for index, done in waiting:
                self._wait_applied(index, done)

    def due(self) -> float | None:
        """When something is to be repeated; None when nothing is out."""
        if self._rounds.open_sequence is not None:
            return self._ping_due()
        # Without a way to the leader nothing can be repeated, and a time that is past would let the
        # node tick without end: the leader's coming, or another one's, brings the next tick.
        return self._requests.due() if self._reachable_leader() is not None else None

    @property
    def can_start(self) -> bool:
        """True when a round waits only for the next tick."""
        return self._leads() and self._rounds.idle_with_work

    def leader_changed(self) -> None:
        """Questions to the former leader may be lost."""
        self._requests.leader_changed()

    def stop(self) -> None:
        """Tells everyone who waits that they may not read."""
        self._rounds.fail()
        for done in self._requests.take_all():
            done(None)
        waiting, self._waiting = self._waiting, deque()
        for _, done in waiting:
            done(None)

    def _when_applied(self, done: ReadDone) -> ReadDone:
        def confirmed(index: int | None) -> None:
            if index is not None:
                self._wait_applied(index, done)
            elif not self._requests.ask(done):
                # Leadership was lost before it was confirmed; the next leader can't be asked.
                done(None)

        return confirmed

    def _wait_applied(self, index: int, done: ReadDone) -> None:
        if self._engine.applied_index >= index:
            done(index)
        else:
            self._waiting.append((index, done))

    def _ask_leader(self, now: float) -> None:
        leader = self._reachable_leader()
        if leader is None:
            return
        question = self._requests.next_question(now)
        if question is not None:
            self._send(leader, {"type": "read_request", "id": question})

    def _reachable_leader(self) -> str | None:
        leader = self._engine.leader_id
        return leader if leader in self._connected else None

    def _ping_due(self) -> float:
        return self._pinged_at + (self._requests.retry_s if self._pinged_all else HEDGE_S)

    def _peers(self) -> frozenset[str]:
        return self._configuration().voters() - {self._server_id}

    def _ping_first(self, now: float) -> None:
        peers = self._peers()
        needed = self._configuration().majority() - 1
        first = self._echoers.first(peers.intersection(self._connected), needed)
        self._pinged_all = len(first) < needed
        self._ping(now, peers if self._pinged_all else first)

    def _ping(self, now: float, peers: Iterable[str]) -> None:
        self._pinged_at = now
        ping = {
            "type": "read_ping",
            "term": self._engine.term,
            "sequence": self._rounds.open_sequence,
        }
        for peer in sorted(peers):
            self._send(peer, dict(ping))

    def _on_ping(self, sender: str, message: Message) -> None:
        # An echo says "at this moment I know of no later leader", nothing about the disk.
        if message["term"] == self._engine.term and self._engine.leader_id == sender:
            echo = {"type": "read_echo", "term": message["term"], "sequence": message["sequence"]}
            self._send(sender, echo)

    def _on_echo(self, sender: str, message: Message) -> None:
        current = message["term"] == self._engine.term and self._engine.role is Role.LEADER
        if current and sender in self._configuration().voters():
            sequence, majority = message["sequence"], self._configuration().majority()
            if self._rounds.echo(sender, sequence, majority):
                self._echoers.note(sender, sequence)

    def _on_request(self, sender: str, message: Message) -> None:
        question = message["id"]

        def confirmed(index: int | None) -> None:
            self._send(sender, {"type": "read_reply", "id": question, "index": index})

        if self._engine.role is not Role.LEADER or not self._rounds.ask(confirmed):
            confirmed(None)

    def _on_reply(self, sender: str, message: Message) -> None:
        del sender
        for done in self._requests.answered(message["id"], message["index"]):
            self._wait_applied(message["index"], done)
