"""The KV endpoints over a real socket, against API.md's list of traps."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
import pytest
import yarl

from tests.server.conftest import Running, until

SERF = {"Name": "Serf Health Status", "CheckID": "serfHealth", "Status": "passing"}


@pytest.fixture(params=[True, False], ids=["short", "plain"])
def short_way(request: pytest.FixtureRequest) -> bool:
    """All of this holds on both roads."""
    return bool(request.param)


async def _session(api: Running, **fields: object) -> str:
    await api.register("n1", Check=SERF)
    body = await api.json("PUT", "/v1/session/create", json={"Node": "n1", **fields})
    return str(body["ID"])


async def test_put_and_get_give_the_entry_in_consuls_form(api: Running) -> None:
    """A value comes back base64, with flags and indexes, and no Session while the key is free."""
    assert await api.json("PUT", "/v1/kv/a/b?flags=42", data=b"hello") is True
    status, body, answer = await api.ask("GET", "/v1/kv/a/b")
    (entry,) = body
    assert status == 200
    assert set(entry) == {"LockIndex", "Key", "Flags", "Value", "CreateIndex", "ModifyIndex"}
    assert (entry["Key"], entry["Flags"], entry["LockIndex"]) == ("a/b", 42, 0)
    assert b64decode(entry["Value"]) == b"hello"
    assert entry["CreateIndex"] == entry["ModifyIndex"] == int(answer.headers["X-Consul-Index"])
    assert answer.headers["X-Consul-KnownLeader"] == "true"
    assert answer.headers["X-Consul-LastContact"] == "0"
    assert answer.headers["X-Consul-Effective-Consistency"] == "leader"
    assert answer.headers["Vary"] == "Accept-Encoding"


async def test_an_empty_value_is_null(api: Running) -> None:
    """Clients tell an empty value by null."""
    await api.json("PUT", "/v1/kv/k", data=b"")
    assert (await api.json("GET", "/v1/kv/k"))[0]["Value"] is None


@pytest.mark.parametrize("params", ["", "?raw", "?recurse", "?keys", "?keys&separator=/", "?stale"])
async def test_a_miss_is_404_with_an_empty_body_and_the_index(api: Running, params: str) -> None:
    """All forms of a miss are alike, and carry the index that a watch starts from."""
    status, body, answer = await api.ask("GET", f"/v1/kv/none{params}")
    assert (status, body) == (404, "")
    assert int(answer.headers["X-Consul-Index"]) >= 1
    assert answer.headers["X-Consul-KnownLeader"] == "true"


async def test_raw_gives_the_bytes(api: Running) -> None:
    """?raw gives the value as it was put, whatever it holds."""
    value = bytes(range(256))
    await api.json("PUT", "/v1/kv/k", data=value)
    async with api.http.get(api.url + "/v1/kv/k?raw") as answer:
        assert await answer.read() == value


async def test_recurse_and_keys(api: Running) -> None:
    """A tree comes in key order; names are cut after the first separator behind the prefix."""
    for key in ("web/b/1", "web/a", "web/b/2", "other"):
        await api.json("PUT", f"/v1/kv/{key}", data=b"x")
    tree = await api.json("GET", "/v1/kv/web/?recurse")
    assert [entry["Key"] for entry in tree] == ["web/a", "web/b/1", "web/b/2"]
    assert await api.json("GET", "/v1/kv/web/?keys&separator=/") == ["web/a", "web/b/"]
    assert await api.json("GET", "/v1/kv/?keys") == ["other", "web/a", "web/b/1", "web/b/2"]


@pytest.mark.parametrize("key", ["a b", "a+b", "ü/Ω", "q?x", "x&y=1", "100%", "//a//", "a/../b"])
async def test_keys_survive_escaping(api: Running, key: str) -> None:
    """A key is what the escapes in the path stand for, untouched."""
    path = yarl.URL(f"{api.url}/v1/kv/{quote(key, safe='/')}", encoded=True)
    async with api.http.put(path, data=b"v") as answer:
        assert await answer.json() is True
    async with api.http.get(path) as answer:
        assert (await answer.json())[0]["Key"] == key


async def test_an_escape_that_is_no_utf8_is_refused(api: Running) -> None:
    """Two different keys must not become one by replacement characters."""
    async with api.http.put(yarl.URL(api.url + "/v1/kv/%ff", encoded=True), data=b"v") as answer:
        assert answer.status == 400
        assert "UTF-8" in await answer.text()


async def test_cas(api: Running) -> None:
    """?cas=0 creates only, ?cas=N writes at N only; a mismatch is false with 200."""
    assert await api.json("PUT", "/v1/kv/k?cas=0", data=b"1") is True
    assert await api.json("PUT", "/v1/kv/k?cas=0", data=b"2") is False
    index = (await api.json("GET", "/v1/kv/k"))[0]["ModifyIndex"]
    assert await api.json("PUT", f"/v1/kv/k?cas={index}", data=b"3") is True
    assert await api.json("PUT", f"/v1/kv/k?cas={index}", data=b"4") is False


async def test_deletes(api: Running) -> None:
    """Deleting a missing key is true; delete-cas compares; recurse removes the tree."""
    assert await api.json("DELETE", "/v1/kv/none") is True
    await api.json("PUT", "/v1/kv/k", data=b"1")
    assert await api.json("DELETE", "/v1/kv/k?cas=0") is False
    assert await api.json("DELETE", "/v1/kv/k?cas=999999") is False
    index = (await api.json("GET", "/v1/kv/k"))[0]["ModifyIndex"]
    assert await api.json("DELETE", f"/v1/kv/k?cas={index}") is True
    assert await api.json("DELETE", "/v1/kv/k?cas=5") is True
    await api.json("PUT", "/v1/kv/t/1", data=b"1")
    assert await api.json("DELETE", "/v1/kv/t?recurse") is True
    assert (await api.ask("GET", "/v1/kv/t/1"))[0] == 404


async def test_locks(api: Running) -> None:
    """LockIndex rises at each acquisition by another, not when the holder acquires again."""
    session = await _session(api)
    assert await api.json("PUT", f"/v1/kv/l?acquire={session}", data=b"1") is True
    assert await api.json("PUT", f"/v1/kv/l?acquire={session}", data=b"2") is True
    (entry,) = await api.json("GET", "/v1/kv/l")
    assert (entry["Session"], entry["LockIndex"]) == (session, 1)
    other = await _session(api)
    assert await api.json("PUT", f"/v1/kv/l?acquire={other}", data=b"3") is False
    assert await api.json("PUT", f"/v1/kv/l?release={other}", data=b"3") is False
    assert await api.json("PUT", f"/v1/kv/l?release={session}", data=b"3") is True
    assert await api.json("PUT", f"/v1/kv/l?acquire={other}", data=b"4") is True
    assert (await api.json("GET", "/v1/kv/l"))[0]["LockIndex"] == 2
    assert await api.json("DELETE", "/v1/kv/l") is True


async def test_an_unknown_session_is_500(api: Running) -> None:
    """The text is the one that clients look for."""
    status, body, _ = await api.ask("PUT", "/v1/kv/l?acquire=nope", data=b"1")
    assert (status, body) == (500, 'invalid session "nope"')


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("PUT", "/v1/kv/", 400, "Missing key name"),
        ("GET", "/v1/kv/", 400, "Missing key name"),
        ("DELETE", "/v1/kv/", 400, "Missing key name"),
        ("PUT", "/v1/kv/k?cas=x", 400, "Invalid cas value"),
        ("PUT", "/v1/kv/k?flags=-1", 400, "Invalid flags value"),
        ("PUT", "/v1/kv/k?cas=1&acquire=s", 400, "Conflicting flags: cas, acquire"),
        ("DELETE", "/v1/kv/k?cas=1&recurse", 400, "Conflicting flags: recurse, cas"),
        ("GET", "/v1/kv/k?index=x", 400, "Invalid index"),
        ("GET", "/v1/kv/k?index=-1", 400, "Invalid index"),
        ("GET", "/v1/kv/k?index=1&wait=x", 400, "Invalid wait time"),
        ("GET", "/v1/kv/k?stale&consistent", 400, "Cannot specify ?stale with ?consistent"),
        ("GET", "/v1/kv/k?dc=mars", 500, "No path to datacenter"),
        ("PUT", "/v1/kv/k?dc=mars", 500, "No path to datacenter"),
        ("POST", "/v1/kv/k", 405, "method POST not allowed"),
    ],
)
async def test_bad_requests(api: Running, method: str, path: str, status: int, text: str) -> None:
    """Wrong input gets its status and a plain text that says what is wrong."""
    got, body, answer = await api.ask(method, path)
    assert got == status
    assert text in body
    assert answer.content_type == "text/plain"


async def test_values_over_512_kib_are_413(api: Running) -> None:
    """The limit itself passes; one byte more is refused with a text that names the limit."""
    limit = 512 * 1024
    assert await api.json("PUT", "/v1/kv/k", data=b"x" * limit) is True
    status, body, _ = await api.ask("PUT", "/v1/kv/k", data=b"x" * (limit + 1))
    assert status == 413
    assert "524288 bytes" in body

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b"x" * 64 * 1024

    status, body, _ = await api.ask("PUT", "/v1/kv/k", data=chunks())
    assert status == 413


async def test_head_answers_without_a_body(api: Running) -> None:
    """HEAD gives the headers of GET."""
    await api.json("PUT", "/v1/kv/k", data=b"1")
    async with api.http.head(api.url + "/v1/kv/k") as answer:
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) > 0
        assert await answer.read() == b""


async def test_gzip_when_asked(api: Running) -> None:
    """Large answers are compressed for clients that take it."""
    await api.json("PUT", "/v1/kv/k", data=b"x" * 10_000)
    async with api.http.get(api.url + "/v1/kv/k", headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len((await answer.json())[0]["Value"]) > 10_000
    plain = {"Accept-Encoding": "identity"}
    async with api.http.get(api.url + "/v1/kv/k", headers=plain) as answer:
        assert "Content-Encoding" not in answer.headers


async def test_pretty_indents(api: Running) -> None:
    """?pretty is for people."""
    await api.json("PUT", "/v1/kv/k", data=b"1")
    async with api.http.get(api.url + "/v1/kv/k?pretty") as answer:
        assert (await answer.text()).startswith('[\n    {\n        "LockIndex"')


async def test_a_blocked_read_answers_when_the_key_changes(api: Running) -> None:
    """A blocking query is parked, and answers the change with a higher index."""
    await api.json("PUT", "/v1/kv/k", data=b"1")
    index = await api.index("/v1/kv/k")
    async with asyncio.TaskGroup() as tasks:
        blocked = tasks.create_task(api.ask("GET", f"/v1/kv/k?index={index}&wait=30s"))
        await api.waiting(1)
        await api.json("PUT", "/v1/kv/k", data=b"2")
    status, body, answer = blocked.result()
    assert status == 200
    assert b64decode(body[0]["Value"]) == b"2"
    assert int(answer.headers["X-Consul-Index"]) > index


async def test_a_blocked_read_of_a_missing_key_learns_of_its_creation(api: Running) -> None:
    """A watch on what is not there yet is a watch all the same."""
    index = await api.index("/v1/kv/new")
    async with asyncio.TaskGroup() as tasks:
        blocked = tasks.create_task(api.ask("GET", f"/v1/kv/new?index={index}&wait=30s"))
        await api.waiting(1)
        await api.json("PUT", "/v1/kv/new", data=b"1")
    assert blocked.result()[0] == 200


async def test_a_blocked_read_ends_with_the_wait(api: Running) -> None:
    """On timeout the answer is 200 with the same index."""
    await api.json("PUT", "/v1/kv/k", data=b"1")
    index = await api.index("/v1/kv/k")
    status, body, answer = await api.ask("GET", f"/v1/kv/k?index={index}&wait=10ms")
    assert (status, int(answer.headers["X-Consul-Index"])) == (200, index)
    assert b64decode(body[0]["Value"]) == b"1"


async def test_an_index_of_the_future_is_answered_at_once(api: Running) -> None:
    """Who comes from another history learns the state, instead of waiting for an index to come."""
    await api.json("PUT", "/v1/kv/k", data=b"1")
    status, _, answer = await api.ask("GET", "/v1/kv/k?index=999999&wait=10m")
    assert status == 200
    assert int(answer.headers["X-Consul-Index"]) < 999999


async def test_a_client_that_leaves_is_forgotten(api: Running) -> None:
    """A broken connection ends its wait at once; nothing piles up."""
    await api.json("PUT", "/v1/kv/k", data=b"1")
    index = await api.index("/v1/kv/k")
    async with aiohttp.ClientSession() as leaving:
        blocked = asyncio.get_running_loop().create_task(
            leaving.get(f"{api.url}/v1/kv/k?index={index}&wait=10m")
        )
        await api.waiting(1)
        blocked.cancel()
    await until(lambda: not api.server.hub.count)


async def test_a_request_id_is_checked(api: Running) -> None:
    """A malformed request id is refused before anything is proposed."""
    headers = {"X-Raftreg-Request-Id": "p/0/0"}
    status, body, _ = await api.ask("PUT", "/v1/kv/k", data=b"1", headers=headers)
    assert (status, "X-Raftreg-Request-Id" in body) == (400, True)
    headers = {"X-Raftreg-Request-Id": "p/1/1"}
    assert await api.json("PUT", "/v1/kv/k", data=b"1", headers=headers) is True
