"""Standing for election: the pre-vote over the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftreg.raft.api import Role
from raftreg.raft.election import Election, LogPosition
from raftreg.raft.engine import Engine
from raftreg.raft.journal import DurableJournal
from raftreg.raft.membership import Configuration

Message = dict[str, Any]


class Standing:
    """Asks the peers before an election, and answers them.

    Args:
        engine: The engine that holds the election itself.
        journal: Whose end decides who is up to date.
        election: Timer and counts.
        server_id: This server.
        configuration: Gives the configuration in force.
        send: Sends a message to a peer.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        journal: DurableJournal,
        election: Election,
        server_id: str,
        configuration: Callable[[], Configuration],
        send: Callable[[str, Message], bool],
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._election = election
        self._server_id = server_id
        self._configuration = configuration
        self._send = send
        self._clock = clock
        self.handlers: dict[str, Callable[[str, Message], None]] = {
            "pre_vote": self._on_pre_vote,
            "pre_vote_reply": self._on_reply,
        }

    def _log_end(self) -> LogPosition:
        return LogPosition(self._journal.last_term, self._journal.last_index)

    def drive(self, now: float) -> None:
        """Asks the peers when no leader was heard for long enough."""
        if self._engine.role is Role.LEADER or now < self._election.deadline:
            return
        voters = self._configuration().voters()
        if self._server_id not in voters:
            self._election.vote_granted(now)  # nothing to do but to wait
            return
        term = self._engine.term + 1
        number = self._election.start_round(term, now)
        end = self._log_end()
        question = {
            "type": "pre_vote",
            "term": term,
            "round": number,
            "last_log_index": end.last_index,
            "last_log_term": end.term,
        }
        for peer in sorted(voters - {self._server_id}):
            self._send(peer, dict(question))
        if len(voters) == 1:
            self._engine.start_election()

    def _on_pre_vote(self, sender: str, message: Message) -> None:
        granted = self._agrees(sender, message)
        if granted:
            # Else two servers that lost their leader at once would split the votes of a term, and
            # wait for an election timeout before they try again.
            self._election.give_way(self._clock())
        reply = {
            "type": "pre_vote_reply",
            "round": message["round"],
            "granted": granted,
            "term": self._engine.term,
        }
        self._send(sender, reply)

    def _agrees(self, sender: str, message: Message) -> bool:
        if self._engine.role is Role.LEADER or self._election.hears_leader(self._clock()):
            return False
        term, ours = message["term"], self._log_end()
        theirs = LogPosition(message["last_log_term"], message["last_log_index"])
        if not self._election.may_grant(term, theirs, ours, self._engine.term):
            return False
        # Of two that ask each other at the same time, one goes first.
        rival = self._election.asks_for(term) and theirs == ours
        return not rival or sender < self._server_id

    def _on_reply(self, sender: str, message: Message) -> None:
        if message["term"] > self._engine.term and self._engine.role is not Role.LEADER:
            # Behind in terms, no round of ours can succeed: catch up and ask again later.
            self._engine.step_down(message["term"])
            return
        configuration = self._configuration()
        if not message["granted"] or sender not in configuration.voters():
            return
        majority = configuration.majority()
        if self._election.granted(sender, message["round"], majority, self._engine.term):
            self._engine.start_election()
