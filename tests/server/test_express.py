"""The short way of KV requests must not differ from the framework's, but in time."""

from __future__ import annotations

import asyncio

import pytest

from tests.server.conftest import Running


@pytest.fixture(params=[True, False], ids=["short", "plain"])
def short_way(request: pytest.FixtureRequest) -> bool:
    """All of this holds on both roads."""
    return bool(request.param)


async def _raw(api: Running, request: bytes) -> bytes:
    """Sends bytes on a connection of its own; gives all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_unusual_requests_are_answered_as_ever(api: Running) -> None:
    """HEAD, a method that there is not, and an absolute target take the framework's way."""
    assert await api.json("PUT", "/v1/kv/a", data=b"1") is True
    status, _, answer = await api.ask("HEAD", "/v1/kv/a")
    assert (status, "X-Consul-Index" in answer.headers) == (200, True)
    assert (await api.ask("POST", "/v1/kv/a"))[:2] == (405, "method POST not allowed")
    end = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    absolute = await _raw(api, b"GET http://x/v1/kv/a?raw" + end)
    assert absolute.startswith(b"HTTP/1.1 200")
    assert absolute.endswith(b"\r\n\r\n1")


async def test_a_client_that_waits_for_the_word_to_go_on_gets_it(api: Running) -> None:
    """`Expect: 100-continue`, as curl sends with larger bodies."""
    head = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n"
    answer = await _raw(api, head + b"Expect: 100-continue\r\n\r\nok")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\ntrue")


async def test_errors_are_texts_and_requests_are_counted(api: Running) -> None:
    """As the router would name them: one label for all keys."""
    assert (await api.ask("GET", "/v1/kv/"))[:2] == (400, "Missing key name")
    assert (await api.ask("GET", "/v1/kv/a/b"))[0] == 404
    assert (await api.ask("DELETE", "/v1/kv/a/b"))[0] == 200
    samples = {
        (sample.labels["method"], sample.labels["code"]): sample.value
        for family in api.server.meter.collect()
        for sample in family.samples
        if sample.labels.get("route") == "/v1/kv/{key}" and "method" in sample.labels
    }
    assert samples == {("GET", "400"): 1, ("GET", "404"): 1, ("DELETE", "200"): 1}
