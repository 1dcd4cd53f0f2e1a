"""The KV store: `client.kv`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from raftreg.client import records
from raftreg.client.deltas import Delta, Table, deltas
from raftreg.client.http import Response
from raftreg.client.options import DEFAULT_READ, ParamValue, Read, key_path
from raftreg.client.watch import Change
from raftreg.errors import NotFound
from raftreg.model import KVEntry

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient

_FOUND_OR_NOT = (200, 404)


_Entries = list[KVEntry]  # inside KVAPI, `list` is a method
_Texts = list[str]


class KVAPI:
    """Keys and values. Writes carry a request id: repeated by the client, they happen once."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    async def get(self, key: str, *, read: Read = DEFAULT_READ) -> KVEntry | None:
        """Gives an entry, None when there is no such key."""
        response = await self._client.request(
            "GET", key_path(key), params=read.params(), accept=_FOUND_OR_NOT
        )
        return _first(response)

    async def value(self, key: str, *, read: Read = DEFAULT_READ) -> bytes:
        """Gives a value.

        Raises:
            NotFound: There is no such key.
        """
        entry = await self.get(key, read=read)
        if entry is None:
            raise NotFound(f"there is no key {key!r}")
        return entry.value

    async def list(self, prefix: str = "", *, read: Read = DEFAULT_READ) -> _Entries:
        """Gives all entries under a prefix, in the order of their keys."""
        response = await self._client.request(
            "GET", key_path(prefix), params=read.params(recurse=""), accept=_FOUND_OR_NOT
        )
        return records.kv_entries(response)

    async def keys(
        self, prefix: str = "", *, separator: str = "", read: Read = DEFAULT_READ
    ) -> _Texts:
        """Gives the keys under a prefix, with `separator` only up to its next occurrence."""
        query = read.params(keys="", separator=separator or None)
        response = await self._client.request(
            "GET", key_path(prefix), params=query, accept=_FOUND_OR_NOT
        )
        return [] if response.status == 404 else _texts(response)

    async def put(
        self, key: str, value: bytes, *, flags: int = 0, ttl_s: float | None = None
    ) -> bool:
        """Sets a value whatever it was.

        Args:
            key: The key.
            value: At most 512 KiB.
            flags: Opaque number kept with it.
            ttl_s: Seconds (1 to a year) after which the key ends unless it is renewed; None lets
                it live for ever, whatever it had before. The same holds for `cas` and `acquire`.
        """
        return await self._write("PUT", key, value, flags=flags or None, ttl=_ttl(ttl_s))

    async def cas(
        self, key: str, value: bytes, index: int, *, flags: int = 0, ttl_s: float | None = None
    ) -> bool:
        """Sets a value if its ModifyIndex still is `index` (0: if there is no such key).

        Returns:
            False when it was not, and nothing changed.
        """
        return await self._write("PUT", key, value, cas=index, flags=flags or None, ttl=_ttl(ttl_s))

    async def acquire(
        self, key: str, value: bytes, session: str, *, flags: int = 0, ttl_s: float | None = None
    ) -> bool:
        """Locks a key for a session and sets its value; False when another one holds it.

        Raises:
            Rejected: There is no such session.
        """
        return await self._write(
            "PUT", key, value, acquire=session, flags=flags or None, ttl=_ttl(ttl_s)
        )

    async def renew(
        self, key: str, *, ttl_s: float | None = None, index: int | None = None
    ) -> bool:
        """Begins the TTL of a key anew and keeps all else of it; its watchers are not woken.

        Args:
            key: The key.
            ttl_s: Another TTL, in seconds; None: the one that it has.
            index: Only if its ModifyIndex still is this.

        Returns:
            False when there is no such key, or not at that index.

        Raises:
            InvalidRequest: The key has no TTL, and none was given.
        """
        return await self._write("PUT", key, None, renew="", cas=index, ttl=_ttl(ttl_s))

    async def release(self, key: str, value: bytes, session: str, *, flags: int = 0) -> bool:
        """Unlocks a key and sets its value; False when that session does not hold it."""
        return await self._write("PUT", key, value, release=session, flags=flags or None)

    async def delete(self, key: str, *, cas: int | None = None) -> bool:
        """Deletes a key, with `cas` only at that ModifyIndex; a missing key is no failure."""
        return await self._write("DELETE", key, None, cas=cas)

    async def delete_tree(self, prefix: str) -> bool:
        """Deletes all keys under a prefix."""
        return await self._write("DELETE", prefix, None, recurse="")

    async def _write(self, method: str, key: str, value: bytes | None, **query: ParamValue) -> bool:
        response = await self._client.request(method, key_path(key), params=query, data=value)
        return bool(response.json(bool))

    def watch(
        self, key: str, *, read: Read = DEFAULT_READ, patience_s: float | None = None
    ) -> AsyncGenerator[Change[KVEntry | None], None]:
        """Yields the entry now and after each change; None while there is none.

        For the further arguments and errors see `RegistryClient.watch`.
        """
        return self._client.watch(
            key_path(key), _first, params=read.params(), accept=_FOUND_OR_NOT, patience_s=patience_s
        )

    def watch_tree(
        self, prefix: str, *, read: Read = DEFAULT_READ, patience_s: float | None = None
    ) -> AsyncGenerator[Change[_Entries], None]:
        """Yields all entries under a prefix, now and after each change."""
        return self._client.watch(
            key_path(prefix),
            records.kv_entries,
            params=read.params(recurse=""),
            accept=_FOUND_OR_NOT,
            patience_s=patience_s,
        )

    def watch_deltas(
        self, prefix: str, *, read: Read = DEFAULT_READ, patience_s: float | None = None
    ) -> AsyncGenerator[Delta[KVEntry], None]:
        """Yields which keys under a prefix came, changed and went; all there are at first."""
        return deltas(
            self._client,
            key_path(prefix),
            Table(records.kv_entry, lambda entry: entry.key),
            params=read.params(recurse=""),
            patience_s=patience_s,
        )


def _ttl(ttl_s: float | None) -> str | None:
    return None if ttl_s is None else records.duration_text(ttl_s)


def _first(response: Response) -> KVEntry | None:
    entries = records.kv_entries(response)
    return entries[0] if entries else None


def _texts(response: Response) -> list[str]:
    found: list[str] | None = response.json(list[str] | None)
    return found or []
