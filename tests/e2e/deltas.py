"""Every change of the catalog, as servers stream it to agents: none between two looks is missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from random import Random

import msgspec

from raftreg.client.api import RegistryClient
from raftreg.core.delta import CatalogDelta, decode_deltas
from raftreg.errors import ConnectionLost, RaftregError
from raftreg.model import Check
from tests.e2e.cluster import HTTP_PORT, Member
from tests.e2e.waiting import until

_VIEW_PATH = "/v1/internal/view"
_RETRY_S = 0.05


class _Frame(msgspec.Struct):
    kind: str
    index: int = 0
    deltas: msgspec.Raw = msgspec.Raw(b"\x90")


_frames = msgspec.msgpack.Decoder(_Frame)


class Deltas:
    """What the servers told, in the order in which it came from each.

    Attributes:
        seen: Server name to its deltas; a server that was restarted tells its past anew.
        index: The newest registry index that was told.
    """

    def __init__(self, servers: Iterable[Member]) -> None:
        self.seen: dict[str, list[CatalogDelta]] = {server.name: [] for server in servers}
        self.following: set[str] = set()
        self.index = 0
        self._since = 0

    def mark(self) -> None:
        """From now on only what is newer than all that was told so far counts."""
        self._since = self.index

    def statuses(self, check_id: str, node: str = "") -> set[str]:
        """Every status that a check had on any server, "gone" when it was removed."""
        return {
            delta.row.status.value if isinstance(delta.row, Check) else "gone"
            for deltas in self.seen.values()
            for delta in deltas
            if delta.kind == "check" and delta.id == check_id and node in {"", delta.node}
            if delta.index > self._since
        }

    async def follow(self, server: Member) -> None:
        """Reads one server's stream, and the next one when it breaks, until it is cancelled."""
        async with RegistryClient([f"{server.address}:{HTTP_PORT}"], rng=Random(1)) as client:
            while True:
                try:
                    await self._read(client, server.name)
                except RaftregError:
                    self.following.discard(server.name)
                    await asyncio.sleep(_RETRY_S)  # the server is down: look again

    async def _read(self, client: RegistryClient, name: str) -> None:
        async with client.stream(_VIEW_PATH, silence_s=5.0) as stream:
            async for data in stream.frames():
                frame = _frames.decode(data)
                if frame.kind == "deltas":
                    self.index = max(self.index, frame.index)
                    self.seen[name].extend(decode_deltas(frame.deltas))
                elif frame.kind == "beat":
                    self.index = max(self.index, frame.index)
                    self.following.add(name)
        raise ConnectionLost(f"{name} ended the stream")


@asynccontextmanager
async def following(servers: Iterable[Member]) -> AsyncIterator[Deltas]:
    """Follows servers while the block runs; it is entered when all of them are heard."""
    members = list(servers)
    deltas = Deltas(members)
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(deltas.follow(server)) for server in members]

        async def all_heard() -> bool:
            return len(deltas.following) == len(members)

        try:
            await until("streams of all servers", all_heard)
            deltas.mark()
            yield deltas
        except Exception as error:  # noqa: BLE001  # raised below, where no group wraps it
            failure = error
        finally:
            for task in tasks:
                task.cancel()
    if failure is not None:
        raise failure
