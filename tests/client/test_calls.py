"""Calls: what is repeated, where, and what the caller is told."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from raftreg.client import ANY_STATUS, Backoff, BadAnswer, Consistency, Read, RegistryClient
from raftreg.errors import (
    ConfigurationError,
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    NoLeader,
    RaftregError,
    Rejected,
    TooLarge,
    UnknownOutcome,
    Unreachable,
)
from tests.client.rigs import (
    NOBODY,
    Handler,
    babbles,
    client_of,
    drops,
    fails,
    frames,
    hangs,
    running,
    says,
)

#: So long that the deadline passes between two attempts, not within one.
LONG = Backoff(first_s=60.0, max_s=60.0)
NO_LEADER = fails(500, "No cluster leader")
MAY_COMMIT = fails(503, "the write may still commit", "unknown_outcome")


@pytest.mark.parametrize(
    "trouble",
    [drops, babbles, NO_LEADER, MAY_COMMIT, fails(502, "<html>"), fails(429, "slow down")],
    ids=["drops", "babbles", "no leader", "may commit", "bad gateway", "too many"],
)
async def test_a_named_write_is_repeated_under_its_name(trouble: Handler) -> None:
    """After any failure of a server, definite or not, the same write goes to the next server
    with the same request id, and the caller sees no error.
    """
    async with running(trouble) as bad, running(says(True)) as good:
        async with client_of(bad.address, good.address) as client:
            assert await client.kv.put("key", b"value")
        assert len(bad.requests) >= 1
        ids = {*bad.request_ids(), *good.request_ids()}
        assert len(ids) == 1
        assert ids.pop().endswith("/1/1")


async def test_a_server_that_hangs_is_left_for_another() -> None:
    """A silent server costs one attempt's time, not the whole deadline."""
    async with (
        running(hangs) as bad,
        running(says(True)) as good,
        client_of(bad.address, good.address, attempt_timeout_s=0.05) as client,
    ):
        assert await client.kv.put("key", b"value")
        assert client.last_good == f"http://{good.address}"


async def test_what_may_have_happened_is_not_repeated_without_a_name() -> None:
    """A request that is not idempotent is sent once when its fate is unknown; after a definite
    failure it is sent again.
    """
    async with running(drops) as bad, running(says({})) as good:
        async with client_of(bad.address, good.address) as client:
            with pytest.raises(ConnectionLost) as caught:
                await client.operator.transfer_leader()
            assert not caught.value.definite
        assert len(bad.requests) == 1
        assert not good.requests
    async with running(NO_LEADER) as bad, running(says({})) as good:
        async with client_of(bad.address, NOBODY, good.address) as client:
            await client.operator.transfer_leader()
        assert good.request_ids() == [""]


async def test_a_definite_failure_does_not_hide_an_unknown_one() -> None:
    """Once an attempt may have taken effect, the error at the end says so."""
    async with (
        running(drops, NO_LEADER) as server,
        client_of(server.address, timeout_s=0.3) as client,
    ):
        with pytest.raises(RaftregError) as caught:
            await client.kv.put("key", b"value")
        assert not caught.value.definite
        assert isinstance(caught.value, UnknownOutcome | DeadlineExceeded)


async def test_definite_failures_stay_definite() -> None:
    """Servers without a leader, and servers that are away, end in their own definite error."""
    async with (
        running(NO_LEADER) as server,
        client_of(server.address, timeout_s=0.5, backoff=LONG) as client,
    ):
        with pytest.raises(NoLeader, match="No cluster leader"):
            await client.kv.put("key", b"value")
    async with client_of(NOBODY, timeout_s=0.5, backoff=LONG) as client:
        with pytest.raises(Unreachable, match="refused"):
            await client.kv.get("key")


