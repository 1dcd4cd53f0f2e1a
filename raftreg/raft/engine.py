"""PySyncObj's Raft, with the doors closed through which it loses data (ADR 0001).

`Engine` is a `SyncObj` that never ticks by itself, has no socket, pickles nothing and keeps no
file. What goes in (`receive`, `tick`, `submit`) and out (`EnginePort.send`) passes the rules of
the safety envelope here; durability, elections and reads are the business of `node.py`. The names
of the form `_SyncObj__x` are the engine's private ones: `ENGINE_VERSION` is pinned, and
`tests/raft/test_engine_internals.py` fails when what we rely on changes.

The rules, and the engine's faults that they answer (numbers of the audit in ADR 0001):

* commit index: never back, never past what is durable here or was proved by the append; a leader's
  only once its own disk reaches into its term (S2, S7, Raft paper section 5.4.2);
* acknowledgements and votes carry their term; others are dropped, votes count once a voter (S3);
* an acknowledgement never rewinds what was already sent, except as an explicit reset (S1);
* a log that differs from the leader's is put right from the commit index in one step, not an entry
  a round trip;
* entries are applied once, one by one, and a fault in `apply` stops the node (S10, S11);
* only entry kinds that hold no pickle pass (S12).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from pysyncobj import SyncObj, SyncObjConf, syncobj
from pysyncobj.journal import Journal
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from raftreg.raft.api import Role
from raftreg.raft.entries import CONFIGURATION, KINDS, decode_configuration_entry
from raftreg.raft.faults import InvariantViolation, ProtocolViolation
from raftreg.raft.journal import DurableJournal
from raftreg.raft.membership import Configuration

ENGINE_VERSION = "0.3.17"
Message = dict[str, Any]

_ROLES = {0: Role.FOLLOWER, 1: Role.CANDIDATE, 2: Role.LEADER}
_NEVER = float("inf")
#: Proposals that one tick applies (the last entry may go beyond), so that a long replay does not
#: hold the loop.
APPLY_PROPOSALS_MAX = 2_000
#: Appends are passed over while this much waits for the disk: the leader repeats them.
UNSYNCED_BYTES_MAX = 64 * 1024 * 1024
#: Bytes of entries in one append; an entry is always smaller (`COMMAND_BYTES_MAX`).
APPEND_BYTES_MAX = 4 * 1024 * 1024


class _Time:
    """The clock of the engine that is running now: PySyncObj reads one global function."""

    read: Callable[[], float] = staticmethod(lambda: 0.0)


_stock_create_journal = syncobj.createJournal


def _create_journal(journal: Any) -> Journal:
    return journal if isinstance(journal, Journal) else _stock_create_journal(journal)


# The journal truncates on a conflict only (S1); PySyncObj warns of what it believes to have done.
syncobj.logger.addFilter(lambda record: "truncating already-applied" not in record.msg)
syncobj.createJournal = _create_journal
syncobj.monotonicTime = lambda: _Time.read()  # noqa: PLW0108 - `read` changes


class Peer(Node):
    """A node whose hash does not change between processes: sets are walked in a fixed order."""

    def __init__(self, server_id: str) -> None:
        super().__init__(server_id)
        self._hash = zlib.crc32(server_id.encode())

    def __hash__(self) -> int:
        return self._hash


class EnginePort(Transport):
    """The engine's way out: hands each message to the node.

    Args:
        send: Takes (peer id, message); False where it could not be queued.
    """

    def __init__(self, send: Callable[[str, Message], bool]) -> None:
        super().__init__(None, None, [])
        self._send = send

    @property
    def ready(self) -> bool:
        """There is nothing to get ready."""
        return True

    def send(self, node: Node, message: Message) -> bool:
        """See `Transport.send`."""
        return self._send(node.id, message)

    def addNode(self, node: Node) -> None:  # noqa: N802 - the library's name
        """Connections are kept by the node, from the configuration."""

    def dropNode(self, node: Node) -> None:  # noqa: N802 - the library's name
        """See `addNode`."""

    def destroy(self) -> None:
        """Nothing to close."""


class SnapshotPort(Protocol):
    """The engine's view of snapshots that travel (`compaction.py`)."""

    def checkSerializing(self) -> tuple[int, int | None]:  # noqa: N802
        """State of a snapshot that is being written: never one of the engine's own."""
        ...

    def getTransmissionData(self, peer: Node) -> Any:  # noqa: N802
        """The next piece for a peer; its third item says whether it is the last."""
        ...

    def setTransmissionData(self, data: Any) -> bool:  # noqa: N802
        """Takes a piece; True when the snapshot is whole."""
        ...

    def cancelTransmisstion(self, peer: Node) -> None:  # noqa: N802
        """Forgets how far a peer had got."""
        ...


