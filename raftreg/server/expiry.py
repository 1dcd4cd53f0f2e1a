"""The end of keys with a TTL: the leader's clockwork.

What ends when is in the replicated state, by cluster time, which goes on over changes of leaders
and stands still while the whole cluster is down. The leader proposes that what is over be deleted;
which keys that are is decided where the entry is applied, so a renewal that was ordered before it
wins, on every server alike. A leader that errs about the time deletes nothing.

After an election, and after a stall of its own, the leader waits a little before it proposes: while
it was deaf nobody could renew. So a key may end a few seconds late, never early.
"""

from __future__ import annotations

import structlog

from raftreg.clock import Clock
from raftreg.core import commands
from raftreg.core.changes import ALL, Topic
from raftreg.core.commands import KVExpire
from raftreg.core.kvstore import EXPIRED_TOGETHER_MAX
from raftreg.core.results import Outcome
from raftreg.errors import RaftregError
from raftreg.raft.api import ReplicaAPI, Role
from raftreg.server.alarm import Alarm
from raftreg.server.machine import RegistryMachine

NEW_LEADER_GRACE_S = 2.0
PROPOSAL_TIMEOUT_S = 5.0
RETRY_S = 0.5
#: Between two looks at a key that seems over and is not yet: the estimate was a little early.
LOOK_AGAIN_S = 0.05
IDLE_S = 60.0

_log = structlog.get_logger(__name__)


class KeyExpiry:
    """Runs on every server; does something only on the leader.

    Args:
        replica: Tells roles and cluster time, takes proposals.
        machine: Holds the keys.
        clock: Source of time.
    """

    def __init__(self, replica: ReplicaAPI, machine: RegistryMachine, clock: Clock) -> None:
        self._replica = replica
        self._machine = machine
        self._term: int | None = None
        self._armed_ms: int | None = None
        self._alarm = Alarm(clock)
        self.expired_keys = 0
        replica.on_role_change(self._role_changed)
        machine.on_change(self._changed)

    async def run(self) -> None:
        """Expires what is over, until it is cancelled."""
        while True:
            left_s = None if self._term is None else self._left_s()
            await self._alarm.sleep(IDLE_S if left_s is None else min(left_s, IDLE_S))
            if self._term is not None and self._is_due():
                await self._expire(self._term)

    def look(self) -> None:
        """Looks at the clock again: it was moved by hand (tests, the simulator)."""
        self._alarm.ring()

    def _role_changed(self, role: Role, term: int) -> None:
        leads = role is Role.LEADER
        if leads and self._term is None:
            self._alarm.hold(NEW_LEADER_GRACE_S)
        self._term = term if leads else None
        self._alarm.ring()

    def _changed(self, topics: tuple[Topic, ...], *_: object) -> None:
        """Wakes the clockwork when a key ends sooner than the one that it waits for."""
        if self._term is None:
            return
        next_ms = self._machine.state.kv.next_deadline_ms()
        sooner = next_ms is not None and (self._armed_ms is None or next_ms < self._armed_ms)
        if sooner or ALL in topics:
            self._alarm.ring()

    def _left_s(self) -> float | None:
        """Seconds until the next key ends, below 0 when it is over; None when none will."""
        self._armed_ms = next_ms = self._machine.state.kv.next_deadline_ms()
        if next_ms is None:
            return None
        return (next_ms - self._replica.cluster_time_ms()) / 1000

    def _is_due(self) -> bool:
        left_s = self._left_s()
        return left_s is not None and left_s <= 0 and not self._alarm.held

    async def _expire(self, term: int) -> None:
        """Proposes one batch; the next look at the clock finds what is left."""
        before = len(self._machine.state.kv)
        command = commands.encode(KVExpire(keys_max=EXPIRED_TOGETHER_MAX))
        try:
            outcome = await self._replica.propose(
                command, timeout_s=PROPOSAL_TIMEOUT_S, in_term=term
            )
        except RaftregError as error:
            _log.info("keys_expire_later", reason=error.message)
            self._alarm.hold(RETRY_S)
            return
        if isinstance(outcome, Outcome) and outcome.result is not True:
            self._alarm.hold(LOOK_AGAIN_S)
            return
        gone = max(before - len(self._machine.state.kv), 0)
        self.expired_keys += gone
        _log.debug("keys_expired", count=gone)
