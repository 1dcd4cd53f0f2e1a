"""What the consensus room offers to the rest: the doors of a replica, and its outcomes.

`Replica` (`replica.py`) is the real one. `SoloReplica` (`solo.py`) applies at once, in memory, for
`raftreg dev`.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol

import msgspec


class Role(enum.Enum):
    """What this server is in the present term."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class RequestId(msgspec.Struct, frozen=True):
    """Names one proposal for ever: the same id never takes effect twice.

    Attributes:
        proposer: Random id of the proposing client or server incarnation, at most 64 characters.
        sequence: 1, 2, 3, … of that proposer.
        low: Lowest sequence whose outcome the proposer still wants to know; results below it are
            forgotten (RIFL, Lee et al., SOSP 2015, section 3).
    """

    proposer: str
    sequence: int
    low: int = 0


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A member of the cluster."""

    id: str
    name: str
    address: str  #: "host:port" of the Raft listener
    voter: bool = True


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a replica stands now; all numbers are of this server's view."""

    id: str
    role: Role
    term: int
    leader_id: str | None
    commit_index: int
    applied_index: int
    last_log_index: int
    first_log_index: int
    last_snapshot_index: int
    servers: tuple[Server, ...]
    leader_contact_age_s: float | None  #: None: no contact since start; 0.0 on the leader
    peers: dict[str, PeerStatus] = {}


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a peer stands as the leader sees it (other servers know only `connected`)."""

    connected: bool
    match_index: int = 0
    contact_age_s: float | None = None


class StateMachine(Protocol):
    """What a replica replicates. All calls are made on the loop, in log order."""

    def apply(self, command: bytes, time_ms: int) -> Any:
        """Applies one command. Total: a refusal is a value. An exception stops the node loudly.

        Args:
            command: The bytes that were proposed.
            time_ms: Cluster time of the entry, in milliseconds; never goes back.
        """
        ...

    def entry_applied(self, raft_index: int) -> None:
        """Is called once after all commands of one log entry: the moment to wake watchers."""
        ...

    def snapshot(self) -> Iterator[bytes]:
        """Takes shallow copies at once; the iterator then runs in a worker thread.

        Chunks should be small (about 64 KiB): the interpreter's lock is held for each.
        """
        ...

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replaces the whole state. Raises when the chunks are not a whole snapshot."""
        ...

    def encode_result(self, result: Any) -> bytes:
        """Bytes of a result of `apply`, for the memory of applied requests in a snapshot."""
        ...

    def decode_result(self, data: bytes) -> Any:
        """The reverse of `encode_result`."""
        ...


class ReplicaAPI(Protocol):
    """The doors of a replica."""

    async def start(self) -> None:
        """Opens log and listener; returns when this server takes part (not: when a leader is)."""
        ...

    async def stop(self) -> None:
        """Hands leadership over when it can, closes log and listener."""
        ...

    async def propose(
        self,
        command: bytes,
        *,
        timeout_s: float = 10.0,
        request_id: RequestId | None = None,
        in_term: int | None = None,
    ) -> Any:
        """Replicates a command and gives the result of `apply` on this server.

        Args:
            command: Bytes for `StateMachine.apply`, at most 1.5 MiB.
            timeout_s: When to give up, in seconds.
            request_id: For a retry of the caller's own; None lets the replica name it.
            in_term: Append only as the leader of this term, never forward or repeat.

        Raises:
            NoLeader: No leader was in reach, maybe for less than `timeout_s`; nothing was proposed.
            NotProposed: Too much is waiting, or the server stops; nothing was proposed.
            TooLarge: The command is over the limit.
            UnknownOutcome: It was proposed, and the time is over: it may still commit.
        """
        ...

    async def read_index(self, timeout_s: float = 5.0) -> int:
        """Returns when this server's state is at least as new as at the call (linearizable read).

        Works on every server; many callers share a round (Raft dissertation, section 6.4).

        Raises:
            NoLeader: Leadership could not be confirmed in time.
        """
        ...

    async def ask_leader(self, payload: bytes, *, timeout_s: float = 5.0) -> bytes:
        """Sends a question to the leader (maybe this server) outside the log, gives its answer.

        Raises:
            NoLeader: No leader known, or it did not answer in time (the question may have been
                heard: ask only what may be asked twice).
        """
        ...

    def on_question(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Sets what this server answers as the leader. It may raise NoLeader."""
        ...

    def on_role_change(self, changed: Callable[[Role, int], None]) -> None:
        """Adds a callback for (role, term). LEADER is told only once the no-op of the term is
        applied here: from then on this state holds all that was ever committed before.
        """
        ...

    def status(self) -> ReplicaStatus:
        """The present view; cheap."""
        ...

    def cluster_time_ms(self) -> int:
        """Cluster time now, as a command proposed here would be stamped, in milliseconds."""
        ...

    async def add_server(self, server: Server, *, timeout_s: float = 60.0) -> None:
        """Adds a server as non-voter, promotes it when it has caught up."""
        ...

    async def remove_server(self, server_id: str, *, timeout_s: float = 30.0) -> None:
        """Removes a server (also this one: leadership is handed over first)."""
        ...

    async def transfer_leadership(self, server_id: str | None = None) -> str:
        """Hands leadership to this server, or the one furthest ahead; gives the new leader's id."""
        ...
