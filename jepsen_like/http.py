"""The real door: HTTP and DNS to real processes, one attempt each.

Every request has a connection of its own. So what a failure means is known: until the connection
stands nothing can have left (`NotSent`); from then on anything may have (`NoAnswer`). A kept
connection would blur that, since its server may have closed it already, and after a partition it
would wait for TCP's next retransmission instead of showing that the way is free again.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace, TracebackType
from typing import Self
from urllib.parse import urlencode

import aiohttp
import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import msgspec
from yarl import URL

from jepsen_like.door import Answer, NoAnswer, NotSent

ANSWER_BYTES_MAX = 64 << 20
CONNECT_TIMEOUT_S = 1.0
_CHUNK_BYTES = 64 << 10
_UDP_PAYLOAD_BYTES = 4096
_NO_LINGER = struct.pack("ii", 1, 0)  # on, for 0 s
_ANSWERED = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})


class Endpoint(msgspec.Struct, frozen=True):
    """Where one server or agent listens.

    Attributes:
        address: IP address.
        http_port, dns_port: Its ports.
    """

    address: str
    http_port: int = 8500
    dns_port: int = 8600


class HttpDoor:
    """A `Door` over sockets; to be used as an asynchronous context manager.

    Args:
        endpoints: By name. It is read at every request, so it may grow during a run.
        connect_timeout_s: Longest wait for a connection, in seconds.
        answer_bytes_max: An answer with a longer body counts as none.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> None:
        self._endpoints = endpoints
        self._connect_timeout_s = connect_timeout_s
        self._answer_bytes_max = answer_bytes_max
        self._opened: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes what is open."""
        session, self._opened = self._opened, None
        if session is not None:
            await session.close()

    async def request(
        self,
        node: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 5.0,
    ) -> Answer:
        """See `Door.request`."""
        way = SimpleNamespace(connected=False)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._send(node, method, _target(path, params), headers, body, way)
                try:
                    return await self._read(node, answer)
                finally:
                    answer.close()
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise _failure(node, error, sent=way.connected) from error

    @asynccontextmanager
    async def stream(
        self, node: str, path: str, *, params: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `Door.stream`; an answer that is no success counts as not opened."""
        way = SimpleNamespace(connected=False)
        target = _target(path, params)
        try:
            async with asyncio.timeout(self._connect_timeout_s * 2):
                answer = await self._send(node, "GET", target, None, b"", way)
        except (aiohttp.ClientError, OSError) as error:
            raise NotSent(f"{node}: {_reason(error)}") from error
        try:
            if answer.status != 200:
                raise NotSent(f"{node}: the stream was refused with status {answer.status}")
            yield _chunks(answer)
        finally:
            answer.close()

    async def resolve(self, node: str, name: str, kind: str, timeout_s: float = 2.0) -> list[str]:
        """See `Door.resolve`: UDP, then TCP when the answer was cut. An unknown name has no
        records; any other failure that the server tells is no answer.
        """
        endpoint = self._endpoints[node]
        question = dns.message.make_query(name, kind, use_edns=0, payload=_UDP_PAYLOAD_BYTES)
        try:
            answer, _ = await dns.asyncquery.udp_with_fallback(
                question, endpoint.address, timeout=timeout_s, port=endpoint.dns_port
            )
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise NoAnswer(f"{node}: DNS: {_reason(error)}") from error
        if answer.rcode() not in _ANSWERED:
            raise NoAnswer(f"{node}: DNS: {dns.rcode.to_text(answer.rcode())}")
        wanted = dns.rdatatype.from_text(kind)
        return sorted(
            record.to_text() for rows in answer.answer if rows.rdtype == wanted for record in rows
        )

    async def _send(
        self,
        node: str,
        method: str,
        target: str,
        headers: Mapping[str, str] | None,
        body: bytes,
        way: SimpleNamespace,
    ) -> aiohttp.ClientResponse:
        endpoint = self._endpoints[node]
        address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        return await self._session().request(
            method,
            URL(f"http://{address}:{endpoint.http_port}{target}", encoded=True),
            headers=headers,
            data=body if body or method in {"PUT", "POST"} else None,
            allow_redirects=False,
            middlewares=(_Once(),),
            trace_request_ctx=way,
        )

    async def _read(self, node: str, answer: aiohttp.ClientResponse) -> Answer:
        body = bytearray()
        async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._answer_bytes_max:
                raise NoAnswer(f"{node}: the answer is over {self._answer_bytes_max} bytes")
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, headers, bytes(body))

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            trace = aiohttp.TraceConfig()
            trace.on_connection_create_end.append(_connected)
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, force_close=True, socket_factory=_abrupt_socket
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
                headers={"Accept-Encoding": "identity"},
                trace_configs=[trace],
            )
        return self._opened


class _Once:
    """Lets one request out once: aiohttp by itself would send PUT and DELETE again."""

    def __init__(self) -> None:
        self._sent = False

    async def __call__(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self._sent:
            raise aiohttp.ServerDisconnectedError("the connection broke")
        self._sent = True
        return await send(request)


async def _connected(
    session: aiohttp.ClientSession,
    context: SimpleNamespace,
    what: aiohttp.TraceConnectionCreateEndParams,
) -> None:
    del session, what
    context.trace_request_ctx.connected = True


def _abrupt_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that leaves nothing waiting when it is closed: thousands are opened a minute, and
    each would hold a local port for a minute more.
    """
    family, kind, protocol, *_ = info
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    return sock


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError):
        return  # however it ended, it has ended


def _target(path: str, params: Mapping[str, str] | None) -> str:
    """The path with the query; a flag without a value stands alone."""
    if not params:
        return path
    fields = (urlencode({name: value}) if value else name for name, value in params.items())
    return f"{path}?{'&'.join(fields)}"


def _failure(node: str, error: Exception, *, sent: bool) -> NotSent | NoAnswer:
    kind = NoAnswer if sent else NotSent
    return kind(f"{node}: {_reason(error)}")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
