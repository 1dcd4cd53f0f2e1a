"""Requests that this agent does not answer itself go to a server, and to the next one on failure.

Reads may be repeated. Writes are named by a request id, so that servers make a repetition take
effect once; a blocking query whose server dies is asked again at another. What comes back is handed
on as it came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import quote

import structlog
from aiohttp import web

from raftreg.client.api import ANY_STATUS, RegistryClient
from raftreg.client.http import Response
from raftreg.client.options import ParamValue
from raftreg.config import HttpLimits
from raftreg.errors import (
    ConnectionLost,
    InvalidRequest,
    NoLeader,
    RaftregError,
    TooLarge,
    UnknownOutcome,
    Unreachable,
)
from raftreg.http import json
from raftreg.http.asker import FORWARDED_HEADER, address_of
from raftreg.http.delta_streams import BEAT_S, relay, wants_events
from raftreg.http.discovery import query_of
from raftreg.http.middleware import BEGUN, UNTIMED
from raftreg.http.params import read_options
from raftreg.http.problems import TooManyWatches
from raftreg.http.reply import (
    AGENT_HEADER,
    GZIP_BYTES_MIN,
    GZIP_HEAD,
    Reply,
    gzip_bytes,
    header,
    wants_gzip,
)

KV_PREFIX = "/v1/kv/"
SNAPSHOT_PATH = "/v1/snapshot"
SESSION_PATH = "/v1/session/create"
SNAPSHOT_DEADLINE_S = 600.0
SNAPSHOT_SILENCE_S = 60.0
WATCHES_MAX = 4096
ANSWER_BYTES_MAX = 256 << 20
_CHUNK_BYTES = 64 * 1024
_STATUSES = frozenset(status.value for status in HTTPStatus)
_FORWARDED = frozenset(
    {
        "accept",
        "authorization",
        "content-type",
        "last-event-id",
        "x-consul-token",
        "x-raftreg-request-id",
    }
)
#: Belong to one connection (RFC 9110, section 7.6.1), or are written anew.
_NOT_HANDED_ON = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
    }
)

log = structlog.get_logger(__name__)


class ServerProxy:
    """Hands requests on to servers.

    Args:
        client: For requests that are answered at once.
        watch_client: For blocking queries; their connections must not use up the others'.
        limits: How long reads and writes may take, and how large a snapshot may be.
        node: Name of this host: a session that names no node is bound to the host it was asked of.
    """

    def __init__(
        self, client: RegistryClient, watch_client: RegistryClient, limits: HttpLimits, node: str
    ) -> None:
        self._node = node
        self._client = client
        self._watch_client = watch_client
        self._limits = limits
        self.watches = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers with what a server says.

        Raises:
            RaftregError: No server could answer.
        """
        if request.path == SNAPSHOT_PATH:
            return await self._snapshot(request)
        options = read_options(query_of(request))
        follows = wants_events(request) and _is_tree(request)
        if not options.index and not follows:
            return await self._ask(request, self._client, 0.0)
        with self._watch():
            request[UNTIMED] = True
            if follows:
                return await self._follow(request)
            return await self._ask(request, self._watch_client, options.wait_s)

    @contextmanager
    def _watch(self) -> Iterator[None]:
        """The place of one request that may wait long."""
        if self.watches >= WATCHES_MAX:
            raise TooManyWatches(f"{self.watches} blocking queries wait at this agent already")
        self.watches += 1
        try:
            yield
        finally:
            self.watches -= 1

    async def read(
        self, path: str, params: Mapping[str, ParamValue], wait_s: float = 0.0
    ) -> Response:
        """Asks a server on behalf of many; see `raftreg_agent.shared.Servers`.

        Raises:
            RaftregError: No server could answer; the text is for clients.
            TooManyWatches: It may wait long, and too many others do.
        """
        if not wait_s:
            return await self._read(self._client, path, params, 0.0)
        with self._watch():
            return await self._read(self._watch_client, path, params, wait_s)

    async def _read(
        self,
        client: RegistryClient,
        path: str,
        params: Mapping[str, ParamValue],
        wait_s: float,
    ) -> Response:
        try:
            return await client.request(
                "GET",
                path,
                params=params,
                headers={"Accept-Encoding": "identity"},
                deadline_s=self._limits.read_timeout_s + wait_s * 17 / 16,
                wait_s=wait_s,
                accept=ANY_STATUS,
                body_bytes_max=ANSWER_BYTES_MAX,
            )
        except RaftregError as error:
            raise _told(error, reads=True) from error

    async def _ask(
        self, request: web.Request, client: RegistryClient, wait_s: float
    ) -> web.StreamResponse:
        reads = request.method in {"GET", "HEAD"}
        limit_s = self._limits.read_timeout_s if reads else self._limits.write_timeout_s
        try:
            answer = await self._answer(request, client, limit_s, wait_s)
        except RaftregError as error:
            raise _told(error, reads=reads) from error
        return _reply(request, answer.status, answer.headers, answer.body)

    async def _answer(
        self, request: web.Request, client: RegistryClient, limit_s: float, wait_s: float
    ) -> Response:
        return await client.request(
            # The head of an answer tells how long its body is: that takes the body.
            "GET" if request.method == "HEAD" else request.method,
            _raw_path(request),
            params=_params(request),
            data=await self._body(request),
            headers=self._forwarded(request),
            # The server adds up to a sixteenth of the wait as jitter.
            deadline_s=limit_s + wait_s * 17 / 16,
            wait_s=wait_s,
            accept=ANY_STATUS,
            body_bytes_max=ANSWER_BYTES_MAX,
        )

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        """Hands on a stream of events; the client comes back when it ends."""
        try:
            async with self._watch_client.stream(
                _raw_path(request),
                params=_params(request),
                headers=self._forwarded(request),
                silence_s=3 * BEAT_S,
                deadline_s=self._limits.read_timeout_s,
            ) as stream:
                head = _handed_on(stream.headers)
                return await relay(request, head, aiter(stream))
        except RaftregError as error:
            raise _told(error, reads=True) from error

    async def _body(self, request: web.Request) -> bytes:
        body = await request.read()
        if request.path == SESSION_PATH and request.method == "PUT":
            return bound_session(body, self._node)
        return body

    def _forwarded(self, request: web.Request) -> dict[str, str]:
        kept = {k: value for k, value in request.headers.items() if k.lower() in _FORWARDED}
        # The hop to the server is short; what is compressed is compressed for the client alone.
        return kept | {
            "Accept-Encoding": "identity",
            AGENT_HEADER: quote(self._node),
            FORWARDED_HEADER: address_of(request),
        }

    # -- snapshots: too large to hold ----------------------------------------------------------

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return await self._save(request)
        answer = await self._client.request(
            request.method,
            _raw_path(request),
            params=_params(request),
            data=self._bounded(request),
            headers=self._forwarded(request),
            deadline_s=SNAPSHOT_DEADLINE_S,
            accept=ANY_STATUS,
        )
        return _reply(request, answer.status, answer.headers, answer.body)

    async def _save(self, request: web.Request) -> web.StreamResponse:
        async with self._client.stream(
            _raw_path(request),
            params=_params(request),
            headers=self._forwarded(request),
            silence_s=SNAPSHOT_SILENCE_S,
        ) as stream:
            response = web.StreamResponse(status=stream.status, headers=_handed_on(stream.headers))
            response.content_type = stream.headers.get("Content-Type", "application/octet-stream")
            await response.prepare(request)
            request[BEGUN] = response
            async for chunk in stream:
                await response.write(chunk)
            await response.write_eof()
            return response

    async def _bounded(self, request: web.Request) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
            size += len(chunk)
            if size > self._limits.snapshot_bytes_max:
                size_max = self._limits.snapshot_bytes_max
                raise TooLarge(f"a snapshot may have at most {size_max} bytes")
            yield chunk
        if request.content.exception() is not None:
            raise ConnectionLost("the snapshot was cut short")


