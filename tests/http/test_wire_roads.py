"""Both roads give the same answers to the same bytes, whatever they are and however they come."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http.wire_rig import Road, road, told

CRLF = b"\r\n"

_targets = st.one_of(
    st.sampled_from(
        [
            b"/v1/kv/a",
            b"/v1/kv/a/b",
            b"/v1/kv/a/../b",
            b"/v1/kv//a",
            b"/v1/kv/",
            b"/v1/kv",
            b"/v1/kv/a%20b",
            b"/v1/kv/%ff",
            b"/v1/kv/a?raw",
            b"/v1/kv/a?stale",
            b"/v1/kv/a?consistent",
            b"/v1/kv/a?stale&consistent",
            b"/v1/kv/a?index=0",
            b"/v1/kv/a?index=x",
            b"/v1/kv/a?index=999999&wait=1s",
            b"/v1/kv/a?recurse",
            b"/v1/kv/a?keys",
            b"/v1/kv/a?dc=dc1",
            b"/v1/kv/a?dc=mars",
            b"/v1/kv/a?cas=0",
            b"/v1/kv/a?flags=3",
            b"/v1/kv/a?raw=1&raw",
            b"/v1/kv/a?",
            b"/v1/kv/a?&",
            b"/v1/kv/a?pretty",
            b"/v1/health/service/web",
            b"/v1/health/service/web?passing",
            b"/v1/health/service/web?passing=0",
            b"/v1/health/service/web?passing=x",
            b"/v1/health/service/web?passing=false&tag=a",
            b"/v1/health/service/web?tag=a&tag=b&stale",
            b"/v1/health/service/web?cached",
            b"/v1/health/service/web?cached&consistent",
            b"/v1/health/service/web?stale=false",
            b"/v1/health/service/web?filter=Service.Port==1",
            b"/v1/health/service/web?near=_agent",
            b"/v1/health/service/none?passing",
            b"/v1/health/service/",
            b"/v1/health/service/..",
            b"/v1/health/service/a/b",
            b"/v1/health/service/w%65b",
            b"/v1/catalog/service/web",
            b"/v1/catalog/service/web?index=1",
            b"/v1/catalog/service/web?wait=-1s&index=1",
            b"/v1/catalog/services",
            b"/v1/status/leader",
            b"http://x/v1/kv/a",
            b"//v1/kv/a",
            b"*",
            b"/v1/kv/a#f",
            b"/v1/kv/a b",
            b"/v1/kv/\xc3\xbc",
            b'/v1/kv/"',
        ]
    ),
    st.binary(max_size=12).map(lambda tail: b"/v1/kv/" + tail.replace(b"\n", b"")),
)
_methods = st.sampled_from([b"GET"] * 6 + [b"PUT"] * 4 + [b"HEAD", b"DELETE", b"POST", b"get", b""])
_versions = st.sampled_from([b"HTTP/1.1"] * 12 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2", b"http/1.1"])
_fields = st.lists(
    st.sampled_from(
        [
            b"Accept-Encoding: gzip",
            b"Accept-Encoding: gzip;q=0",
            b"Accept-Encoding: deflate, br",
            b"accept: */*",
            b"Accept: text/event-stream",
            b"User-Agent: t/1",
            b"User-Agent: \xc3\xbc",
            b"Connection: keep-alive",
            b"Connection: Keep-Alive",
            b"Connection: close",
            b"Connection: close, keep-alive",
            b"Connection: Upgrade\r\nUpgrade: x",
            b"Content-Type: application/json",
            b"Content-Encoding: gzip",
            b"X-Consul-Token: t",
            b"X-Raftreg-Request-Id: p/1/1",
            b"X-Raftreg-Request-Id: wrong",
            b"Unknown: field",
            b" folded: line",
            b"Name : space",
            b"NoColon",
            b"Bare: line\nfeed: 1",
            b"Empty:",
            b"Cache-Control: max-age=1",
            b"Host: twice",
            b"TE: trailers",
        ]
    ),
    max_size=3,
)
_framings = st.sampled_from(
    [
        (b"", b""),
        (b"", b""),
        (b"Content-Length: 0\r\n", b""),
        (b"Content-Length: 3\r\n", b"abc"),
        (b"content-length:3\r\n", b"\r\n\r"),
        (b"Content-Length: 5\r\n", b"GET /"),
        (b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"),
        (b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"),
        (b"Content-Length: 3, 3\r\n", b"abc"),
        (b"Content-Length: +3\r\n", b"abc"),
        (b"Content-Length: 0x3\r\n", b"abc"),
        (b"Content-Length: -1\r\n", b""),
        (b"Content-Length:\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: identity\r\n", b""),
        (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"zz\r\n"),
    ]
)
_hosts = st.sampled_from([b"Host: x\r\n"] * 12 + [b"", b"Host:\r\n", b"host: y\r\n"])
_ends = st.sampled_from([CRLF] * 16 + [b"\n", b"\r"])


@st.composite
def _request(draw: st.DrawFn) -> bytes:
    """A request that may be wrong in any of its parts."""
    method, target, version = draw(_methods), draw(_targets), draw(_versions)
    fields = b"".join(field + CRLF for field in draw(_fields))
    framing, body = draw(_framings)
    host, end = draw(_hosts), draw(_ends)
    return method + b" " + target + b" " + version + CRLF + host + fields + framing + end + body


_wild = st.one_of(_request(), _request(), _request(), st.binary(max_size=20))

_sound_fields = st.sampled_from(
    [
        b"",
        b"Accept-Encoding: gzip\r\n",
        b"Unknown: field\r\n",
        b"User-Agent: t/1\r\nConnection: keep-alive\r\n",
    ]
)
_sound_targets = st.sampled_from(
    [
        b"/v1/kv/a",
        b"/v1/kv/b?raw",
        b"/v1/kv/a?stale",
        b"/v1/kv/a?recurse",
        b"/v1/kv/%61",
        b"/v1/health/service/web?passing",
        b"/v1/catalog/service/web?near=x",
        b"/v1/catalog/datacenters",
    ]
)


@st.composite
def _sound_request(draw: st.DrawFn) -> bytes:
    """A request that is right, of one or the other kind."""
    body = draw(st.sampled_from([b"", b"\r\n\r\n", b"GET /v1/kv/c HTTP/1.1\r\nHost: x\r\n\r\n"]))
    method, target = b"GET", draw(_sound_targets)
    if draw(st.booleans()):
        method, target = b"PUT", draw(st.sampled_from([b"/v1/kv/a", b"/v1/kv/b?flags=1"]))
    length = b"Content-Length: %d\r\n" % len(body) if body or draw(st.booleans()) else b""
    head = method + b" " + target + b" HTTP/1.1\r\nHost: x\r\n" + draw(_sound_fields) + length
    return head + CRLF + body


_sound = _sound_request()


_BODY = (
    b'{"Node":"n1","Address":"10.0.0.1","Service":{"Service":"web","Port":80,"Tags":["a"]},'
    b'"Check":{"Name":"c","Status":"passing","ServiceID":"web","Output":"%b"}}'
) % (b"0123456789" * 200)  # long enough to be worth compressing
_REGISTER = b"PUT /v1/catalog/register HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)


class Roads:
    """Both roads, in one loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._short, self._plain = self._runner.run(self._start())

    async def _start(self) -> tuple[Road, Road]:
        short = await self._stack.enter_async_context(road(short_way=True))
        plain = await self._stack.enter_async_context(road(short_way=False))
        for one in (short, plain):
            assert b"HTTP/1.1 200" in await one.client().send([_REGISTER])
        return short, plain

    def close(self) -> None:
        """Stops both."""
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def answers(self, pieces: list[bytes]) -> tuple[tuple[bytes, bool], tuple[bytes, bool]]:
        """What each writes to these pieces, and whether it has closed."""

        async def ask(one: Road) -> tuple[bytes, bool]:
            client = one.client()
            written = await client.send(pieces)
            closed = client.transport.closed
            await client.leave()
            return told(written), closed

        async def both() -> tuple[tuple[bytes, bool], tuple[bytes, bool]]:
            return await ask(self._short), await ask(self._plain)

        return self._runner.run(both())


