"""A network between servers that can be cut: one relay in front of each server's Raft listener.

A server binds one address and advertises another one, where its relay listens. A cut loses nothing
that TCP would not lose: bytes stay where they are, connections stay open and silent, new ones are
accepted and hang, until the cut is mended or one end gives up. No privileges are needed, unlike
with netfilter or network namespaces, so this runs wherever the tests do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psutil

from tests.e2e.cluster import RAFT_PORT, Cluster, Member

_CHUNK_BYTES = 64 * 1024
_CHUNKS_MAX = 10_000


class Network:
    """The relays of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._servers = {server.name: server for server in cluster.servers}
        self._cut: set[str] = set()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Bytes that arrived at a relay while its link was cut: proof that the cut acts.
        self.held_bytes = 0
        self.relayed_bytes = 0

    async def cut(self, server: Member) -> None:
        """Cuts a server off: nothing passes to it or from it."""
        self._cut.add(server.name)

    async def mend(self, server: Member) -> None:
        """Connects a server again; what was held passes now."""
        async with self._changed:
            self._cut.discard(server.name)
            self._changed.notify_all()

    async def relay(
        self, target: Member, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carries one connection to a server."""
        source = self._source(writer.get_extra_info("peername"))
        ends = {target.name, source}
        with contextlib.closing(writer):
            await self._passable(ends)
            try:
                onward, back = await asyncio.open_connection(_inside(target), RAFT_PORT)
            except OSError:
                return
            with contextlib.closing(back):
                both = [self._pump(reader, back, ends), self._pump(onward, writer, ends)]
                await asyncio.gather(*both)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: set[str]
    ) -> None:
        """Carries one direction; what arrives during a cut waits for its end."""
        waiting: asyncio.Queue[bytes] = asyncio.Queue(_CHUNKS_MAX)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(reader, waiting, ends))
            group.create_task(self._hand_on(waiting, writer, ends))

    async def _take(
        self, reader: asyncio.StreamReader, waiting: asyncio.Queue[bytes], ends: set[str]
    ) -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(_CHUNK_BYTES)
            except OSError:
                data = b""
            if self._cut & ends:
                self.held_bytes += len(data)
            await waiting.put(data)

    async def _hand_on(
        self, waiting: asyncio.Queue[bytes], writer: asyncio.StreamWriter, ends: set[str]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await waiting.get():
                await self._passable(ends)
                self.relayed_bytes += len(data)
                writer.write(data)
                await writer.drain()
        await self._passable(ends)
        # The other direction ends with this one: a closed connection is closed for both.
        writer.close()

    async def _passable(self, ends: set[str]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._cut & ends)

    def _source(self, address: tuple[str, int]) -> str:
        """Which server opened a connection: the one whose process holds its other end."""
        for server in self._servers.values():
            with contextlib.suppress(psutil.Error, RuntimeError):
                for connection in psutil.Process(server.pid).net_connections("tcp4"):
                    if tuple(connection.laddr) == address:
                        return server.name
        return ""

    def accept(
        self, target: Member
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        """What a listener does with a connection to a server."""

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            loop = asyncio.get_running_loop()
            task = loop.create_task(self.relay(target, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return accepted

    async def close(self) -> None:
        """Ends all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _inside(server: Member) -> str:
    """Where a server listens behind its relay."""
    net, _, host = server.address.rpartition(".")
    return f"{net}.{100 + int(host)}"


@asynccontextmanager
async def relayed(cluster: Cluster) -> AsyncIterator[Network]:
    """Puts relays in front of a cluster's servers (not started yet) while the block runs."""
    network = Network(cluster)
    listeners = []
    for server in cluster.servers:
        server.flags = ["--bind", _inside(server), "--advertise", server.address]
        accept = network.accept(server)
        listeners.append(await asyncio.start_server(accept, server.address, RAFT_PORT))
    try:
        yield network
    finally:
        for listener in listeners:
            listener.close()
        await network.close()
