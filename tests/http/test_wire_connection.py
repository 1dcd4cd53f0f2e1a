"""A connection's manners: order, limits, clients that are slow, silent or gone, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from raftreg.http.wire.connection import BEHIND_BYTES_MAX, IN_A_TURN_MAX
from raftreg.http.wire.head import HEAD_BYTES_MAX
from raftreg.http.wire.road import BODY_BYTES_MAX
from tests.http.wire_rig import QUIET_TURNS, Road, road

HOT = b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n"
BLOCKED = b"GET /v1/kv/a?index=%d&wait=60s HTTP/1.1\r\nHost: x\r\n\r\n"
PLAIN = b"GET /v1/catalog/datacenters HTTP/1.1\r\nHost: x\r\n\r\n"
PUT = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
PUT_B = PUT.replace(b"/a", b"/b")


@pytest.fixture
async def short() -> AsyncIterator[Road]:
    """A server with the short way."""
    async with road(short_way=True, keepalive_s=8.0) as one:
        yield one


async def _until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - any condition, not only those with an event
        await asyncio.sleep(0.001)


def _taken_by_aiohttp(one: Road) -> int:
    return one.listener.server.requests_count


async def test_a_connection_comes_back_to_the_short_way(short: Road) -> None:
    """After a request that aiohttp answered, hot ones are short again."""
    client = short.client()
    written = await client.send([HOT, PLAIN, HOT, HOT])
    assert written.count(b"HTTP/1.1 ") == 4
    assert _taken_by_aiohttp(short) == 1


async def test_what_we_know_of_aiohttps_protocol_is_still_so(short: Road) -> None:
    """The names by which we see that it waits for a request; they are not public."""
    plain = short.listener.server()
    assert (plain._waiter, len(plain._messages), plain._current_request) == (None, 0, None)


async def test_an_unclear_request_leaves_the_connection_to_aiohttp(short: Road) -> None:
    """From there on all requests are its own: where they begin is not for us to say."""
    chunked = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = short.client()
    written = await client.send([HOT, chunked, b"1\r\n1\r\n0\r\n\r\n" + HOT, HOT])
    assert written.count(b"HTTP/1.1 200") == 3
    assert _taken_by_aiohttp(short) == 3


async def test_a_head_without_end_is_left_to_aiohttp_in_time(short: Road) -> None:
    """We hold no more than a head's limit; aiohttp has limits, and words, of its own."""
    client = short.client()
    head = b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n"
    fields = b"".join(b"X-Field-%d: %b\r\n" % (n, b"v" * 80) for n in range(300))
    written = await client.send([head, fields])
    assert len(head + fields) > HEAD_BYTES_MAX
    assert b" 400 Bad Request" in written
    assert client.transport.closed


