"""Servers for the client's tests: scripted ones that misbehave, and a small registry."""

from __future__ import annotations

import asyncio
import base64
import itertools
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from aiohttp import web

from raftreg.client import Backoff, RegistryClient

HOST = "127.0.0.1"
NOBODY = f"{HOST}:1"  # nothing listens there
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A server that answers by a script; the last step of the script answers for ever.

    Attributes:
        requests: (method, path with query, headers, body) of each request, as they came.
        came: Is set once there is one.
    """

    def __init__(self, *script: Handler) -> None:
        self._script = list(script)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.address = ""
        self.came = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Takes the next step."""
        body = await request.read()
        self.requests.append((request.method, request.raw_path, dict(request.headers), body))
        self.came.set()
        step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        return await step(request)

    def request_ids(self) -> list[str]:
        """The request ids that came."""
        return [headers.get("X-Raftreg-Request-Id", "") for _, _, headers, _ in self.requests]


def says(value: Any, *, status: int = 200, index: int = 1) -> Handler:
    """Answers with JSON."""

    async def handler(request: web.Request) -> web.StreamResponse:
        del request
        headers = {"X-Consul-Index": str(index)} if index else {}
        return web.json_response(value, status=status, headers=headers)

    return handler


def fails(status: int, text: str, code: str = "") -> Handler:
    """Answers with an error."""

    async def handler(request: web.Request) -> web.StreamResponse:
        del request
        headers = {"X-Raftreg-Error": code} if code else {}
        return web.Response(status=status, text=text, headers=headers)

    return handler


async def drops(request: web.Request) -> web.StreamResponse:
    """Breaks the connection after the request was read."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hangs(request: web.Request) -> web.StreamResponse:
    """Never answers."""
    del request
    await asyncio.get_running_loop().create_future()
    raise AssertionError("a future that nobody sets was set")


async def babbles(request: web.Request) -> web.StreamResponse:
    """Answers what is no HTTP."""
    assert request.transport is not None
    request.transport.write(b"220 mail.example.org ESMTP\r\n\r\n")
    request.transport.close()
    return web.Response()


def frames(*payloads: bytes, tail: bytes = b"", then: Handler | None = None) -> Handler:
    """Streams frames, then `tail`, then ends or goes on with another handler."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for payload in payloads:
            await response.write(struct.pack("!I", len(payload)) + payload)
        await response.write(tail)
        if then is not None:
            await then(request)
        return response

    return handler


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """Serves every path by a handler; gives "host:port"."""
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    try:
        yield f"{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(*script: Handler) -> AsyncIterator[Server]:
    """A scripted server."""
    server = Server(*script)
    async with listening(server.handle) as address:
        server.address = address
        yield server


def client_of(*addresses: str, **options: Any) -> RegistryClient:
    """A client that does not wait long and asks servers in the order given."""
    options.setdefault("backoff", Backoff(first_s=0.001, max_s=0.01))
    return RegistryClient(addresses, rng=InOrder(5), **options)


class InOrder(Random):
    """Chance that leaves the order of servers as it is."""

    def shuffle(self, x: Any) -> None:
        """Does nothing."""


class Registry:
    """A registry of one process: KV with locks and sessions, blocking queries, one agent.

    Attributes:
        delayed: Keys in their lock delay.
        renewals: How often sessions were renewed.
        services: What is registered with the agent.
        beats: Paths of reports of TTL checks.
    """

    def __init__(self) -> None:
        self.index = 1
        self.kv: dict[str, dict[str, Any]] = {}
        self.sessions: set[str] = set()
        self.delayed: set[str] = set()
        self.renewals = 0
        self.services: dict[str, Any] = {}
        self.beats: list[str] = []
        self._ids = itertools.count(1)
        self.changed = asyncio.Condition()

    async def change(self) -> None:
        """Counts a change and wakes everyone."""
        async with self.changed:
            self.index += 1
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition on this registry holds."""
        async with self.changed:
            await self.changed.wait_for(condition)

    async def end_session(self, session: str) -> None:
        """Invalidates a session: its keys become free."""
        self.sessions.discard(session)
        for entry in self.kv.values():
            if entry.get("Session") == session:
                del entry["Session"]
                entry["ModifyIndex"] = self.index + 1
        await self.change()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers a request."""
        _, _, noun, rest = request.path.split("/", 3)
        found: web.StreamResponse = await getattr(self, f"_{noun}")(request, rest)
        return found

    async def _session(self, request: web.Request, rest: str) -> web.StreamResponse:
        verb, _, session = rest.partition("/")
        if verb == "create":
            session = f"session-{next(self._ids)}"
            self.sessions.add(session)
            await self.change()
            return web.json_response({"ID": session})
        if verb == "destroy":
            await self.end_session(session)
            return web.json_response(True)
        self.renewals += 1
        await self.change()
        if session not in self.sessions:
            return web.Response(status=404, text=f"Session id '{session}' not found")
        return web.json_response([{"ID": session, "TTL": "10s"}])

    async def _kv(self, request: web.Request, key: str) -> web.StreamResponse:
        if request.method == "GET":
            return await self._get(request, key)
        taken = self._put(request.query, key, await request.read())
        if taken is None:
            return web.Response(status=500, text="invalid session")
        await self.change()
        return web.json_response(taken)

    async def _get(self, request: web.Request, key: str) -> web.StreamResponse:
        asked = int(request.query.get("index", 0))
        await self.until(lambda: self.index > asked)
        headers = {"X-Consul-Index": str(self.index)}
        entry = self.kv.get(key)
        if entry is None:
            return web.Response(status=404, headers=headers)
        return web.json_response([entry], headers=headers)

    def _put(self, query: Any, key: str, body: bytes) -> bool | None:
        entry = self.kv.get(key, {"Key": key, "CreateIndex": self.index + 1, "LockIndex": 0})
        acquire, release = query.get("acquire"), query.get("release")
        holder = entry.get("Session")
        if acquire is not None:
            if acquire not in self.sessions:
                return None
            if holder not in (None, acquire) or key in self.delayed:
                return False
            entry["LockIndex"] += holder is None
            entry["Session"] = acquire
        if release is not None:
            if holder != release:
                return False
            del entry["Session"]
        entry["Value"] = base64.b64encode(body).decode()
        entry["Flags"] = int(query.get("flags", 0))
        entry["ModifyIndex"] = self.index + 1
        self.kv[key] = entry
        return True

    async def _agent(self, request: web.Request, rest: str) -> web.StreamResponse:
        if rest == "service/register":
            body = await request.json()
            self.services[body.get("ID") or body.get("Name") or body["name"]] = body
        elif rest.startswith("service/deregister/"):
            self.services.pop(rest.rpartition("/")[2], None)
        else:
            self.beats.append(rest)
            if not self.services:
                return web.Response(status=404, text="Unknown check")
        await self.change()
        return web.Response()
