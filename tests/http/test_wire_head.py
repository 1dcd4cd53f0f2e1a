"""What the short way takes for a request: strictly, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.http.wire.head import FIELDS_MAX, Fields, read_fields, read_line


def _block(*fields: bytes) -> bytes:
    return b"\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


@pytest.mark.parametrize(
    ("fields", "meaning"),
    [
        ((b"Host: x",), Fields(0, gzip=False, short=True)),
        ((b"host:x", b"CONTENT-LENGTH: 12"), Fields(12, gzip=False, short=True)),
        ((b"Host: x", b"Connection: Keep-Alive"), Fields(0, gzip=False, short=True)),
        ((b"Host: x", b"Accept-Encoding: br, gzip"), Fields(0, gzip=True, short=True)),
        ((b"Host: x", b"Accept-Encoding: gzip;q=0"), Fields(0, gzip=False, short=True)),
        ((b"Host: x", b"X-Consul-Token: t"), Fields(0, gzip=False, short=False)),
        ((b"Host: x", b"Accept: text/event-stream"), Fields(0, gzip=False, short=False)),
        ((b"Host: x", b"If-None-Match: 1"), Fields(0, gzip=False, short=False)),
        ((b"Host: x", b"Accept: a", b"Accept: b"), Fields(0, gzip=False, short=False)),
    ],
)
def test_fields_that_are_understood(fields: tuple[bytes, ...], meaning: Fields) -> None:
    """Length and coding are read; a field of unknown meaning keeps a request off the short way."""
    assert read_fields(_block(*fields)) == meaning


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (b"Accept: */*",),
        (b"Host:",),
        (b"Host: x", b"Host: x"),
        (b"Host: x", b"Content-Length: 1", b"Content-Length: 1"),
        (b"Host: x", b"Content-Length: 1, 1"),
        (b"Host: x", b"Content-Length: +1"),
        (b"Host: x", b"Content-Length: \xb2"),
        (b"Host: x", b"Content-Length:"),
        (b"Host: x", b"Content-Length: 12345678901"),
        (b"Host: x", b"Transfer-Encoding: chunked"),
        (b"Host: x", b"transfer-encoding:"),
        (b"Host: x", b"Expect: 100-continue"),
        (b"Host: x", b"Upgrade: websocket"),
        (b"Host: x", b"Connection: close"),
        (b"Host: x", b"Connection: keep-alive, TE"),
        (b"Host: x", b" folded"),
        (b"Host: x", b"\tfolded"),
        (b"Host: x", b"Name : space"),
        (b"Host: x", b": nameless"),
        (b"Host: x", b"colonless"),
        (b"Host: x", b"Bare: line\nfeed: y"),
        (b"Host: x", b"Bare: return\rhere"),
        (b"Host: x", b"Zero: \0"),
        (b"Host: x", b"Name: \xc3\xbc"),
        (b"Host: x", *(b"User-Agent: %d" % n for n in range(FIELDS_MAX))),
    ],
)
def test_fields_that_leave_the_end_of_a_request_open(fields: tuple[bytes, ...]) -> None:
    """Where two readers might disagree on where a request ends, we don't say."""
    assert read_fields(_block(*fields)) is None


@pytest.mark.parametrize(
    "line",
    [
        b"GET /a HTTP/1.0",
        b"GET /a HTTP/1.1 ",
        b"GET  /a HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET\t/a HTTP/1.1",
        b" GET /a HTTP/1.1",
        b"get /a HTTP/1.1",
        b"BREW /a HTTP/1.1",
        b"CONNECT x:1 HTTP/1.1",
        b"GET http://x/a HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET /\xc3\xbc HTTP/1.1",
        b"GET /a\0 HTTP/1.1",
        b"GET /a HTTP/1.1\n",
        b"GET /a",
        b"",
    ],
)
def test_lines_that_are_not_ours(line: bytes) -> None:
    """Only one form of a request line is read."""
    assert read_line(line) is None


@given(st.binary(max_size=200))
def test_nothing_crashes_the_readers(data: bytes) -> None:
    """Whatever comes gives a value."""
    read_line(data)
    read_fields(b"\r\n" + data + b"\r\n\r\n")