@pytest.fixture(scope="module")
def roads() -> Iterator[Roads]:
    """Both roads; they are asked the same all the time, so they stay alike."""
    both = Roads()
    yield both
    both.close()


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


@given(st.lists(st.tuples(_wild, st.lists(st.integers(0, 500), max_size=3)), max_size=4))
def test_whatever_is_sent_is_answered_alike(
    roads: Roads, requests: list[tuple[bytes, list[int]]]
) -> None:
    """Well-formed or not, in pieces: status, head, body, order and closing agree.

    Each begins a read of its own: from a read with an error in it aiohttp answers only the error,
    the short way also what came before it. The last head is ended: aiohttp may say of half a head
    what is wrong with it, the short way says the same of the whole.
    """
    pieces = [piece for data, at in requests for piece in _cut(data, at)]
    short, plain = roads.answers([*pieces, b"\r\n\r\n"])
    assert short == plain


@given(st.lists(_sound, max_size=6), st.lists(st.integers(0, 2000), max_size=6))
def test_sound_requests_may_come_in_any_pieces(
    roads: Roads, requests: list[bytes], places: list[int]
) -> None:
    """Pipelined and cut anywhere, hot ones and others in turn: answers agree, and their order."""
    short, plain = roads.answers(_cut(b"".join(requests), places))
    assert short == plain
    assert short[0].count(b"HTTP/1.1 ") == len(requests)
