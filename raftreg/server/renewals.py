"""Renewals on their way to the leader: what came meanwhile travels together.

A few questions are in flight at most; the renewals that arrive while they are form the next one
(the group commit of the log, applied to heartbeats). So the leader answers few large questions
however many hosts there are, an idle server adds no delay, and a question that waits for the fate
of one lease does not hold up the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

import msgspec

from raftreg.decoding import MsgpackDecoder
from raftreg.errors import InvalidRequest, NotProposed, RaftregError
from raftreg.raft.api import ReplicaAPI

BATCH_CLAIMS_MAX = 2_000
WAITING_CLAIMS_MAX = 50_000
ANSWER_TIMEOUT_S = 3.0
QUESTIONS_MAX = 4

NodeWord = Literal["ok", "sync", "unknown"]


class NodeClaim(msgspec.Struct, frozen=True):
    """What an agent says when it renews its host's lease.

    Attributes:
        name: The host.
        id: Its UUID.
        digest: Hash of what it thinks is registered for it (`raftreg.core.digest`).
        ttl_s: Seconds that the lease should last.
    """

    name: str
    id: str = ""
    digest: str = ""
    ttl_s: float = 3.0


class Renewal(msgspec.Struct, frozen=True):
    """A batch of renewals."""

    nodes: tuple[NodeClaim, ...] = ()
    sessions: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.nodes) + len(self.sessions)

    def encode(self) -> bytes:
        """Bytes for the way to the leader."""
        return _encode(self)

    @staticmethod
    def decode(data: bytes) -> Renewal:
        """The reverse of `encode`.

        Raises:
            InvalidRequest: The bytes are no renewal.
        """
        try:
            return _renewals.decode(data)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"Request decode failed: {error}") from error


class RenewalAnswer(msgspec.Struct, frozen=True):
    """What became of a batch.

    Attributes:
        nodes: "ok"; "sync": the registry holds something else for the host; "unknown": nothing.
        sessions: Whether each lives.
        index: Registry index of the leader when it answered.
    """

    nodes: dict[str, NodeWord] = {}
    sessions: dict[str, bool] = {}
    index: int = 0

    def encode(self) -> bytes:
        """Bytes for the way back."""
        return _encode(self)

    @staticmethod
    def decode(data: bytes) -> RenewalAnswer:
        """The reverse of `encode`.

        Raises:
            NotProposed: The bytes are no answer (a leader of another version).
        """
        try:
            return _answers.decode(data)
        except msgspec.DecodeError as error:
            raise NotProposed(f"the leader's answer can't be read: {error}") from error


_encode = msgspec.msgpack.Encoder().encode
_renewals = MsgpackDecoder[Renewal](Renewal)
_answers = MsgpackDecoder[RenewalAnswer](RenewalAnswer)


_Waiting = tuple[Renewal, asyncio.Future[RenewalAnswer]]


class RenewalQueue:
    """Gathers renewals and asks the leader.

    Args:
        replica: The way to the leader.
    """

    def __init__(self, replica: ReplicaAPI) -> None:
        self._replica = replica
        self._waiting: deque[_Waiting] = deque()
        self._claims = 0
        self._wake = asyncio.Event()

    async def renew(self, renewal: Renewal) -> RenewalAnswer:
        """Renews; the answer covers at least what was asked.

        Raises:
            NoLeader: The leader can't be asked; repeating is safe.
            NotProposed: Too many renewals wait already.
        """
        if self._claims + len(renewal) > WAITING_CLAIMS_MAX:
            raise NotProposed("too many renewals are waiting: try again later")
        answered: asyncio.Future[RenewalAnswer] = asyncio.get_running_loop().create_future()
        self._waiting.append((renewal, answered))
        self._claims += len(renewal)
        self._wake.set()
        return await answered

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Asks the leader, batch by batch, until it is cancelled.

        Args:
            tasks: Owns the questions in flight.
        """
        slots = asyncio.Semaphore(QUESTIONS_MAX)
        try:
            while True:
                self._wake.clear()
                if not self._waiting:
                    await self._wake.wait()
                await slots.acquire()
                asking = tasks.create_task(self._ask(self._take()), name="renewals")
                asking.add_done_callback(lambda _: slots.release())
        finally:
            for _, answered in self._waiting:
                answered.cancel()
            self._waiting.clear()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        claims = 0
        while self._waiting and (not batch or claims < BATCH_CLAIMS_MAX):
            renewal, answered = self._waiting.popleft()
            self._claims -= len(renewal)
            if not answered.done():  # its client may be gone
                batch.append((renewal, answered))
                claims += len(renewal)
        return batch

    async def _ask(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        question = Renewal(
            nodes=tuple(claim for renewal, _ in batch for claim in renewal.nodes),
            sessions=tuple(session for renewal, _ in batch for session in renewal.sessions),
        )
        try:
            data = await self._replica.ask_leader(question.encode(), timeout_s=ANSWER_TIMEOUT_S)
            answer = RenewalAnswer.decode(data)
        except RaftregError as error:
            for _, answered in batch:
                if not answered.done():
                    answered.set_exception(error)
            return
        for _, answered in batch:
            if not answered.done():
                answered.set_result(answer)
