"""Transports on real sockets of 127.0.0.0/8, with everything that they told written down."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from raftreg.raft.security import NONCE_BYTES, Handshake, Mode, Security, Side
from raftreg.raft.transport import Address, PeerTransport, TransportLimits
from raftreg.raft.wire import FrameDecoder, Kind, encode_map

KEY = b"a key of the cluster"

FAST = TransportLimits(
    ping_s=0.05,
    silence_s_max=0.4,
    connect_s_max=1.0,
    handshake_s_max=0.4,
    backoff_s_min=0.01,
    backoff_s_max=0.05,
)
"""Short intervals, so that what must happen after a while happens soon."""


class Node:
    """A transport and what it told."""

    def __init__(
        self,
        name: str,
        *,
        security: Security | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: TransportLimits = FAST,
        datacenter: str = "dc1",
        **doors: Any,
    ) -> None:
        self.name = name
        self.datacenter = datacenter
        self.extra: dict[str, Any] = {}
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.events: list[tuple[str, str]] = []
        self.hellos: list[tuple[str, dict[str, Any], Address]] = []
        self.faults: list[BaseException] = []
        doors.setdefault("on_message", lambda peer, message: self.messages.append((peer, message)))
        self.transport = PeerTransport(
            self_id=name,
            bind=Address(host, port),
            security=security or Security.plain(),
            hello=self.hello,
            on_connected=lambda peer: self.events.append(("connected", peer)),
            on_disconnected=lambda peer: self.events.append(("disconnected", peer)),
            on_hello=lambda *told: self.hellos.append(told),
            limits=limits,
            clock=time.perf_counter,
            rng=random.Random(name),
            on_fault=self.faults.append,
            **doors,
        )

    def hello(self) -> dict[str, Any]:
        """What this node says of itself."""
        address = self.transport.address
        return {
            "id": self.name,
            "name": f"node-{self.name}",
            "datacenter": self.datacenter,
            "host": address.host,
            "port": address.port,
            "version": 1,
            **self.extra,
        }

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self.transport.address

    def is_connected(self, *peers: Node) -> bool:
        """Whether it can send to all of these."""
        return all(self.transport.connected(peer.name) for peer in peers)


@contextlib.asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    """Starts nodes, stops them at the end, and sees that nothing of them is left."""
    try:
        for node in nodes:
            await node.transport.start()
        yield
    finally:
        for node in nodes:
            await node.transport.stop()
    for node in nodes:
        assert not node.transport._tasks
        assert not node.transport._connections


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Returns when the condition holds; the limit is only there to end a failed test."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any condition, not only those with an event
            await asyncio.sleep(0.002)


async def connect(*nodes: Node) -> None:
    """Connects all to all, and waits until each end of each connection knows it."""
    for node in nodes:
        node.transport.set_peers({other.name: other.address for other in nodes})

    def whole() -> bool:
        infos = [info for node in nodes for info in node.transport.peers().values()]
        return len(infos) == len(nodes) * (len(nodes) - 1) and all(
            info.connected and info.inbound for info in infos
        )

    await until(whole)


class Stranger:
    """A raw connection that says what the test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._decoder = FrameDecoder(1 << 20)
        self._frames: list[bytes] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def dial(cls, node: Node) -> AsyncIterator[Stranger]:
        """Connects to a node."""
        reader, writer = await asyncio.open_connection(node.address.host, node.address.port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def send(self, payload: bytes) -> None:
        """Sends a frame."""
        self.writer.write(struct.pack(">I", len(payload)) + payload)

    async def receive(self) -> bytes:
        """Returns the next frame."""
        while not self._frames:
            data = await self._reader.read(65536)
            if not data:
                raise EOFError
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    async def is_hung_up(self) -> bool:
        """Returns once the other side has closed the connection."""
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(65536):
                    pass
        return True

    async def authenticate(self, name: str, key: bytes | None = None) -> Handshake:
        """Goes through the handshake as the dialling side, up to the listener's hello."""
        mode = Mode.PLAIN if key is None else Mode.SHARED_KEY
        handshake = Handshake(
            side=Side.DIALLER, mode=mode, self_id=name, key=key, nonce=b"s" * NONCE_BYTES
        )
        while handshake.channel is None or handshake.outgoing:
            for payload in handshake.outgoing:
                self.send(payload)
            handshake.outgoing.clear()
            handshake.receive(await self.receive())
        return handshake

    async def join(self, name: str, key: bytes | None = None) -> Handshake:
        """Becomes an accepted peer of that name."""
        handshake = await self.authenticate(name, key)
        self.writer.write(seal(handshake, Kind.HELLO, encode_map(hello_of(name))))
        return handshake


def seal(handshake: Handshake, kind: int, body: bytes = b"") -> bytes:
    """Returns the next frame of an authenticated stranger."""
    assert handshake.channel is not None
    return handshake.channel.seal(kind, body)


def hello_of(name: str, **changed: Any) -> dict[str, Any]:
    """Returns a valid hello, but for the changes."""
    fields = {"name": name, "datacenter": "dc1", "host": "127.0.0.9", "port": 9, "version": 1}
    return {"id": name, **fields, **changed}


def free_port(host: str = "127.0.0.1") -> int:
    """Returns a port that was free a moment ago."""
    with socket.create_server((host, 0)) as listening:
        port: int = listening.getsockname()[1]
    return port
