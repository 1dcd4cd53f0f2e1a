"""A whole server over a replica without a disk, on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import aiohttp
import pytest

from raftreg.clock import Clock, ManualClock, SystemClock
from raftreg.config import HttpLimits, ServerSettings
from raftreg.raft.api import Server
from raftreg.raft.solo import SoloReplica
from raftreg.server.app import RegistryServer
from raftreg.server.machine import RegistryMachine

JsonBody = Any


async def until(condition: Callable[[], object]) -> None:
    """Returns when the condition holds; the test's own timeout bounds it."""
    while not condition():  # noqa: ASYNC110 - any condition, not only those with an event
        await asyncio.sleep(0.001)


@dataclass
class Running:
    """A running server and a client session to it."""

    server: RegistryServer
    replica: SoloReplica
    machine: RegistryMachine
    clock: Clock
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        """Base of all addresses."""
        return f"http://127.0.0.1:{self.server.port}"

    async def ask(
        self, method: str, path: str, **options: Any
    ) -> tuple[int, JsonBody, aiohttp.ClientResponse]:
        """One request; the body as JSON where it is JSON, else as text."""
        async with self.http.request(method, self.url + path, **options) as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json(), answer
            return answer.status, await answer.text(), answer

    async def json(self, method: str, path: str, **options: Any) -> JsonBody:
        """A request that must succeed."""
        status, body, _ = await self.ask(method, path, **options)
        assert status == 200, body
        return body

    async def index(self, path: str) -> int:
        """X-Consul-Index of a read."""
        _, _, answer = await self.ask("GET", path)
        return int(answer.headers["X-Consul-Index"])

    async def waiting(self, count: int) -> None:
        """Returns when so many blocking queries wait."""
        await until(lambda: self.server.hub.count >= count)

    async def register(self, name: str, service: str = "", **fields: Any) -> None:
        """Registers a node (with an instance) through the catalog."""
        body: dict[str, Any] = {"Node": name, "Address": "10.0.0.1", **fields}
        if service:
            body["Service"] = {"Service": service, "Port": 80, **fields.get("Service", {})}
        assert await self.json("PUT", "/v1/catalog/register", json=body) is True


@asynccontextmanager
async def running(clock: Clock, **limits: Any) -> AsyncIterator[Running]:
    """Starts a server, and ends it."""
    settings = ServerSettings(
        node="s1", data_dir="unused", http_port=0, http=HttpLimits(**limits), reap_after_s=72 * 3600
    )
    machine = RegistryMachine()
    replica = SoloReplica(Server(id="6a3f", name="s1", address="127.0.0.1:8300"), machine, clock)
    server = RegistryServer(settings, replica, machine, clock, Random(7))
    async with asyncio.TaskGroup() as tasks:
        await server.start(tasks)
        await replica.start()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as http:
            yield Running(server, replica, machine, clock, http)
        await server.stop()
        await replica.stop()


@pytest.fixture
def short_way() -> bool:
    """Which road requests take; a module whose tests hold on both says so."""
    return True


@pytest.fixture
async def api(short_way: bool) -> AsyncIterator[Running]:
    """A server on the system's clock."""
    async with running(SystemClock(), short_way=short_way) as server:
        yield server


@pytest.fixture
async def timed(short_way: bool) -> AsyncIterator[Running]:
    """A server whose clock is moved by hand."""
    async with running(ManualClock(), short_way=short_way) as server:
        yield server
