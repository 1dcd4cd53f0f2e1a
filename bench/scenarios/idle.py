"""Latencies of a cluster that has nothing else to do, and its memory."""

from __future__ import annotations

import asyncio
import time

from bench.cluster import Cluster, cluster
from bench.lab import Lab, milliseconds
from bench.report import Row, published
from raftreg_cli.demo.plan import Host

PAUSE_S = 0.01


async def run(lab: Lab) -> list[Row]:
    """One request at a time, with a pause between: no batch, no queue."""
    async with cluster(lab.directory) as servers:
        leader = await servers.leader()
        follower = next(name for name in servers.servers if name != leader)
        memory = [servers.rss_bytes(name) / 2**20 for name in servers.servers]
        rows = [
            Row(
                name="memory, empty",
                unit="MiB",
                samples=memory,
                consul=published(54),
                etcd=published(40),
            ),
        ]
        times = 50 if lab.quick else 400
        for what, name, write, query in (
            ("write, idle, at the leader", leader, True, ""),
            ("write, idle, at a follower", follower, True, ""),
            ("linearizable read, idle, at the leader", leader, False, ""),
            ("linearizable read, idle, at a follower", follower, False, ""),
            ("stale read, idle", follower, False, "?stale"),
        ):
            lab.say(what)
            rows.append(await _latency(servers, what, servers.servers[name], write, query, times))
        return rows


async def _latency(
    servers: Cluster, what: str, host: Host, write: bool, query: str, times: int
) -> Row:
    """Median and 99th percentile of requests on one raw connection."""
    body = b"v" * 200 if write else b""
    head = f"{'PUT' if write else 'GET'} /v1/kv/first{query} HTTP/1.1\r\nHost: x\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await asyncio.open_connection(host.address, host.http_port)
    taken_s = []
    try:
        for turn in range(times + 20):
            began = time.perf_counter()
            writer.write(request)
            head_bytes = await reader.readuntil(b"\r\n\r\n")
            length = int(head_bytes.partition(b"Content-Length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
            if turn >= 20:  # the first ones warm up
                taken_s.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)
    finally:
        writer.close()
    taken_s.sort()
    p50, p99 = milliseconds(taken_s, 0.5), milliseconds(taken_s, 0.99)
    return Row(name=what, unit="ms", samples=[p50], note=f"p99 {p99:.2f} ms")