async def test_requests_behind_a_blocked_one_wait_in_a_bounded_buffer(short: Road) -> None:
    """They are answered after it, in order; meanwhile reading stops."""
    client = short.client()
    await client.send([PUT])
    index = short.server.reads.state.index
    await client.send([BLOCKED % index])
    await client.send([PUT_B * (BEHIND_BYTES_MAX // len(PUT_B) + 1)])
    assert client.transport.written.count(b"HTTP/1.1 ") == 1
    assert not client.transport.reads
    await short.client().send([PUT])
    await client.settle(20)
    assert client.transport.reads
    answers = client.transport.written.split(b"HTTP/1.1 200 OK")[1:]
    assert len(answers) == 3 + BEHIND_BYTES_MAX // len(PUT_B)
    assert b'"Key":"a"' in answers[1]
    assert all(answer.endswith(b"true") for answer in answers[2:])


async def test_a_client_that_does_not_read_is_answered_no_further(short: Road) -> None:
    """What it sends meanwhile is not read, and answered once it has caught up."""
    client = short.client()
    client.protocol.pause_writing()
    await client.send([HOT, HOT])
    assert not client.transport.written
    assert not client.transport.reads
    client.protocol.resume_writing()
    await client.settle(5)
    assert client.transport.written.count(b"HTTP/1.1 404") == 2
    assert client.transport.reads


@pytest.mark.parametrize("sent", [b"", b"GET /v1/kv/a HTTP/1.1\r\n", HOT, PLAIN, HOT + HOT[:9]])
async def test_a_connection_on_which_nothing_moves_is_closed(short: Road, sent: bytes) -> None:
    """An idle client, one that stops in the middle of a head, on either road; not before."""
    client = short.client()
    await client.send([sent])
    short.listener.sweep()
    short.clock.advance(7.9)
    short.listener.sweep()
    assert not client.transport.closed
    short.clock.advance(0.2)
    short.listener.sweep()
    assert client.transport.closed


async def test_a_head_in_drops_does_not_count_as_movement(short: Road) -> None:
    """Who sends a byte now and then holds a connection no longer than who sends nothing."""
    client = short.client()
    short.listener.sweep()
    for byte in HOT[:10]:
        await client.send([bytes([byte])])
        short.clock.advance(1.0)
        short.listener.sweep()
    assert client.transport.closed


async def test_a_blocked_query_is_not_idle(short: Road) -> None:
    """Its client waits for us, not we for it."""
    client = short.client()
    await client.send([PUT, BLOCKED % short.server.reads.state.index])
    await client.send([BLOCKED % short.server.reads.state.index])
    for _ in range(4):
        short.clock.advance(8.0)
        short.listener.sweep()
    assert not client.transport.closed


async def test_a_client_that_goes_ends_its_blocked_query(short: Road) -> None:
    """It is forgotten at once, and counted as gone."""
    client = short.client()
    await client.send([PUT])
    await client.send([BLOCKED % short.server.reads.state.index])
    assert short.server.hub.count == 1
    await client.leave()
    assert short.server.hub.count == 0
    (sample,) = (
        sample
        for family in short.server.meter.collect()
        for sample in family.samples
        if sample.labels.get("code") == "499"
    )
    assert (sample.labels["route"], sample.value) == ("/v1/kv/{key}", 1)


async def test_watchers_over_the_limit_are_refused() -> None:
    """As on the plain road: 429, and the connection stays."""
    async with road(short_way=True, watchers_max=1) as one:
        first, second = one.client(), one.client()
        await first.send([PUT])
        index = one.server.reads.state.index
        await first.send([BLOCKED % index])
        written = await second.send([BLOCKED % index, HOT])
        assert written.startswith(b"HTTP/1.1 429 ")
        assert b"X-Raftreg-Error: too_many_watches\r\n" in written
        assert written.count(b"HTTP/1.1 ") == 2


async def test_both_roads_count_the_same() -> None:
    """Route, method, code: by whichever road an answer came."""

    async def counted(*, short_way: bool) -> dict[tuple[str, ...], float]:
        async with road(short_way=short_way) as one:
            gone = b"GET /v1/kv/a?dc=mars HTTP/1.1\r\nHost: x\r\n\r\n"
            health = b"GET /v1/health/service/web?passing HTTP/1.1\r\nHost: x\r\n\r\n"
            await one.client().send([HOT, PUT, HOT, gone, PLAIN, health, health])
            return {
                tuple(sample.labels.values()): sample.value
                for family in one.server.meter.collect()
                for sample in family.samples
                if sample.name != "raftreg_http_request_duration_seconds_sum"
            }

    by_short, by_plain = await counted(short_way=True), await counted(short_way=False)
    assert {key: n for key, n in by_short.items() if len(key) == 3} == {
        key: n for key, n in by_plain.items() if len(key) == 3
    }


# -- over real sockets -------------------------------------------------------------------------


async def _connect(one: Road) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", one.server.port)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def test_a_client_may_send_its_end_with_its_requests(short: Road) -> None:
    """Half-closed: what it asked for is answered, then the connection ends."""
    reader, writer = await _connect(short)
    writer.write(HOT + PUT + HOT)
    writer.write_eof()
    answers = await reader.read()
    assert answers.count(b"HTTP/1.1 ") == 3
    await _close(writer)


async def test_the_end_of_a_client_ends_its_blocked_query(short: Road) -> None:
    """A client that is gone can't be told from one that only sends no more."""
    reader, writer = await _connect(short)
    writer.write(PUT)
    await reader.readuntil(b"true")
    writer.write(BLOCKED % short.server.reads.state.index)
    await _until(lambda: short.server.hub.count == 1)
    writer.write_eof()
    assert await reader.read() == b""
    await _until(lambda: short.server.hub.count == 0)
    await _close(writer)


async def test_a_stop_answers_who_waits_and_closes_who_is_idle(short: Road) -> None:
    """Nobody is left without a word, and nobody holds the stop up."""
    waiting, to_waiting = await _connect(short)
    idle, to_idle = await _connect(short)
    to_waiting.write(PUT)
    await waiting.readuntil(b"true")
    to_waiting.write(BLOCKED % short.server.reads.state.index)
    to_idle.write(HOT)
    await idle.readuntil(b"]")
    await _until(lambda: short.server.hub.count == 1)
    await short.server.stop()
    last = await waiting.read()
    assert last.startswith(b"HTTP/1.1 5")
    assert b"this server is stopping" in last
    assert await idle.read() == b""
    for writer in (to_waiting, to_idle):
        await _close(writer)


async def test_a_large_answer_reaches_a_slow_reader_whole(short: Road) -> None:
    """More than any buffer holds, several times over one connection."""
    value = b"v" * 500_000
    head = b"PUT /v1/kv/large HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(value)
    reader, writer = await _connect(short)
    writer.write(head + value)
    await reader.readuntil(b"true")
    writer.write(b"GET /v1/kv/large?raw HTTP/1.1\r\nHost: x\r\n\r\n" * 8)
    for _ in range(8):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: 500000\r\n" in answer
        assert await reader.readexactly(len(value)) == value
    await _close(writer)


# -- faults that were found by attack ----------------------------------------------------------


@pytest.mark.parametrize("missing", [1, 60])
async def test_a_body_of_the_greatest_length_may_come_in_pieces(short: Road, missing: int) -> None:
    """What waits for its last bytes must not stop the reading of them."""
    head = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES_MAX
    client = short.client()
    await client.send([head, b"v" * (BODY_BYTES_MAX - missing)])
    assert client.transport.reads
    assert (await client.send([b"v" * missing])).endswith(b"true")


@pytest.mark.parametrize("end", ["connection", "input"])
async def test_a_client_that_goes_before_its_query_blocks_is_not_waited_for(
    short: Road, end: str
) -> None:
    """While a read is being confirmed nothing blocks yet; nobody would end what blocks after."""
    client = short.client()
    await client.send([PUT])
    client.protocol.data_received(BLOCKED % short.server.reads.state.index)
    if end == "connection":
        client.transport.close()
    else:
        assert client.protocol.eof_received()
    await client.settle(QUIET_TURNS)
    assert short.server.hub.count == 0
    assert client.transport.closed
    assert client.transport.written.count(b"HTTP/1.1 ") == 1


CHUNKED = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n"


async def test_a_connection_in_use_is_kept_on_the_plain_road(short: Road) -> None:
    """Each request counts as movement, also where aiohttp alone knows what a request is."""
    client = short.client()
    for _ in range(20):
        await client.send([CHUNKED + b"0\r\n\r\n"])
        short.clock.advance(1.0)
        short.listener.sweep()
    assert not client.transport.closed


@pytest.mark.parametrize(
    "head", [CHUNKED, b"PUT /v1/kv/a?cas=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n"]
)
@pytest.mark.parametrize("drop", [b"", b"1\r\n1\r\n"])
async def test_a_body_in_drops_does_not_count_as_movement(
    short: Road, head: bytes, drop: bytes
) -> None:
    """Who sends next to nothing of a body holds a connection for a limited time."""
    client = short.client()
    await client.send([head])
    for _ in range(12):
        short.listener.sweep()
        short.clock.advance(1.0)
        await client.send([drop] if drop else [])
    short.listener.sweep()
    assert client.transport.closed


async def test_a_slow_body_that_keeps_coming_is_waited_for(short: Road) -> None:
    """A large one may take longer than an idle connection may live."""
    head = b"PUT /v1/kv/a?cas=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    client = short.client()
    await client.send([head])
    for _ in range(20):
        await client.send([b"v" * 5000])
        short.listener.sweep()
        short.clock.advance(4.0)
        assert not client.transport.closed
    assert client.transport.written.endswith(b"true")


@pytest.mark.parametrize("ended", [False, True])
async def test_a_flood_of_requests_leaves_others_their_turn(short: Road, *, ended: bool) -> None:
    """All are answered in the end, also if the client has sent its end, and none is lost."""
    client = short.client()
    many = 20 * IN_A_TURN_MAX
    client.protocol.data_received(HOT.replace(b"/a", b"/a?stale") * many)
    assert client.transport.written.count(b"HTTP/1.1 404") <= IN_A_TURN_MAX
    if ended:
        assert client.protocol.eof_received()
    await client.settle(QUIET_TURNS)
    assert client.transport.written.count(b"HTTP/1.1 404") == many
    assert client.transport.reads
    assert client.transport.closed is ended
