"""Bugs of consensus and of its disk: each takes one rule of the envelope away.

The simulator has counterparts of most of them (tests/sim/planted.py); here they run in real
processes, and clients must notice. All of them reach into private parts: that is where bugs live.
"""

# ruff: noqa: SLF001 - see the docstring

from __future__ import annotations

import os
from collections import deque
from typing import Any, Final

from pysyncobj.node import Node

from jepsen_like.planted.bug import replace
from raftreg.clock import SystemClock
from raftreg.raft import disk, engine, proposals
from raftreg.raft.api import Role
from raftreg.raft.dedup import AppliedRequests
from raftreg.raft.engine import Engine, EnginePort, Message
from raftreg.raft.entries import BATCH, decode_batch
from raftreg.raft.journal import DurableJournal, RecordKind
from raftreg.raft.linear_reads import LinearReads
from raftreg.raft.node import RaftNode
from raftreg.raft.proposals import ProposalQueue
from raftreg.raft.read_index import ReadDone

#: How far the index of a restarted server falls back.
_BACK: Final = 7
_HELD_S: Final = 1.0
_REPEATED_EVERY: Final = 4


def truncation() -> None:
    """The plain engine's truncation: an append removes all that comes after what it follows on (S1
    of the audit in ADR 1), so that an old one that comes again takes back what was acknowledged.

    The plain engine repeats appends under load all the time. Here the leader repeats every fourth,
    four appends later; as there, many small ones are on their way at a time.
    """
    append_bytes_max, proposals_max, in_flight_max = 2048, 4, 64

    def delete(self: DurableJournal, position: int) -> None:
        self._log.truncate_from(self._log.first_index + position)

    built, sent = ProposalQueue.__init__, EnginePort.send
    recent: dict[str, deque[Message]] = {}

    def init(self: ProposalQueue, proposer: str, retry_s: float) -> None:
        built(self, proposer, retry_s, in_flight_max)

    def send(self: EnginePort, node: Node, message: Message) -> bool:
        done = sent(self, node, message)
        if message.get("entries"):
            before = recent.setdefault(node.id, deque())
            before.append(dict(message))
            if len(before) > _REPEATED_EVERY:
                sent(self, node, before[0])
                before.clear()
        return done

    replace(DurableJournal, "deleteEntriesFrom", delete)
    replace(EnginePort, "send", send)
    replace(engine, "APPEND_BYTES_MAX", append_bytes_max)
    replace(proposals, "BATCH_PROPOSALS_MAX", proposals_max)
    replace(ProposalQueue, "__init__", init)


def forgotten_vote() -> None:
    """Term and vote are not on disk: a restarted server knows of no election, its own vote neither.

    PySyncObj takes the term of the last entry then, which hides most of it: that must go, too.
    """
    real, built = DurableJournal._replay, Engine.__init__

    def replay(self: DurableJournal, lsn: int, kind: int, payload: bytes) -> None:
        if kind != RecordKind.HARD_STATE:
            real(self, lsn, kind, payload)

    def init(self: Engine, **parts: Any) -> None:
        built(self, **parts)
        self._SyncObj__raftCurrentTerm = self._log.getCurrentTerm()

    replace(DurableJournal, "_replay", replay)
    replace(Engine, "__init__", init)


def skipped_fsync() -> None:
    """What is appended to the log is said to be on disk without having been synced."""

    def commit(self: disk._RealHandle, parts: list[bytes], after: bytes = b"") -> None:
        for part in parts:
            self._write_all(part)
        if after:
            self._write_all(after)
        else:
            disk._fdatasync(self._fd)  # a whole new file, not the log

    replace(disk._RealHandle, "commit", commit)


def held_back_log() -> None:
    """The log is said to be on disk while it waits in the memory of the process, for a second."""
    clock = SystemClock()
    held: dict[int, list[bytes]] = {}
    written_at: dict[int, float] = {}
    real = disk._RealHandle.commit

    def commit(self: disk._RealHandle, parts: list[bytes], after: bytes = b"") -> None:
        waiting = held.setdefault(self._fd, [])
        waiting += [*parts, after]
        now = clock.monotonic()
        if after and now - written_at.setdefault(self._fd, now) < _HELD_S:
            return
        written_at[self._fd] = now
        del held[self._fd]
        real(self, waiting)

    replace(disk._RealHandle, "commit", commit)


def early_commit() -> None:
    """A leader takes for committed what its own disk holds, and acknowledges it."""
    real = Engine.log_durable

    def log_durable(self: Engine) -> None:
        real(self)
        if self.role is Role.LEADER:
            self._commit = max(self._commit, self._log.durable_index)

    replace(Engine, "log_durable", log_durable)


def stale_read() -> None:
    """A linearizable read does not ask the leader: it is answered from this server's state."""

    def read(self: LinearReads, done: ReadDone) -> None:
        done(self._engine.applied_index)

    replace(LinearReads, "read", read)


def repeated_request() -> None:
    """A request that comes again takes effect again: nobody remembers the first time."""
    replace(AppliedRequests, "seen", lambda *_: (False, None))


def repeated_entry() -> None:
    """A restarted server applies the first entry that is new to it twice."""

    def again(node: RaftNode, entry: bytes) -> None:
        for proposal in decode_batch(entry).proposals:
            node._machine.apply(proposal.command, node._time_ms)

    _after_restart(again)


def backward_index() -> None:
    """The registry's index of a restarted server goes back."""

    def back(node: RaftNode, _: bytes) -> None:
        machine: Any = node._machine
        machine.state.index = max(1, machine.state.index - _BACK)

    _after_restart(back)


def _after_restart(harm: Any) -> None:
    """Does harm once a process, after the first entry that its log did not hold at the start."""
    built, real = RaftNode.__init__, RaftNode._apply

    def init(self: RaftNode, **parts: Any) -> None:
        journal: DurableJournal = parts["journal"]
        restarted = not journal.recovery.created
        self.harmless_up_to = journal.last_index if restarted else None  # type: ignore[attr-defined]
        built(self, **parts)

    def apply(self: RaftNode, index: int, term: int, entry: bytes) -> int:
        count = real(self, index, term, entry)
        limit: int | None = self.harmless_up_to  # type: ignore[attr-defined]
        if limit is not None and index > limit and entry[0] == BATCH:
            self.harmless_up_to = None  # type: ignore[attr-defined]
            harm(self, entry)
        return count

    replace(RaftNode, "__init__", init)
    replace(RaftNode, "_apply", apply)


def small_snapshots() -> None:
    """Makes snapshots come often, for bugs that need one."""
    os.environ["RAFTREG_RAFT_SNAPSHOT_THRESHOLD"] = "60"
    os.environ["RAFTREG_RAFT_TRAILING_LOGS"] = "10"
