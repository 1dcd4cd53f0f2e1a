"""Every answer to a write carries the registry's index at which the write was applied."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import pytest

from tests.server.conftest import Running

VALUE = b64encode(b"v").decode()


async def _written(api: Running, method: str, path: str, **options: Any) -> tuple[int, int, Any]:
    """Status, index and body of a write."""
    status, body, answer = await api.ask(method, path, **options)
    return status, int(answer.headers["X-Consul-Index"]), body


async def test_a_put_carries_the_modify_index_of_its_key(api: Running) -> None:
    """So a client that wrote can go on with ?cas without reading the key again."""
    _, index, _ = await _written(api, "PUT", "/v1/kv/a", data=b"1")
    assert (await api.json("GET", "/v1/kv/a"))[0]["ModifyIndex"] == index
    assert await _written(api, "PUT", f"/v1/kv/a?cas={index}", data=b"2") == (200, index + 1, True)


async def test_a_condition_that_fails_carries_the_index_at_which_it_was_judged(
    api: Running,
) -> None:
    """A failed check-and-set is a command like any other, and leaves its key as it was."""
    _, index, _ = await _written(api, "PUT", "/v1/kv/a", data=b"1")
    refused = await _written(api, "PUT", "/v1/kv/a?cas=0", data=b"2")
    assert refused == (200, index + 1, False)
    assert (await api.json("GET", "/v1/kv/a"))[0]["ModifyIndex"] == index


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/kv/a?flags=3", None),
        ("DELETE", "/v1/kv/a", None),
        ("DELETE", "/v1/kv/?recurse", None),
        ("PUT", "/v1/catalog/register", {"Node": "n", "Address": "10.0.0.1"}),
        ("PUT", "/v1/catalog/deregister", {"Node": "n"}),
        ("PUT", "/v1/session/create", {"Checks": []}),
        ("PUT", "/v1/session/destroy/none", None),
        ("PUT", "/v1/txn", [{"KV": {"Verb": "set", "Key": "k", "Value": VALUE}}]),
        ("PUT", "/v1/txn", [{"KV": {"Verb": "cas", "Key": "k", "Index": 9, "Value": VALUE}}]),
    ],
)
async def test_every_write_carries_the_next_index(
    timed: Running, method: str, path: str, body: Any
) -> None:
    """One command after another: each answer says one more than the state before it."""
    await timed.register("s1")  # sessions that name no node are bound to the server's own
    before = timed.machine.state.index
    _, index, _ = await _written(timed, method, path, json=body)
    assert index == before + 1


async def test_writes_side_by_side_each_carry_their_own_index(api: Running) -> None:
    """Not that of the last one: each is the ModifyIndex of its own key."""
    keys = [f"k{number}" for number in range(32)]
    answers = await asyncio.gather(*(_written(api, "PUT", f"/v1/kv/{key}") for key in keys))
    rows = await api.json("GET", "/v1/kv/k?recurse")
    stored = {row["Key"]: row["ModifyIndex"] for row in rows}
    assert stored == {key: index for key, (_, index, _) in zip(keys, answers, strict=True)}


async def test_a_repeated_request_carries_the_index_of_its_one_effect(api: Running) -> None:
    """However much was written in between."""
    name = {"X-Raftreg-Request-Id": "p/1/1"}
    first = await _written(api, "PUT", "/v1/kv/a", data=b"1", headers=name)
    await api.json("PUT", "/v1/kv/b", data=b"2")
    assert await _written(api, "PUT", "/v1/kv/a", data=b"1", headers=name) == first
