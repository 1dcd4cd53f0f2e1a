"""`RegistryClient`: one call, many servers.

A call has a deadline. It is tried at the server that answered last, then at the others, then
again after a wait that grows, as long as a repetition is safe (see `failures.repeatable`): reads
and named writes always are, anything else only after a definite failure. What is raised at the
end says what the caller may assume: once an attempt may have taken effect, no later definite
failure of a repetition hides it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from random import Random, SystemRandom
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from raftreg.client.agent import AgentAPI
from raftreg.client.cluster import OperatorAPI, SnapshotAPI, StatusAPI, TxnAPI
from raftreg.client.coordinates import CoordinateAPI
from raftreg.client.discovery import CatalogAPI, HealthAPI
from raftreg.client.failures import classify, transient
from raftreg.client.holding import LockOptions
from raftreg.client.http import SAFE_METHODS, TOKEN_HEADER, Body, Outgoing, Response, Wire
from raftreg.client.kv import KVAPI
from raftreg.client.lock import Lock
from raftreg.client.options import Params
from raftreg.client.queries import QueryAPI
from raftreg.client.registration import registered
from raftreg.client.retry import AddressPool, Backoff
from raftreg.client.semaphore import Semaphore
from raftreg.client.sequence import REQUEST_ID_HEADER, RequestIds
from raftreg.client.sessions import SessionAPI
from raftreg.client.stream import Stream
from raftreg.client.watch import Change, watch
from raftreg.clock import Clock, SystemClock, new_id
from raftreg.errors import DeadlineExceeded, RaftregError, UnknownOutcome, Unreachable
from raftreg.model import Status

T = TypeVar("T")
_SUCCESS = range(200, 300)
ERROR_BODY_BYTES_MAX = 64 * 1024


class _Anything:
    """Accepts each status."""

    def __contains__(self, status: object) -> bool:
        return True


#: For `accept`: hand back every answer; only failures that may be repeated are still repeated.
ANY_STATUS: Container[int] = _Anything()

#: Time that a further attempt of a write must at least have left, in seconds.
LAST_ATTEMPT_S = 1.0


class _Call:
    """What the attempts of one call have shown so far."""

    def __init__(self, deadline_s: float, *, reads: bool) -> None:
        self.deadline_s = deadline_s
        self.asked = ""  # URL of the server whose answer is awaited
        self._reads = reads
        self._last: RaftregError | None = None
        self._indefinite: RaftregError | None = None

    @property
    def nothing_happened(self) -> bool:
        """True for a write of which it is certain, so far, that it did not take effect."""
        return not self._reads and self._last is not None and self._indefinite is None

    @property
    def last_attempt_s(self) -> float:
        """A write is not begun again with less time left: cut off, its fate would be open."""
        return min(LAST_ATTEMPT_S, self.deadline_s / 4)

    def failed(self, error: RaftregError) -> None:
        """Takes note of a failed attempt."""
        self.asked = ""
        self._last = error
        if not error.definite and not self._reads:
            self._indefinite = error

    def verdict(self) -> RaftregError:
        """The error to end with when no further attempt is possible."""
        if self._last is None:
            return Unreachable("no attempt could be made in time")
        if self._indefinite is None or self._indefinite is self._last:
            return self._last
        return UnknownOutcome(
            f"{self._indefinite.message}; it may have taken effect (last: {self._last.message})"
        )

    def timed_out(self) -> RaftregError:
        """The error to end with when the deadline passed."""
        if not self.asked or (self._reads and self._last is not None):
            return self.verdict()  # of a read, what failed before tells more
        before = f"; before: {self._last.message}" if self._last else ""
        return DeadlineExceeded(f"no answer within {self.deadline_s:g} s{before}")


class RegistryClient:
    """A client of servers or agents; an async context manager.

    Args:
        addresses: "host:port" (port 8500 when left out) or "http(s)://host:port", 1 to 64.
        token: Sent as `X-Consul-Token`.
        timeout_s: Deadline of a call that names none, in seconds, all its attempts together.
        attempt_timeout_s: Longest wait for one server before the next is asked, in seconds; for
            calls that may be repeated and only when there is another server.
        connect_timeout_s: Longest wait for a connection, in seconds.
        connections_max: Connections in total; each watch holds one.
        backoff: Waits between rounds over all servers.
        tls: Certificates for https; addresses without a scheme then mean https.
        clock: Source of time.
        rng: Source of jitter and of the order of servers.
        session: An aiohttp session to use; it is not closed.

    Raises:
        ConfigurationError: An address can't be read.
    """

    def __init__(  # noqa: PLR0913 (settings with defaults, by name)
        self,
        addresses: Sequence[str],
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        attempt_timeout_s: float = 3.0,
        connect_timeout_s: float = 1.0,
        connections_max: int = 1024,
        backoff: Backoff | None = None,
        tls: SSLContext | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.rng: Random = rng or SystemRandom()
        self.backoff = backoff or Backoff()
        self.timeout_s = timeout_s
        self._attempt_timeout_s = attempt_timeout_s
        self._tls = tls is not None
        self._pool = AddressPool(addresses, self.rng, tls=tls is not None)
        self._ids = RequestIds(new_id(rng))
        self._headers = {TOKEN_HEADER: token} if token else {}
        self._wire = Wire(
            connect_timeout_s=connect_timeout_s,
            connections_max=connections_max,
            tls=tls,
            session=session,
        )
        self.kv = KVAPI(self)
        self.catalog = CatalogAPI(self)
        self.health = HealthAPI(self)
        self.session = SessionAPI(self)
        self.query = QueryAPI(self)
        self.coordinate = CoordinateAPI(self)
        self.agent = AgentAPI(self)
        self.txn = TxnAPI(self)
        self.status = StatusAPI(self)
        self.operator = OperatorAPI(self)
        self.snapshot = SnapshotAPI(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all connections."""
        await self._wire.close()

    @property
    def last_good(self) -> str | None:
        """URL of the server that answered last, None when there is none."""
        return self._pool.last_good

    def add(self, address: str) -> None:
        """Makes one more server known; a known one is fine.

        Raises:
            ConfigurationError: The address can't be read, or there are too many.
        """
        self._pool.add(address, tls=self._tls)

    def distrust(self, address: str) -> None:
        """Asks this server (a URL as in `Response.address`) after the others for a while."""
        self._pool.failed(address, self.clock.monotonic())

    async def request(  # noqa: PLR0913 (one door, named arguments)
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        data: Body = None,
        headers: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
        deadline_s: float | None = None,
        wait_s: float = 0.0,
        accept: Container[int] = _SUCCESS,
        body_bytes_max: int = 64 * 1024 * 1024,
    ) -> Response:
        """Makes a call.

        Args:
            method: HTTP method.
            path: Percent-encoded path from "/v1/…" on.
            params: Query; None values are left out, lists repeat, "" is a bare flag.
            json: Body to send as JSON.
            data: Body to send as it is; an async iterable can't be sent twice.
            headers: Further headers. A request id among them is kept.
            idempotent: May be sent again although it may have taken effect. None: yes for GET
                and HEAD and for writes (they carry a request id); False keeps the id away.
            deadline_s: Seconds for all attempts; None: `timeout_s`, after `wait_s`.
            wait_s: Seconds for which the server may hold the answer back (a blocking query).
            accept: Statuses to hand back. All others are raised.
            body_bytes_max: Limit of the answer's body.

        Raises:
            RaftregError: By the answer (see `failures.classify`), or by the way it failed.
        """
        safe = method in SAFE_METHODS
        streamed = data is not None and not isinstance(data, bytes)
        repeat = (not streamed) if idempotent is None else idempotent
        outgoing = Outgoing(
            method=method,
            path=path,
            query=encode_params(params),
            headers={**self._headers, **(headers or {})},
            body=msgspec.json.encode(json) if json is not None else data,
            idempotent=repeat,
            body_bytes_max=body_bytes_max,
        )
        # The server adds up to a sixteenth of the wait as jitter.
        limit_s = self.timeout_s + wait_s * 17 / 16 if deadline_s is None else deadline_s
        call = _Call(limit_s, reads=safe)
        if safe or not repeat or REQUEST_ID_HEADER in outgoing.headers:
            return await self._attempts(outgoing, call, wait_s, accept)
        with self._ids.one() as request_id:
            named = msgspec.structs.replace(
                outgoing, headers={**outgoing.headers, REQUEST_ID_HEADER: request_id}
            )
            return await self._attempts(named, call, wait_s, accept)

    async def _attempts(
        self, request: Outgoing, call: _Call, wait_s: float, accept: Container[int]
    ) -> Response:
        try:
            async with asyncio.timeout(call.deadline_s) as scope:
                for round_number in itertools.count():
                    response = await self._round(request, call, wait_s, accept)
                    if response is not None:
                        return response
                    await self.pause(round_number)
                    left_s = (scope.when() or 0.0) - asyncio.get_running_loop().time()
                    if call.nothing_happened and left_s < call.last_attempt_s:
                        break
        except TimeoutError as error:
            if call.asked:
                self._pool.failed(call.asked, self.clock.monotonic(), silent=True)
            raise call.timed_out() from error
        raise call.verdict()

    async def _round(
        self, request: Outgoing, call: _Call, wait_s: float, accept: Container[int]
    ) -> Response | None:
        """Asks each server once; None: all failed in a way that allows another round."""
        for base in self._pool.order(self.clock.monotonic()):
            call.asked = base
            try:
                return await self._attempt(base, request, wait_s, accept)
            except RaftregError as error:
                call.failed(error)
                if not transient(error):
                    raise
                silent = isinstance(error, DeadlineExceeded)
                self._pool.failed(base, self.clock.monotonic(), silent=silent)
                if not request.may_repeat(error):
                    raise call.verdict() from error
        return None

    async def _attempt(
        self, base: str, request: Outgoing, wait_s: float, accept: Container[int]
    ) -> Response:
        limited = request.idempotent and len(self._pool) > 1
        limit_s = self._attempt_timeout_s + wait_s * 17 / 16 if limited else None
        try:
            async with asyncio.timeout(limit_s) as scope:
                response = await self._wire.send(base, request)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DeadlineExceeded(f"{base}: no answer within {limit_s:g} s") from error
        if response.status not in _SUCCESS:
            failure = classify(response.status, response.body, response.headers)
            if response.status not in accept or (accept is ANY_STATUS and transient(failure)):
                raise failure
        self._pool.succeeded(base)
        return response

    async def pause(self, round_number: int) -> None:
        """Waits by the backoff, after the failure of this number (from 0)."""
        await asyncio.sleep(self.backoff.delay_s(round_number, self.rng))

    def watch(
        self,
        path: str,
        decode: Callable[[Response], T],
        *,
        params: Params | None = None,
        accept: Container[int] = _SUCCESS,
        wait_s: float = 300.0,
        patience_s: float | None = None,
    ) -> AsyncGenerator[Change[T], None]:
        """Yields what a read answers now and after each change, for ever, over server failures.

        Intermediate states may be passed over, the newest one never is.

        Args:
            path: Percent-encoded path of a read that takes `?index`.
            decode: Makes the value of an answer.
            params: Its query.
            accept: Statuses that are values (404 for a key that is not there).
            wait_s: Seconds for which one query may wait, at most 600.
            patience_s: Seconds of failures in a row after which the last one is raised; None: it
                goes on trying for ever.

        Raises:
            RaftregError: A failure that asking again can't mend, or patience is over.
        """
        return watch(
            self,
            path,
            decode,
            params=params or {},
            accept=accept,
            wait_s=wait_s,
            patience_s=patience_s,
        )

    def lock(self, key: str, options: LockOptions | None = None) -> Lock:
        """Gives a lock on a key, to be entered with `async with`.

        The body is cancelled and `LockLost` raised when the lock is lost while it runs.
        """
        return Lock(self, key, options or LockOptions())

    def semaphore(self, prefix: str, limit: int, options: LockOptions | None = None) -> Semaphore:
        """Gives a semaphore under a prefix, to be entered with `async with`.

        The body is cancelled and `LockLost` raised when the permit is lost while it runs.

        Raises:
            InvalidRequest: The limit is below 1 or beyond all reason.
        """
        return Semaphore(self, prefix, limit, options or LockOptions())

    def registered(
        self, definition: Mapping[str, Any], *, health: Callable[[], Status] | None = None
    ) -> AbstractAsyncContextManager[str]:
        """Registers a service with the agent while a block runs, and deregisters it after.

        TTL checks in the definition are reported at a third of their TTL.

        Args:
            definition: Consul's JSON object of a service (Name, ID, Port, Check, …).
            health: What to report for TTL checks; None: passing.

        Returns:
            A context manager that gives the id of the instance.
        """
        return registered(self, definition, health=health)

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float | None = None,
        deadline_s: float | None = None,
    ) -> AsyncIterator[Stream]:
        """Opens a GET whose body has no end, or is too large to hold (view feed, snapshot).

        Servers are tried in order until one answers with success; after that nothing is repeated:
        a break is raised from the stream, and a new `stream` starts at another server.

        Args:
            path: Percent-encoded path.
            params: Query, as in `request`.
            headers: Further headers.
            silence_s: Longest wait for the next bytes, in seconds.
            deadline_s: Seconds until the answer's head must be there.

        Raises:
            RaftregError: No server answered with success; or, within the block, the break.
        """
        request = Outgoing(
            method="GET",
            path=path,
            query=encode_params(params),
            headers={**self._headers, **(headers or {})},
            idempotent=True,
        )
        call = _Call(self.timeout_s if deadline_s is None else deadline_s, reads=True)
        async with AsyncExitStack() as stack:
            stream = await self._open_stream(stack, request, call, silence_s)
            try:
                yield stream
            except RaftregError as error:
                if transient(error):
                    self._pool.failed(stream.address, self.clock.monotonic())
                raise

    async def _open_stream(
        self, stack: AsyncExitStack, request: Outgoing, call: _Call, silence_s: float | None
    ) -> Stream:
        try:
            async with asyncio.timeout(call.deadline_s):
                for round_number in itertools.count():
                    stream = await self._stream_round(stack, request, call, silence_s)
                    if stream is not None:
                        return stream
                    await self.pause(round_number)
        except TimeoutError as error:
            raise call.timed_out() from error
        raise call.verdict()

    async def _stream_round(
        self, stack: AsyncExitStack, request: Outgoing, call: _Call, silence_s: float | None
    ) -> Stream | None:
        for base in self._pool.order(self.clock.monotonic()):
            call.asked = base
            try:
                opened = self._wire.open(base, request, silence_s=silence_s)
                async with asyncio.timeout(self._attempt_timeout_s):
                    answer = await stack.enter_async_context(opened)
                    return await self._checked(Stream(answer, base, silence_s))
            except TimeoutError:
                call.failed(DeadlineExceeded(f"{base}: no answer"))
            except RaftregError as error:
                call.failed(error)
                if not transient(error):
                    raise
            self._pool.failed(base, self.clock.monotonic())
        return None

    async def _checked(self, stream: Stream) -> Stream:
        if stream.status in _SUCCESS:
            self._pool.succeeded(stream.address)
            return stream
        body = await stream.head(ERROR_BODY_BYTES_MAX)
        raise classify(stream.status, body, stream.headers)


def encode_params(params: Params | None) -> str:
    """Gives the query text; None is left out, a list repeats its name, "" is a bare flag."""
    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        if value is None:
            continue
        values = [value] if isinstance(value, str | int) else value
        pairs.extend((name, str(one)) for one in values)
    return urlencode(pairs, quote_via=quote)
