"""A replica of one server without a disk: for `raftreg dev`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from raftreg.clock import Clock
from raftreg.errors import NotFound, NotProposed, Rejected, TooLarge
from raftreg.raft.api import ReplicaStatus, RequestId, Role, Server, StateMachine
from raftreg.raft.dedup import AppliedRequests

COMMAND_BYTES_MAX = 1_572_864


class SoloReplica:
    """Applies every proposal at once; nothing survives the process.

    Args:
        server: This server, the only member.
        machine: What is replicated.
        clock: Source of cluster time.
    """

    TERM = 1

    def __init__(self, server: Server, machine: StateMachine, clock: Clock) -> None:
        self._server = server
        self._machine = machine
        self._clock = clock
        self._index = 1
        self._applied = AppliedRequests()
        self._stopped = False
        self._answer: Callable[[bytes], Awaitable[bytes]] | None = None
        self._role_changed: list[Callable[[Role, int], None]] = []

    async def start(self) -> None:
        """Becomes the leader at once."""
        for changed in self._role_changed:
            changed(Role.LEADER, self.TERM)

    async def stop(self) -> None:
        """Refuses everything from now on."""
        self._stopped = True

    async def propose(
        self,
        command: bytes,
        *,
        timeout_s: float = 10.0,
        request_id: RequestId | None = None,
        in_term: int | None = None,
    ) -> Any:
        """See `ReplicaAPI.propose`."""
        del timeout_s
        if len(command) > COMMAND_BYTES_MAX:
            raise TooLarge(f"a command holds at most {COMMAND_BYTES_MAX} bytes")
        if self._stopped or in_term not in (None, self.TERM):
            raise NotProposed("the server is stopping")
        if request_id is not None:
            known, result = self._applied.seen(request_id.proposer, request_id.sequence)
            if known:
                return result
        self._index += 1
        result = self._machine.apply(command, self.cluster_time_ms())
        if request_id is not None:
            proposer, sequence, low = request_id.proposer, request_id.sequence, request_id.low
            self._applied.record(proposer, sequence, low, result)
        self._machine.entry_applied(self._index)
        return result

    async def read_index(self, timeout_s: float = 5.0) -> int:
        """The state of one server is always the newest."""
        del timeout_s
        return self._index

    async def ask_leader(self, payload: bytes, *, timeout_s: float = 5.0) -> bytes:
        """Answers itself."""
        del timeout_s
        if self._answer is None:
            raise NotProposed("nothing answers questions yet")
        return await self._answer(payload)

    def on_question(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        """See `ReplicaAPI.on_question`."""
        self._answer = answer

    def on_role_change(self, changed: Callable[[Role, int], None]) -> None:
        """See `ReplicaAPI.on_role_change`."""
        self._role_changed.append(changed)

    def cluster_time_ms(self) -> int:
        """See `ReplicaAPI.cluster_time_ms`: this server's own clock."""
        return int(self._clock.monotonic() * 1000)

    def status(self) -> ReplicaStatus:
        """Always the leader of term 1."""
        return ReplicaStatus(
            id=self._server.id,
            role=Role.LEADER,
            term=self.TERM,
            leader_id=self._server.id,
            commit_index=self._index,
            applied_index=self._index,
            last_log_index=self._index,
            first_log_index=1,
            last_snapshot_index=0,
            servers=(self._server,),
            leader_contact_age_s=0.0,
        )

    async def add_server(self, server: Server, *, timeout_s: float = 60.0) -> None:
        """Refused: there is no log to copy."""
        del server, timeout_s
        raise Rejected("this is `raftreg dev`: start servers with `raftreg server` for a cluster")

    async def remove_server(self, server_id: str, *, timeout_s: float = 30.0) -> None:
        """Refused: it would leave nothing."""
        del server_id, timeout_s
        raise Rejected("the only server can't be removed")

    async def transfer_leadership(self, server_id: str | None = None) -> str:
        """There is nobody else.

        Raises:
            NotFound: Another server was named.
        """
        if server_id not in (None, self._server.id):
            raise NotFound(f"no server {server_id!r}")
        return self._server.id