async def test_deadline() -> None:
    """A lone server that hangs ends in DeadlineExceeded, which is indefinite."""
    async with running(hangs) as server, client_of(server.address, timeout_s=0.1) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            await client.kv.put("key", b"value")
        assert not caught.value.definite


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (400, "Invalid index", InvalidRequest),
        (403, "Permission denied", Forbidden),
        (409, "rolled back", Conflict),
        (413, "Value exceeds 524288 byte limit", TooLarge),
        (500, 'invalid session "x"', Rejected),
    ],
)
async def test_refusals_are_told_at_once(status: int, text: str, error: type[RaftregError]) -> None:
    """What asking again can't mend is raised with the server's words after one request."""
    async with running(fails(status, text)) as server, client_of(server.address) as client:
        with pytest.raises(error, match=text):
            await client.kv.put("key", b"value")
        assert len(server.requests) == 1


async def test_the_good_server_is_remembered() -> None:
    """After a failover the next calls go to the server that answered."""
    async with running(NO_LEADER) as bad, running(says([])) as good:
        async with client_of(bad.address, good.address) as client:
            for _ in range(5):
                await client.catalog.nodes()
        assert len(bad.requests) == 1
        assert len(good.requests) == 5


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_behind_a_partition_the_server_that_speaks_is_asked_first(place: int) -> None:
    """One that refuses for want of a leader can still answer a stale read; those that were silent,
    also the one that was when the deadline passed, must not use up that read's time.
    """

    async def alone(request: web.Request) -> web.StreamResponse:
        return await (says([]) if "stale" in request.query else NO_LEADER)(request)

    async with running(hangs) as first, running(hangs) as second, running(alone) as reachable:
        addresses = [first.address, second.address]
        addresses.insert(place, reachable.address)
        async with client_of(*addresses, timeout_s=0.9, attempt_timeout_s=0.6) as client:
            with pytest.raises(RaftregError):
                await client.catalog.nodes()
            asked = len(first.requests) + len(second.requests)
            stale = Read(consistency=Consistency.STALE)
            assert await client.catalog.nodes(read=stale) == []
        assert len(first.requests) + len(second.requests) == asked


async def test_request_ids_tell_what_is_still_open() -> None:
    """`low` is the lowest sequence whose outcome is still awaited."""
    async with running(hangs, says(True)) as server, client_of(server.address) as client:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.kv.put("a", b""))
            await server.came.wait()
            await client.kv.put("b", b"")
            first.cancel()
        await client.kv.put("c", b"")
        tails = [one.split("/", 1)[1] for one in server.request_ids()]
        assert tails == ["1/1", "2/1", "3/3"]


async def test_what_is_sent() -> None:
    """Keys are escaped, the token and the options of a read are there, bodies arrive."""
    async with running(says(True), says([])) as server:
        async with client_of(server.address, token="secret") as client:
            await client.kv.put("a b/c?&ü+", b"\0\xff", flags=7)
            read = Read(consistency=Consistency.STALE, dc="dc1", node_meta=("a:b", "c:d"))
            await client.health.service("web", passing=True, tags=("x", "y"), read=read)
        method, path, headers, body = server.requests[0]
        assert (method, path, body) == ("PUT", "/v1/kv/a%20b/c%3F%26%C3%BC%2B?flags=7", b"\0\xff")
        assert headers["X-Consul-Token"] == "secret"
        assert server.requests[1][1] == (
            "/v1/health/service/web?stale=&dc=dc1&node-meta=a%3Ab&node-meta=c%3Ad"
            "&passing=&tag=x&tag=y"
        )


async def test_any_status_is_handed_back() -> None:
    """A caller that passes answers on gets all but those that another server may mend."""
    script = [NO_LEADER, fails(404, "nothing")]
    async with running(*script) as server, client_of(server.address) as client:
        response = await client.request("GET", "/v1/kv/x", accept=ANY_STATUS)
        assert (response.status, response.body) == (404, b"nothing")


async def test_a_body_over_the_limit() -> None:
    """An answer that is too large is refused, not read."""
    async with running(says("x" * 5_000)) as server, client_of(server.address) as client:
        with pytest.raises(TooLarge):
            await client.request("GET", "/v1/x", body_bytes_max=1_000)


