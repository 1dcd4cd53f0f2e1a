"""A distributed lock as an async context manager: session, acquire, keep, release.

The layout is Consul's ("Leader Election" guide; `consul lock`): a key is acquired for a session
whose TTL is renewed at half time. Two watchers guard the holder: the renewal, and a blocking
query on the key. Whichever fails cancels the body and `LockLost` is raised in its place. Because
no lock service can stop a paused holder in time (M. Kleppmann, "How to do distributed locking",
2016), `fencing_token` is there to be checked by what the lock protects.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from raftreg.client.failures import LockLost, transient
from raftreg.client.retry import Backoff
from raftreg.client.sessions import keep_session
from raftreg.errors import Conflict, RaftregError
from raftreg.model import KVEntry, SessionBehavior

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient

#: Marks keys that are locks, so that a lock does not overwrite data (Consul's value).
LOCK_FLAGS = 0x2DDCCBC058A50C18
RELEASE_TIMEOUT_S = 5.0
#: A lock that is lost needs no release, and its holder should hear of it soon.
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


class Lock:
    """A lock; enter it to hold it. Once only: a new `client.lock(…)` for each turn.

    Attributes:
        key: The key.
        session: Id of the session that holds it; "" before.
        lock_index: The key's LockIndex: how often it was acquired since it was created.
        fencing_token: The registry's index when the lock was had; grows from holder to holder,
            also when the key was deleted in between (LockIndex starts anew then).
    """

    def __init__(self, client: RegistryClient, key: str, options: LockOptions) -> None:
        self._client = client
        self._options = options
        self._group = asyncio.TaskGroup()
        self._guards: list[asyncio.Task[None]] = []
        self.key = key
        self.session = ""
        self.lock_index = 0
        self.fencing_token = 0
        self._lost = False

    async def __aenter__(self) -> Self:
        """Waits for the lock.

        Raises:
            Conflict: It was not to be had within `wait_s`, or the key holds something else.
            LockLost: The session ended while waiting.
            RaftregError: The session could not be created.
        """
        options = self._options
        sent_at = self._client.clock.monotonic()
        self.session = await self._client.session.create(
            name=options.session_name or f"lock {self.key}",
            ttl_s=options.ttl_s,
            behavior=options.behavior,
            lock_delay_s=options.lock_delay_s,
            node=options.node,
            checks=options.checks,
        )
        await self._group.__aenter__()
        try:
            self._guard(keep_session(self._client, self.session, options.ttl_s, sent_at))
            entry = await self._acquired()
            self.lock_index, self.fencing_token = entry.lock_index, entry.modify_index
            self._guard(self._watch_holder())
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
        """Releases the lock and ends the session.

        Raises:
            LockLost: The lock was lost while the body ran.
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

    async def _acquired(self) -> KVEntry:
        try:
            async with asyncio.timeout(self._options.wait_s or None):
                return await self._acquire()
        except TimeoutError:
            raise Conflict(
                f"lock {self.key!r} was not free within {self._options.wait_s:g} s"
            ) from None

    async def _acquire(self) -> KVEntry:
        round_number = 0
        while True:
            try:
                entry = await self._attempt()
            except RaftregError as error:
                if not transient(error):
                    raise
                entry = None  # the renewal decides how long this may go on
            if entry is not None:
                return entry
            await asyncio.sleep(_DELAYED.delay_s(round_number, self._client.rng))
            round_number += 1

    async def _attempt(self) -> KVEntry | None:
        """Waits until the key is free, then tries to lock it; None while it is in its delay."""
        options = self._options
        await self._until_free()
        taken = await self._client.kv.acquire(
            self.key, options.value, self.session, flags=options.flags
        )
        if taken:
            entry = await self._client.kv.get(self.key)
            if entry is not None and entry.session == self.session:
                return entry
        if options.wait_s == 0:
            raise Conflict(f"lock {self.key!r} is not free")
        return None

    async def _until_free(self) -> None:
        async with aclosing(self._client.kv.watch(self.key)) as changes:
            async for change in changes:
                entry = change.value
                if entry is None or entry.session == self.session:
                    return
                if entry.flags != self._options.flags:
                    raise Conflict(f"key {self.key!r} holds something that is no such lock")
                if entry.session is None:
                    return
                if self._options.wait_s == 0:
                    raise Conflict(f"lock {self.key!r} is held by session {entry.session}")

    async def _watch_holder(self) -> None:
        try:
            async with aclosing(self._client.kv.watch(self.key)) as changes:
                async for change in changes:
                    if change.value is None or change.value.session != self.session:
                        break
        except RaftregError as error:
            raise LockLost(f"lock {self.key!r} can't be watched: {error.message}") from error
        raise LockLost(f"lock {self.key!r} is no longer held by this session")

    async def _release(self) -> None:
        """Best effort: what can't be released now ends with the session's TTL."""
        options = self._options
        try:
            async with asyncio.timeout(LOST_TIMEOUT_S if self._lost else RELEASE_TIMEOUT_S):
                if self.fencing_token and not self._lost:
                    # Released before the session ends: so there is no lock delay.
                    await self._client.kv.release(
                        self.key, options.value, self.session, flags=options.flags
                    )
                await self._client.session.destroy(self.session)
        except (RaftregError, TimeoutError):
            return


def _first(group: BaseExceptionGroup[LockLost]) -> LockLost:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group is never empty")
