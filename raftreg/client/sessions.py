"""Sessions: `client.session`, and a session that is kept alive while a block runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from raftreg.client import records
from raftreg.client.failures import LockLost
from raftreg.client.options import DEFAULT_READ, Read, segment
from raftreg.errors import RaftregError
from raftreg.model import Session, SessionBehavior

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient


_Sessions = list[Session]  # inside SessionAPI, `list` is a method


class _Created(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="ID")


class SessionAPI:
    """Holders of locks, ended by their TTL, their node or their checks."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    async def create(
        self,
        *,
        name: str = "",
        ttl_s: float = 0.0,
        behavior: SessionBehavior = SessionBehavior.RELEASE,
        lock_delay_s: float = 15.0,
        node: str = "",
        checks: Sequence[str] | None = None,
        deadline_s: float | None = None,
    ) -> str:
        """Creates a session.

        Args:
            name: For people.
            ttl_s: Seconds (10 to 86,400) without renewal after which it ends; 0: never.
            behavior: What becomes of its keys when it is invalidated.
            lock_delay_s: Seconds (0 to 60) for which its locks stay closed after that.
            node: Its node; "": that of the agent or server asked.
            checks: Ids of node checks that end it when critical; None: serfHealth.
            deadline_s: As in `RegistryClient.request`.

        Returns:
            Its id.

        Raises:
            Rejected: Its node or a check is missing or critical, or a value is out of range.
        """
        body: dict[str, Any] = {
            "Name": name,
            "Behavior": behavior.value,
            "LockDelay": records.duration_text(lock_delay_s),
        }
        if ttl_s:
            body["TTL"] = records.duration_text(ttl_s)
        if node:
            body["Node"] = node
        if checks is not None:
            body["Checks"] = list(checks)
        response = await self._client.request(
            "PUT", "/v1/session/create", json=body, deadline_s=deadline_s
        )
        created: _Created = response.json(_Created)
        return created.id

    async def renew(self, session_id: str, *, deadline_s: float | None = None) -> Session | None:
        """Gives a session its full TTL again; None when it has ended."""
        response = await self._client.request(
            "PUT",
            f"/v1/session/renew/{segment(session_id)}",
            accept=(200, 404),
            deadline_s=deadline_s,
        )
        found = [] if response.status == 404 else records.sessions(response)
        return found[0] if found else None

    async def destroy(self, session_id: str, *, deadline_s: float | None = None) -> None:
        """Ends a session; one that has ended is no error."""
        await self._client.request(
            "PUT", f"/v1/session/destroy/{segment(session_id)}", deadline_s=deadline_s
        )

    async def info(self, session_id: str, *, read: Read = DEFAULT_READ) -> Session | None:
        """A session, None when there is none."""
        found = await self._list(f"info/{segment(session_id)}", read)
        return found[0] if found else None

    async def list(self, *, read: Read = DEFAULT_READ) -> _Sessions:
        """All sessions."""
        return await self._list("list", read)

    async def node(self, name: str, *, read: Read = DEFAULT_READ) -> _Sessions:
        """The sessions of a node."""
        return await self._list(f"node/{segment(name)}", read)

    async def _list(self, path: str, read: Read) -> _Sessions:
        response = await self._client.request("GET", f"/v1/session/{path}", params=read.params())
        return records.sessions(response)


async def keep_session(
    client: RegistryClient, session_id: str, ttl_s: float, renewed_at: float
) -> None:
    """Renews a session at half its TTL until it is lost; is to be cancelled.

    The session counts as lost once a whole TTL has passed since the *sending* of the last renewal
    that was answered: by then the registry may have given its locks to others.

    Args:
        client: The client.
        session_id: The session.
        ttl_s: Its TTL in seconds.
        renewed_at: When its creation or last renewal was sent, by the client's monotonic clock.

    Raises:
        LockLost: It has ended, or could not be renewed in time.
    """
    pause_s = ttl_s / 2
    while True:
        await asyncio.sleep(pause_s)
        sent_at = client.clock.monotonic()
        left_s = renewed_at + ttl_s - sent_at
        if left_s <= 0:
            raise LockLost(f"session {session_id} could not be renewed for {ttl_s:g} s")
        try:
            found = await client.session.renew(session_id, deadline_s=left_s)
        except RaftregError:
            pause_s = min(left_s, ttl_s / 20)  # the deadline above bounds how often
            continue
        if found is None:
            raise LockLost(f"session {session_id} has ended")
        renewed_at, pause_s = sent_at, ttl_s / 2
