"""Network coordinates over HTTP, and `?near`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftreg.core.vivaldi import DIMENSIONS
from raftreg.server import coordinates
from tests.server.conftest import Running, until

CHECK = {"CheckID": "c1", "Name": "c1", "Status": "passing"}


@pytest.fixture(autouse=True)
def short_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates are not held back: these tests make them one by one."""
    monkeypatch.setattr(coordinates, "PERIOD_S", 0.001)


def coord(x: float, **fields: Any) -> dict[str, Any]:
    """A coordinate on the first axis, so many seconds from the origin."""
    vec = [x] + [0.0] * (DIMENSIONS - 1)
    return {"Vec": vec, "Error": 0.5, "Adjustment": 0.0, "Height": 1e-5} | fields


async def place(api: Running, node: str, x: float, segment: str = "") -> None:
    """Puts a node somewhere, and returns when the registry has it."""
    body = {"Node": node, "Segment": segment, "Coord": coord(x)}
    status, text, _ = await api.ask("PUT", "/v1/coordinate/update", json=body)
    assert (status, text) == (200, "")
    await until(lambda: segment in api.machine.state.coordinates.rows.get(node, {}))


async def four_nodes(api: Running) -> None:
    """`n1` at the origin, `n3` near it, `n2` far away, `n4` nobody knows where."""
    for number in range(1, 5):
        address = f"10.0.0.{number}"
        native = {"Connect": {"Native": True}}
        await api.register(f"n{number}", "web", Address=address, Check=CHECK, Service=native)
    for node, x in (("n1", 0.0), ("n2", 0.5), ("n3", 0.01)):
        await place(api, node, x)


async def test_an_update_shows_in_all_lists(api: Running) -> None:
    """Of one node, of all, and of the servers by datacenter."""
    await api.register("s1", "consul", Service={"Service": "consul"})
    await api.register("n1")
    await place(api, "n1", 0.25)
    await place(api, "s1", 0.5)
    row = {"Node": "n1", "Segment": "", "Coord": coord(0.25)}
    server = {"Node": "s1", "Segment": "", "Coord": coord(0.5)}
    assert await api.json("GET", "/v1/coordinate/node/n1") == [row]
    assert await api.json("GET", "/v1/coordinate/nodes") == [row, server]
    assert await api.json("GET", "/v1/coordinate/datacenters") == [
        {"Datacenter": "dc1", "AreaID": "wan", "Coordinates": [server]}
    ]
    status, text, answer = await api.ask("GET", "/v1/coordinate/node/s9")
    assert (status, text) == (404, "")
    assert answer.headers["X-Consul-Index"] == "1"


async def test_segments_are_kept_apart(api: Running) -> None:
    """A row for each, and a filter."""
    await api.register("n1")
    await place(api, "n1", 0.0)
    await place(api, "n1", 0.1, segment="alpha")
    rows = await api.json("GET", "/v1/coordinate/node/n1")
    assert [row["Segment"] for row in rows] == ["", "alpha"]
    rows = await api.json("GET", "/v1/coordinate/nodes?segment=alpha")
    assert [row["Segment"] for row in rows] == ["alpha"]
    assert await api.json("GET", "/v1/coordinate/nodes?segment=beta") == []
    assert (await api.ask("GET", "/v1/coordinate/node/n1?segment=beta"))[0] == 404


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"Coord": coord(0)}, "Must provide node"),
        ({"Node": "n1"}, "incompatible coordinate"),
        ({"Node": "n1", "Coord": {"Vec": [0.0] * 7}}, "it has 7 dimensions"),
        ({"Node": "n1", "Coord": coord(1e9)}, "invalid coordinate"),
        ({"Node": "n1", "Coord": coord(10**400)}, "number"),
        ({"Node": "n1", "Coord": coord(0, Height=-1.0)}, "invalid coordinate"),
        ({"Node": "n1", "Coord": coord(0, Error="x")}, "must be a number"),
        ({"Node": "n1", "Coord": [0.0]}, "must be a JSON object"),
    ],
)
async def test_what_is_no_coordinate_is_refused(
    api: Running, body: dict[str, Any], reason: str
) -> None:
    """With 400, and with what is wrong."""
    status, text, _ = await api.ask("PUT", "/v1/coordinate/update", json=body)
    assert status == 400
    assert reason in text


async def test_a_coordinate_goes_with_its_node(api: Running) -> None:
    """And one of a node that is not registered is passed over."""
    await api.register("n1")
    await place(api, "n1", 0.0)
    await api.json("PUT", "/v1/catalog/deregister", json={"Node": "n1"})
    assert await api.json("GET", "/v1/coordinate/nodes") == []
    before = api.machine.state.index
    body = {"Node": "n1", "Coord": coord(0.0)}
    assert (await api.ask("PUT", "/v1/coordinate/update", json=body))[0] == 200
    await until(lambda: api.machine.state.index > before)
    assert await api.json("GET", "/v1/coordinate/nodes") == []


