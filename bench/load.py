"""The load generator: closed loop, raw HTTP over kept connections, a process of its own.

`python -m bench.load` reads a `Job` as JSON from stdin and writes a `Tally` as JSON to stdout. Each
connection has one request outstanding and sends the next when the answer is whole. The requests are
built before the clock starts, and of an answer only its status and length are read, so that the
generator takes little of the processor that it shares with the servers.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from typing import cast

import msgspec

from bench import requests

CONNECT_S_MAX = 10.0
DRAIN_S_MAX = 15.0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to send.

    Attributes:
        kind: "put", "get", "get-stale", "catalog", "agent" or "fill".
        address: host:port.
        connections: Requests outstanding at once.
        seconds: Length of the measurement ("fill" ends when all is written).
        warmup_s: Load before it, which is not counted.
        salt: Makes registrations differ from those of a run before.
        keys: How many keys "fill" writes, and gets read.
        value_bytes: Length of written values.
    """

    kind: str
    address: str
    connections: int
    seconds: float = 3.0
    warmup_s: float = 0.5
    salt: str = ""
    keys: int = 10_000
    value_bytes: int = 200


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        answers: Answers with status 200 within the measurement.
        per_s: The same by second.
        failures: Other answers by status; "closed" counts connections that the server closed.
        p50_ms, p99_ms, max_ms: Latency of the answers with status 200.
        seconds: How long it took.
    """

    answers: int
    per_s: float
    failures: dict[str, int]
    p50_ms: float
    p99_ms: float
    max_ms: float
    seconds: float


class _Counts:
    """Shared by all connections of the process."""

    def __init__(self) -> None:
        self.measuring = False
        self.stopping = False
        self.latencies_s: list[float] = []
        self.failures: Counter[str] = Counter()


class _Connection(asyncio.Protocol):
    """One closed loop."""

    def __init__(self, messages: Iterator[bytes], counts: _Counts) -> None:
        self._messages = messages
        self._counts = counts
        self._buffer = b""
        self._sent_at = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def send_next(self) -> None:
        """Sends the next request, or ends when there is none or the run is over."""
        message = None if self._counts.stopping else next(self._messages, None)
        if message is None:
            self._end()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0 or len(data) < head_end + 4 + _content_length(data, head_end):
            self._buffer = data
            return
        self._buffer = b""
        counts = self._counts
        if counts.measuring:
            if data[9:12] == b"200":
                counts.latencies_s.append(time.perf_counter() - self._sent_at)
            else:
                counts.failures[data[9:12].decode("latin-1")] += 1
        self.send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self._counts.failures["closed"] += 1
            self.ended.set_result(None)

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        self._transport.close()


def _content_length(data: bytes, head_end: int) -> int:
    at = data.find(b"Content-Length: ", 0, head_end)
    if at < 0:
        return 0
    return int(data[at + 16 : data.find(b"\r", at)])


def messages_of(job: Job, connection: int) -> Iterator[bytes]:
    """The requests of one connection.

    Raises:
        ValueError: The kind is unknown.
    """
    host = job.address
    match job.kind:
        case "put":
            return cycle(requests.kv_puts(host, connection, job.value_bytes))
        case "get":
            return cycle(requests.kv_gets(host, connection, job.keys, ""))
        case "get-stale":
            return cycle(requests.kv_gets(host, connection, job.keys, "?stale"))
        case "catalog":
            return cycle(requests.catalog_registrations(host, connection, job.salt))
        case "agent":
            return cycle(requests.agent_registrations(host, connection, job.salt))
        case _:
            raise ValueError(f"unknown kind of load: {job.kind}")


async def run(job: Job) -> Tally:
    """Sends the load; see the module's text.

    Raises:
        TimeoutError: Connections could not be made, or answers did not come to an end.
    """
    counts = _Counts()
    if job.kind == "fill":
        shared = iter(requests.kv_fill(job.address, job.keys, job.value_bytes))
        sources = [shared] * job.connections
    else:
        sources = [messages_of(job, number) for number in range(job.connections)]
    loop = asyncio.get_running_loop()
    host, _, port = job.address.rpartition(":")
    connections = []
    async with asyncio.timeout(CONNECT_S_MAX):
        for source in sources:
            _, connection = await loop.create_connection(
                lambda source=source: _Connection(source, counts),  # type: ignore[misc]
                host,
                int(port),
            )
            connections.append(connection)
    gc.freeze()
    gc.disable()  # no pauses of our own in the figures; the run is short
    for connection in connections:
        connection.send_next()
    ended = asyncio.gather(*(connection.ended for connection in connections))
    if job.kind != "fill":
        await asyncio.sleep(job.warmup_s)
    began, counts.measuring = time.perf_counter(), True
    if job.kind == "fill":
        await ended
    else:
        await asyncio.wait([ended], timeout=job.seconds)
    counts.measuring, counts.stopping = False, True
    seconds = time.perf_counter() - began
    async with asyncio.timeout(DRAIN_S_MAX):
        await ended
    return _tally(counts, seconds)


def _tally(counts: _Counts, seconds: float) -> Tally:
    latencies_ms = sorted(latency_s * 1000 for latency_s in counts.latencies_s) or [0.0]
    last = len(latencies_ms) - 1
    return Tally(
        answers=len(counts.latencies_s),
        per_s=len(counts.latencies_s) / seconds,
        failures=dict(counts.failures),
        p50_ms=latencies_ms[last // 2],
        p99_ms=latencies_ms[int(last * 0.99)],
        max_ms=latencies_ms[last],
        seconds=seconds,
    )


def main() -> None:
    """Reads the job, runs it, writes the tally."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        tally = runner.run(run(job))
    sys.stdout.buffer.write(msgspec.json.encode(tally))


def _loop_factory() -> type[asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415  # optional: the extra `fast`
    except ImportError:
        return asyncio.SelectorEventLoop
    return uvloop.Loop


if __name__ == "__main__":
    main()
