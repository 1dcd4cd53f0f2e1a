"""The form of a request that the short way is sure of: pure, and strict rather than complete.

A head is read in two parts, its request line and the block of its fields, since clients send the
same block again and again: both parts are kept as keys of tables (`raftreg.http.wire.road`).

What is read here is a subset of HTTP/1.1 (RFC 9112) on which no two parsers differ: CRLF alone ends
lines, nothing is folded, no octet is outside printable ASCII, the body's length is given by at most
one Content-Length of plain digits. For everything else these functions give None, which means:
*where this request ends is not for us to say*, and the connection belongs to aiohttp from there on
(RFC 9112, section 11.2, on what comes of two readers that disagree).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from raftreg.http.reply import takes_gzip

#: A head up to here may be short; a longer one is aiohttp's, which has its own limits.
HEAD_BYTES_MAX: Final = 8000
FIELDS_MAX: Final = 64
_LENGTH_DIGITS_MAX: Final = 10

_LINE = re.compile(rb"(GET|PUT|HEAD|DELETE|POST|OPTIONS|PATCH) (/[!-~]*) HTTP/1\.1")
_PART_OF_LINE = re.compile(rb"[A-Z]{1,7}(?: (?:/[!-~]*(?: [A-Z0-9./]*\r?)?)?)?")
_PART_OF_FIELD = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?::[\t -~]*)?)?\r?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*([\t -~]*)")

#: These change what a request is, or where it ends.
_NOT_OURS: Final = frozenset(
    {b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer", b"http2-settings"}
)
#: These change nothing about an answer of the short way. What is not named here takes the plain
#: road: a field that means something some day (a token, a condition) is never passed over.
_IDLE: Final = frozenset(
    {
        b"accept-charset",
        b"accept-language",
        b"content-type",
        b"dnt",
        b"forwarded",
        b"keep-alive",
        b"origin",
        b"priority",
        b"referer",
        b"traceparent",
        b"tracestate",
        b"user-agent",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    }
)


class Line(msgspec.Struct, frozen=True, gc=False):
    """A request line: method and target, as they were sent."""

    method: bytes
    path: bytes
    query: bytes


class Fields(msgspec.Struct, frozen=True, gc=False):
    """What the fields of a head say.

    Attributes:
        length_bytes: Length of the body.
        gzip: The client takes gzip.
        short: No field asks for more than the short way gives.
    """

    length_bytes: int
    gzip: bool
    short: bool


def read_line(line: bytes) -> Line | None:
    """Reads a request line without its CRLF; None when it is not of the form above."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    path, _, query = found[2].partition(b"?")
    return Line(found[1], path, query)


def may_become(data: bytes) -> bool:
    """Tells whether bytes without the end of a head may still become one of the form above.

    What can't is handed on at once: aiohttp says early what is wrong.
    """
    line, whole, rest = data.partition(b"\r\n")
    if not whole:
        return _PART_OF_LINE.fullmatch(line) is not None
    *fields, part = rest.split(b"\r\n")
    return (
        read_line(line) is not None
        and _PART_OF_FIELD.fullmatch(part) is not None
        and all(_FIELD.fullmatch(field) for field in fields)
    )


def read_fields(block: bytes) -> Fields | None:
    """Reads the fields of a head; None when it is not of the form above.

    Args:
        block: From the CRLF that ends the request line to the empty line, both included.
    """
    fields: dict[bytes, bytes] = {}
    lines = block[2:-4].split(b"\r\n")
    if len(lines) > FIELDS_MAX:
        return None
    short = True
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            return None
        name = found[1].lower()
        if name in fields:
            if name in {b"host", b"content-length", b"connection"}:
                return None
            short = False
        fields[name] = found[2].strip(b"\t ")
    return _meaning(fields, short=short)


def _meaning(fields: dict[bytes, bytes], *, short: bool) -> Fields | None:
    """What these fields ask for together."""
    length = fields.pop(b"content-length", b"0")
    if not (length.isdigit() and len(length) <= _LENGTH_DIGITS_MAX):
        return None
    if not fields.pop(b"host", b"") or not _NOT_OURS.isdisjoint(fields):
        return None
    if fields.pop(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    coding = fields.pop(b"accept-encoding", None)
    if b"event-stream" in fields.pop(b"accept", b"").lower():
        short = False
    return Fields(
        length_bytes=int(length),
        gzip=coding is not None and takes_gzip(coding.decode("ascii")),
        short=short and _IDLE.issuperset(fields),
    )
