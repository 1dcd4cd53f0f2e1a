"""Simulated TCP connections and UDP sockets, with asyncio's transports as their faces.

A connection neither loses nor reorders. Where a path is cut, what was sent waits and arrives once
the path is open again, as TCP's retransmissions do, unless one end has given up before.
"""

from __future__ import annotations

import asyncio
import enum
import errno
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.sim.whole.loop import ProcessLoop
    from tests.sim.whole.net import Machine, Network, Path

#: What the kernel takes of bytes that the other side has not read.
_KERNEL_BYTES = 256 * 1024
_HIGH_WATER_BYTES = 64 * 1024
_SYN_AGAIN_S = 1.0

Address = tuple[str, int]


class Packet(enum.Enum):
    """What travels besides bytes."""

    OPEN = enum.auto()
    EOF = enum.auto()
    RESET = enum.auto()


class Host:
    """What a connection knows of a machine."""

    name: str
    address: str


class Direction:
    """One half of a connection: from an end to its peer, in order."""

    def __init__(self, path: Path, source: End) -> None:
        self.path = path
        self.unread_bytes = 0
        self._source = source
        self._queue: deque[tuple[float, bytes | Packet]] = deque()
        self._last = 0.0

    def send(self, item: bytes | Packet) -> None:
        """Puts something on its way."""
        network = self._source.machine.network
        network.sent += 1
        now = network.timeline.now
        delay_s = self.path.take_s()
        at = self._last = max(self._last, now + delay_s)
        self._queue.append((at, item))
        if isinstance(item, bytes):
            self.unread_bytes += len(item)
        network.timeline.call_later(at - now, self.pump)

    def drop(self) -> None:
        """What was on its way is lost with the machine that would have sent it again."""
        self._queue.clear()

    def pump(self) -> None:
        """Delivers what has arrived."""
        peer = self._source.peer
        now = peer.machine.network.timeline.now
        while self._queue and self._queue[0][0] <= now:
            if self.path.blocked or not peer.machine.powered:
                self.path.waiting[self] = None
                return
            _, item = self._queue.popleft()
            if isinstance(item, bytes):
                self.unread_bytes -= len(item)
            peer.arrives(item)
        self._source.drained()


