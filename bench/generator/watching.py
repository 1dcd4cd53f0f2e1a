"""Many blocking queries of one service, and how long after a change each of them is told.

All watchers live in one process and are told within milliseconds of each other, so the times
include what this process takes to read their answers: about 10 µs each.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import time

import orjson

from bench.generator import answer, requests
from bench.generator.closed_loop import READ_BYTES, connect
from bench.generator.jobs import WatchJob, WatchTally, percentile

#: A change that has not told everybody by then fails the benchmark.
ROUND_S_MAX = 60.0
SERVICE = "watched"
_WAIT = "5m"
_POLL_S = 0.1


class _Watcher:
    """One connection with a blocking query."""

    __slots__ = ("data", "sock", "told_at_s")

    def __init__(self, address: str) -> None:
        self.sock = connect(address)
        self.data = b""
        self.told_at_s = 0.0

    def ask(self, query: bytes) -> None:
        self.data = b""
        self.sock.send(query)

    def read(self, buffer: bytearray) -> bool:
        """Reads; True when an answer is whole.

        Raises:
            ConnectionError: The server closed the connection.
        """
        count = self.sock.recv_into(buffer)
        if not count:
            raise ConnectionError("the server closed a watcher's connection")
        self.data += buffer[:count]
        head_end = answer.end_of_head(self.data, len(self.data))
        if head_end < 0:
            return False
        length = answer.body_bytes(self.data, head_end)
        if length == answer.CHUNKED:
            return answer.chunks_end(self.data)
        return len(self.data) >= head_end + length


class _Crowd:
    """All watchers of a job."""

    def __init__(self, job: WatchJob) -> None:
        self._job = job
        self._poll = select.epoll()
        self._buffer = bytearray(READ_BYTES)
        self._watchers: dict[int, _Watcher] = {}
        self._changes = _Changes(job.change_address)
        self.early = 0
        for _ in range(job.watchers):
            watcher = _Watcher(job.address)
            self._watchers[watcher.sock.fileno()] = watcher
            self._poll.register(watcher.sock.fileno(), select.EPOLLIN)

    def close(self) -> None:
        for watcher in self._watchers.values():
            watcher.sock.close()
        self._poll.close()
        self._changes.close()

    def round(self) -> list[float]:
        """One change; gives the seconds until each watcher was told, in order.

        Raises:
            TimeoutError: Not all were told.
        """
        mark = f"round-{time.perf_counter_ns()}"  # none that was there before
        query = self._query(_index_of(self._job))
        for watcher in self._watchers.values():
            watcher.ask(query)
        self._wait_until(time.perf_counter() + self._job.settle_s, mark, set(self._watchers))
        waiting = set(self._watchers)
        began_s = time.perf_counter()
        self._changes.send(mark)
        self._wait_until(began_s + ROUND_S_MAX, mark, waiting)
        if waiting:
            raise TimeoutError(f"{len(waiting)} watchers were not told in {ROUND_S_MAX:.0f} s")
        self._changes.confirm()
        return sorted(watcher.told_at_s - began_s for watcher in self._watchers.values())

    def _wait_until(self, end_s: float, mark: str, waiting: set[int]) -> None:
        """Reads answers until then, or until nobody waits any more."""
        wanted = mark.encode()
        while waiting and time.perf_counter() < end_s:
            for handle, _ in self._poll.poll(_POLL_S):
                watcher = self._watchers[handle]
                if watcher.read(self._buffer):
                    watcher.told_at_s = time.perf_counter()
                    self._told(watcher, wanted, waiting)

    def _told(self, watcher: _Watcher, wanted: bytes, waiting: set[int]) -> None:
        if watcher.data[9:12] != b"200":
            raise ValueError(f"a watcher was answered: {watcher.data[:200]!r}")
        if wanted in watcher.data:
            waiting.discard(watcher.sock.fileno())
            return
        self.early += 1
        watcher.ask(self._query(_index_in(watcher.data)))

    def _query(self, index: int) -> bytes:
        return requests.get(self._job.address, f"{self._job.path}&index={index}&wait={_WAIT}")


class _Changes:
    """Registers the first instance again with another tag."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._sock: socket.socket = connect(address)
        self._sock.setblocking(True)
        self._sock.settimeout(ROUND_S_MAX)

    def send(self, mark: str) -> None:
        body = orjson.dumps(requests.instance(SERVICE, 0, mark))
        self._sock.sendall(requests.put(self._address, "/v1/catalog/register", body))

    def confirm(self) -> None:
        """Reads the answer to the last change.

        Raises:
            ValueError: It was refused.
        """
        data = self._sock.recv(READ_BYTES)
        if data[9:12] != b"200":
            raise ValueError(f"the change was answered: {data[:200]!r}")

    def close(self) -> None:
        self._sock.close()


def _index_of(job: WatchJob) -> int:
    """The present index of what is watched."""
    host, _, port = job.address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=ROUND_S_MAX)
    with contextlib.closing(connection):
        connection.request("GET", job.path)
        found = connection.getresponse()
        found.read()
        if found.status != 200:
            raise ValueError(f"GET {job.path} was answered with {found.status}")
        return int(found.headers["X-Consul-Index"])


def _index_in(data: bytes) -> int:
    """The index that an answer names."""
    head = data.partition(b"\r\n\r\n")[0].lower()
    return int(head.partition(b"x-consul-index: ")[2].partition(b"\r")[0])


def run(job: WatchJob) -> WatchTally:
    """Holds the watchers and makes the changes.

    Raises:
        OSError: A connection can't be made, or broke.
        TimeoutError: Watchers were not told.
        ValueError: An answer was none.
    """
    median_ms, last_ms = [], []
    with contextlib.closing(_Crowd(job)) as crowd:
        for _ in range(job.rounds):
            told_s = crowd.round()
            median_ms.append(percentile(told_s, 0.5) * 1000)
            last_ms.append(told_s[-1] * 1000)
    return WatchTally(
        median_ms=median_ms,
        last_ms=last_ms,
        early=crowd.early,
        generator_cpu_s=time.process_time(),
    )
