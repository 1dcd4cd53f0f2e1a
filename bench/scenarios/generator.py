"""How much the generator itself can send: the ceiling over every rate of the table."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from bench.failure import BenchFailure
from bench.generating import generate
from bench.generator.jobs import DnsJob, Job, Tally
from bench.lab import Figures, Lab, rate
from bench.report import Goal, Row
from raftreg_cli import leash

CONNECTIONS = 64
_HOST = "127.0.0.1"
START_S_MAX = 20.0


async def run(lab: Lab) -> list[Row]:
    """Requests and queries at a responder that does nothing else."""
    async with _responder() as (http_port, dns_port):
        http = Job(
            kind="path",
            path="/v1/kv/bench",
            address=f"{_HOST}:{http_port}",
            connections=CONNECTIONS,
            seconds=lab.seconds,
        )
        dns = DnsJob(
            address=f"{_HOST}:{dns_port}",
            name="bench.service.consul.",
            rdtype="A",
            seconds=lab.seconds,
        )
        return [await _ceiling(lab, "HTTP", http), await _ceiling(lab, "DNS", dns)]


async def _ceiling(lab: Lab, what: str, job: Job | DnsJob) -> Row:
    lab.say(f"{what} at a bare responder")
    figures: list[Figures] = [rate(await generate(job, Tally)) for _ in range(lab.repeats)]
    return Row(
        name=f"the generator alone, {what}",
        unit="/s",
        samples=[value for one in figures for value in one.values],
        more_is_better=True,
        goal=Goal(100_000),
        note="against a bare responder, no registry",
    )


@contextlib.asynccontextmanager
async def _responder() -> AsyncIterator[tuple[int, int]]:
    """A bare responder; gives its ports, HTTP and DNS."""
    process = await asyncio.create_subprocess_exec(
        *leash.command([sys.executable, "-m", "bench.responder", _HOST]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S_MAX):
            line = await process.stdout.readline()
        if not line:
            raise BenchFailure("the bare responder does not start")
        http_port, dns_port = map(int, line.split())
        yield http_port, dns_port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
