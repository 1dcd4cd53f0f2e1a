"""An agent with the real server, and the agent inside a server process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import consul
import pytest

from raftreg.client.api import RegistryClient
from raftreg.clock import SystemClock
from raftreg.config import AgentSettings, ServerSettings
from raftreg.model import SERF_HEALTH, Status
from raftreg.raft.api import Server as Member
from raftreg.raft.solo import SoloReplica
from raftreg.server.app import RegistryServer
from raftreg.server.machine import RegistryMachine
from raftreg_agent.local import LocalAgent
from raftreg_agent.metrics import AgentCollector
from raftreg_agent.routes import agent_routes
from tests.agent.mesh import running


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Registry:
    """A server process in this one, with its embedded agent."""

    def __init__(self, machine: RegistryMachine, local: LocalAgent, address: str) -> None:
        self.machine = machine
        self.local = local
        self.address = address

    def status(self, node: str) -> Status | None:
        """Status of a host's lease."""
        check = self.machine.state.catalog.check(node, SERF_HEALTH)
        return check.status if check is not None else None


@asynccontextmanager
async def registry() -> AsyncIterator[Registry]:
    """One server in memory."""
    clock, rng = SystemClock(), Random(5)
    settings = ServerSettings(node="s1", http_port=free_port(), lease_ttl_s=1.0, renew_s=0.2)
    machine = RegistryMachine()
    replica = SoloReplica(Member(id="s1", name="s1", address="127.0.0.1:8300"), machine, clock)
    async with RegistryClient([settings.local_http]) as client, asyncio.TaskGroup() as tasks:
        embedded = AgentSettings(
            node="s1",
            http_port=settings.http_port,
            server=True,
            raft_port=8300,
            lease_ttl_s=1.0,
            renew_s=0.2,
        )
        local = LocalAgent(embedded, client, clock, rng, catalog=lambda: machine.state.catalog)
        server = RegistryServer(
            settings,
            replica,
            machine,
            clock,
            rng,
            extra_routes=agent_routes(local, lambda: machine.state.catalog),
        )
        server.metrics.register(AgentCollector(local))
        await replica.start()
        await server.start(tasks)
        await local.start(tasks)
        try:
            yield Registry(machine, local, settings.local_http)
        finally:
            await local.stop()
            await server.stop()
            await replica.stop()


def agent_of(found: Registry, **fields: Any) -> AgentSettings:
    """Settings of an agent of this registry."""
    return AgentSettings(
        **{
            "node": "n1",
            "http_port": 0,
            "dns_port": -1,
            "join": (found.address,),
            "renew_s": 0.2,
            "lease_ttl_s": 1.0,
            **fields,
        }
    )


async def test_a_host_that_dies_turns_critical_and_comes_back(eventually: Any) -> None:
    """The lease runs out in its time; a renewal brings the host back without a new sync."""
    async with registry() as found:
        async with running(agent_of(found)):
            await eventually(lambda: found.status("n1") is Status.PASSING)
        await eventually(lambda: found.status("n1") is Status.CRITICAL)
        async with running(agent_of(found)):
            await eventually(lambda: found.status("n1") is Status.PASSING)


async def test_a_quiet_agent_sends_one_sync_and_then_renewals(eventually: Any) -> None:
    """Digests of agent and leader agree, so nothing is written while nothing changes."""
    async with registry() as found, running(agent_of(found)) as app:
        await eventually(lambda: app.local.lease.renewals_total >= 5)
        await eventually(lambda: found.local.lease.renewals_total >= 5)
        catalog = found.machine.state.catalog
        everything = (("nodes", ""), ("instances", ""), ("check-state", ""))
        index = catalog.last_change(everything)
        renewed = app.local.lease.renewals_total
        await eventually(lambda: app.local.lease.renewals_total >= renewed + 5)
        assert catalog.last_change(everything) == index
        assert app.local.registrar.syncs_total == 1


