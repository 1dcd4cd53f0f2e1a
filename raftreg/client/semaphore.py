"""A distributed semaphore as an async context manager: at most N hold it at a time.

See `permits` for the layout, which is Consul's, and `holding` for what guards a holder. A holder
that dies makes room when its session ends; there is no lock delay to wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from raftreg.client import permits
from raftreg.client.holding import Holding, LockOptions
from raftreg.client.permits import Permits
from raftreg.errors import Conflict, InvalidRequest
from raftreg.model import KVEntry, SessionBehavior

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient

#: Marks the keys of a semaphore (Consul's value).
SEMAPHORE_FLAGS = 0xE0F69A2BAA414DE0
#: A change of somebody else's comes between reading and writing; so often at most.
_GIVE_BACK_ATTEMPTS_MAX = 20


class _View(msgspec.Struct, frozen=True):
    """What is under the prefix at one moment.

    Attributes:
        permits: The living holders.
        index: ModifyIndex of the key with the holders; 0: there is no such key.
    """

    permits: Permits
    index: int


class Semaphore(Holding):
    """One of N permits; enter it to hold it. Once only: a new `client.semaphore(…)` for each turn.

    Args:
        client: The client.
        prefix: Its keys are under this.
        limit: How many may hold it; all contenders must agree.
        options: How to hold it; `flags` and `behavior` are those of semaphores in any case.

    Attributes:
        prefix: As given, without a slash at the end.
        session: Id of the session that holds it; "" before.
        fencing_token: The registry's index when the permit was had; grows from holder to holder.

    Raises:
        InvalidRequest: The limit is none.
    """

    def __init__(
        self, client: RegistryClient, prefix: str, limit: int, options: LockOptions
    ) -> None:
        if not 1 <= limit <= permits.HOLDERS_MAX:
            raise InvalidRequest(f"a semaphore's limit is 1 to {permits.HOLDERS_MAX}, not {limit}")
        self.prefix = prefix.strip("/")
        fixed = msgspec.structs.replace(
            options, flags=SEMAPHORE_FLAGS, behavior=SessionBehavior.DELETE
        )
        super().__init__(client, f"semaphore {self.prefix!r}", fixed)
        self._limit = limit
        self._contending = False

    @property
    def key(self) -> str:
        """The key with the holders."""
        return f"{self.prefix}/.lock"

    @property
    def _own_key(self) -> str:
        return f"{self.prefix}/{self.session}"

    async def _attempt(self) -> bool:
        """Waits until there is room, then tries to take it."""
        kv, options = self._client.kv, self._options
        if not self._contending:
            self._contending = await kv.acquire(
                self._own_key, options.value, self.session, flags=SEMAPHORE_FLAGS
            )
            if not self._contending:
                raise Conflict(f"key {self._own_key!r} is held by somebody else")
        async with aclosing(kv.watch_tree(f"{self.prefix}/")) as changes:
            async for change in changes:
                if await self._take(self._read(change.value)):
                    return True
                if options.wait_s == 0:
                    raise Conflict(f"{self._what} has no room")
        return False

    async def _take(self, view: _View) -> bool:
        """Tries to become a holder; False: there is no room, or somebody was faster."""
        kv = self._client.kv
        wanted = view.permits.taken_by(self.session)
        if wanted is None:
            return False
        if wanted != view.permits or not view.index:
            value = permits.encode(wanted)
            if not await kv.cas(self.key, value, view.index, flags=SEMAPHORE_FLAGS):
                return False
        entry = await kv.get(self.key)
        if entry is None or self.session not in permits.decode(entry.value).holders:
            return False
        self.fencing_token = entry.modify_index
        return True

    def _read(self, entries: Sequence[KVEntry]) -> _View:
        """Makes sense of the keys under the prefix.

        Raises:
            Conflict: They are those of something else, or of a semaphore with another limit.
        """
        contenders = {entry.session for entry in entries if entry.session}
        for entry in entries:
            if entry.key == self.key:
                return _View(self._holders(entry).living(contenders), entry.modify_index)
        return _View(Permits(self._limit), 0)

    def _holders(self, entry: KVEntry) -> Permits:
        if entry.flags != SEMAPHORE_FLAGS:
            raise Conflict(f"key {entry.key!r} holds something that is no semaphore")
        found = permits.decode(entry.value)
        if found.limit != self._limit:
            raise Conflict(f"{self._what} has a limit of {found.limit}, not of {self._limit}")
        return found

    async def _watch_holder(self) -> None:
        watch = self._client.kv.watch_tree(
            f"{self.prefix}/", patience_s=self._options.monitor_patience_s
        )
        async with aclosing(watch) as changes:
            async for change in changes:
                if self.session not in self._read(change.value).permits.holders:
                    return

    async def _give_back(self) -> None:
        kv = self._client.kv
        for _ in range(_GIVE_BACK_ATTEMPTS_MAX):
            entry = await kv.get(self.key)
            if entry is None or entry.flags != SEMAPHORE_FLAGS:
                break
            found = permits.decode(entry.value)
            left = found.given_back_by(self.session)
            if left == found or await kv.cas(
                self.key, permits.encode(left), entry.modify_index, flags=SEMAPHORE_FLAGS
            ):
                break
        await kv.delete(self._own_key)


async def remove_unused(client: RegistryClient, prefix: str) -> bool:
    """Deletes the key of a semaphore that nobody holds or waits for; tells whether it did."""
    prefix = prefix.strip("/")
    key = f"{prefix}/.lock"
    entries = await client.kv.list(f"{prefix}/")
    if any(entry.session for entry in entries):
        return False
    for entry in entries:
        if entry.key == key and entry.flags == SEMAPHORE_FLAGS:
            return await client.kv.delete(key, cas=entry.modify_index)
    return False
