"""Watches: every newest state is seen, whatever happens to servers and indexes."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from raftreg.client import Response
from raftreg.client.watch import Cursor
from raftreg.errors import Forbidden, Unreachable
from tests.client.rigs import NOBODY, client_of, drops, fails, running, says

SERVICES = "/v1/catalog/services"


def response(index: int, body: bytes = b"") -> Response:
    """An answer with an index."""
    return Response(status=200, headers={"X-Consul-Index": str(index)}, body=body)


@given(st.lists(st.integers(1, 20), max_size=30))
def test_cursor_sees_each_progress(indexes: list[int]) -> None:
    """An index that grew is news; the same one is none; a lower one starts anew, so that the
    next answer is news whatever its index.
    """
    cursor, last = Cursor(), 0
    for index in indexes:
        news = cursor.observe(response(index))
        assert news == (index > last)
        last = index if index >= last else 0
        assert cursor.index == last


def test_cursor_without_an_index() -> None:
    """A server that keeps no index is watched by its bodies."""
    cursor = Cursor()
    bodies = [b"a", b"a", b"b", b"a"]
    assert [cursor.observe(response(0, body)) for body in bodies] == [True, False, True, True]


async def test_a_watch_yields_each_new_index_once() -> None:
    """Answers with the same index are no news, and each question carries the last index."""
    script = [says({"a": []}, index=5), says({"a": []}, index=5), says({"b": []}, index=9)]
    async with running(*script) as server, client_of(server.address) as client:
        async with aclosing(client.catalog.watch_services()) as changes:
            first = await anext(changes)
            second = await anext(changes)
        assert (first.index, first.value) == (5, {"a": []})
        assert (second.index, second.value) == (9, {"b": []})
        paths = [path for _, path, _, _ in server.requests]
        assert paths == [SERVICES, *[f"{SERVICES}?index=5&wait=300s"] * 2]


async def test_a_watch_survives_its_server() -> None:
    """When the server fails, the watch goes on at another and misses nothing."""
    async with (
        running(says({"a": []}, index=5), drops, fails(500, "No cluster leader")) as dying,
        running(says({"a": []}, index=5), says({"a": [], "b": []}, index=6)) as other,
        client_of(dying.address, other.address) as client,
        aclosing(client.catalog.watch_services()) as changes,
    ):
        assert (await anext(changes)).index == 5
        change = await anext(changes)
        assert (change.index, change.value) == (6, {"a": [], "b": []})


async def test_an_index_that_goes_back_starts_the_watch_anew() -> None:
    """After a restore to an older state the watch yields that state, by asking without index."""
    script = [says({"a": []}, index=50), says({"old": []}, index=3)]
    async with running(*script) as server, client_of(server.address) as client:
        async with aclosing(client.catalog.watch_services()) as changes:
            assert (await anext(changes)).index == 50
            change = await anext(changes)
        assert (change.index, change.value) == (3, {"old": []})
        assert server.requests[-1][1] == SERVICES


async def test_an_answer_that_cant_be_read_is_asked_again() -> None:
    """Garbage between two good answers is not taken for a state, nor for a seen index."""
    script = [says({"a": []}, index=5), says([1, 2], index=6), says({"b": []}, index=6)]
    async with (
        running(*script) as server,
        client_of(server.address) as client,
        aclosing(client.catalog.watch_services()) as changes,
    ):
        assert (await anext(changes)).index == 5
        assert (await anext(changes)).value == {"b": []}


async def test_a_missing_key_is_a_value() -> None:
    """A key that is not there is watched as None until it comes."""

    async def missing(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(status=404, headers={"X-Consul-Index": "4"})

    entry = {"Key": "k", "Value": "dg==", "Flags": 0, "ModifyIndex": 7, "CreateIndex": 7}
    async with (
        running(missing, says([entry], index=7)) as server,
        client_of(server.address) as client,
        aclosing(client.kv.watch("k")) as changes,
    ):
        assert (await anext(changes)).value is None
        found = (await anext(changes)).value
        assert found is not None
        assert found.value == b"v"


async def test_what_cant_be_mended_is_raised() -> None:
    """A refusal ends a watch; servers that are away end it only when patience is set."""
    refusing = fails(403, "Permission denied")
    async with running(refusing) as server, client_of(server.address) as client:
        with pytest.raises(Forbidden):
            await anext(client.catalog.watch_nodes())
    async with client_of(NOBODY, timeout_s=0.3) as client:
        with pytest.raises(Unreachable):
            await anext(client.catalog.watch_nodes(patience_s=0.0))
