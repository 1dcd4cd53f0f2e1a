"""A distributed lock as an async context manager: session, acquire, keep, release.

The layout is Consul's ("Leader Election" guide; `consul lock`): a key is acquired for a session
(see `holding`). Because no lock service can stop a paused holder in time (M. Kleppmann, "How to do
distributed locking", 2016), `fencing_token` is there to be checked by what the lock protects.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from raftreg.client.holding import Holding, LockOptions
from raftreg.errors import Conflict

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient


class Lock(Holding):
    """A lock; enter it to hold it. Once only: a new `client.lock(…)` for each turn.

    Attributes:
        key: The key.
        session: Id of the session that holds it; "" before.
        lock_index: The key's LockIndex: how often it was acquired since it was created.
        fencing_token: The registry's index when the lock was had; grows from holder to holder,
            also when the key was deleted in between (LockIndex starts anew then).
    """

    def __init__(self, client: RegistryClient, key: str, options: LockOptions) -> None:
        super().__init__(client, f"lock {key!r}", options)
        self.key = key
        self.lock_index = 0

    async def _attempt(self) -> bool:
        """Waits until the key is free, then tries to lock it; False while it is in its delay."""
        options = self._options
        await self._until_free()
        taken = await self._client.kv.acquire(
            self.key, options.value, self.session, flags=options.flags
        )
        if taken:
            entry = await self._client.kv.get(self.key)
            if entry is not None and entry.session == self.session:
                self.lock_index, self.fencing_token = entry.lock_index, entry.modify_index
                return True
        if options.wait_s == 0:
            raise Conflict(f"{self._what} is not free")
        return False

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
                    raise Conflict(f"{self._what} is held by session {entry.session}")

    async def _watch_holder(self) -> None:
        watch = self._client.kv.watch(self.key, patience_s=self._options.monitor_patience_s)
        async with aclosing(watch) as changes:
            async for change in changes:
                if change.value is None or change.value.session != self.session:
                    return

    async def _give_back(self) -> None:
        if self.fencing_token:
            options = self._options
            await self._client.kv.release(
                self.key, options.value, self.session, flags=options.flags
            )
