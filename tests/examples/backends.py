"""Small HTTP services for proxies to find: each says its own name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def backend(name: str, address: str, port: int) -> AsyncIterator[None]:
    """Serves while the block runs: every path answers with the name, /metrics with a metric.

    Args:
        name: What it answers.
        address: Loopback address to listen on.
        port: TCP port.
    """

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/metrics"):
            return web.Response(text=f'backend_info{{name="{name}"}} 1\n')
        return web.Response(text=name)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        yield
    finally:
        await runner.cleanup()
