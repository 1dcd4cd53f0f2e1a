"""A small HTTP service for checks to look at, whose health a test decides."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web


class Target:
    """What a check sees.

    Attributes:
        url: Where.
        probes: How often it was asked.
    """

    def __init__(self) -> None:
        self.url = ""
        self.probes = 0
        self._healthy: Callable[[int], bool] = lambda _: True

    def answers(self, healthy: Callable[[int], bool]) -> None:
        """Decides each probe by its number, from 0."""
        counter = itertools.count()
        self._healthy = lambda _: healthy(next(counter))

    async def handle(self, request: web.Request) -> web.Response:
        """Answers a probe."""
        del request
        self.probes += 1
        return web.Response(status=200 if self._healthy(self.probes) else 503)


@asynccontextmanager
async def target() -> AsyncIterator[Target]:
    """A healthy target while the block runs."""
    found = Target()
    app = web.Application()
    app.router.add_get("/", found.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        yield found
    finally:
        await runner.cleanup()
