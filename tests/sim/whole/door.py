"""The simulator's way to the cluster: raw HTTP/1.1 and DNS over simulated connections.

Like the real door it opens a connection a request, so that what a failure means is known: before
the connection stands nothing can have left, from then on anything may have.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype

from jepsen_like.door import Answer, NoAnswer, NotSent

_CONNECT_S = 1.0
_HTTP_PORT, _DNS_PORT = 8500, 8600


class _Exchange(asyncio.Protocol):
    """One request and its answer, which may be endless."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.head: asyncio.Future[tuple[int, dict[str, str]]] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.body = bytearray()
        self.arrived = asyncio.Event()
        self._request = request
        self._raw = bytearray()
        self._left: int | None = None
        self._chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._raw += data
        try:
            if not self.head.done():
                self._read_head()
            if self.head.done() and not self.head.cancelled():
                self._read_body()
        except ValueError as error:
            self._end(ConnectionAbortedError(f"the answer is no HTTP: {error}"))
        self.arrived.set()

    def _read_head(self) -> None:
        end = self._raw.find(b"\r\n\r\n")
        if end < 0:
            return
        status, *lines = self._raw[:end].decode("latin-1").split("\r\n")
        del self._raw[: end + 4]
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = int(headers.get("content-length", "0"))
        self.head.set_result((int(status.split(" ", 2)[1]), headers))

    def _read_body(self) -> None:
        if self._chunked:
            while self._read_chunk():
                pass
        else:
            self.body += self._raw
            self._raw.clear()
            assert self._left is not None
            if len(self.body) >= self._left:
                self._end(None)

    def _read_chunk(self) -> bool:
        line = self._raw.find(b"\r\n")
        if line < 0:
            return False
        size = int(bytes(self._raw[:line]).split(b";")[0], 16)
        if len(self._raw) < line + 2 + size + 2:
            return False
        self.body += self._raw[line + 2 : line + 2 + size]
        del self._raw[: line + 2 + size + 2]
        if size == 0:
            self._end(None)
        return size > 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionResetError("the server closed the connection"))

    def _end(self, error: Exception | None) -> None:
        for future in (self.head, self.ended):
            if future.done():
                continue
            if error is None:
                assert future is self.ended
                self.ended.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # somebody may have stopped waiting: it is told all the same
        self.arrived.set()


class SimDoor:
    """Implements `jepsen_like.door.Door` in a simulated process.

    Args:
        addresses: IP address by name; read at every request.
        now: Simulated time.
        told: Is told of each answer: path, body of the request, when it was sent, the answer.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        now: Callable[[], float],
        told: Callable[[str, bytes, float, Answer], None],
    ) -> None:
        self._addresses = addresses
        self._now = now
        self._told = told

    async def _open(self, node: str, request: bytes) -> tuple[asyncio.BaseTransport, _Exchange]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                return await loop.create_connection(
                    lambda: _Exchange(request), self._addresses[node], _HTTP_PORT
                )
        except TimeoutError:
            raise NotSent(f"{node}: no connection within {_CONNECT_S:g} s") from None
        except OSError as error:
            raise NotSent(f"{node}: {error.strerror or error}") from error

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
        raw = _request(node, method, path, params, headers, body)
        transport, sent_at = None, self._now()
        try:
            async with asyncio.timeout(timeout_s):
                transport, exchange = await self._open(node, raw)
                status, found = await exchange.head
                if method != "HEAD":
                    await exchange.ended
                answer = Answer(status, found, bytes(exchange.body))
                self._told(path, body, sent_at, answer)
                return answer
        except TimeoutError:
            if transport is None:
                raise NotSent(f"{node}: no connection in time") from None
            raise NoAnswer(f"{node}: no answer within {timeout_s:g} s") from None
        except OSError as error:
            raise NoAnswer(f"{node}: the connection broke: {error}") from error
        finally:
            if isinstance(transport, asyncio.Transport):
                transport.abort()

    @asynccontextmanager
    async def stream(
        self, node: str, path: str, *, params: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `Door.stream`."""
        transport, exchange = await self._open(node, _request(node, "GET", path, params, None, b""))
        assert isinstance(transport, asyncio.Transport)
        try:
            try:
                async with asyncio.timeout(5.0):
                    status, _ = await exchange.head
            except (TimeoutError, OSError) as error:
                raise NotSent(f"{node}: the stream did not begin: {error}") from error
            if status != 200:
                raise NotSent(f"{node}: the stream was refused with {status}")
            yield _pieces(exchange)
        finally:
            transport.abort()

    async def resolve(self, node: str, name: str, kind: str, timeout_s: float = 2.0) -> list[str]:
        """See `Door.resolve`."""
        loop = asyncio.get_running_loop()
        question = dns.message.make_query(name, kind, id=4711, use_edns=0, payload=4096)
        answered: asyncio.Future[bytes] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Asked(answered), remote_addr=(self._addresses[node], _DNS_PORT)
        )
        try:
            transport.sendto(question.to_wire())
            async with asyncio.timeout(timeout_s):
                reply = dns.message.from_wire(await answered)
        except TimeoutError:
            raise NoAnswer(f"{node}: no answer within {timeout_s:g} s") from None
        except (OSError, dns.exception.DNSException) as error:
            raise NoAnswer(f"{node}: {error}") from error
        finally:
            transport.close()
        if reply.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
            raise NoAnswer(f"{node}: {dns.rcode.to_text(reply.rcode())}")
        wanted = dns.rdatatype.from_text(kind)
        rows = [
            rdata.to_text() for found in reply.answer if found.rdtype == wanted for rdata in found
        ]
        return sorted(rows)


class _Asked(asyncio.DatagramProtocol):
    def __init__(self, answered: asyncio.Future[bytes]) -> None:
        self._answered = answered

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr
        if not self._answered.done() and struct.unpack("!H", data[:2])[0] == 4711:
            self._answered.set_result(data)


async def _pieces(exchange: _Exchange) -> AsyncIterator[bytes]:
    while True:
        if exchange.body:
            piece = bytes(exchange.body)
            exchange.body.clear()
            yield piece
        elif exchange.ended.done():
            return
        else:
            exchange.arrived.clear()
            await exchange.arrived.wait()


def _request(
    node: str,
    method: str,
    path: str,
    params: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
    body: bytes,
) -> bytes:
    query = "&".join(
        urlencode({key: value}) if value else key for key, value in (params or {}).items()
    )
    target = f"{path}?{query}" if query else path
    lines = [f"{method} {target} HTTP/1.1", f"Host: {node}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body or method in {"PUT", "POST"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
