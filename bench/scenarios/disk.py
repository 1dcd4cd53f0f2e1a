"""What the disk alone takes: the floor under every write."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time

from bench.lab import Lab, milliseconds
from bench.report import Row

RECORD_BYTES = 230  #: a write of 200 B in the log


async def run(lab: Lab) -> list[Row]:
    """Appends and syncs, one after the other."""
    lab.say("fdatasync of small appends")
    times_s = await asyncio.to_thread(_sync_often, lab, 200 if lab.quick else 1000)
    p50, p99 = milliseconds(times_s, 0.5), milliseconds(times_s, 0.99)
    return [Row(name="append and fdatasync", unit="ms", samples=[p50], note=f"p99 {p99:.2f} ms")]


def _sync_often(lab: Lab, times: int) -> list[float]:
    with tempfile.NamedTemporaryFile(prefix="raftreg-bench-", dir=lab.directory) as file:
        handle, record = file.fileno(), b"r" * RECORD_BYTES
        taken_s = []
        for _ in range(times):
            began = time.perf_counter()
            os.write(handle, record)
            os.fdatasync(handle)
            taken_s.append(time.perf_counter() - began)
    return sorted(taken_s)