class _NoPoller:
    """PySyncObj polls sockets in every tick; there are none."""

    def poll(self, timeout_s: float) -> None:
        """Does nothing."""


class Engine(SyncObj):
    """One Raft participant.

    Args:
        server_id: Id of this server.
        journal: The durable log.
        port: Where messages go.
        snapshots: Snapshots on the way to and from peers.
        clock: Monotonic seconds.
        apply: Is called with (index, term, entry) for every committed entry, in order, once; gives
            how many proposals it held.
        install: Is called when a whole snapshot has arrived; must leave log and state at it.
        heartbeat_s: Period of empty appends, in seconds.
        fallback_s: Seconds without a majority's answer after which a leader steps down.
        applied_index: Index that the state machine already holds (of a snapshot), at least 1.
    """

    def __init__(  # noqa: PLR0913 - the parts of an engine, each by name
        self,
        *,
        server_id: str,
        journal: DurableJournal,
        port: EnginePort,
        snapshots: SnapshotPort,
        clock: Callable[[], float],
        apply: Callable[[int, int, bytes], int],
        install: Callable[[], None],
        heartbeat_s: float,
        fallback_s: float,
        applied_index: int,
    ) -> None:
        self._clock = clock
        self._log = journal
        self._reset_again_s = heartbeat_s / 2
        self._apply = apply
        self._install = install
        self._commit = 0
        self._proved = 0  #: highest index that appends of leaders proved committed
        self._diverged_in = 0  #: term whose leader has other entries than the end of this log
        self._reset_asked = (0, 0)  #: (term, index) from which a leader was asked to begin anew
        self._reset_asked_at = 0.0
        self._ready = False
        self._voters_heard: set[tuple[int, str]] = set()  #: (term, voter)
        # PySyncObj's constructor looks at every attribute, so also at this property's field.
        self._SyncObj__newAppendEntriesTime = 0.0
        self._enter()
        conf = SyncObjConf(
            autoTick=False,
            journalFile=journal,
            raftMinTimeout=heartbeat_s * 4,
            raftMaxTimeout=heartbeat_s * 8,
            connectionTimeout=max(3.5, heartbeat_s * 8),
            appendEntriesPeriod=heartbeat_s,
            appendEntriesBatchSizeBytes=APPEND_BYTES_MAX,
            leaderFallbackTimeout=fallback_s,
            commandsWaitLeader=False,
            dynamicMembershipChange=False,
        )
        super().__init__(Peer(server_id), [], conf, nodeClass=Peer, transport=port)
        self._poller = _NoPoller()
        self._SyncObj__serializer = snapshots
        self._SyncObj__raftLastApplied = applied_index
        # What was noted as committed is in the log: it is applied before any leader is heard.
        self._commit = max(applied_index, journal.getRaftCommitIndex())
        self._log.setRaftCommitIndex(self._commit)
        self.hold_election()
        self._ready = True

    # The commit index is a guarded door: PySyncObj assigns it in four places.

    @property
    def _SyncObj__raftCommitIndex(self) -> int:  # noqa: N802 - the engine's private name
        return self._commit

    @_SyncObj__raftCommitIndex.setter
    def _SyncObj__raftCommitIndex(self, index: int) -> None:  # noqa: N802
        if not self._ready:
            return
        durable = min(index, self._log.durable_index)
        if self.role is not Role.LEADER:
            self._proved = max(self._proved, index)
        elif self._log.term_at(durable) != self.term:
            # What is durable here ends before this term: a majority for later entries of this
            # term says nothing of it while this server may still lose them (section 5.4.2).
            return
        self._commit = max(self._commit, durable)

    def log_durable(self) -> None:
        """The log synced: what a leader had proved committed before may now count here."""
        self._commit = max(self._commit, min(self._proved, self._log.durable_index))
        self._log.setRaftCommitIndex(self._commit)

    # Parts of the engine that are ours.

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802
        """Applies what is committed: each entry once, and it counts as applied when it is."""
        budget = APPLY_PROPOSALS_MAX
        while budget > 0 and self.applied_index < self._commit:
            index = self.applied_index + 1
            entry = self._log[index - self._log[0][1]]
            self._SyncObj__raftLastApplied = index
            budget -= 1 + self._apply(index, entry[2], entry[0])
        return False

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        """Snapshots are made by the node."""

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: N802, N803
        """Is called when the last piece of a snapshot has arrived and was verified."""
        del clearJournal
        self._install()

    def _SyncObj__sendNextNodeIdx(  # noqa: N802
        self,
        node: Node,
        reset: bool = False,
        nextNodeIdx: int | None = None,  # noqa: N803
        success: bool = False,
    ) -> None:
        """Answers an append; one that does not fit, by asking for what follows the log here.

        Where the terms differ, PySyncObj asks for one entry more than the append had: a round trip
        for each divergent entry; and as appends that were sent meanwhile lie behind the end of the
        log, the answers to them set the leader back there: under steady writes it never got to the
        entries that differ. Up to the commit index all is in the log of every later leader (Leader
        Completeness, Raft section 5.4). So one step does, and until an append fits all answers say
        the same; the same answer to each append on its way would have everything sent as often.
        """
        if not reset:
            if success:
                self._diverged_in = 0
            super()._SyncObj__sendNextNodeIdx(node, reset, nextNodeIdx, success)
            return
        if nextNodeIdx is not None:
            self._diverged_in = self.term
        agreed = self._commit if self._diverged_in == self.term else self._log.last_index
        asked, now = (self.term, agreed + 1), self._clock()
        if asked != self._reset_asked or now - self._reset_asked_at >= self._reset_again_s:
            self._reset_asked, self._reset_asked_at = asked, now
            super()._SyncObj__sendNextNodeIdx(node, reset, agreed + 1, success)

    def _SyncObj__parseChangeClusterRequest(self, command: bytes) -> None:  # noqa: N802
        """Configurations are ours; PySyncObj would unpickle them."""
        del command

    # Doors.

    def _enter(self) -> None:
        _Time.read = self._clock

    def tick(self) -> None:
        """Runs what is due: commit, apply, heartbeat, election, queued commands."""
        self._enter()
        self.doTick(0.0)
        # An election that did not begin, or failed, is not repeated without a new pre-vote.
        self.hold_election()

    def submit(self, entry: bytes) -> None:
        """Queues an entry: the leader appends it at the next tick, a follower forwards it."""
        self._applyCommand(entry, None)

    def append_configuration(self, entry: bytes) -> int:
        """Appends a configuration entry as the leader; gives its index."""
        index: int = self._log.last_index + 1
        self._log.add(entry, index, self.term)
        return index

    def send_appends(self) -> None:
        """Sends to every peer what it lacks, or a heartbeat."""
        self._enter()
        self._SyncObj__sendAppendEntries()

    def connected(self, server_id: str) -> None:
        """A peer can be sent to."""
        self._SyncObj__connectedNodes.add(Peer(server_id))

    def disconnected(self, server_id: str) -> None:
        """A peer can't be sent to any more."""
        self._SyncObj__connectedNodes.discard(Peer(server_id))
        self._SyncObj__serializer.cancelTransmisstion(Peer(server_id))

    def adopt(self, configuration: Configuration) -> None:
        """Takes a configuration into force (from the moment it is in the log)."""
        me = self.selfNode.id
        voters: set[Node] = {Peer(i) for i in sorted(configuration.voters()) if i != me}
        learners: set[Node] = {Peer(i) for i in sorted(configuration.learners()) if i != me}
        known = self._SyncObj__otherNodes | self._SyncObj__readonlyNodes
        for peer in known - voters - learners:
            for table in (self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex):
                table.pop(peer, None)
            self._SyncObj__lastResponseTime.pop(peer, None)
        for peer in (voters | learners) - known:
            self._SyncObj__raftNextIndex[peer] = self._log.last_index + 1
            self._SyncObj__raftMatchIndex[peer] = 0
            self._SyncObj__lastResponseTime[peer] = self._clock()
        self._SyncObj__otherNodes = voters
        self._SyncObj__readonlyNodes = learners

    def installed(self, index: int) -> None:
        """The state machine now holds the snapshot of this index, which is durable."""
        self._SyncObj__raftLastApplied = index
        self._commit = max(self._commit, index)
        self._log.setRaftCommitIndex(self._commit)

    def step_down(self, term: int) -> None:
        """Becomes a follower, in this term where it is newer."""
        if term > self.term:
            self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(0)
        self._SyncObj__raftLeader = None

    def start_election(self) -> None:
        """Lets the engine become a candidate at the next tick."""
        self._SyncObj__raftElectionDeadline = -1.0

    def hold_election(self) -> None:
        """The engine's own election timer is never due: the node decides, after a pre-vote."""
        self._SyncObj__raftElectionDeadline = _NEVER

    def transfer_to(self, server_id: str) -> bool:
        """Asks a caught-up follower to start an election now; False when it is not fit."""
        accepted: list[bool] = []
        self.transferLeadership(Peer(server_id), lambda _, error: accepted.append(error == 0))
        return accepted == [True]

    # Reads.

    @property
    def role(self) -> Role:
        """Leader, candidate or follower."""
        return _ROLES[self._SyncObj__raftState]

    @property
    def term(self) -> int:
        """The present term."""
        return self._SyncObj__raftCurrentTerm

    @property
    def leader_id(self) -> str | None:
        """Who leads, as far as is known here."""
        leader = self._SyncObj__raftLeader
        return None if leader is None else leader.id

    @property
    def commit_index(self) -> int:
        """Highest index known committed."""
        return self._commit

    @property
    def applied_index(self) -> int:
        """Highest index in the state machine."""
        return self._SyncObj__raftLastApplied

    @property
    def no_op_index(self) -> int | None:
        """Index of the no-op with which the last leadership of this server began."""
        return self._SyncObj__noopIDx

    @property
    def voted_for(self) -> str | None:
        """Who got this server's vote in the present term."""
        return self._SyncObj__votedForNodeId

    @property
    def heartbeat_due(self) -> float:
        """When the leader's next heartbeat is due, on the node's clock."""
        return self._SyncObj__newAppendEntriesTime

    @property
    def transfer_pending(self) -> bool:
        """True while this server is about to take over on request of the leader."""
        return self._SyncObj__transferInProgress

    def match_index(self, server_id: str) -> int:
        """Highest index that a peer is known to hold durably; leader only."""
        return self._SyncObj__raftMatchIndex.get(Peer(server_id), 0)

    def response_age_s(self, server_id: str) -> float | None:
        """Seconds since a peer's last answer; leader only."""
        at = self._SyncObj__lastResponseTime.get(Peer(server_id))
        return None if at is None else self._clock() - at

    # Inbound rules.

    def receive(self, sender: str, message: Message) -> None:
        """Takes a message of the engine's protocol from an authenticated peer.

        Messages that break a rule of the envelope are dropped: the sender repeats what matters.
        """
        self._enter()
        handler = {
            "append_entries": self._on_append,
            "next_node_idx": self._on_acknowledgement,
            "request_vote": self._on_vote_request,
            "response_vote": self._on_vote,
            "apply_command": self._on_forwarded,
            "timeout_now": self._pass,
            "stale_term": self._on_stale_term,
        }.get(message["type"])
        if handler is not None:
            handler(sender, message)

    def _pass(self, sender: str, message: Message) -> None:
        self._SyncObj__onMessageReceived(Peer(sender), message)

    def _reply(self, sender: str, message: Message) -> None:
        self._SyncObj__transport.send(Peer(sender), message)

    def _on_stale_term(self, sender: str, message: Message) -> None:
        del sender
        if message["term"] > self.term:
            self.step_down(message["term"])

    def _on_append(self, sender: str, message: Message) -> None:
        if message["term"] < self.term:
            # PySyncObj stays silent, and a leader behind in terms would never learn of it.
            self._reply(sender, {"type": "stale_term", "term": self.term})
            return
        if self.role is Role.LEADER and message["term"] == self.term:
            raise InvariantViolation(f"{sender} also leads term {self.term}")
        if self._log.unsynced_bytes > UNSYNCED_BYTES_MAX:
            return
        if "transmission" in message:
            # PySyncObj's way to send a large entry: it would be joined without limit, unpickled.
            raise ProtocolViolation(f"{sender} sent an entry in pieces")
        if "prevLogIdx" in message:
            entries = message.get("entries") or []
            _check_entries(message, entries)
            proved = (message["prevLogIdx"] or 0) + len(entries)
            message["commit_index"] = min(message["commit_index"], proved)
            self._pass(sender, message)
        else:
            # A piece of a snapshot proves nothing about the log that is here.
            message["commit_index"] = min(message["commit_index"], self._commit)
            self._pass(sender, message)
            self._SyncObj__sendNextNodeIdx(Peer(sender), nextNodeIdx=1, success=False)
        if not self.transfer_pending:
            self.hold_election()

    def _on_acknowledgement(self, sender: str, message: Message) -> None:
        if message["term"] > self.term:
            self.step_down(message["term"])
            return
        peer = Peer(sender)
        next_index = self._SyncObj__raftNextIndex
        if message["term"] != self.term or peer not in next_index:
            return
        if self.role is not Role.LEADER:
            return
        sent = next_index[peer]
        end = self._log.last_index + 1
        if message["success"] and message["next_node_idx"] > end:
            return  # acknowledges what this leader never sent
        self._pass(sender, message)
        if message["success"]:
            next_index[peer] = max(sent, next_index[peer])
        elif message["reset"]:
            # A follower may have a longer log than its leader; and what it proved stays proved.
            proved = self._SyncObj__raftMatchIndex[peer] + 1
            next_index[peer] = max(min(message["next_node_idx"], end), proved)

    def _on_vote_request(self, sender: str, message: Message) -> None:
        repeated = message["term"] == self.term and self.voted_for == sender
        if repeated and self.role is Role.FOLLOWER:
            self._reply(sender, {"type": "response_vote", "term": self.term})
            return
        self._pass(sender, message)
        self.hold_election()

    def _on_vote(self, sender: str, message: Message) -> None:
        voters = self._SyncObj__otherNodes
        if message["term"] != self.term or Peer(sender) not in voters:
            return
        if (self.term, sender) not in self._voters_heard:
            # Votes of other terms were counted, or never will be.
            self._voters_heard = {heard for heard in self._voters_heard if heard[0] == self.term}
            self._voters_heard.add((self.term, sender))
            self._pass(sender, message)

    def _on_forwarded(self, sender: str, message: Message) -> None:
        del sender
        command = message["command"]
        if self.role is Role.LEADER and command[:1] == b"\x00":
            self.submit(command)


def _check_entries(message: Message, entries: list[Any]) -> None:
    """Refuses entries that no correct leader sends.

    Raises:
        ProtocolViolation: Gaps, terms beyond the message's, or an unknown kind of entry.
    """
    expected = (message["prevLogIdx"] or 0) + 1
    for command, index, term in entries:
        if index != expected or term > message["term"] or not command or command[0] not in KINDS:
            raise ProtocolViolation(f"bad entry {index} (term {term}) in an append")
        if command[0] == CONFIGURATION:
            _check_configuration(index, command)
        expected += 1


def _check_configuration(index: int, command: bytes) -> None:
    try:
        decode_configuration_entry(command)
    except msgspec.MsgspecError as error:
        raise ProtocolViolation(f"entry {index} holds no configuration: {error}") from error
