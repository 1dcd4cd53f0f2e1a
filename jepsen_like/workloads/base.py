"""What a workload is: which operations there are, how one is done, and who judges them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from random import Random
from typing import Any, ClassVar

import msgspec

from jepsen_like.checkers.verdict import Checker
from jepsen_like.door import Door
from jepsen_like.history import Type


class Invocation(msgspec.Struct, frozen=True):
    """An operation that a generator asks for.

    Attributes:
        f, key, value: As in `Event`.
        node: Whom to ask, where that is a part of the question; None leaves it to `invoke`.
    """

    f: str
    key: str | None = None
    value: Any = None
    node: str | None = None


class Completion(msgspec.Struct, frozen=True):
    """How an operation ended.

    Attributes:
        type: OK, FAIL or INFO. A read whose answer is lost is FAIL: it had no effect.
        value: Its result; for writes the argument again.
        node: The server or agent asked last.
        raft_index: The registry's index from the answer.
        error: Why it is not OK.
    """

    type: Type
    value: Any = None
    node: str | None = None
    raft_index: int | None = None
    error: str | None = None


class Context(msgspec.Struct):
    """What a client has.

    Attributes:
        door: The way to the cluster.
        servers: Names of the servers.
        agents: Names of the agents; empty where the workload needs none.
        rng: Randomness of this client.
        worker: Number of the client, from 0; it stays while its process number changes.
        process: The process number at present.
        memory: What the workload keeps for this client (a session, the last index seen).
    """

    door: Door
    servers: tuple[str, ...]
    agents: tuple[str, ...]
    rng: Random
    worker: int
    process: int = 0
    memory: dict[str, Any] = {}


class Workload(ABC):
    """One object a run; it may keep what all clients share (counters of unique values).

    Class attributes:
        name: As the command line knows it.
        agents: How many agents it needs.
        timeout_s: When an operation that has not ended by itself is cut off, as INFO.
    """

    name: ClassVar[str]
    agents: ClassVar[int] = 0
    timeout_s: ClassVar[float] = 10.0

    async def setup(self, context: Context) -> None:  # noqa: B027 - most need nothing
        """Writes what must be there before the first operation; repeats until it is.

        Called once, before any fault. The runner limits its time.
        """

    @abstractmethod
    def next(self, context: Context) -> Invocation:
        """The next operation of a client."""

    @abstractmethod
    async def invoke(self, context: Context, invocation: Invocation) -> Completion:
        """Does it, once; picks the server with `context.rng`. Raises nothing but cancellation."""

    def final(self, context: Context) -> Iterable[Invocation]:
        """Operations after everything was healed, done one after the other by one client; each is
        repeated until it is OK or the runner's patience (30 s) ends.

        The runner records them like any other.
        """
        del context
        return ()

    @abstractmethod
    def checker(self) -> Checker:
        """Judges the history."""