async def test_a_coordinate_that_moves_wakes_nobody_of_the_catalog(api: Running) -> None:
    """A watcher of nodes goes on waiting, one of coordinates is told."""
    await api.register("n1")
    await place(api, "n1", 0.0)
    indexes = [await api.index(f"/v1/{path}") for path in ("catalog/nodes", "coordinate/node/n1")]
    async with asyncio.TaskGroup() as tasks:
        path = f"/v1/coordinate/node/n1?index={indexes[1]}&wait=60s"
        told = tasks.create_task(api.json("GET", path))
        await api.waiting(1)
        body = {"Node": "n1", "Coord": coord(0.75)}
        await api.ask("PUT", "/v1/coordinate/update", json=body)
    assert told.result()[0]["Coord"]["Vec"][0] == 0.75
    assert await api.index("/v1/catalog/nodes") == indexes[0]


async def test_near_sorts_every_list_of_nodes(api: Running) -> None:
    """Nearest first, what is not known last; without `near` by name."""
    await four_nodes(api)
    sorted_ = ["n1", "n3", "n2", "n4"]

    async def names(path: str) -> list[str]:
        rows = await api.json("GET", f"/v1/{path}")
        return [r["Node"]["Node"] if isinstance(r["Node"], dict) else r["Node"] for r in rows]

    for path in (
        "catalog/nodes",
        "catalog/service/web",
        "catalog/connect/web",
        "health/service/web",
        "health/connect/web",
        "health/state/any",
    ):
        assert await names(f"{path}?near=n1") == sorted_, path
        assert await names(f"{path}?near=n2&stale") == ["n2", "n3", "n1", "n4"], path
        for unsorted in (path, f"{path}?near=n4", f"{path}?near=nobody", f"{path}?near=_agent"):
            assert await names(unsorted) == ["n1", "n2", "n3", "n4"], unsorted
    assert await api.json("GET", "/v1/catalog/services?near=n1") == {"web": []}


async def test_a_sorted_answer_follows_coordinates(api: Running) -> None:
    """A rendered answer is not kept past a move."""
    await four_nodes(api)
    path = "/v1/catalog/nodes?near=n1"
    assert [row["Node"] for row in await api.json("GET", path)] == ["n1", "n3", "n2", "n4"]
    body = {"Node": "n2", "Coord": coord(0.005)}
    before = api.machine.state.coordinates.changed
    await api.ask("PUT", "/v1/coordinate/update", json=body)
    await until(lambda: api.machine.state.coordinates.changed > before)
    assert [row["Node"] for row in await api.json("GET", path)] == ["n1", "n2", "n3", "n4"]


async def test_near_the_asker(api: Running) -> None:
    """`_agent` is the node of the agent that handed the request on, `_ip` that of the address."""
    await four_nodes(api)
    for near, headers in (
        ("_agent", {"X-Raftreg-Agent": "n2"}),
        ("_ip", {"X-Forwarded-For": "10.0.0.2"}),
    ):
        rows = await api.json("GET", f"/v1/catalog/nodes?near={near}", headers=headers)
        assert [row["Node"] for row in rows] == ["n2", "n3", "n1", "n4"], near


async def test_a_query_sorts_by_distance(api: Running) -> None:
    """By its own `Near`, or by the request's; what is on the source itself comes first."""
    await four_nodes(api)
    for name, near in (("plain", ""), ("near", "n2"), ("agent", "_agent")):
        body = {"Name": name, "Service": {"Service": "web", "Near": near}}
        await api.json("POST", "/v1/query", json=body)

    async def nodes(target: str, **headers: str) -> list[str]:
        done = await api.json("GET", f"/v1/query/{target}", headers=headers)
        return [entry["Node"]["Node"] for entry in done["Nodes"]]

    assert await nodes("near/execute") == ["n2", "n3", "n1", "n4"]
    assert await nodes("near/execute?near=n1&limit=2") == ["n1", "n3"]
    assert await nodes("plain/execute?near=n1") == ["n1", "n3", "n2", "n4"]
    agent = {"X-Raftreg-Agent": "n2"}
    assert (await nodes("agent/execute", **agent))[:3] == ["n2", "n3", "n1"]
    # Not measured yet, but nothing is nearer to a host than itself.
    assert (await nodes("plain/execute?near=n4"))[0] == "n4"


async def test_a_ping_tells_where_the_server_is(api: Running) -> None:
    """And whether the asker is known; before it is, it is at the origin."""
    pong = await api.json("GET", "/v1/internal/ping?node=n1")
    assert (pong["Node"], pong["Known"], pong["Coord"]["Error"]) == ("s1", False, 1.5)
    await api.register("s1")
    await place(api, "s1", 0.5)
    pong = await api.json("GET", "/v1/internal/ping?node=s1")
    assert (pong["Known"], pong["Coord"]) == (True, coord(0.5))