def _told(error: RaftregError, *, reads: bool) -> RaftregError:
    """What a client is told: which server fails in which way is not its matter.

    Args:
        error: How the servers failed.
        reads: The request changes nothing: no failure of it leaves anything open.
    """
    log.info("request_not_answered", reason=error.message)
    if isinstance(error, Unreachable) or (reads and not error.definite):
        return NoLeader("No cluster leader")
    if not error.definite:
        return UnknownOutcome(error.message)
    return error


def bound_session(body: bytes, node: str) -> bytes:
    """The body of a session's creation with its node filled in.

    Args:
        body: As the client sent it; what can't be read stays as it is, a server says what is wrong.
        node: Name of this host.
    """
    try:
        fields = json.loads(body) if body.strip() else {}
    except InvalidRequest:
        return body
    if not isinstance(fields, dict) or any(
        isinstance(name, str) and name.lower() == "node" and fields[name] for name in fields
    ):
        return body
    return json.dumps({**{k: v for k, v in fields.items() if k.lower() != "node"}, "Node": node})


def _is_tree(request: web.Request) -> bool:
    return request.path.startswith(KV_PREFIX) and "recurse" in request.query


def _raw_path(request: web.Request) -> str:
    """The path as it was sent: what is escaped in a key must stay so."""
    return request.raw_path.partition("?")[0]


def _params(request: web.Request) -> Mapping[str, ParamValue]:
    return {name: request.query.getall(name) for name in request.query}


def _handed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_HANDED_ON}


def _reply(
    request: web.Request, status: int, headers: Mapping[str, str], body: bytes
) -> web.StreamResponse:
    kind = headers.get("Content-Type", "application/octet-stream")
    if status not in _STATUSES:
        return web.Response(status=status, body=body, content_type=kind.partition(";")[0])
    kind_bytes, head = handed_on_bytes(headers)
    if len(body) >= GZIP_BYTES_MIN and wants_gzip(request):
        body, head = gzip_bytes(body), head + GZIP_HEAD
    return Reply(body, status, kind_bytes, head)


def handed_on_bytes(headers: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Content-Type and further header lines of a server's answer, for ours."""
    kind = headers.get("Content-Type", "application/octet-stream")
    head = b"".join(header(name, value) for name, value in _handed_on(headers).items())
    return kind.encode("latin-1", "replace"), head
