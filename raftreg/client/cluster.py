"""Transactions, and the cluster itself: `client.txn`, `.status`, `.operator`, `.snapshot`."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from raftreg.client import records
from raftreg.client.options import DEFAULT_READ, Read
from raftreg.client.records import TxnOutcome
from raftreg.client.stream import Stream

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient


class TxnAPI:
    """Several operations that take effect together or not at all."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    async def run(self, operations: Sequence[dict[str, Any]]) -> TxnOutcome:
        """Runs a transaction of Consul's JSON operations, at most 64 (see `kv_op`)."""
        response = await self._client.request(
            "PUT", "/v1/txn", json=list(operations), accept=(200, 409)
        )
        return records.txn_outcome(response)


def kv_op(
    verb: str,
    key: str,
    value: bytes | None = None,
    *,
    index: int | None = None,
    session: str = "",
    flags: int = 0,
    ttl_s: float | None = None,
) -> dict[str, Any]:
    """Makes a KV operation of a transaction, as Consul writes it; `ttl_s` and `renew` are ours."""
    fields: dict[str, Any] = {"Verb": verb, "Key": key}
    if value is not None:
        fields["Value"] = base64.b64encode(value).decode()
    if index is not None:
        fields["Index"] = index
    if session:
        fields["Session"] = session
    if flags:
        fields["Flags"] = flags
    if ttl_s is not None:
        fields["TTL"] = records.duration_text(ttl_s)
    return {"KV": fields}


class StatusAPI:
    """Who leads."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    async def leader(self) -> str:
        """Address ("host:port") of the leader's Raft listener, "" when there is none."""
        return str((await self._client.request("GET", "/v1/status/leader")).json(str))

    async def peers(self) -> list[str]:
        """Addresses ("host:port") of all servers' Raft listeners."""
        response = await self._client.request("GET", "/v1/status/peers")
        found: list[str] = response.json(list[str])
        return found


class RaftServer(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A server as /v1/operator/raft/configuration shows it."""

    id: str = msgspec.field(name="ID")
    node: str = ""
    address: str = ""
    leader: bool = False
    voter: bool = True


class _RaftConfiguration(msgspec.Struct, frozen=True, rename="pascal"):
    servers: tuple[RaftServer, ...] = ()
    index: int = 0


class OperatorAPI:
    """Steering of the cluster. Nothing here is repeated after an attempt with unknown outcome."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    async def raft_configuration(self, *, stale: bool = False) -> tuple[RaftServer, ...]:
        """The servers of the cluster."""
        response = await self._client.request(
            "GET", "/v1/operator/raft/configuration", params={"stale": "" if stale else None}
        )
        found: _RaftConfiguration = response.json(_RaftConfiguration)
        return found.servers

    async def remove_peer(self, *, server_id: str = "", address: str = "") -> None:
        """Removes a server by its id or its "host:port"."""
        await self._client.request(
            "DELETE",
            "/v1/operator/raft/peer",
            params={"id": server_id or None, "address": address or None},
            idempotent=False,
            deadline_s=60.0,
        )

    async def add_peer(self, *, server_id: str, name: str, address: str) -> None:
        """Adds a server; returns when it has caught up and votes."""
        await self._client.request(
            "PUT",
            "/v1/operator/raft/add",
            params={"id": server_id, "name": name, "address": address},
            idempotent=False,
            deadline_s=90.0,
        )

    async def transfer_leader(self, server_id: str = "") -> dict[str, Any]:
        """Hands leadership over, to this server or the one furthest ahead."""
        response = await self._client.request(
            "PUT",
            "/v1/operator/raft/transfer-leader",
            params={"id": server_id or None},
            idempotent=False,
            deadline_s=30.0,
        )
        found: dict[str, Any] = response.json(dict[str, Any])
        return found

    async def autopilot_health(self) -> dict[str, Any]:
        """Health of the servers; the answer has status 429 when one is unhealthy."""
        response = await self._client.request(
            "GET", "/v1/operator/autopilot/health", accept=(200, 429)
        )
        found: dict[str, Any] = response.json(dict[str, Any])
        return found


class SnapshotAPI:
    """The whole registry as one file (gzip tar of meta.json, state.bin, SHA256SUMS)."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    @asynccontextmanager
    async def save(
        self, *, read: Read = DEFAULT_READ, silence_s: float = 60.0
    ) -> AsyncIterator[Stream]:
        """Opens a snapshot; iterate over the stream for its bytes.

        Args:
            read: How to read; STALE also works without a leader.
            silence_s: Longest wait for the next bytes, in seconds.
        """
        async with self._client.stream(
            "/v1/snapshot", params=read.params(), silence_s=silence_s, deadline_s=60.0
        ) as stream:
            yield stream

    async def restore(
        self, data: bytes | AsyncIterable[bytes], *, deadline_s: float = 600.0
    ) -> None:
        """Replaces the whole registry with a snapshot's content; not repeated by the client."""
        await self._client.request(
            "PUT", "/v1/snapshot", data=data, idempotent=False, deadline_s=deadline_s
        )
