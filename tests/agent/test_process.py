"""The agent as a process: signals and systemd."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from raftreg.core.commands import Deregister
from raftreg.model import Status
from tests.agent.mesh import Server, servers

PROGRAM = Path(__file__).with_name("agent_process.py")


@asynccontextmanager
async def agent_process(
    server: Server, path: Path, notify: str = ""
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """An agent process and where it listens; it is killed at the end of the block."""
    (path / "data").mkdir(exist_ok=True)
    (path / "config").mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        server.address,
        str(path / "data"),
        str(path / "config"),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"NOTIFY_SOCKET": notify},
    )
    assert process.stdout is not None
    try:
        line = b""
        async with asyncio.timeout(30):
            while not line.startswith(b"127.0.0.1:"):  # log lines may come first
                line = await process.stdout.readline()
                assert line, "the agent ended"
        yield process, line.decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_sigterm_leaves_the_registry(tmp_path: Path, eventually: Any) -> None:
    """The host and all it has are gone when the process ends, with exit status 0."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "web.json").write_text('{"service": {"name": "web"}}')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        notify = str(tmp_path / "notify")
        listener.bind(notify)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        async with servers() as (server,), agent_process(server, tmp_path, notify) as (process, _):
            assert await loop.sock_recv(listener, 64) == b"READY=1"
            await eventually(lambda: server.history.catalog.service("n1", "web") is not None)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
            assert server.history.catalog.nodes == {}
            assert await loop.sock_recv(listener, 64) == b"STOPPING=1"


async def test_sighup_reads_the_definitions_again(tmp_path: Path, eventually: Any) -> None:
    """A bad file keeps the last good set; a good one takes effect."""
    async with servers() as (server,), agent_process(server, tmp_path) as (process, _):
        catalog = server.history.catalog
        definition = tmp_path / "config" / "web.json"
        definition.write_text('{"service": {"name": "web"}}')
        process.send_signal(signal.SIGHUP)
        await eventually(lambda: catalog.service("n1", "web") is not None)
        definition.write_text('{"service": {"name": 3}}')
        process.send_signal(signal.SIGHUP)
        (tmp_path / "config" / "api.json").write_text('{"service": {"name": "api"}}')
        definition.write_text('{"service": {"name": "web", "port": 2}}')
        process.send_signal(signal.SIGHUP)
        await eventually(lambda: catalog.service("n1", "api") is not None)
        row = catalog.service("n1", "web")
        assert row is not None
        assert row.port == 2


async def test_a_killed_agent_comes_back_with_everything(tmp_path: Path, eventually: Any) -> None:
    """After kill -9: what was acknowledged is on disk, with its health."""
    definition = {"Name": "web", "Check": {"TTL": "60s"}}
    async with servers() as (server,), aiohttp.ClientSession() as session:
        async with agent_process(server, tmp_path) as (process, address):
            base = f"http://{address}/v1/agent"
            async with session.put(f"{base}/service/register", json=definition) as answer:
                assert answer.status == 200
            async with session.put(f"{base}/check/pass/service:web") as answer:
                assert answer.status == 200
            # The status is written beside the answer, a moment later at most.
            kept = tmp_path / "data" / "registrations.log"
            await eventually(lambda: b'["check-state",' in kept.read_bytes())
        assert process.returncode == -signal.SIGKILL
        server.history.apply(Deregister(node="n1"))
        async with agent_process(server, tmp_path):
            await eventually(lambda: server.history.catalog.service("n1", "web") is not None)
            check = server.history.catalog.check("n1", "service:web")
            assert check is not None
            assert check.status is Status.PASSING
