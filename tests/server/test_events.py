"""/v1/event: firing, who it concerns, and waiting for the next one."""

from __future__ import annotations

import asyncio
import base64
from uuid import UUID

import pytest

from tests.server.conftest import Running


def _hash(event_id: str) -> int:
    number = UUID(event_id).int
    return (number >> 64) ^ (number & (2**64 - 1))


async def _names(api: Running, query: str = "", host: str = "") -> list[str]:
    headers = {"X-Raftreg-Agent": host} if host else {}
    rows = await api.json("GET", f"/v1/event/list{query}", headers=headers)
    return [row["Name"] for row in rows]


async def test_an_event_has_consuls_shape(api: Running) -> None:
    """Payload in base64, null when empty; the list tells the place in time."""
    fired = await api.json("PUT", "/v1/event/fire/deploy", data=b"v1")
    assert fired | {"ID": ""} == {
        "ID": "",
        "Name": "deploy",
        "Payload": base64.b64encode(b"v1").decode(),
        "NodeFilter": "",
        "ServiceFilter": "",
        "TagFilter": "",
        "Version": 1,
        "LTime": 0,
    }
    assert (await api.json("PUT", "/v1/event/fire/a%2Fb%20c"))["Name"] == "a/b c"
    rows = await api.json("GET", "/v1/event/list")
    assert [(row["ID"], row["LTime"]) for row in rows[:1]] == [(fired["ID"], 1)]
    assert (rows[1]["Payload"], rows[1]["LTime"]) == (None, 2)


async def test_the_index_is_made_of_the_last_id(api: Running) -> None:
    """1 when there is none; by name it is that of the last one of that name."""
    assert await api.index("/v1/event/list") == 1
    one = await api.json("PUT", "/v1/event/fire/one")
    two = await api.json("PUT", "/v1/event/fire/two")
    assert await api.index("/v1/event/list") == _hash(two["ID"])
    assert await api.index("/v1/event/list?name=one") == _hash(one["ID"])
    assert await _names(api, "?name=one") == ["one"]


async def test_a_watcher_learns_of_the_next_event(api: Running) -> None:
    """It waits while the list ends as it did, and sleeps through events of other names."""
    first = await api.json("PUT", "/v1/event/fire/deploy")
    path = f"/v1/event/list?name=deploy&index={_hash(first['ID'])}&wait=1m"
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(api.json("GET", path))
        await api.waiting(1)
        await api.json("PUT", "/v1/event/fire/other")
        await api.json("PUT", "/v1/event/fire/deploy", data=b"2")
    assert [row["LTime"] for row in watch.result()] == [1, 3]


async def test_a_watcher_is_answered_when_its_time_is_over(api: Running) -> None:
    """With what it knows, under the same index; an index of another list is answered at once."""
    assert await api.json("GET", "/v1/event/list?index=1&wait=10ms") == []
    await api.json("PUT", "/v1/event/fire/one")
    assert await _names(api, "?index=1&wait=5m") == ["one"]


async def test_events_concern_hosts_by_name_service_and_tag(api: Running) -> None:
    """Filters are searched for anywhere; a tag must be of the service that matched."""
    await api.register("db-1", "postgres", Service={"Tags": ["primary"]})
    await api.register("web-1", "web", Service={"Tags": ["green"]})
    for name, query in (
        ("all", ""),
        ("by-node", "?node=^db-"),
        ("by-service", "?service=web|cache"),
        ("by-tag", "?service=post&tag=primary"),
        ("of-another", "?service=web&tag=primary"),
    ):
        await api.json("PUT", f"/v1/event/fire/{name}{query}")
    assert await _names(api, host="db-1") == ["all", "by-node", "by-tag"]
    assert await _names(api, host="web-1") == ["all", "by-service"]
    assert await _names(api) == ["all"]


@pytest.mark.parametrize(
    ("path", "data", "status", "text"),
    [
        ("/v1/event/fire/", b"", 400, "Missing name"),
        ("/v1/event/fire/x?tag=a", b"", 400, "tag filter without service filter"),
        ("/v1/event/fire/x?node=%28", b"", 400, "Invalid node filter: "),
        ("/v1/event/fire/x?service=%28", b"", 400, "Invalid service filter: "),
        ("/v1/event/fire/x", b"x" * 8193, 413, "payload(8193 bytes) too large"),
        ("/v1/event/fire/x?dc=mars", b"", 500, "No path to datacenter"),
    ],
)
async def test_bad_events(api: Running, path: str, data: bytes, status: int, text: str) -> None:
    """The text says what is wrong; nobody sees the event."""
    got, body, _ = await api.ask("PUT", path, data=data)
    assert (got, text in body) == (status, True), body
    assert await _names(api) == []
