"""Something held by a session while a block runs: what locks and semaphores share.

A session whose TTL is renewed at half time stands for the holder. Two watchers guard it: the
renewal, and a blocking query on what is held. Whichever fails cancels the body and `LockLost` is
raised in its place.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from raftreg.client.failures import LockLost, transient
from raftreg.client.retry import Backoff
from raftreg.client.sessions import keep_session
from raftreg.errors import Conflict, RaftregError
from raftreg.model import SessionBehavior

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient

#: Marks keys that are locks, so that a lock does not overwrite data (Consul's value).
LOCK_FLAGS = 0x2DDCCBC058A50C18
RELEASE_TIMEOUT_S = 5.0
#: What is lost needs no release, and its holder should hear of it soon.
LOST_TIMEOUT_S = 0.5
# A free key that can't be had is in its lock delay, of which the registry does not tell the end.
_DELAYED = Backoff(first_s=0.2, max_s=1.0)


class LockOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to lock.

    Attributes:
        value: Value of the key while it is held.
        ttl_s: TTL of the session (10 s to 24 h): the longest time for which a dead holder holds.
        lock_delay_s: Seconds for which the lock stays closed after its holder was lost.
        behavior: What becomes of the key when its holder is lost.
        wait_s: Longest wait for the lock, in seconds; None: for ever; 0: one attempt.
        session_name: For people.
        node: Node of the session; "": that of the agent or server asked.
        checks: Node checks that end the session; None: serfHealth.
        flags: Flags of the key; a key with other flags is not taken.
        monitor_patience_s: Seconds for which the watch of what is held may fail before it counts
            as lost; None: as long as the session is renewed.
    """

    value: bytes = b""
    ttl_s: float = 15.0
    lock_delay_s: float = 15.0
    behavior: SessionBehavior = SessionBehavior.RELEASE
    wait_s: float | None = None
    session_name: str = ""
    node: str = ""
    checks: tuple[str, ...] | None = None
    flags: int = LOCK_FLAGS
    monitor_patience_s: float | None = None


class Holding(ABC):
    """Held while the block runs; once only.

    Args:
        client: The client.
        what: For people: `lock 'jobs/nightly'`.
        options: How to hold it.

    Attributes:
        session: Id of the session that holds it; "" before.
        fencing_token: The registry's index when it was had; grows from holder to holder.
    """

    def __init__(self, client: RegistryClient, what: str, options: LockOptions) -> None:
        self._client = client
        self._what = what
        self._options = options
        self._group = asyncio.TaskGroup()
        self._guards: list[asyncio.Task[None]] = []
        self._lost = False
        self.session = ""
        self.fencing_token = 0

    @abstractmethod
    async def _attempt(self) -> bool:
        """Waits until it may be had, then tries to take it; sets `fencing_token`."""

    @abstractmethod
    async def _watch_holder(self) -> None:
        """Returns when it is no longer held."""

    @abstractmethod
    async def _give_back(self) -> None:
        """Gives it back before the session ends: then there is no lock delay."""

    async def __aenter__(self) -> Self:
        """Waits until it is held.

        Raises:
            Conflict: It was not to be had within `wait_s`, or its keys hold something else.
            LockLost: The session ended while waiting.
            RaftregError: The session could not be created.
        """
        options = self._options
        sent_at = self._client.clock.monotonic()
        self.session = await self._client.session.create(
            name=options.session_name or self._what,
            ttl_s=options.ttl_s,
            behavior=options.behavior,
            lock_delay_s=options.lock_delay_s,
            node=options.node,
            checks=options.checks,
        )
        await self._group.__aenter__()
        try:
            self._guard(keep_session(self._client, self.session, options.ttl_s, sent_at))
            await self._acquired()
            self._guard(self._guarded())
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Gives it back and ends the session.

        Raises:
            LockLost: It was lost while the body ran.
        """
        for guard in self._guards:
            guard.cancel()
        try:
            await self._group.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            lost, _ = group.split(LockLost)
            if lost is not None:
                self._lost = True
                raise LockLost(_first(lost).message) from group
            # Nothing but the body's own exception: it goes on as it is.
        finally:
            await self._release()

    def _guard(self, guard: Coroutine[None, None, None]) -> None:
        self._guards.append(self._group.create_task(guard))

    async def _acquired(self) -> None:
        try:
            async with asyncio.timeout(self._options.wait_s or None):
                await self._acquire()
        except TimeoutError:
            raise Conflict(f"{self._what} was not free within {self._options.wait_s:g} s") from None

    async def _acquire(self) -> None:
        round_number = 0
        while True:
            try:
                if await self._attempt():
                    return
            except RaftregError as error:
                if not transient(error):
                    raise
                # The renewal decides how long this may go on.
            await asyncio.sleep(_DELAYED.delay_s(round_number, self._client.rng))
            round_number += 1

    async def _guarded(self) -> None:
        try:
            await self._watch_holder()
        except RaftregError as error:
            raise LockLost(f"{self._what} can't be watched: {error.message}") from error
        raise LockLost(f"{self._what} is no longer held by this session")

    async def _release(self) -> None:
        """Best effort: what can't be given back now ends with the session's TTL."""
        try:
            async with asyncio.timeout(LOST_TIMEOUT_S if self._lost else RELEASE_TIMEOUT_S):
                if not self._lost:
                    await self._give_back()
                await self._client.session.destroy(self.session)
        except (RaftregError, TimeoutError):
            return


def _first(group: BaseExceptionGroup[LockLost]) -> LockLost:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group is never empty")
