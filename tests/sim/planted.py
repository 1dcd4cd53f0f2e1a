"""Bugs to plant: each switches one rule of the envelope off, and the simulator must find it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raftreg.raft import node
from raftreg.raft.api import Role
from raftreg.raft.dedup import AppliedRequests
from raftreg.raft.election import Election
from raftreg.raft.engine import Engine, Message, Peer
from raftreg.raft.journal import DurableJournal, RecordKind, _encode_hard_state
from raftreg.raft.membership import Configuration
from raftreg.raft.read_index import ReadRounds

Plant = Callable[[pytest.MonkeyPatch], None]


def commit_not_clamped(patch: pytest.MonkeyPatch) -> None:
    """A follower commits up to the leader's commit index, whatever the append proved (S2)."""

    def on_append(self: Engine, sender: str, message: Message) -> None:
        if message["term"] < self.term:
            self._reply(sender, {"type": "stale_term", "term": self.term})
            return
        self._pass(sender, message)
        if "prevLogIdx" not in message:
            self._SyncObj__sendNextNodeIdx(Peer(sender), nextNodeIdx=1, success=False)
        self.hold_election()

    patch.setattr(Engine, "_on_append", on_append)


def acks_of_any_term(patch: pytest.MonkeyPatch) -> None:
    """An acknowledgement counts in whatever term it comes (S3)."""
    real = Engine._on_acknowledgement

    def on_acknowledgement(self: Engine, sender: str, message: Message) -> None:
        real(self, sender, {**message, "term": self.term})

    patch.setattr(Engine, "_on_acknowledgement", on_acknowledgement)


def acks_before_sync(patch: pytest.MonkeyPatch) -> None:
    """Acknowledgements leave before what they acknowledge is on disk (S4)."""
    patch.setattr(node, "_AFTER_SYNC", node._AFTER_SYNC - {"next_node_idx"})


def votes_before_sync(patch: pytest.MonkeyPatch) -> None:
    """Votes leave before they are on disk."""
    patch.setattr(node, "_AFTER_SYNC", node._AFTER_SYNC - {"response_vote", "request_vote"})


def leader_counts_unsynced(patch: pytest.MonkeyPatch) -> None:
    """A leader counts entries of its own that are not on disk."""

    def set_commit(self: Engine, index: int) -> None:
        if self._ready:
            self._commit = max(self._commit, index)

    patch.setattr(
        Engine, "_SyncObj__raftCommitIndex", property(lambda self: self._commit, set_commit)
    )


def commit_of_an_older_term(patch: pytest.MonkeyPatch) -> None:
    """A leader's commit is cut at what is durable here, also where that is of an older term."""

    def set_commit(self: Engine, index: int) -> None:
        if self._ready:
            self._proved = max(self._proved, index)
            self._commit = max(self._commit, min(index, self._log.durable_index))

    patch.setattr(
        Engine, "_SyncObj__raftCommitIndex", property(lambda self: self._commit, set_commit)
    )


def truncate_after_every_append(patch: pytest.MonkeyPatch) -> None:
    """The journal does what PySyncObj asks: it removes all after prevLogIdx (S1)."""

    def delete(self: DurableJournal, position: int) -> None:
        self._log.truncate_from(self._log.first_index + position)

    patch.setattr(DurableJournal, "deleteEntriesFrom", delete)


def requests_repeated(patch: pytest.MonkeyPatch) -> None:
    """A proposal that is in the log twice takes effect twice."""
    patch.setattr(AppliedRequests, "seen", lambda *_: (False, None))


def reads_without_echo(patch: pytest.MonkeyPatch) -> None:
    """A leader answers reads without asking whether it still leads."""
    real = ReadRounds.start

    def start(self: ReadRounds, *arguments: Any) -> int:
        number = real(self, *arguments)
        self.close_if(1)
        return number

    patch.setattr(ReadRounds, "start", start)


def reads_before_the_no_op(patch: pytest.MonkeyPatch) -> None:
    """A new leader answers reads before an entry of its own term is committed."""
    patch.setattr(node.RaftNode, "leads", property(lambda self: self._engine.role is Role.LEADER))


def vote_not_persisted(patch: pytest.MonkeyPatch) -> None:
    """The vote is kept in memory only (S8)."""
    real = DurableJournal.setCurrentTerm

    def set_term(self: DurableJournal, term: int, voted_for: str | None) -> None:
        if term > self._term or voted_for is None:
            real(self, term, None)
        self._wal.append(RecordKind.HARD_STATE, _encode_hard_state(term, None))
        self._voted_for = voted_for

    patch.setattr(DurableJournal, "setCurrentTerm", set_term)


def no_pre_vote(patch: pytest.MonkeyPatch) -> None:
    """Whoever has not heard a leader stands at once: one that comes back deposes the leader."""
    real = Election.start_round

    def start_round(self: Election, term: int, now: float) -> int:
        self.engine.start_election()  # type: ignore[attr-defined]
        return real(self, term, now)

    built = node.RaftNode.__init__

    def init(self: node.RaftNode, **parts: Any) -> None:
        built(self, **parts)
        self._election.engine = self._engine  # type: ignore[attr-defined]

    patch.setattr(node.RaftNode, "__init__", init)
    patch.setattr(Election, "start_round", start_round)


def new_servers_without_a_log(patch: pytest.MonkeyPatch) -> None:
    """A majority is counted over the servers that were there at the start (S9, in part)."""
    real = Engine.adopt

    def adopt(self: Engine, configuration: Configuration) -> None:
        if not self._SyncObj__otherNodes:
            real(self, configuration)

    patch.setattr(Engine, "adopt", adopt)


#: Random schedules find these within a hundred seeds. `acks_of_any_term` and
#: `commit_of_an_older_term` need rarer ones: tests/raft/test_audit.py directs them.
PLANTS: tuple[Plant, ...] = (
    commit_not_clamped,
    acks_before_sync,
    votes_before_sync,
    leader_counts_unsynced,
    truncate_after_every_append,
    requests_repeated,
    reads_without_echo,
    reads_before_the_no_op,
    vote_not_persisted,
    no_pre_vote,
    new_servers_without_a_log,
)
