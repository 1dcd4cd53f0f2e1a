"""Answers with bodies that are ready: head and body leave in one write.

`aiohttp.web.Response` builds a case-insensitive multidict, a stream writer's state and its head
anew for each answer, about as much work as everything else in a read of one key. `Reply` writes
the same bytes itself, and lets aiohttp do the rest (parsing, keep-alive, pipelining, limits).
"""

from __future__ import annotations

import zlib
from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
#: Names the host whose agent hands a request on, percent-encoded.
AGENT_HEADER = "X-Raftreg-Agent"
GZIP_BYTES_MIN = 1400  #: a body that fits one packet gains nothing

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Reply(web.StreamResponse):
    """A whole answer.

    Args:
        body: The bytes to send.
        status: HTTP status.
        kind: Content-Type.
        head: Further header lines, each ended by CRLF; the caller vouches that no value holds a
            line break (they are numbers and fixed words; anything else goes through `header`).
    """

    def __init__(  # the base's constructor is what is saved; it sets only what is set here
        self, body: bytes, status: int = 200, kind: bytes = JSON, head: bytes = b""
    ) -> None:
        super().__init__(status=status)
        self.content = body
        self.kind = kind
        self.head = head

    @property
    def prepared(self) -> bool:
        """True once the head is written."""
        return self._eof_sent

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Writes everything; waits only when the client reads more slowly than we write."""
        if self._eof_sent:
            return None
        self._eof_sent = True
        keep_alive = request.keep_alive
        self._keep_alive = keep_alive
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        body = self.content
        parts = [
            head_bytes(self.status, self.kind, self.head),
            b"Date: %b\r\nContent-Length: %d\r\n"
            % (rfc822_formatted_time().encode("ascii"), len(body)),
        ]
        if not keep_alive:
            parts.append(b"Connection: close\r\n")
        elif request.version < (1, 1):
            parts.append(b"Connection: keep-alive\r\n")
        parts.append(b"\r\n")
        if request.method != "HEAD":
            parts.append(body)
        transport.write(b"".join(parts))
        if request.protocol.writing_paused:
            await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


def head_bytes(status: int, kind: bytes, head: bytes) -> bytes:
    """The head of an answer up to where `Date` and `Content-Length` follow.

    Args:
        status: HTTP status.
        kind: Content-Type; b"": none, as for an answer without a body.
        head: Further header lines, each ended by CRLF.
    """
    return b"%b%bVary: Accept-Encoding\r\n%b" % (
        _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status,
        b"Content-Type: %b\r\n" % kind if kind else b"",
        head,
    )


def header(name: str, value: str) -> bytes:
    """A header line for `Reply.head`; what a value must not hold is replaced."""
    return f"{name}: {header_value(value)}\r\n".encode("latin-1")


def header_value(text: str) -> str:
    """A text as a header may carry it: what is not Latin-1, or a control, becomes "?"."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() and char <= "\xff" else "?" for char in text)


def wants_gzip(request: web.BaseRequest) -> bool:
    """Tells whether the client takes gzip."""
    accepted = request.headers.get("Accept-Encoding")
    return accepted is not None and takes_gzip(accepted)


def takes_gzip(accepted: str) -> bool:
    """Reads an Accept-Encoding."""
    for item in accepted.split(","):
        coding, _, weight = item.partition(";")
        if coding.strip().lower() in {"gzip", "*"}:
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def gzip_bytes(body: bytes) -> bytes:
    """Compresses fast rather than well (level 1); the header holds no time, so it is repeatable."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


GZIP_HEAD = b"Content-Encoding: gzip\r\n"


def json_reply(
    request: web.BaseRequest, body: bytes, head: bytes = b"", status: int = 200
) -> Reply:
    """A JSON body, compressed when it is worth it and the client takes it."""
    if len(body) >= GZIP_BYTES_MIN and wants_gzip(request):
        return Reply(gzip_bytes(body), status, head=head + GZIP_HEAD)
    return Reply(body, status, head=head)


TRUE = b"true"
FALSE = b"false"
