"""One Raft participant without I/O of its own: engine, journal, elections, reads, proposals.

Everything comes in by a call (`receive`, `log_durable`, `tick`, `propose`, …) and goes out by the
arguments: time, randomness, the network and the disk are the caller's, so that the same code runs
under asyncio (`replica.py`) and in the deterministic simulator (`tests/sim`). After any call
the owner runs `tick()` soon; it says when the next one is due.

What a message may say before what is on disk: acknowledgements, votes and vote requests wait in
the outbox until every record before them is synced. Appends and echoes promise nothing about this
server's disk and leave at once, so that the followers' sync runs beside the leader's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import msgspec

from raftreg.errors import NoLeader, TooLarge
from raftreg.raft.api import PeerStatus, ReplicaStatus, RequestId, Role, Server, StateMachine
from raftreg.raft.compaction import Compaction, CompactionLimits, Worker
from raftreg.raft.configuring import Changed, ConfigurationKeeper
from raftreg.raft.dedup import AppliedRequests
from raftreg.raft.election import Election
from raftreg.raft.engine import Engine, EnginePort, Message
from raftreg.raft.entries import (
    BATCH,
    COMMAND_BYTES_MAX,
    CONFIGURATION,
    Batch,
    decode_batch,
    encode_batch,
)
from raftreg.raft.faults import CorruptSnapshot, InvariantViolation, ProtocolViolation
from raftreg.raft.journal import DurableJournal
from raftreg.raft.linear_reads import LinearReads
from raftreg.raft.membership import Configuration
from raftreg.raft.messages import check_form
from raftreg.raft.metrics import NodeMetrics
from raftreg.raft.proposals import Key, Pending, ProposalDone, ProposalQueue
from raftreg.raft.read_index import ReadDone
from raftreg.raft.snapshots import SnapshotStore
from raftreg.raft.standing import Standing

#: Messages of these types promise something about this server's disk.
_AFTER_SYNC = frozenset({"next_node_idx", "request_vote", "response_vote"})
_ENGINE_TYPES = frozenset(
    {
        "append_entries",
        "next_node_idx",
        "request_vote",
        "response_vote",
        "apply_command",
        "timeout_now",
        "stale_term",
    }
)
#: Messages that wait for a sync; more than this means that the disk has stopped.
OUTBOX_MAX = 100_000
#: A commit index that no other record took along is written down after this long.
NOTE_COMMIT_S = 0.2


class Network(Protocol):
    """Where messages go. Sending never blocks; what can't be queued is dropped."""

    def send(self, peer: str, message: Message) -> bool:
        """Queues a message; False when it was dropped."""
        ...

    def buffered_bytes(self, peer: str) -> int:
        """Bytes on their way to a peer that the network has not taken yet."""
        ...


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Periods of the protocol, in seconds.

    Attributes:
        heartbeat_s: A leader speaks at least this often. Smaller: faster detection, more traffic.
        election_min_s, election_max_s: Bounds of the random election timeout. It must be several
            heartbeats, and longer than the longest pause of a healthy server.
        fallback_s: A leader without a majority's answers for this long steps down.
        retry_s: Forwarded proposals and read questions are repeated after this long.
        disk_stall_s: A leader whose disk has not finished a sync for this long steps down.
    """

    heartbeat_s: float = 0.08
    election_min_s: float = 0.4
    election_max_s: float = 0.8
    fallback_s: float = 0.6
    retry_s: float = 0.5
    disk_stall_s: float = 3.0


class RaftNode:
    """See the module's text.

    Args:
        server: This server; its id is the one of the data directory.
        incarnation: Name of this process's proposals; must differ at every start.
        journal: The durable log, opened.
        snapshots: The snapshot files.
        machine: What is replicated; still empty, this restores it from the newest snapshot.
        base: The configuration in force where neither log nor snapshot holds one (None: this
            server waits to be added by a leader).
        network: Where messages go.
        worker: Runs a function off the loop and calls back on it.
        clock: Monotonic seconds.
        rng: Source of the election timeouts.
        timing: Periods.
        limits: When to write snapshots.
    """

    def __init__(  # noqa: PLR0913 - the parts of a participant, each by name
        self,
        *,
        server: Server,
        incarnation: str,
        journal: DurableJournal,
        snapshots: SnapshotStore,
        machine: StateMachine,
        base: Configuration | None,
        network: Network,
        worker: Worker,
        clock: Callable[[], float],
        rng: Random,
        timing: Timing,
        limits: CompactionLimits,
    ) -> None:
        self.server = server
        self.timing = timing
        self.metrics = NodeMetrics()
        self._journal = journal
        self._machine = machine
        self._network = network
        self._clock = clock
        self._applied_requests = AppliedRequests()
        self._time_ms = 0
        self._time_at = clock()
        self._election = Election(timing.election_min_s, timing.election_max_s, rng, clock())
        self._proposals = ProposalQueue(incarnation, timing.retry_s)
        self._outbox: deque[tuple[int, str, Message]] = deque()
        self._connected: set[str] = set()
        self._resolved: list[tuple[Pending, Any]] = []
        self._role_callbacks: list[Callable[[Role, int], None]] = []
        self._told: tuple[Role, int] = (Role.FOLLOWER, 0)
        self._seen_leader: tuple[str | None, int] = (None, 0)
        self._sent: tuple[int, int] = (0, 0)
        self._committed_at = clock()
        self._syncing_lsn = 0
        self._syncing_since = clock()
        self._compaction = Compaction(
            journal=journal,
            store=snapshots,
            worker=worker,
            limits=limits,
            clock=clock,
            buffered_bytes=network.buffered_bytes,
            capture=self._capture,
        )
        applied = self._restore_newest()
        self._engine = Engine(
            server_id=server.id,
            journal=journal,
            port=EnginePort(self._send),
            snapshots=self._compaction,
            clock=clock,
            apply=self._apply,
            install=self._install,
            heartbeat_s=timing.heartbeat_s,
            fallback_s=timing.fallback_s,
            applied_index=applied,
        )
        self._configuring = ConfigurationKeeper(self._engine, journal, self._compaction, base)
        self._reads = LinearReads(
            engine=self._engine,
            server_id=server.id,
            configuration=lambda: self._configuring.current,
            leads=lambda: self.leads,
            connected=self._connected,
            send=network.send,
            retry_s=timing.retry_s,
        )
        self._standing = Standing(
            engine=self._engine,
            journal=journal,
            election=self._election,
            server_id=server.id,
            configuration=lambda: self._configuring.current,
            send=network.send,
            clock=clock,
        )
        self._handlers = self._reads.handlers | self._standing.handlers

    # --- state machine and snapshots

    @property
    def snapshots_passed_over(self) -> list[CorruptSnapshot]:
        """Damaged snapshots in place of which an older one, or the whole log, was loaded."""
        return self._compaction.passed_over

    def _restore_newest(self) -> int:
        """Restores the machine from the newest snapshot; gives the applied index, at least 1."""
        loaded = self._compaction.load_newest()
        if loaded is None:
            return 1
        self._time_ms = loaded.header.time_ms
        self._time_at = self._clock()
        self._applied_requests = loaded.read_requests(self._machine.decode_result)
        self._machine.restore(loaded.machine_chunks())
        return loaded.meta.index

    def _capture(self) -> tuple[int, Any, Any]:
        """Shallow copies for a snapshot, at the applied index."""
        rows = self._applied_requests.rows(self._encode_result)
        return self._time_ms, rows, self._machine.snapshot()

    def _encode_result(self, result: Any) -> bytes:
        return self._machine.encode_result(result)

    def _install(self) -> None:
        """A whole snapshot of the leader has arrived and is durable: take it over."""
        meta = self._compaction.received
        self._journal.reset_to(meta.prev_index, meta.prev_term, meta.index, meta.term)
        try:
            applied = self._restore_newest()
        except Exception as fault:
            # Whatever it is, the state machine may hold half a state: nothing may go on with it.
            raise InvariantViolation(f"{meta.name} could not be restored: {fault!r}") from fault
        self._engine.installed(applied)
        self._configuring.refresh()
        self._machine.entry_applied(applied)
        self.metrics.snapshots_installed_total += 1

    def _apply(self, index: int, term: int, entry: bytes) -> int:
        proposals = 0
        if entry[0] == BATCH:
            proposals = self._apply_batch(entry)
            self._machine.entry_applied(index)
            resolved, self._resolved = self._resolved, []
            for pending, result in resolved:
                pending.finish(result, None)
        elif entry[0] == CONFIGURATION:
            self._configuring.applied(index, term)
        self.metrics.entries_applied_total += 1
        return proposals

    def _apply_batch(self, entry: bytes) -> int:
        try:
            batch = decode_batch(entry)
        except msgspec.DecodeError:
            # Every server sees the same bytes, so every server passes over them.
            self.metrics.bad_entries_total += 1
            return 0
        if batch.time_ms > self._time_ms:
            self._time_ms = batch.time_ms
            self._time_at = self._clock()
        requests, machine, time_ms = self._applied_requests, self._machine, self._time_ms
        for proposal in batch.proposals:
            proposer, sequence = proposal.proposer, proposal.sequence
            known, result = requests.seen(proposer, sequence)
            if not known:
                result = machine.apply(proposal.command, time_ms)
                requests.record(proposer, sequence, proposal.low, result)
            pending = self._proposals.applied(proposer, sequence)
            if pending is not None:
                self._resolved.append((pending, result))
        self.metrics.proposals_applied_total += len(batch.proposals)
        return len(batch.proposals)

    def cluster_time_ms(self) -> int:
        """Cluster time now: the last applied stamp and what has passed since (LogCabin)."""
        return self._time_ms + int((self._clock() - self._time_at) * 1000)

    # --- configuration

    @property
    def configuration(self) -> Configuration:
        """The configuration in force here (of the log, committed or not)."""
        return self._configuring.current

    def set_base(self, base: Configuration) -> None:
        """The bootstrap agreed: these servers form the new cluster."""
        self._configuring.set_base(base)
        if self.server.id == min(self.configuration.voters(), default=""):
            self._election.hurry(self._clock())

    def change_configuration(self, after: Configuration, done: Changed) -> None:
        """Appends a new configuration as the leader.

        Args:
            after: The next configuration: at most one voter differs.
            done: Is called with None once it is committed, or with why it is not known to be.

        Raises:
            NoLeader: This server does not lead (yet).
            InvalidRequest: More than one voter differs, or this server would be none.
            NotProposed: The change before this one is not committed yet.
        """
        if not self.leads:
            raise NoLeader("No cluster leader")
        self._configuring.change(after, done)

    # --- messages

    def _send(self, peer: str, message: Message) -> bool:
        kind = message["type"]
        if kind == "next_node_idx":
            message["term"] = self._engine.term
        if kind in _AFTER_SYNC:
            if len(self._outbox) < OUTBOX_MAX:
                self._outbox.append((self._journal.lsn, peer, message))
            return True
        return self._network.send(peer, message)

    def _release_outbox(self) -> None:
        durable = self._journal.durable_lsn
        while self._outbox and self._outbox[0][0] <= durable:
            _, peer, message = self._outbox.popleft()
            self._network.send(peer, message)

    def log_durable(self) -> None:
        """The journal synced something."""
        self._engine.log_durable()
        self._release_outbox()

    def peer_connected(self, peer: str) -> None:
        """Messages can be sent to this peer from now on."""
        self._connected.add(peer)
        self._engine.connected(peer)
        if peer == self._engine.leader_id:
            self._requeue()

    def peer_disconnected(self, peer: str) -> None:
        """Messages to this peer are lost from now on, and the last ones may be."""
        self._connected.discard(peer)
        self._engine.disconnected(peer)
        if peer == self._engine.leader_id and self._engine.role is Role.FOLLOWER:
            self._election.leader_lost(self._clock())

    def receive(self, sender: str, message: Message) -> None:
        """Takes a message of an authenticated peer.

        Raises:
            ProtocolViolation: The message is not of this protocol; nothing was changed.
            StorageFault: The node must stop.
        """
        check_form(sender, message)
        kind = message["type"]
        try:
            if kind in _ENGINE_TYPES:
                self._receive_engine(sender, message)
            elif kind in self._handlers:
                self._handlers[kind](sender, message)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ProtocolViolation(f"bad {kind!r} message from {sender}: {error!r}") from error

    def _receive_engine(self, sender: str, message: Message) -> None:
        engine, now = self._engine, self._clock()
        voted_before = (engine.term, engine.voted_for)
        engine.receive(sender, message)
        if message["type"] == "append_entries":
            if engine.leader_id == sender and message["term"] == engine.term:
                self._election.leader_heard(now)
        elif engine.voted_for == sender and voted_before != (engine.term, sender):
            self._election.vote_granted(now)
        self._configuring.refresh()

    # --- linearizable reads

    @property
    def leads(self) -> bool:
        """True for a leader whose state holds all that was committed before its term."""
        no_op = self._engine.no_op_index
        return (
            self._engine.role is Role.LEADER
            and no_op is not None
            and self._engine.applied_index >= no_op
        )

    def read(self, done: ReadDone) -> None:
        """Asks for a read index; `done` is called once this server has applied it.

        Raises:
            NotProposed: Too many readers wait.
        """
        self._reads.read(done)

    # --- proposals

    def propose(
        self,
        command: bytes,
        done: ProposalDone,
        *,
        request_id: RequestId | None = None,
        in_term: int | None = None,
    ) -> Key:
        """Queues a proposal; see `ReplicaAPI.propose`. Gives the key for `abandon`.

        Raises:
            TooLarge: The command is over `COMMAND_BYTES_MAX`.
            NotProposed: Too much is waiting.
        """
        if len(command) > COMMAND_BYTES_MAX:
            raise TooLarge(
                f"a command of {len(command)} bytes; at most {COMMAND_BYTES_MAX} are allowed"
            )
        return self._proposals.add(command, request_id, in_term, done)

    def abandon(self, key: Key) -> bool:
        """The caller of a proposal gave up; True when it may still commit."""
        return self._proposals.abandon(key)

    def lacks_leader(self, key: Key) -> bool:
        """True when a proposal was never handed to the engine, for want of a leader in reach."""
        return self._proposals.waits_unproposed(key) and not self._may_propose()

    def _may_propose(self) -> bool:
        engine = self._engine
        return engine.role is Role.LEADER or engine.leader_id in self._connected

    def _pump(self, now: float) -> bool:
        """Hands the next batch to the engine; True when there was one."""
        engine = self._engine
        if not self._proposals.ready or not self._may_propose():
            return False
        leads = engine.role is Role.LEADER
        proposals = self._proposals.take_batch(now, engine.term if leads else None)
        if not proposals:
            return False
        engine.submit(encode_batch(Batch(self.cluster_time_ms(), proposals)))
        self.metrics.batches_total += 1
        self.metrics.batch_sizes.observe(len(proposals))
        return True

    def _requeue(self) -> None:
        self._proposals.requeue()
        self._reads.leader_changed()

    def _check_retries(self, now: float) -> None:
        leader = (self._engine.leader_id, self._engine.term)
        if leader != self._seen_leader:
            self._seen_leader = leader
            self._requeue()
            return
        due = self._proposals.retry_due()
        # What a leader has in its own log needs no repetition.
        if due is not None and now >= due and self._engine.role is not Role.LEADER:
            self._proposals.requeue()

    # --- the tick

    def tick(self) -> float:
        """Does what is due; gives the time of the next tick at the latest (monotonic seconds)."""
        now = self._clock()
        if self._disk_stalled(now):
            # Somebody with a disk that works should lead: nothing commits here.
            self._election.vote_granted(now)
            if self._engine.role is Role.LEADER:
                self._engine.step_down(self._engine.term)
        self._standing.drive(now)
        self._check_retries(now)
        self._engine.tick()
        # What was just applied may have made room for the next batch: it goes out at once.
        while self._pump(now):
            self._engine.tick()
        if self._engine.role is Role.LEADER:
            position = (self._journal.last_index, self._engine.commit_index)
            if position != self._sent:
                self._sent = position
                self._engine.send_appends()
        self._check_retries(now)
        self._reads.drive(now)
        self._reads.release()
        self.metrics.read_rounds_total = self._reads.rounds_total
        self._tell_role()
        self._compaction.maybe_start(self._engine.applied_index, self._configuring.at)
        self._note_commit(now)
        self._journal.flush()
        self._release_outbox()
        return self._next_due(now)

    def _note_commit(self, now: float) -> None:
        """Records the commit index with the next sync, or by itself when nothing else comes."""
        journal = self._journal
        if journal.commit_floor <= journal.noted_commit:
            self._committed_at = now
        elif journal.lsn > journal.durable_lsn or now - self._committed_at > NOTE_COMMIT_S:
            journal.note_commit()

    def _disk_stalled(self, now: float) -> bool:
        """True while a record has waited for its sync for longer than `disk_stall_s`."""
        if self._journal.durable_lsn >= self._syncing_lsn:
            self._syncing_lsn, self._syncing_since = self._journal.lsn, now
        waiting = self._journal.durable_lsn < self._syncing_lsn
        return waiting and now - self._syncing_since > self.timing.disk_stall_s

    def _next_due(self, now: float) -> float:
        if self._engine.applied_index < self._engine.commit_index:
            return now
        if self._engine.role is Role.LEADER:
            if self._proposals.ready or self._reads.can_start:
                return now
            # PySyncObj sends when the time is strictly past.
            dues = [self._engine.heartbeat_due + 0.0005, self._reads.due()]
        else:
            dues = [self._election.deadline, self._proposals.retry_due(), self._reads.due()]
        return max(min(due for due in dues if due is not None), now)

    def on_role_change(self, changed: Callable[[Role, int], None]) -> None:
        """See `ReplicaAPI.on_role_change`."""
        self._role_callbacks.append(changed)

    def _tell_role(self) -> None:
        role = self._engine.role
        if role is Role.LEADER and not self.leads:
            return
        if (role, self._engine.term) == self._told:
            return
        if role is not self._told[0] or role is Role.LEADER:
            for changed in self._role_callbacks:
                changed(role, self._engine.term)
        self._told = (role, self._engine.term)
        if role is not Role.LEADER:
            self._configuring.leadership_lost()

    # --- the rest

    def transfer_to(self, server_id: str) -> bool:
        """Asks a follower to take over now; False when it is not caught up."""
        return self._engine.transfer_to(server_id)

    @property
    def leader_id(self) -> str | None:
        """Who leads, as far as is known here; None once the leader is lost or silent for long."""
        if self._engine.role is not Role.LEADER and self._election.leader_is_silent(self._clock()):
            return None
        return self._engine.leader_id

    @property
    def last_log_index(self) -> int:
        """Index of the last entry, committed or not."""
        return self._journal.last_index

    def match_index(self, server_id: str) -> int:
        """What a peer is known to hold, as the leader sees it."""
        return self._engine.match_index(server_id)

    def stop(self, reason: str) -> None:
        """Answers everyone who waits."""
        self._proposals.fail_all(reason)
        self._reads.stop()

    def status(self) -> ReplicaStatus:
        """See `ReplicaAPI.status`."""
        engine, now = self._engine, self._clock()
        leads = engine.role is Role.LEADER
        peers = {
            server.id: PeerStatus(
                connected=server.id in self._connected,
                match_index=engine.match_index(server.id) if leads else 0,
                contact_age_s=engine.response_age_s(server.id) if leads else None,
            )
            for server in self._configuring.current.servers
            if server.id != self.server.id
        }
        return ReplicaStatus(
            id=self.server.id,
            role=engine.role,
            term=engine.term,
            leader_id=self.leader_id,
            commit_index=engine.commit_index,
            applied_index=engine.applied_index,
            last_log_index=self._journal.last_index,
            first_log_index=self._journal.first_index,
            last_snapshot_index=self._compaction.last_index,
            servers=self._configuring.current.servers,
            leader_contact_age_s=0.0 if leads else self._election.leader_contact_age_s(now),
            peers=peers,
        )
