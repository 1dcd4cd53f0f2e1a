"""/v1/connect/intentions on a real server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.server.conftest import Running

PATH = "/v1/connect/intentions"


async def allow(api: Running, source: str, destination: str, action: str = "allow") -> None:
    """Writes an intention of a pair."""
    pair = f"source={source}&destination={destination}"
    assert await api.json("PUT", f"{PATH}/exact?{pair}", json={"Action": action}) is True


async def allowed(api: Running, source: str, destination: str) -> bool:
    """Asks for one pair."""
    answer = await api.json("GET", f"{PATH}/check?source={source}&destination={destination}")
    return bool(answer["Allowed"])


async def test_the_most_exact_intention_decides(api: Running) -> None:
    """Precedence goes by destination first; without any intention a call is allowed."""
    assert await allowed(api, "web", "db")
    steps = [("*", "*", "deny"), ("web", "*", "allow"), ("*", "db", "deny"), ("web", "db", "allow")]
    for source, destination, action in steps:
        await allow(api, source, destination, action)
        assert await allowed(api, "web", "db") is (action == "allow")
    rows = await api.json("GET", PATH)
    assert [(row["SourceName"], row["Precedence"]) for row in rows] == [
        ("web", 9),
        ("*", 8),
        ("web", 6),
        ("*", 5),
    ]


async def test_intentions_by_id(api: Running) -> None:
    """Created, read, changed and deleted, as clients of the older API do."""
    body = {
        "SourceName": "web",
        "DestinationName": "db",
        "SourceType": "consul",
        "Action": "allow",
        "Description": "why",
        "Meta": {"a": "b"},
    }
    made = (await api.json("POST", PATH, json=body))["ID"]
    found = await api.json("GET", f"{PATH}/{made}")
    assert found.items() >= (body | {"ID": made, "Precedence": 9, "SourceNS": "default"}).items()
    assert found["CreatedAt"] == found["UpdatedAt"]
    created = datetime.fromisoformat(found["CreatedAt"])
    assert abs(datetime.now(UTC) - created) < timedelta(hours=1)
    status, text, _ = await api.ask("POST", PATH, json=body)
    assert (status, text) == (400, "duplicate intention found: web => db")
    assert await api.json("PUT", f"{PATH}/{made}", json=found | {"Action": "deny"}) == {"ID": made}
    changed = await api.json("GET", f"{PATH}/{made}")
    assert (changed["Action"], changed["CreatedAt"]) == ("deny", found["CreatedAt"])
    status, _, _ = await api.ask("DELETE", f"{PATH}/{made}")
    assert status == 200
    status, text, _ = await api.ask("GET", f"{PATH}/{made}")
    assert (status, text) == (404, "Intention not found")
    assert await api.json("GET", "/v1/config/service-intentions") == []


async def test_what_is_not_there_and_what_is_no_id(api: Running) -> None:
    """404 for an id nobody has, 400 for text that is none."""
    nobody = "11111111-2222-3333-4444-555555555555"
    body = {"SourceName": "a", "DestinationName": "b", "Action": "allow"}
    for method, path, expected in (
        ("GET", nobody, 404),
        ("PUT", nobody, 404),
        ("DELETE", nobody, 200),
        ("GET", "nonsense", 400),
        ("GET", "exact?source=a&destination=b", 404),
        ("DELETE", "exact?source=a&destination=b", 200),
        ("GET", "exact?source=a", 400),
        ("GET", "match?by=source", 400),
        ("GET", "match?by=side&name=a", 400),
        ("GET", "check?source=a&destination=team/b", 400),
    ):
        status, text, _ = await api.ask(method, f"{PATH}/{path}", json=body)
        assert status == expected, (method, path, text)


async def test_an_entry_and_its_intentions_are_one(api: Running) -> None:
    """Sources of a service-intentions entry are intentions, and the other way round."""
    sources = [{"Name": "*", "Action": "deny"}, {"Name": "web", "Action": "allow"}]
    entry = {"Kind": "service-intentions", "Name": "db", "Sources": sources, "Meta": {"m": "n"}}
    await api.json("PUT", "/v1/config", json=entry)
    await allow(api, "api", "db")
    rows = (await api.json("GET", "/v1/config/service-intentions/db"))["Sources"]
    assert [(row["Name"], row["Precedence"]) for row in rows] == [("web", 9), ("api", 9), ("*", 8)]
    found = await api.json("GET", f"{PATH}/exact?source=web&destination=default/db")
    assert (found["Action"], found["Meta"], found.get("ID")) == ("allow", {"m": "n"}, None)
    for name in ("web", "api", "*"):
        path = f"{PATH}/exact?source={name}&destination=db"
        assert await api.json("DELETE", path) is True
    status, _, _ = await api.ask("GET", "/v1/config/service-intentions/db")
    assert status == 404


async def test_matches_are_grouped_by_the_name_that_was_asked_for(api: Running) -> None:
    """Each name as it was sent, its intentions with those that decide first."""
    for source, destination in (("web", "db"), ("*", "*"), ("web", "*"), ("api", "db")):
        await allow(api, source, destination)
    found = await api.json("GET", f"{PATH}/match?by=destination&name=db&name=default/cache")
    pairs = {
        name: [(row["SourceName"], row["DestinationName"]) for row in rows]
        for name, rows in found.items()
    }
    everyone = [("web", "*"), ("*", "*")]
    assert pairs == {"db": [("api", "db"), ("web", "db"), *everyone], "default/cache": everyone}
    found = await api.json("GET", f"{PATH}/match?by=source&name=api")
    assert [row["DestinationName"] for row in found["api"]] == ["db", "*"]


async def test_permissions_are_not_decided_by_names(api: Running) -> None:
    """Who may do some things gets no plain yes."""
    await api.json("PUT", "/v1/config", json={**_HTTP, "Name": "db"})
    permission = {"Action": "allow", "HTTP": {"PathPrefix": "/read", "Methods": ["get"]}}
    path = f"{PATH}/exact?source=web&destination=db"
    await api.json("PUT", path, json={"Permissions": [permission]})
    assert not await allowed(api, "web", "db")
    found = await api.json("GET", path)
    assert found["Permissions"][0]["HTTP"]["Methods"] == ["GET"]
    both = {"Permissions": [permission], "Action": "allow"}
    status, text, _ = await api.ask("PUT", path, json=both)
    assert (status, "Action must be omitted" in text) == (400, True)


_HTTP: dict[str, Any] = {"Kind": "service-defaults", "Protocol": "http"}


async def test_a_watcher_learns_of_an_intention(api: Running) -> None:
    """Proxies wait for changes of who may call them."""
    path = f"{PATH}/match?by=destination&name=db"
    index = await api.index(path)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(api.json("GET", f"{path}&index={index}&wait=60s"))
        await api.waiting(1)
        await allow(api, "web", "db")
    assert len(waiting.result()["db"]) == 1


async def test_lists_are_filtered(api: Running) -> None:
    """By the fields of an intention."""
    await allow(api, "web", "db")
    await allow(api, "api", "db", "deny")
    rows = await api.json("GET", PATH, params={"filter": "Action==deny and SourceName==api"})
    assert len(rows) == 1
