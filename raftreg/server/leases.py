"""Leases of hosts and sessions: the leader's clockwork (design: renewals stay out of the log).

Who may say what, and why it is safe:

* Renewals only move deadlines in the leader's memory. A new leader gives everything a full term,
  once it has applied all that was committed before it (`Replica.on_role_change`).
* A renewal is answered only after a read index confirmed leadership *after its arrival*. So a
  leader elected later counts its full term from a moment after that arrival: who was told that it
  holds the lease, holds it for a full term from its request on.
* An expiry is proposed in the leader's own term only: a deposed leader's word enters no log. While
  it is on its way the lease is pending, and a renewal waits for its fate instead of winning or
  losing by chance.
* A leader that did not run (a stall, a stopped process) could not hear renewals either; when its
  timer fires late it listens for as long as it was deaf before it expires anything.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import structlog

from raftreg.clock import Clock
from raftreg.core import commands
from raftreg.core.changes import ALL, Topic
from raftreg.core.commands import Deregister, SessionDestroy, SetLiveness
from raftreg.core.digest import node_digest
from raftreg.core.lease import LeaseTable
from raftreg.core.state import State
from raftreg.errors import NoLeader, RaftregError, UnknownOutcome
from raftreg.model import SERF_HEALTH, Status
from raftreg.raft.api import ReplicaAPI, Role
from raftreg.server.machine import RegistryMachine
from raftreg.server.renewals import NodeClaim, NodeWord, Renewal, RenewalAnswer

NODE_TTL_MIN_S, NODE_TTL_MAX_S = 0.5, 3600.0
SESSION_GRACE_S = 0.5  #: a client counts its TTL from the answer, the leader from the request
DEAF_S = 0.25  #: lateness of the timer from which on this server counts as having been deaf
DEAF_GRACE_MAX_S = 2.0
PROPOSAL_TIMEOUT_S = 5.0
FATE_TIMEOUT_S = 2.0  #: how long a renewal waits for an expiry that is on its way
REAP_EVERY_S = 30.0
IDLE_S = 1.0

_log = structlog.get_logger(__name__)


class Leases:
    """Runs on every server; does something only on the leader.

    Args:
        replica: Tells roles, confirms leadership, takes proposals.
        machine: Holds the state.
        clock: Source of time.
        node_ttl_s: Term of a host's lease until a renewal heard here says otherwise.
        reap_after_s: Seconds after which a host that stayed critical is deregistered.
    """

    def __init__(
        self,
        replica: ReplicaAPI,
        machine: RegistryMachine,
        clock: Clock,
        *,
        node_ttl_s: float,
        reap_after_s: float,
    ) -> None:
        self._replica = replica
        self._machine = machine
        self._clock = clock
        self._node_ttl_s = node_ttl_s
        self._reap_after_s = reap_after_s
        self._term: int | None = None
        self._nodes = LeaseTable()
        self._sessions = LeaseTable()
        self._node_ttls_s: dict[str, float] = {}
        self._critical_since_s: dict[str, float] = {}
        self._digests: dict[str, str] = {}
        self._settled: dict[str, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self.expired_nodes = 0
        self.expired_sessions = 0
        machine.on_change(self._changed)
        replica.on_role_change(self._role_changed)

    @property
    def node_count(self) -> int:
        """Leases of hosts held now (0 unless this server leads)."""
        return len(self._nodes)

    @property
    def session_count(self) -> int:
        """Sessions with a TTL held now (0 unless this server leads)."""
        return len(self._sessions)

    # -- following the state ---------------------------------------------------------------------

    def _role_changed(self, role: Role, term: int) -> None:
        if role is Role.LEADER:
            self._term = term
            self._promote()
        elif self._term is not None:
            self._term = None
            self._promote(clear=True)
        self._wake.set()

    def _promote(self, *, clear: bool = False) -> None:
        """Gives everything a full term from now, or (not the leader) forgets everything."""
        now = self._clock.monotonic()
        state = self._machine.state
        nodes: dict[str, float] = {}
        sessions: dict[str, float] = {}
        self._critical_since_s = {}
        if not clear:
            for name in state.catalog.nodes:
                status = _liveness(state, name)
                if status is Status.CRITICAL:
                    self._critical_since_s[name] = now
                elif status is not None:
                    nodes[name] = self._node_ttls_s.get(name, self._node_ttl_s)
            sessions = {
                session.id: session.ttl_s + SESSION_GRACE_S
                for session in state.sessions.values()
                if session.ttl_s > 0
            }
        self._nodes.promote(nodes, now)
        self._sessions.promote(sessions, now)
        for settled in self._settled.values():
            settled.set()
        self._settled.clear()

    def _changed(self, topics: tuple[Topic, ...], *_: object) -> None:
        for kind, name in topics:
            if (kind, name) == ALL:
                self._digests.clear()
                if self._term is not None:
                    self._promote()
                    self._wake.set()
                return
            if kind in {"node", "node-checks"}:
                self._digests.pop(name, None)
                if self._term is not None:
                    self._follow_node(name)
            elif kind == "session" and self._term is not None:
                self._follow_session(name)

    def _follow_node(self, name: str) -> None:
        """A host appeared, went, or its liveness flipped."""
        state, now = self._machine.state, self._clock.monotonic()
        status = _liveness(state, name)
        if status is None or status is Status.CRITICAL:
            self._nodes.forget(name)
            self._settle(f"node/{name}")
        elif name not in self._nodes:
            self._nodes.renew(name, self._node_ttls_s.get(name, self._node_ttl_s), now)
            self._wake.set()
        if status is Status.CRITICAL:
            self._critical_since_s.setdefault(name, now)
        else:
            self._critical_since_s.pop(name, None)
        if status is None:
            self._node_ttls_s.pop(name, None)

    def _follow_session(self, session_id: str) -> None:
        """A session began or ended."""
        session = self._machine.state.sessions.get(session_id)
        if session is None:
            self._sessions.forget(session_id)
            self._settle(f"session/{session_id}")
        elif session.ttl_s > 0:
            term_s = session.ttl_s + SESSION_GRACE_S
            self._sessions.renew(session_id, term_s, self._clock.monotonic())
            self._wake.set()

    # -- renewals --------------------------------------------------------------------------------

    async def answer(self, payload: bytes) -> bytes:
        """Answers a batch of renewals as the leader (`Replica.on_question`).

        Raises:
            NoLeader: This server does not lead, or could not confirm that it does.
        """
        renewal = Renewal.decode(payload)
        return (await self.renew(renewal)).encode()

    async def renew(self, renewal: Renewal) -> RenewalAnswer:
        """Renews a batch.

        Raises:
            NoLeader: This server does not lead, or could not confirm that it does.
        """
        term = self._term
        if term is None:
            _refuse()
        # At once: nothing of this batch can come due while leadership is being confirmed.
        self._extend(renewal)
        await self._replica.read_index()
        if await self._await_fates(renewal):
            self._extend(renewal)
        if self._term != term:
            _refuse()
        await self._revive(renewal, term)
        state = self._machine.state
        return RenewalAnswer(
            nodes={claim.name: self._word(state, claim) for claim in renewal.nodes},
            sessions={
                session: session in state.sessions and session not in self._sessions.pending
                for session in renewal.sessions
            },
            index=state.index,
        )

    def _extend(self, renewal: Renewal) -> None:
        now, state = self._clock.monotonic(), self._machine.state
        for claim in renewal.nodes:
            if claim.name in self._nodes:
                ttl_s = min(max(claim.ttl_s, NODE_TTL_MIN_S), NODE_TTL_MAX_S)
                self._node_ttls_s[claim.name] = ttl_s
                self._nodes.renew(claim.name, ttl_s, now)
        for session_id in renewal.sessions:
            session = state.sessions.get(session_id)
            if session is not None and session.ttl_s > 0:
                self._sessions.renew(session_id, session.ttl_s + SESSION_GRACE_S, now)

    async def _await_fates(self, renewal: Renewal) -> bool:
        """Waits until no lease of the batch has an expiry on its way; False if none had.

        Raises:
            NoLeader: The fate stays open for too long.
        """
        keys = [f"node/{claim.name}" for claim in renewal.nodes]
        keys += [f"session/{session_id}" for session_id in renewal.sessions]
        fates = [self._settled[key] for key in keys if key in self._settled]
        try:
            async with asyncio.timeout(FATE_TIMEOUT_S):
                for settled in fates:
                    await settled.wait()
        except TimeoutError:
            _refuse()
        return bool(fates)

    async def _revive(self, renewal: Renewal, term: int) -> None:
        """Lifts hosts that renew again back to passing."""
        state = self._machine.state
        back = [
            claim.name for claim in renewal.nodes if _liveness(state, claim.name) is Status.CRITICAL
        ]
        if not back:
            return
        results = await asyncio.gather(
            *(self._propose(SetLiveness(node=name, alive=True), term) for name in back),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        _log.info("hosts_are_back", nodes=back[:20], count=len(back))

    def _word(self, state: State, claim: NodeClaim) -> NodeWord:
        if _liveness(state, claim.name) is None:
            return "unknown"
        return "ok" if self._digest(state, claim.name) == claim.digest else "sync"

    def _digest(self, state: State, name: str) -> str:
        """The digest of a host's rows; kept until one of them changes."""
        digest = self._digests.get(name)
        if digest is None:
            catalog = state.catalog
            digest = self._digests[name] = node_digest(
                catalog.nodes[name], catalog.services_of(name), catalog.checks_of(name)
            )
        return digest

    # -- expiry ----------------------------------------------------------------------------------

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Expires what is due, until it is cancelled.

        Args:
            tasks: Owns the proposals on their way.
        """
        reap_at_s = self._clock.monotonic() + REAP_EVERY_S
        while True:
            due_s = min(self._next_due_s(), reap_at_s)
            await self._sleep_until(due_s)
            now = self._clock.monotonic()
            late_s = now - due_s
            if late_s > DEAF_S and self._term is not None:
                await self._sleep_until(now + min(late_s, DEAF_GRACE_MAX_S), interruptible=False)
            if self._term is not None:
                self._expire(self._term, tasks)
            if now >= reap_at_s:
                reap_at_s = now + REAP_EVERY_S
                self._reap(tasks)

    def look(self) -> None:
        """Looks at the clock again: it was moved by hand (tests, the simulator)."""
        self._wake.set()

    def _next_due_s(self) -> float:
        known = [at for at in (self._nodes.next_due(), self._sessions.next_due()) if at is not None]
        return min(known, default=self._clock.monotonic() + IDLE_S)

    async def _sleep_until(self, at_s: float, *, interruptible: bool = True) -> None:
        wait_s = at_s - self._clock.monotonic()
        if wait_s <= 0:
            await asyncio.sleep(0)
            return
        if not interruptible:
            await asyncio.sleep(wait_s)
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def _expire(self, term: int, tasks: asyncio.TaskGroup) -> None:
        now = self._clock.monotonic()
        for name in self._nodes.due(now):
            tasks.create_task(self._expire_node(name, term), name=f"expire node {name}")
        for session_id in self._sessions.due(now):
            tasks.create_task(
                self._expire_session(session_id, term), name=f"expire session {session_id}"
            )

    async def _expire_node(self, name: str, term: int) -> None:
        if await self._settle_by(SetLiveness(node=name, alive=False), term, f"node/{name}"):
            self.expired_nodes += 1
            _log.warning("lease_lost", node=name)
        # Where it was applied, the change of the state has dropped the lease already.
        self._nodes.reopen(name, self._node_ttl_s, self._clock.monotonic())

    async def _expire_session(self, session_id: str, term: int) -> None:
        command = SessionDestroy(id=session_id, expired=True)
        if await self._settle_by(command, term, f"session/{session_id}"):
            self.expired_sessions += 1
            _log.info("session_expired", session=session_id)
        self._sessions.reopen(session_id, SESSION_GRACE_S, self._clock.monotonic())

    async def _settle_by(self, command: commands.Command, term: int, key: str) -> bool:
        """Proposes an expiry until its fate is known; False when it did not take place."""
        fate = self._settled[key] = asyncio.Event()
        try:
            while self._term == term:
                try:
                    await self._propose(command, term)
                    return True
                except UnknownOutcome:
                    # It may still commit: to stop here would let a renewal win against it first.
                    continue
                except RaftregError as error:
                    _log.warning("expiry_not_applied", lease=key, reason=error.message)
                    return False
            return False
        finally:
            fate.set()
            if self._settled.get(key) is fate:
                del self._settled[key]

    def _reap(self, tasks: asyncio.TaskGroup) -> None:
        """Forgets hosts that have been critical for too long; one that lives registers again."""
        term = self._term
        if term is None:
            return
        limit_s = self._clock.monotonic() - self._reap_after_s
        for name, since_s in list(self._critical_since_s.items()):
            if since_s <= limit_s:
                tasks.create_task(self._reap_node(name, term), name=f"reap node {name}")

    async def _reap_node(self, name: str, term: int) -> None:
        try:
            await self._propose(Deregister(node=name), term)
            _log.warning("host_forgotten", node=name, critical_s=self._reap_after_s)
        except RaftregError as error:
            _log.warning("host_not_forgotten", node=name, reason=error.message)

    async def _propose(self, command: commands.Command, term: int) -> None:
        await self._replica.propose(
            commands.encode(command), timeout_s=PROPOSAL_TIMEOUT_S, in_term=term
        )

    def _settle(self, key: str) -> None:
        settled = self._settled.pop(key, None)
        if settled is not None:
            settled.set()


def _liveness(state: State, node: str) -> Status | None:
    """Status of a host's lease; None when there is no such host, or it has no lease."""
    check = state.catalog.check(node, SERF_HEALTH)
    return None if check is None else check.status


def _refuse() -> NoReturn:
    raise NoLeader("No cluster leader")
