"""A registry for the commands: `raftreg dev` as a real process, on an address of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import SystemRandom

import msgspec
import pytest

from raftreg.client.api import RegistryClient
from raftreg.errors import RaftregError
from raftreg_cli import leash
from raftreg_cli.demo import plan as plans

START_S_MAX = 30.0


class Ran(msgspec.Struct, frozen=True):
    """A command that ended."""

    code: int
    out: str
    err: str

    def json(self) -> object:
        """What it printed, read as JSON."""
        return msgspec.json.decode(self.out)


class Dev(msgspec.Struct, frozen=True):
    """The running registry."""

    address: str
    http: str

    def environment(self) -> dict[str, str]:
        """An environment in which commands find it."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAFTREG_", "CONSUL_"))}
        return {**clean, "RAFTREG_HTTP_ADDR": self.http}


def command_line(*arguments: str) -> list[str]:
    """The command line of `raftreg` with these arguments."""
    return [sys.executable, "-m", "raftreg_cli.main", *arguments]


def free_address() -> str:
    """A loopback address with the default ports free."""
    rng = SystemRandom()
    for _ in range(100):
        address = f"127.{rng.randrange(100, 200)}.{rng.randrange(1, 250)}.1"
        host = plans.Host("probe", address, 8500, 8600, 8300)
        if plans.busy(plans.Plan((host,), (), Path())) is None:
            return address
    raise RuntimeError("no loopback address is free")


@pytest.fixture(scope="session")
def dev() -> Iterator[Dev]:
    """`raftreg dev`, ended by pid after the last test."""
    address = free_address()
    found = Dev(address, f"{address}:8500")
    process = subprocess.Popen(
        leash.command(
            command_line("dev", "--node", "dev-1", "--bind", address, "--client", address)
        ),
        env=found.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        asyncio.run(_ready(found.http))
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=START_S_MAX)
        assert "Traceback" not in err


async def _ready(http: str) -> None:
    """Waits until its own node is registered."""
    async with (
        RegistryClient([http], timeout_s=START_S_MAX) as client,
        asyncio.timeout(START_S_MAX),
    ):
        async for change in client.catalog.watch_nodes():
            if change.value:
                return
    raise RaftregError("it never registered itself")


@pytest.fixture
def raftreg(dev: Dev) -> Callable[..., Ran]:
    """Runs a command against the registry, as a process."""

    def run(*arguments: str, stdin: bytes = b"", env: Sequence[tuple[str, str]] = ()) -> Ran:
        done = subprocess.run(
            command_line(*arguments),
            input=stdin,
            capture_output=True,
            env={**dev.environment(), **dict(env)},
            timeout=START_S_MAX,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run
