"""A server's two roads without sockets: bytes in by hand, bytes out to look at."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from raftreg.clock import ManualClock
from raftreg.config import HttpLimits, ServerSettings
from raftreg.http.wire.listener import HttpListener
from raftreg.raft.api import Server
from raftreg.raft.solo import SoloReplica
from raftreg.server.app import RegistryServer
from raftreg.server.machine import RegistryMachine

#: Turns of the loop without anything written, after which nothing more will be: nothing in these
#: servers waits for a timer.
QUIET_TURNS = 12


class Transport(asyncio.Transport):
    """Keeps what is written, and reads only what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self.reads = True
        self.protocol: asyncio.Protocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keeps it."""
        if not self.closed:
            self.written += data

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Keeps them."""
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        """Tells the protocol soon, as a real one does."""
        if not self.closed:
            self.closed = True
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        """Likewise."""
        self.close()

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def pause_reading(self) -> None:
        """Reads no more."""
        self.reads = False

    def resume_reading(self) -> None:
        """Reads on."""
        self.reads = True

    def get_write_buffer_size(self) -> int:
        """Nothing waits here."""
        return 0


class Client:
    """A connection to one road."""

    def __init__(self, make: Callable[[], asyncio.Protocol]) -> None:
        self.transport = Transport()
        self.protocol = self.transport.protocol = make()
        self.protocol.connection_made(self.transport)

    async def send(self, pieces: Iterable[bytes]) -> bytes:
        """Sends pieces, each a read of its own; gives all that was ever written in answer."""
        for piece in pieces:
            if self.transport.closed:
                break
            self.protocol.data_received(piece)
            await self.settle(1)
        await self.settle(QUIET_TURNS)
        return bytes(self.transport.written)

    async def settle(self, turns: int) -> None:
        """Lets the loop turn until nothing has been written for so many turns."""
        seen, quiet = -1, 0
        while quiet <= turns:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self.transport.written) == seen else 0
            seen = len(self.transport.written)

    async def leave(self) -> None:
        """Goes away."""
        self.transport.close()
        await self.settle(2)


class Road:
    """A server, and connections to it."""

    def __init__(self, server: RegistryServer, clock: ManualClock) -> None:
        self.server = server
        self.clock = clock

    @property
    def listener(self) -> HttpListener:
        """The server's listener."""
        assert self.server._http is not None
        return self.server._http

    def client(self) -> Client:
        """A new connection."""
        return Client(self.listener.protocol)


@asynccontextmanager
async def road(*, short_way: bool, **limits: Any) -> AsyncIterator[Road]:
    """A server that uses one road; two of them that are asked the same stay alike."""
    settings = ServerSettings(
        node="s1",
        data_dir="unused",
        http_port=0,
        http=HttpLimits(short_way=short_way, **limits),
    )
    clock = ManualClock()
    machine = RegistryMachine()
    replica = SoloReplica(Server(id="6a3f", name="s1", address="127.0.0.1:8300"), machine, clock)
    server = RegistryServer(settings, replica, machine, clock, Random(7))
    async with asyncio.TaskGroup() as tasks:
        await server.start(tasks)
        await replica.start()
        try:
            yield Road(server, clock)
        finally:
            await server.stop()
            await replica.stop()


_VARYING = re.compile(rb"(?i)\r\n(?:Date|Server|Vary): [^\r\n]*")

#: aiohttp's word on what it can't parse; the text shows the read in which it was found.
_MALFORMED = re.compile(rb"HTTP/1\.0 400 .*", re.DOTALL)


def told(written: bytes) -> bytes:
    """Answers without what differs by design: date, name of the software, order of lines."""
    whole = _VARYING.sub(b"", _MALFORMED.sub(b"HTTP/1.0 400", written))
    return re.sub(rb"HTTP/1\.1 [^\0]*?\r\n\r\n", _in_order, whole)


def _in_order(head: re.Match[bytes]) -> bytes:
    first, *lines = head[0][:-4].split(b"\r\n")
    return b"\r\n".join([first, *sorted(lines)]) + b"\r\n\r\n"
