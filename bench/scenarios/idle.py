"""Latencies of a cluster that has nothing else to do, and its memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from bench.cluster import Cluster
from bench.lab import Figures, Lab, Line, Measurement, milliseconds, side_by_side
from bench.report import Row, published
from raftreg_cli.demo.plan import Host

PAUSE_S = 0.01
WARMUP = 20  #: requests that do not count


async def run(lab: Lab) -> list[Row]:
    """One request at a time, with a pause between: no batch, no queue."""
    times = 50 if lab.quick else 400

    async def memory(servers: Cluster, number: int) -> Sequence[Figures]:
        del number  # each turn is the same
        return [Figures([servers.rss_bytes(name) / 2**20 for name in servers.servers])]

    measurements = [
        Measurement(
            lines=(
                Line(
                    name="memory, empty",
                    unit="MiB",
                    more_is_better=False,
                    consul=published(54),
                    etcd=published(40),
                ),
            ),
            turn=memory,
            repeats=1,
        )
    ]
    for what, leads, write, query in (
        ("write, idle, at the leader", True, True, ""),
        ("write, idle, at a follower", False, True, ""),
        ("linearizable read, idle, at the leader", True, False, ""),
        ("linearizable read, idle, at a follower", False, False, ""),
        ("stale read, idle", False, False, "?stale"),
    ):
        measurements.append(_latency(what, times, leads=leads, write=write, query=query))
    return await side_by_side(lab, measurements)


def _latency(what: str, times: int, *, leads: bool, write: bool, query: str) -> Measurement:
    """Median of requests on one raw connection; the 99th percentile goes into the notes."""
    body = b"v" * 200 if write else b""
    head = f"{'PUT' if write else 'GET'} /v1/kv/first{query} HTTP/1.1\r\nHost: x\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def turn(servers: Cluster, number: int) -> Sequence[Figures]:
        del number
        leader = await servers.leader()
        follower = next(name for name in servers.servers if name != leader)
        taken_s = await _ask(servers.servers[leader if leads else follower], request, times)
        p50, p99 = milliseconds(taken_s, 0.5), milliseconds(taken_s, 0.99)
        return [Figures([p50], f"p99 {p99:.2f} ms")]

    line = Line(name=what, unit="ms", more_is_better=False)
    return Measurement(lines=(line,), turn=turn, repeats=1)


async def _ask(host: Host, request: bytes, times: int) -> list[float]:
    """Sends one request again and again; gives the seconds that each took, in order of size."""
    reader, writer = await asyncio.open_connection(host.address, host.http_port)
    taken_s = []
    try:
        for turn in range(times + WARMUP):
            began = time.perf_counter()
            writer.write(request)
            head_bytes = await reader.readuntil(b"\r\n\r\n")
            length = int(head_bytes.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
            if turn >= WARMUP:
                taken_s.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)
    finally:
        writer.close()
    return sorted(taken_s)
