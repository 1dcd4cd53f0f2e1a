"""The HTTP listener of a process: the short way in front of an aiohttp application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from raftreg.http.wire.connection import Connection
from raftreg.http.wire.road import ShortRoad

REQUEST_LINE_BYTES_MAX: Final = 64 * 1024  #: a key of 8 KiB with every byte escaped, and a query
LISTEN_BACKLOG: Final = 4096
SHUTDOWN_S: Final = 2.0
#: The front closes idle connections, since it alone knows which are.
_NEVER_S: Final = 10.0 * 365 * 24 * 3600
_SWEEPS_A_TERM: Final = 8
_SWEEP_MAX_S: Final = 5.0


class HttpListener:
    """Listens, and leads each connection down its road.

    Args:
        app: Answers what the short way does not.
        road: The short way; None leaves everything to aiohttp.
        now: Monotonic seconds.
        keepalive_s: Seconds after which a connection on which nothing moves is closed.

    Attributes:
        server: aiohttp's low-level server, once set up.
    """

    def __init__(
        self,
        app: web.Application,
        road: ShortRoad | None,
        now: Callable[[], float],
        keepalive_s: float,
    ) -> None:
        self.road = road or ShortRoad(())
        self.now = now
        self._short = road is not None
        self._keepalive_s = keepalive_s
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event = asyncio.Event()
        self._runner = web.AppRunner(
            app,
            access_log=None,
            # A client that goes away ends its blocking query, and is forgotten at once.
            handler_cancellation=True,
            keepalive_timeout=_NEVER_S if self._short else keepalive_s,
            max_line_size=REQUEST_LINE_BYTES_MAX,
            shutdown_timeout=SHUTDOWN_S,
        )

    @property
    def port(self) -> int:
        """Port that is listened on."""
        assert self._listener is not None
        return int(self._listener.sockets[0].getsockname()[1])

    @property
    def server(self) -> web.Server:
        """The low-level server of aiohttp, once set up."""
        server = self._runner.server
        assert server is not None
        return server

    async def setup(self) -> None:
        """Prepares the application; `server` is there then."""
        await self._runner.setup()

    async def listen(self, host: str, port: int) -> None:
        """Listens; port 0 takes any that is free.

        Raises:
            OSError: The address can't be listened on.
        """
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            self.protocol,
            host,
            port,
            backlog=LISTEN_BACKLOG,
            reuse_address=True,
        )
        if self._short:
            self._sweep_on()

    async def stop(self) -> None:
        """Takes no more connections, answers what is in hand, closes all."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.finish()
        try:
            async with asyncio.timeout(SHUTDOWN_S):
                while any(connection.busy for connection in self._connections):
                    self._drained.clear()
                    await self._drained.wait()
        except TimeoutError:
            pass
        await self._runner.cleanup()
        for connection in list(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def protocol(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return Connection(self) if self._short else self.server()

    # -- a `Front` -----------------------------------------------------------------------------

    def plain(self) -> RequestHandler:
        """See `Front.plain`."""
        return self.server()

    def opened(self, connection: Connection) -> None:
        """See `Front.opened`."""
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """See `Front.closed`."""
        self._connections.discard(connection)
        self._drained.set()

    def sweep(self) -> None:
        """Closes connections on which nothing has moved for too long."""
        now_s = self.now()
        for connection in list(self._connections):
            connection.sweep(now_s, self._keepalive_s)

    def _sweep_on(self) -> None:
        self.sweep()
        every_s = min(self._keepalive_s / _SWEEPS_A_TERM, _SWEEP_MAX_S)
        self._sweeper = asyncio.get_running_loop().call_later(every_s, self._sweep_on)
