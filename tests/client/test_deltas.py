"""Deltas through the client: a reader of events, and an iterator that outlives its server."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from raftreg.client import BadAnswer, RegistryClient
from raftreg.client.deltas import Event, EventReader, Table, deltas
from raftreg.clock import SystemClock
from raftreg.errors import InvalidRequest, RaftregError
from tests.server.conftest import running

_BYTES = (
    b"retry: 1000\n\n: beat\n\nevent: snapshot\nid: 7.e\ndata: {}\n\n"
    b"event: delta\r\nid:8.e\r\ndata: a\r\ndata: b\r\nunknown: x\r\n\r\ndata: last\n\nevent: cut"
)
_EVENTS = [
    Event("snapshot", b"{}", "7.e"),
    Event("delta", b"a\nb", "8.e"),
    Event("", b"last", ""),
]


@given(st.lists(st.integers(0, len(_BYTES)), max_size=12))
def test_how_bytes_are_cut_carries_no_meaning(cuts: list[int]) -> None:
    """Comments and unknown fields are passed over; an event that is not whole is none."""
    reader = EventReader()
    edges = [0, *sorted(cuts), len(_BYTES)]
    parts = [_BYTES[a:b] for a, b in itertools.pairwise(edges)]
    assert [event for part in parts for event in reader.feed(part)] == _EVENTS


@pytest.mark.parametrize("line", [b"data: xxxxxxxxxx\n", b"x"])
def test_an_event_without_end_is_refused(line: bytes) -> None:
    """In one line or in many: memory is bounded."""
    reader = EventReader(event_bytes_max=1_000)
    for _ in range(1_000 // len(line.rstrip())):
        reader.feed(line)
    with pytest.raises(BadAnswer, match="more than 1000 bytes"):
        reader.feed(line)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("snapshot", b"[]"),
        ("snapshot", b'{"Index": 1, "Rows": [{}]}'),
        ("delta", b'{"Index": 1, "Changed": [{"Old": 1}]}'),
        ("delta", b"\xff"),
    ],
)
def test_what_can_not_be_applied_is_refused(kind: str, data: bytes) -> None:
    """A server that tells nonsense ends the stream with an error that says so."""
    table = Table(lambda row: row["Key"], lambda key: key)
    with pytest.raises(BadAnswer, match="can't be read"):
        table.take(Event(kind, data, "1.e"))


async def test_a_service_is_followed() -> None:
    """All instances at first, then who changed, came and went, as the registry's own nouns."""
    async with running(SystemClock()) as server, RegistryClient([server.url]) as client:
        await server.register("n1", "web")
        async with aclosing(client.health.watch_deltas("web")) as changes:
            first = await anext(changes)
            assert [entry.node.name for entry in first.added] == ["n1"]
            await server.register("n1", "web", Service={"Tags": ["new"]})
            ((old, new),) = (await anext(changes)).changed
            assert (old.service.tags, new.service.tags) == ((), ("new",))
            await server.register("n2", "web")
            came = await anext(changes)
            assert list(came.rows) == [("n1", "web"), ("n2", "web")]
            await client.catalog.deregister("n1")
            gone = await anext(changes)
            assert [entry.service.tags for entry in gone.removed] == [("new",)]


async def test_keys_and_names_of_services_are_followed() -> None:
    """The same for a tree of keys and for the list of services."""
    async with running(SystemClock()) as server, RegistryClient([server.url]) as client:
        async with aclosing(client.kv.watch_deltas("t/")) as changes:
            assert (await anext(changes)).added == ()
            await client.kv.put("t/1", b"one", ttl_s=60)
            (entry,) = (await anext(changes)).added
            assert (entry.key, entry.value, entry.ttl_ms) == ("t/1", b"one", 60_000)
        async with aclosing(client.catalog.watch_services_deltas()) as names:
            await anext(names)
            await server.register("n1", "web", Service={"Tags": ["a"]})
            assert (await anext(names)).added == (("web", ("a",)),)


class _Script:
    """A server that sends what a test says, connection by connection."""

    def __init__(self, *bodies: list[bytes]) -> None:
        self.asked_since: list[str] = []
        self._bodies = list(bodies)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Sends one body, then ends."""
        self.asked_since.append(request.headers.get("Last-Event-ID", ""))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in self._bodies.pop(0) if self._bodies else []:
            await response.write(part)
        if not self._bodies:
            await asyncio.get_running_loop().create_future()
        return response


async def _plain(request: web.Request) -> web.Response:
    del request
    return web.json_response([])


@asynccontextmanager
async def _scripted(script: _Script) -> AsyncIterator[RegistryClient]:
    app = web.Application()
    app.router.add_get("/v1/x", script.handle)
    app.router.add_get("/v1/plain", _plain)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with RegistryClient([f"127.0.0.1:{runner.addresses[0][1]}"]) as client:
            yield client
    finally:
        await runner.cleanup()


def _event(kind: str, event_id: str, **data: Any) -> bytes:
    head = f"event: {kind}\n" + (f"id: {event_id}\n" if event_id else "")
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def _table() -> Table[Any]:
    return Table(tuple, lambda row: row[0])


async def test_a_stream_that_breaks_is_resumed_and_a_snapshot_told_as_a_difference() -> None:
    """The id of the last whole event goes with the question; half a snapshot counts for nothing."""
    script = _Script(
        [_event("snapshot", "5.e", Index=5, Rows=[["a", 1], ["b", 1]], More=False)],
        [_event("delta", "6.e", Index=6, Added=[["c", 1]], Changed=[], Removed=[])],
        [_event("snapshot", "", Index=9, Rows=[["z", 1]], More=True)],
        [
            _event("snapshot", "", Index=9, Rows=[["a", 1]], More=True),
            _event("snapshot", "9.e", Index=9, Rows=[["b", 2]], More=False),
        ],
    )
    async with (
        _scripted(script) as client,
        aclosing(deltas(client, "/v1/x", _table(), params={})) as changes,
    ):
        assert (await anext(changes)).added == (("a", 1), ("b", 1))
        assert (await anext(changes)).added == (("c", 1),)
        last = await anext(changes)
    assert (last.added, last.changed, last.removed) == (
        (),
        ((("b", 1), ("b", 2)),),
        (("c", 1),),
    )
    assert script.asked_since == ["", "5.e", "6.e", "6.e"]


async def test_what_can_not_be_followed_is_an_error() -> None:
    """A plain answer is no stream; without any server the patience decides."""
    async with _scripted(_Script()) as client:
        with pytest.raises(InvalidRequest, match="can't be followed"):
            await anext(deltas(client, "/v1/plain", _table(), params={}))
    async with RegistryClient(["127.0.0.1:1"], timeout_s=0.1) as client:
        with pytest.raises(RaftregError):
            await anext(deltas(client, "/v1/x", _table(), params={}, patience_s=0.0))
