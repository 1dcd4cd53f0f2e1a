"""One attempt at one server: aiohttp in, a `Response` or one of our errors out.

Nothing that writes is repeated here. aiohttp itself sends a PUT or DELETE again when the connection
breaks, and then shows only how the second one ended: a definite failure could hide a first one that
took effect. `_Once` forbids that, and what must not be sent twice gets a fresh connection, which no
server is about to close.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from raftreg.client.failures import BadAnswer, repeatable
from raftreg.errors import ConnectionLost, InvalidRequest, RaftregError, TooLarge, Unreachable

INDEX_HEADER = "X-Consul-Index"
TOKEN_HEADER = "X-Consul-Token"
SAFE_METHODS = frozenset({"GET", "HEAD"})
_READ_BYTES = 64 * 1024

Body = bytes | AsyncIterable[bytes] | None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it came.

    Attributes:
        status: HTTP status.
        headers: Headers; names in any letter case.
        body: The whole body.
        address: URL of the server that answered.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    address: str = ""

    @property
    def index(self) -> int:
        """`X-Consul-Index`; 0 when there is none or it is no number."""
        text = self.headers.get(INDEX_HEADER, "0")
        # isdecimal() alone would let other scripts' digits and endless numbers through.
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else 0

    def json(self, type_: Any = Any) -> Any:
        """Reads the body as JSON of a type.

        Raises:
            BadAnswer: It is not.
        """
        try:
            return msgspec.json.decode(self.body, type=type_, strict=True)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadAnswer(f"{self.address}: the answer is not what was asked: {error}") from error


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A request without its server. `path` is percent-encoded and starts with a slash."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    body: Any = None  # Body; msgspec knows no AsyncIterable
    idempotent: bool = False
    body_bytes_max: int = 64 * 1024 * 1024

    def may_repeat(self, error: RaftregError) -> bool:
        """Tells whether this may be sent again after that failure."""
        if isinstance(self.body, AsyncIterable) and not isinstance(error, Unreachable):
            return False  # some of it is gone
        return repeatable(error, idempotent=self.idempotent)

    def url(self, base: str) -> URL:
        """The URL at one server."""
        target = f"{base}{self.path}"
        return URL(f"{target}?{self.query}" if self.query else target, encoded=True)


def _keepalive_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket that notices within seconds that its peer's host is gone (blocking queries wait)."""
    family, kind, protocol, *_ = info
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 10_000),
    ):
        if hasattr(socket, option):  # not every system has them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock


class _Once:
    """Middleware of one request that lets it out once."""

    def __init__(self) -> None:
        self._sent = False

    async def __call__(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self._sent:
            raise aiohttp.ServerDisconnectedError("the server closed the connection")
        self._sent = True
        return await send(request)


class Wire:
    """The connections of a client.

    Args:
        connect_timeout_s: Seconds for name look-up and connect.
        connections_max: Connections in total; blocking queries hold one each.
        tls: Certificates for https addresses; None: the system's.
        session: A session to use instead of an own one; it stays open on `close`.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        connections_max: int,
        tls: SSLContext | None,
        session: aiohttp.ClientSession | None,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._connections_max = connections_max
        self._tls = tls
        self._given = session
        self._kept: aiohttp.ClientSession | None = session
        self._fresh: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes all connections."""
        for session in (self._kept, self._fresh):
            if session is not None and session is not self._given:
                await session.close()
        self._kept, self._fresh = self._given, None

    def _session(self, *, idempotent: bool) -> aiohttp.ClientSession:
        if idempotent:
            if self._kept is None:
                self._kept = self._open(force_close=False)
            return self._kept
        if self._fresh is None:
            self._fresh = self._open(force_close=True)
        return self._fresh

    def _open(self, *, force_close: bool) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._connections_max,
            force_close=force_close,
            ssl=True if self._tls is None else self._tls,
            socket_factory=_keepalive_socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
        )

    async def send(self, base: str, request: Outgoing) -> Response:
        """Sends one request, reads the whole answer, whatever its status.

        Raises:
            Unreachable: No connection; nothing was sent.
            ConnectionLost: The connection broke; it may have taken effect.
            BadAnswer: The answer is no HTTP.
            InvalidRequest: The request can't be sent (a line break in a header, say).
            TooLarge: The answer is over `body_bytes_max`.
        """
        async with self.open(base, request, silence_s=None) as answer:
            try:
                body = await _read(answer, request.body_bytes_max)
            except (aiohttp.ClientError, OSError) as error:
                raise failure_of(error, base) from error
            return Response(status=answer.status, headers=answer.headers, body=body, address=base)

    @asynccontextmanager
    async def open(
        self, base: str, request: Outgoing, *, silence_s: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Sends one request and gives the answer with its body unread.

        Args:
            base: URL of the server.
            request: What to send.
            silence_s: Longest wait for the next bytes, in seconds.
        """
        session = self._session(idempotent=request.idempotent)
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._connect_timeout_s, sock_read=silence_s
        )
        try:
            answer = await session.request(
                request.method,
                request.url(base),
                headers=request.headers,
                data=request.body,
                allow_redirects=False,
                timeout=timeout,
                middlewares=() if request.method in SAFE_METHODS else (_Once(),),
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise failure_of(error, base) from error
        try:
            yield answer
        finally:
            # A body that was read to its end has given its connection back already.
            answer.close()


async def _read(answer: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    if (answer.content_length or 0) > bytes_max:
        raise TooLarge(f"the answer has {answer.content_length} bytes, the limit is {bytes_max}")
    body = bytearray()
    async for chunk in answer.content.iter_chunked(_READ_BYTES):
        body += chunk
        if len(body) > bytes_max:
            raise TooLarge(f"the answer is over the limit of {bytes_max} bytes")
    return bytes(body)


def failure_of(error: Exception, base: str) -> RaftregError:
    """Gives our error for one of aiohttp's; the question is whether anything was sent."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Unreachable(f"{base}: {_reason(error)}")
    if isinstance(error, ValueError):
        return InvalidRequest(f"this request can't be sent: {error}")
    if isinstance(error, aiohttp.ClientResponseError):
        return BadAnswer(f"{base}: what listens there does not speak HTTP: {_reason(error)}")
    return ConnectionLost(f"{base}: the connection broke: {_reason(error)}")


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return os.strerror(number).lower() if number else str(error.os_error)
    if isinstance(error, asyncio.TimeoutError):
        return "nothing was heard in time"
    return str(error) or type(error).__name__
