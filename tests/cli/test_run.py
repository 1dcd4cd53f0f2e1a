"""`raftreg run`: a program is registered exactly while it runs."""

from __future__ import annotations

import asyncio
import signal
import sys

from raftreg.client.api import RegistryClient
from tests.cli.conftest import Dev, command_line, free_address

_WAIT_S_MAX = 30.0
#: Says that it runs, then waits for a signal.
_PROGRAM = (
    "import os, signal, sys; signal.signal(signal.SIGTERM, lambda *_: os._exit(17));"
    "print('running', flush=True); signal.pause()"
)


async def _start(dev: Dev, *options: str, program: str = _PROGRAM) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command_line("run", *options, "--", sys.executable, "-c", program),
        env=dev.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _running(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(_WAIT_S_MAX):
        assert await process.stdout.readline() == b"running\n"


async def _until_instances(http: str, service: str, count: int) -> None:
    async with RegistryClient([http]) as client, asyncio.timeout(_WAIT_S_MAX):
        async for change in client.health.watch(service):
            if len(change.value) == count:
                return


async def test_registered_while_it_runs(dev: Dev) -> None:
    """It is found while the program runs; SIGTERM is the program's, and so is the exit code."""
    process = await _start(dev, "--name", "runner", "--port", "77", "--tag", "t")
    await _running(process)
    await _until_instances(dev.http, "runner", 1)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 17
    async with RegistryClient([dev.http]) as client:
        assert await client.health.service("runner") == []


async def test_its_check_decides_over_its_health(dev: Dev) -> None:
    """With --check-tcp and nobody listening it is registered, and critical."""
    options = ("--name", "deaf", "--address", dev.address, "--port", "7", "--check-tcp")
    process = await _start(dev, *options, "--interval", "1s")
    await _running(process)
    await _until_instances(dev.http, "deaf", 1)
    async with RegistryClient([dev.http]) as client:
        assert await client.health.service("deaf", passing=True) == []
        (check,) = await client.health.checks("deaf")
        assert check.type == "tcp"
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 17


async def test_the_program_runs_without_an_agent() -> None:
    """Nobody to register with: the program runs all the same, and a sentence says so."""
    nobody = Dev("127.0.0.1", f"{free_address()}:8500")
    program = "import sys; print('ran'); sys.exit(5)"
    process = await _start(nobody, "--name", "alone", program=program)
    out, err = await process.communicate()
    assert (process.returncode, out) == (5, b"ran\n")
    assert b"Traceback" not in err


async def test_a_program_that_can_not_start(dev: Dev) -> None:
    """127, as shells have it, and nothing stays registered."""
    process = await asyncio.create_subprocess_exec(
        *command_line("run", "--name", "nothing", "--", "/no/such/program"),
        env=dev.environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 127
    assert b"command not found" in err
    async with RegistryClient([dev.http]) as client:
        assert await client.health.service("nothing") == []