class End(asyncio.Transport):
    """One end of a connection, and the transport that its protocol sees.

    Attributes:
        machine: Where it is.
        peer: The other end.
        out: What goes to it.
        open: False once this end is gone.
    """

    peer: End

    def __init__(
        self, machine: Machine, loop: ProcessLoop, path: Path, local: Address, remote: Address
    ) -> None:
        super().__init__({"sockname": local, "peername": remote})
        self.machine = machine
        self.out = Direction(path, self)
        self.open = True
        self._loop = loop
        self._protocol: Any = None
        self._closing = False
        self._said_eof = False
        self._write_paused = False
        self._read_paused = False
        self._held: list[bytes | Packet] = []
        machine.ends[self] = None

    # --- from the network

    def arrives(self, item: bytes | Packet) -> None:
        """Something has come over the path."""
        if not self.open:
            # Nobody is there any more; the kernel says so.
            if item is not Packet.RESET and self.peer.open:
                self.out.send(Packet.RESET)
        elif item is Packet.OPEN:
            self._opened()
        elif self._protocol is None or self._read_paused:
            self._held.append(item)
        else:
            self._loop.call_soon(self._receive, item)

    def _opened(self) -> None:
        """The connection is there at the listening side."""
        listener = self.machine.listeners.get(self.get_extra_info("sockname")[1])
        if listener is None or listener.loop.dead:
            self.vanish(Packet.RESET)
            return
        self._loop = listener.loop
        listener.loop.call_soon(listener.accept, self)

    def _receive(self, item: bytes | Packet) -> None:
        if not self.open:
            return
        if self._read_paused:
            self._held.append(item)
        elif isinstance(item, bytes):
            if not self._closing:
                self._protocol.data_received(item)
        elif item is Packet.RESET:
            self._end(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
        elif self._closing or not self._protocol.eof_received():
            self.close()

    def drained(self) -> None:
        """Some of what was sent has arrived."""
        if self._closing and self.get_write_buffer_size() == 0:
            self._end(None)
        elif self._write_paused and self.get_write_buffer_size() == 0:
            self._write_paused = False
            self._loop.call_soon(self._protocol.resume_writing)

    def broken(self) -> None:
        """Something in between has reset the connection."""
        self.out.drop()
        if self.open:
            self._loop.call_soon(self._receive, Packet.RESET)

    def vanish(self, last: Packet | None) -> None:
        """The process is gone; with None the whole machine is.

        Args:
            last: What the kernel says to the other side.
        """
        self.open = False
        self.machine.ends.pop(self, None)
        if last is None:
            self.out.drop()
        elif not self._said_eof:
            self.out.send(last)

    # --- to the protocol

    def attach(self, protocol: Any) -> None:
        """Gives it the protocol that it is the transport of."""
        self._protocol = protocol
        self._loop.call_soon(self._made)

    def adopted_by(self, loop: ProcessLoop) -> None:
        """Says whose it is."""
        self._loop = loop

    def _made(self) -> None:
        self._protocol.connection_made(self)
        self.resume_reading()

    def _end(self, error: Exception | None) -> None:
        if not self.open:
            return
        self.open = False
        self.machine.ends.pop(self, None)
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)

    # --- asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio."""
        if not self.open or self._closing or not data:
            return
        self.out.send(bytes(data))
        if not self._write_paused and self.get_write_buffer_size() > _HIGH_WATER_BYTES:
            self._write_paused = True
            self._loop.call_soon(self._protocol.pause_writing)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """See asyncio."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """See asyncio."""
        if self.open and not self._said_eof:
            self._said_eof = True
            self.out.send(Packet.EOF)

    def can_write_eof(self) -> bool:
        """See asyncio."""
        return True

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel would not have taken yet."""
        return max(self.out.unread_bytes - _KERNEL_BYTES, 0)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """See asyncio."""
        return (0, _HIGH_WATER_BYTES)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The limits are fixed."""

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._closing or not self.open

    def close(self) -> None:
        """See asyncio."""
        if self._closing or not self.open:
            return
        self._closing = True
        if not self._said_eof:
            self._said_eof = True
            self.out.send(Packet.EOF)
        if self.get_write_buffer_size() == 0:
            self._end(None)

    def abort(self) -> None:
        """See asyncio."""
        if not self.open:
            return
        self._closing = True
        self.out.send(Packet.RESET)
        self._end(None)

    def is_reading(self) -> bool:
        """See asyncio."""
        return not self._read_paused

    def pause_reading(self) -> None:
        """See asyncio."""
        self._read_paused = True

    def resume_reading(self) -> None:
        """See asyncio."""
        self._read_paused = False
        held, self._held = self._held, []
        for item in held:
            self._loop.call_soon(self._receive, item)

    def set_protocol(self, protocol: Any) -> None:
        """See asyncio."""
        self._protocol = protocol

    def get_protocol(self) -> Any:
        """See asyncio."""
        return self._protocol


class Dialled:
    """A connected socket that has no protocol yet."""

    def __init__(self, end: End) -> None:
        self._end = end

    async def begin(self, protocol_factory: Callable[[], Any]) -> tuple[asyncio.Transport, Any]:
        """Gives it a protocol."""
        protocol = protocol_factory()
        self._end.attach(protocol)
        await asyncio.sleep(0)
        return self._end, protocol

    def setblocking(self, flag: bool) -> None:
        """See socket."""

    def close(self) -> None:
        """See socket."""
        self._end.abort()


async def connect(loop: ProcessLoop, address: str, port: int) -> Dialled:
    """Connects to a port.

    Raises:
        ConnectionRefusedError: Nobody listens.
        OSError: There is no such machine.
    """
    network, source = loop.machine.network, loop.machine
    target = network.at(address, source)
    if target is None:
        raise OSError(errno.EHOSTUNREACH, "No route to host")
    there, back = network.path(source.name, target.name), network.path(target.name, source.name)
    while True:
        await asyncio.sleep(there.take_s())
        if not there.blocked and target.powered and not back.blocked:
            listener = target.listeners.get(port)
            await asyncio.sleep(back.take_s())
            if not back.blocked:
                break
        await asyncio.sleep(_SYN_AGAIN_S)
    if listener is None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    local, remote = (source.address, source.free_port()), (address, port)
    ours = End(source, loop, there, local, remote)
    theirs = End(target, listener.loop, back, remote, local)
    ours.peer, theirs.peer = theirs, ours
    ours.out.send(Packet.OPEN)
    return Dialled(ours)


class Listener:
    """A port that is listened on."""

    def __init__(self, loop: ProcessLoop, host: str, port: int) -> None:
        self.loop = loop
        self.port = port or loop.machine.free_port()
        self.address = (host, self.port)
        if self.port in loop.machine.listeners:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        loop.machine.listeners[self.port] = self

    def accept(self, end: End) -> None:
        """A connection has come."""
        raise NotImplementedError

    def getsockname(self) -> Address:
        """See socket."""
        return self.address

    def close(self) -> None:
        """Listens no more."""
        machine = self.loop.machine
        if machine.listeners.get(self.port) is self:
            del machine.listeners[self.port]


class Served(Listener):
    """What `create_server` gives (see `asyncio.Server`)."""

    def __init__(self, loop: ProcessLoop, factory: Callable[[], Any], host: str, port: int) -> None:
        super().__init__(loop, host, port)
        self._factory = factory

    @property
    def sockets(self) -> tuple[Listener, ...]:
        """The socket that listens."""
        return (self,)

    def accept(self, end: End) -> None:
        """See `Listener`."""
        end.adopted_by(self.loop)
        end.attach(self._factory())

    def is_serving(self) -> bool:
        """See asyncio."""
        return self.loop.machine.listeners.get(self.port) is self

    async def wait_closed(self) -> None:
        """See asyncio."""


class RawListener(Listener):
    """A socket that listens, for who accepts by hand with `add_reader`."""

    def __init__(self, loop: ProcessLoop, host: str, port: int) -> None:
        super().__init__(loop, host, port)
        self.readable: Callable[[], object] | None = None
        self.waiting: deque[End] = deque()

    def accept(self, end: End | None = None) -> Any:
        """With an end: a connection has come. Without: see socket."""
        if end is not None:
            self.waiting.append(end)
            if self.readable is not None:
                self.readable()
            return None
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "nobody waits")
        taken = self.waiting.popleft()
        taken.adopted_by(self.loop)
        return Dialled(taken), taken.get_extra_info("peername")

    def fileno(self) -> int:
        """A number of its own in its process."""
        return self.port

    def setblocking(self, flag: bool) -> None:
        """See socket."""


class SimDatagrams(asyncio.DatagramTransport):
    """A UDP socket."""

    def __init__(
        self, loop: ProcessLoop, protocol: Any, address: Address, remote: Address | None
    ) -> None:
        super().__init__({"sockname": address, "peername": remote})
        self.machine = loop.machine
        self.address = address
        self._loop = loop
        self._protocol = protocol
        self._remote = remote
        self._closing = False

    @property
    def _network(self) -> Network:
        return self.machine.network

    def sendto(self, data: Any, addr: Any = None) -> None:
        """See asyncio."""
        target = addr or self._remote
        if not self._closing and not self._loop.dead and target is not None:
            self._network.send_datagram(self, bytes(data), target)

    def deliver(self, data: bytes, sender: Address) -> None:
        """A datagram has come."""
        self._loop.call_soon(self._received, data, sender)

    def _received(self, data: bytes, sender: Address) -> None:
        if not self._closing:
            self._protocol.datagram_received(data, sender)

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._closing

    def close(self) -> None:
        """See asyncio."""
        if self._closing:
            return
        self._closing = True
        if self.machine.datagrams.get(self.address[1]) is self:
            del self.machine.datagrams[self.address[1]]
        self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close
