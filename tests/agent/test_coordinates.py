"""The agent's network coordinate: measured, told when it is time, and never in the way."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import aiohttp
import consul
import pytest
from msgspec.structs import replace

from raftreg.client.api import RegistryClient
from raftreg.clock import ManualClock
from raftreg.core.vivaldi import origin
from raftreg.errors import Unreachable
from raftreg.model import Coordinate
from raftreg_agent.coordinates import (
    MOVED_S,
    REPORT_EVERY_S,
    SETTLED_PACE_S,
    STIRRED_S,
    TARGETS_A_ROUND,
    CoordinateKeeper,
    Pong,
    Reporting,
    pace_s,
)
from tests.agent.mesh import running
from tests.agent.test_with_server import agent_of, registry
from tests.client.rigs import running as listening
from tests.client.rigs import says


def moved(distance_s: float, error: float = 1.5) -> Coordinate:
    """A coordinate so far from the origin."""
    return replace(origin(), vec=(distance_s,) + (0.0,) * 7, error=error)


class Network:
    """Servers at known distances; a `Prober` without a network.

    Attributes:
        asked: Addresses in the order in which they were measured.
        known: What servers say of this host's coordinate.
    """

    def __init__(self, **servers: float) -> None:
        self._servers = servers
        self.asked: list[str] = []
        self.known = True
        self.closed = False

    async def ping(self, address: str) -> Pong:
        """The way to a server is a tenth of a second longer than it says."""
        self.asked.append(address)
        if address not in self._servers:
            raise Unreachable(f"{address}: connection refused")
        x = self._servers[address]
        return Pong(address, replace(moved(x), error=0.1), self.known, x + 0.1)

    async def close(self) -> None:
        """Remembers it."""
        self.closed = True


def keeper(network: Network, client: RegistryClient, *targets: str) -> CoordinateKeeper:
    """A keeper of host `n1`."""
    return CoordinateKeeper("n1", client, lambda: targets, network, ManualClock(), Random(3))


@pytest.mark.parametrize(
    ("coordinate", "later_s", "known", "young", "due"),
    [
        (moved(0.0), 1e6, True, False, False),
        (moved(0.0), 0.0, False, False, True),
        (moved(MOVED_S * 1.1), 0.0, True, False, True),
        (moved(MOVED_S * 0.9), REPORT_EVERY_S - 1, True, False, False),
        (moved(MOVED_S * 0.9), REPORT_EVERY_S, True, False, True),
        (moved(MOVED_S * 0.9), 5.0, True, True, True),
        (moved(STIRRED_S * 0.9), REPORT_EVERY_S, True, False, False),
        (moved(0.0, error=0.5), REPORT_EVERY_S, True, False, True),
    ],
)
def test_when_the_registry_is_told(
    coordinate: Coordinate, later_s: float, known: bool, young: bool, due: bool
) -> None:
    """A host that stays where it is costs no write, however long it stays."""
    reporting = Reporting()
    assert reporting.is_due(origin(), 5.0, known=True, young=False)
    reporting.reported(origin(), 5.0)
    assert reporting.is_due(coordinate, 5.0 + later_s, known=known, young=young) is due


def test_rounds_become_rare() -> None:
    """A new host is soon where it belongs; the servers of many old ones are left in peace."""
    paces_s = [pace_s(rounds) for rounds in range(40)]
    assert paces_s == sorted(paces_s)
    assert sum(paces_s[:4]) < 10
    assert paces_s[-1] == SETTLED_PACE_S


async def test_a_round_measures_and_tells() -> None:
    """What the servers say moves the host; the registry gets the coordinate once."""
    async with listening(says(True)) as server, RegistryClient([server.address]) as client:
        found = keeper(Network(a=0.0, b=0.2), client, "a", "b")
        for _ in range(3):
            await found.round()
        (method, path, _, body) = server.requests[0]
        assert (method, path) == ("PUT", "/v1/coordinate/update")
        assert b'"Node":"n1"' in body
        assert found.coordinate != origin()
        assert found.reports == len(server.requests)


async def test_servers_take_turns_and_failures_are_passed_over() -> None:
    """A few a round; one that can't be reached costs the others nothing."""
    network = Network(a=0.1, b=0.1, c=0.1, d=0.1)
    async with listening(says(True)) as server, RegistryClient([server.address]) as client:
        found = keeper(network, client, "a", "b", "gone", "c", "d")
        for _ in range(5):
            await found.round()
    assert len(network.asked) == 5 * TARGETS_A_ROUND
    assert {network.asked.count(name) for name in ("a", "b", "c", "d", "gone")} == {3}


async def test_a_registry_that_forgot_is_told_again() -> None:
    """A restore, or a host that was deregistered and came back."""
    network = Network(n1=0.0)
    async with listening(says(True)) as server, RegistryClient([server.address]) as client:
        found = keeper(network, client, "n1")
        for known in (True, True, False, True):
            network.known = known
            await found.round()
        assert (found.coordinate, found.reports) == (origin(), 2)


async def test_nobody_in_reach_is_no_matter() -> None:
    """Neither the servers that are measured nor the registry."""
    async with RegistryClient(["127.0.0.1:1"]) as client:
        found = keeper(Network(), client, "a")
        await found.round()
        assert (found.rounds, found.reports) == (1, 0)


async def test_coordinates_appear_soon_and_sort(eventually: Any) -> None:
    """Of the agent's host and of the server's; `?near=_agent` at the agent means its own host."""
    async with (
        registry() as found,
        running(agent_of(found)) as app,
        aiohttp.ClientSession() as http,
    ):
        rows = found.machine.state.coordinates.rows
        await eventually(lambda: {"n1", "s1"} <= rows.keys())
        base = f"http://{app.http_address}/v1"

        async def get(path: str) -> Any:
            async with http.get(f"{base}/{path}") as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json()

        (row,) = await get("coordinate/node/n1")
        assert len(row["Coord"]["Vec"]) == 8
        assert [row["Node"] for row in await get("coordinate/nodes")] == ["n1", "s1"]
        assert len((await get("agent/self"))["Coord"]["Vec"]) == 8
        for near, first in (("_agent", "n1"), ("s1", "s1")):
            for more in ("", "&cached", "&stale"):
                listed = await get(f"catalog/nodes?near={near}{more}")
                assert listed[0]["Node"] == first, (near, more)


async def test_a_stock_client_reads_and_writes_coordinates(eventually: Any) -> None:
    """py-consul through an agent."""
    async with registry() as found, running(agent_of(found)) as app:
        rows = found.machine.state.coordinates.rows
        await eventually(lambda: "n1" in rows)
        host, _, port = app.http_address.partition(":")
        client = consul.Consul(host=host, port=int(port))
        coord = {"Vec": [0.25] + [0.0] * 7, "Error": 0.5, "Adjustment": 0.0, "Height": 1e-5}
        put = client.coordinate.update
        assert await asyncio.to_thread(put, "n1", coord, segment="alpha") is True
        await eventually(lambda: "alpha" in rows["n1"])
        _, listed = await asyncio.to_thread(client.coordinate.node, "n1")
        assert [row["Segment"] for row in listed] == ["", "alpha"]
        assert (await asyncio.to_thread(client.coordinate.datacenters))[0]["Datacenter"] == "dc1"