async def test_json_of_another_shape() -> None:
    """An answer that is no such JSON is BadAnswer, never a bare exception."""
    async with running(says({"surprise": 1})) as server, client_of(server.address) as client:
        with pytest.raises(BadAnswer):
            await client.kv.list("")
        with pytest.raises(BadAnswer):
            await client.health.service("web")


async def test_a_line_break_in_a_header() -> None:
    """What can't be sent is the caller's fault and never leaves."""
    async with running(says(True)) as server, client_of(server.address) as client:
        with pytest.raises(InvalidRequest):
            await client.request("GET", "/v1/x", headers={"X-A": "b\r\nc: d"})
        assert not server.requests


@pytest.mark.parametrize(
    "addresses", [[], ["a b"], ["ftp://x"], ["host:port"], ["h/path"], ["u@h"], ["h"] * 0]
)
def test_bad_addresses(addresses: list[str]) -> None:
    """An address that can't be read is refused at once."""
    with pytest.raises(ConfigurationError):
        RegistryClient(addresses)


async def read_frames(client: RegistryClient, silence_s: float | None = None) -> list[bytes]:
    """All frames of a stream."""
    async with client.stream("/v1/internal/view", silence_s=silence_s) as stream:
        return [frame async for frame in stream.frames()]


async def test_stream_gives_frames_and_finds_a_server() -> None:
    """A stream opens at the first server that has it and gives whole frames, however they are
    cut; its end within a frame and its silence are ConnectionLost.
    """
    async with (
        running(NO_LEADER) as bad,
        running(frames(b"one", b"", b"x" * 200_000), frames(tail=b"\0\0\0\x09abc")) as good,
        client_of(bad.address, good.address) as client,
    ):
        async with client.stream("/v1/internal/view") as stream:
            assert [frame async for frame in stream.frames()] == [b"one", b"", b"x" * 200_000]
            assert stream.address == f"http://{good.address}"
        with pytest.raises(ConnectionLost, match="within a frame"):
            await read_frames(client)


async def test_stream_that_falls_silent() -> None:
    """Silence longer than allowed is ConnectionLost, and that server is asked last from then."""
    async with (
        running(frames(b"one", then=hangs)) as silent,
        running(frames(b"two")) as other,
        client_of(silent.address, other.address) as client,
    ):
        with pytest.raises(ConnectionLost):
            await read_frames(client, silence_s=0.1)
        assert await read_frames(client, silence_s=0.1) == [b"two"]


async def test_stream_frame_over_the_limit() -> None:
    """A frame that says it is too long is refused before it is gathered."""
    endless = frames(tail=b"\xff\xff\xff\xff")
    async with running(endless) as server, client_of(server.address) as client:
        with pytest.raises(BadAnswer):
            await read_frames(client)


async def test_an_error_of_the_caller_passes_a_stream_unchanged() -> None:
    """What the block itself raises is not taken for a failure of the server."""
    async with running(frames(b"one")) as server, client_of(server.address) as client:
        with pytest.raises(OSError, match="disk full"):
            async with client.stream("/v1/snapshot"):
                raise OSError("disk full")
        assert client.last_good is not None


async def test_stream_that_turns_into_nonsense() -> None:
    """Bytes that are no chunk end a stream, too: aiohttp by itself would wait for ever, its
    parser gone and its read timeout with it.
    """
    read = asyncio.Event()

    async def second_answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        await read.wait()
        request.transport.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        return await hangs(request)

    async with (
        running(frames(b"one", then=second_answer)) as server,
        client_of(server.address) as client,
        client.stream("/v1/internal/view", silence_s=0.1) as stream,
    ):
        arriving = stream.frames()
        assert await anext(arriving) == b"one"
        read.set()
        with pytest.raises((ConnectionLost, BadAnswer)):
            await anext(arriving)