async def test_a_server_is_found_by_its_own_service(eventually: Any) -> None:
    """`consul` names the servers; the server's agent does not show it as a service of its own."""
    async with registry() as found, aiohttp.ClientSession() as session:
        await eventually(lambda: found.status("s1") is Status.PASSING)
        base = f"http://{found.address}/v1"
        async with session.get(f"{base}/catalog/service/consul") as answer:
            assert [row["ServicePort"] for row in await answer.json()] == [8300]
        async with session.get(f"{base}/agent/services") as answer:
            assert await answer.json() == {}
        async with session.get(f"{base}/agent/members") as answer:
            (member,) = await answer.json()
            assert member["Tags"]["role"] == "consul"
        async with session.put(f"{base}/agent/service/deregister/consul") as answer:
            assert answer.status == 400
        async with session.get(f"{base}/agent/metrics?format=prometheus") as answer:
            assert "raftreg_agent_services 1.0" in await answer.text()
        async with session.put(f"{base}/agent/nothing") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("at", ["agent", "server"])
async def test_a_stock_client_works(at: str) -> None:
    """py-consul registers, discovers, watches, locks and uses KV, at an agent and at a server."""
    async with registry() as found, running(agent_of(found)) as app:
        address = app.http_address if at == "agent" else found.address
        host, _, port = address.partition(":")
        await asyncio.to_thread(use_stock_client, host, int(port), "n1" if at == "agent" else "s1")


def use_stock_client(host: str, port: int, node: str) -> None:
    """What a program with py-consul does."""
    client = consul.Consul(host=host, port=port)
    try:
        assert client.agent.service.register(
            "web", service_id="w1", port=80, tags=["a"], check=consul.Check.ttl("30s")
        )
        index, entries = client.health.service("web", passing=True)
        assert entries == []
        assert client.agent.check.ttl_pass("service:w1")
        index, entries = client.health.service("web", index=index, wait="10s", passing=True)
        assert [entry["Service"]["ID"] for entry in entries] == ["w1"]
        assert entries[0]["Node"]["Node"] == node
        assert client.kv.put("a/b c", "v")
        assert client.kv.get("a/b c")[1]["Value"] == b"v"
        session = client.session.create(ttl=10)
        assert client.kv.put("lock", "me", acquire=session)
        assert client.kv.get("lock")[1]["Session"] == session
        assert client.session.destroy(session)
        assert client.agent.maintenance(True, "paint")
        assert client.health.service("web", passing=True)[1] == []
        assert client.agent.maintenance(False)
        assert client.agent.service.deregister("w1")
        assert client.health.service("web")[1] == []
        assert node in [member["Name"] for member in client.agent.members()]
        assert client.status.leader()
    finally:
        client.http.session.close()


async def test_snapshots_pass_through_an_agent() -> None:
    """Saved and restored in a stream, whatever their size."""
    async with (
        registry() as found,
        running(agent_of(found)) as app,
        aiohttp.ClientSession() as session,
    ):
        base = f"http://{app.http_address}/v1"
        async with session.put(f"{base}/kv/k", data=b"before") as answer:
            assert await answer.json() is True
        async with session.get(f"{base}/snapshot") as answer:
            assert answer.status == 200
            snapshot = await answer.read()
        async with session.put(f"{base}/kv/k", data=b"after") as answer:
            assert await answer.json() is True
        async with session.put(f"{base}/snapshot", data=snapshot) as answer:
            assert answer.status == 200, await answer.text()
        async with session.get(f"{base}/kv/k?raw") as answer:
            assert await answer.read() == b"before"
        async with session.put(f"{base}/snapshot", data=b"garbage") as answer:
            assert answer.status >= 400


async def test_wish_10_a_renamed_host_with_a_new_address(tmp_path: Path, eventually: Any) -> None:
    """Another name and address under the same data directory: the old row is gone, no clean-up."""
    async with registry() as found:
        nodes = found.machine.state.catalog.nodes
        async with running(agent_of(found, data_dir=str(tmp_path))):
            await eventually(lambda: "n1" in nodes)
        renamed = agent_of(found, node="n2", advertise="10.9.9.9", data_dir=str(tmp_path))
        async with running(renamed):
            await eventually(lambda: "n2" in nodes)
            assert "n1" not in nodes
            assert nodes["n2"].address == "10.9.9.9"
