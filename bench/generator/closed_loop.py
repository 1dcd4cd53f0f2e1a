"""HTTP requests in a closed loop: raw sockets and epoll, nothing between them and the clock.

Each connection has one request outstanding. A loop of this kind sends more than 100,000 requests a
second from one core, which the scenario `generator` shows against a bare responder.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator

from bench.generator import answer, requests
from bench.generator.jobs import Job, Tally, tally_of

CONNECT_S_MAX = 10.0
DRAIN_S_MAX = 15.0
FILL_S_MAX = 600.0
READ_BYTES = 1 << 20
_POLL_S = 0.1


class Connection:
    """One closed loop.

    Args:
        sock: Connected.
        messages: What it sends, one after the other.
    """

    __slots__ = ("_left", "_tail", "messages", "sent_at_s", "sock", "status")

    def __init__(self, sock: socket.socket, messages: Iterator[bytes]) -> None:
        self.sock = sock
        self.messages = messages
        self.sent_at_s = 0.0
        self.status = b""
        self._left = 0
        self._tail = b""

    def take(self, buffer: bytearray, count: int) -> bool:
        """Takes what was read; True when the answer is whole. `status` is then what it said."""
        if self._left:
            return self._take_more(buffer, count)
        if self._tail:  # a head that came in parts
            self._tail += buffer[:count]
            return self._take_head(self._tail, len(self._tail))
        return self._take_head(buffer, count)

    def _take_head(self, data: bytes | bytearray, count: int) -> bool:
        head_end = answer.end_of_head(data, count)
        if head_end < 0:
            self._tail = bytes(data[:count])
            return False
        self.status = bytes(data[9:12])
        length = answer.body_bytes(data, head_end)
        if length == answer.CHUNKED:
            self._tail = bytes(data[max(head_end, count - 8) : count])
            whole = answer.chunks_end(self._tail)
            self._left = 0 if whole else answer.CHUNKED
        else:
            self._left = head_end + length - count
            whole = not self._left
        if whole or self._left > 0:
            self._tail = b""
        return whole

    def _take_more(self, buffer: bytearray, count: int) -> bool:
        if self._left == answer.CHUNKED:
            self._tail = (self._tail + buffer[max(0, count - 8) : count])[-8:]
            if not answer.chunks_end(self._tail):
                return False
            self._left, self._tail = 0, b""
            return True
        self._left -= count
        return not self._left


class _Loop:
    """All connections of a job, and what they count."""

    def __init__(self, address: str, sources: list[Iterator[bytes]]) -> None:
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._buffer = bytearray(READ_BYTES)
        self.latencies_s: list[float] = []
        self.failures: Counter[str] = Counter()
        self.answers_total = 0
        for source in sources:
            sock = connect(address)
            self._connections[sock.fileno()] = Connection(sock, source)
            self._poll.register(sock.fileno(), select.EPOLLIN)

    def start(self) -> None:
        """Sends the first request of each connection."""
        for connection in list(self._connections.values()):
            self._send_next(connection, time.perf_counter())

    def run_until(self, end_s: float) -> None:
        """Goes on until then, or until all connections are through."""
        while self._connections and time.perf_counter() < end_s:
            for handle, _ in self._poll.poll(_POLL_S):
                self._read(self._connections[handle])

    def drain(self) -> None:
        """Lets requests that are on their way end.

        Raises:
            TimeoutError: One of them does not.
        """
        for connection in self._connections.values():
            connection.messages = iter(())
        self.run_until(time.perf_counter() + DRAIN_S_MAX)
        if self._connections:
            raise TimeoutError(f"{len(self._connections)} requests were never answered")

    def close(self) -> None:
        """Closes all."""
        for connection in self._connections.values():
            connection.sock.close()
        self._connections.clear()
        self._poll.close()

    def _read(self, connection: Connection) -> None:
        try:
            count = connection.sock.recv_into(self._buffer)
        except OSError:
            count = 0
        if not count:
            self.failures["closed"] += 1
            self._end(connection)
            return
        if not connection.take(self._buffer, count):
            return
        now_s = time.perf_counter()
        self.answers_total += 1
        if connection.status == b"200":
            self.latencies_s.append(now_s - connection.sent_at_s)
        else:
            self.failures[connection.status.decode("latin-1")] += 1
        self._send_next(connection, now_s)

    def _send_next(self, connection: Connection, now_s: float) -> None:
        message = next(connection.messages, None)
        if message is None:
            self._end(connection)
            return
        connection.sent_at_s = now_s
        if connection.sock.send(message) != len(message):
            raise ValueError(f"a request of {len(message)} B does not fit the send buffer")

    def _end(self, connection: Connection) -> None:
        handle = connection.sock.fileno()
        self._poll.unregister(handle)
        del self._connections[handle]
        connection.sock.close()


def connect(address: str) -> socket.socket:
    """A connection that sends at once and does not block.

    Raises:
        OSError: It can't be made.
    """
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host, int(port)), CONNECT_S_MAX)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


def run(job: Job) -> Tally:
    """Sends the load; see the module's text.

    Raises:
        OSError: Connections could not be made.
        TimeoutError: Answers did not come to an end.
        ValueError: The kind of load is unknown.
    """
    if job.kind.startswith("fill"):
        shared = iter(requests.filling(job))
        sources = [shared] * job.connections
        warmup_s, seconds_max = 0.0, FILL_S_MAX
    else:
        sources = [requests.messages_of(job, number) for number in range(job.connections)]
        warmup_s, seconds_max = job.warmup_s, job.seconds
    with contextlib.closing(_Loop(job.address, sources)) as loop:
        loop.start()
        if warmup_s:
            loop.run_until(time.perf_counter() + warmup_s)
        loop.latencies_s.clear()
        began_s = time.perf_counter()
        loop.run_until(began_s + seconds_max)
        seconds = time.perf_counter() - began_s
        latencies_s, failures = loop.latencies_s.copy(), dict(loop.failures)
        loop.drain()
        total = loop.answers_total
    return tally_of(latencies_s, failures, seconds, total, time.process_time())
