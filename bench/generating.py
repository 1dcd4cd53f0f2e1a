"""Runs the load generator in a process of its own."""

from __future__ import annotations

import asyncio
import sys
from typing import TypeVar

import msgspec

from bench.failure import BenchFailure
from bench.generator.jobs import AnyJob
from raftreg_cli import leash

_T = TypeVar("_T")
_ERROR_CHARS = 2000


async def generate(job: AnyJob, tally: type[_T]) -> _T:
    """Does a job.

    Args:
        job: What to do.
        tally: What it gives.

    Raises:
        BenchFailure: The generator failed; the text holds what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *leash.command([sys.executable, "-m", "bench.generator"]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = await process.communicate(msgspec.json.encode(job))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        said = errors.decode("utf-8", "replace")[-_ERROR_CHARS:]
        raise BenchFailure(f"the load generator failed: {job}\n{said}")
    return msgspec.json.decode(output, type=tally)
