"""A way around the framework's router and middleware, for requests about keys.

It serves what the short way in front (`raftreg.http.wire`) leaves to the framework.

Finding a route, building its match info and chaining middleware costs more than reading a key. A
prefix registered here is recognised by comparing the raw path, and its handler is called directly
under the same rules for errors and counting (`answer_errors`). Everything else, also whatever is
unusual about such a request (another method, `Expect`, an absolute or escaped prefix), takes the
framework's way, where the same handlers are mounted as routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from raftreg.http.middleware import Handler, RequestMeter, answered

#: What `aiohttp.web.Server` calls for each request.
RequestHandler = Callable[[Any], Awaitable[web.StreamResponse]]


def express(
    prefix: str,
    route: str,
    handlers: Mapping[str, Handler],
    otherwise: RequestHandler,
    meter: RequestMeter,
    now: Callable[[], float],
) -> RequestHandler:
    """Makes the handler that replaces the application's own.

    Args:
        prefix: Raw paths that begin so are taken.
        route: Path pattern for the figures, as the router would name it.
        handlers: By method.
        otherwise: The application's handler.
        meter: Counts each answer.
        now: Monotonic seconds.
    """
    find = handlers.get

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.raw_path.startswith(prefix):
            handler = find(request.method)
            if handler is not None and "Expect" not in request.headers:
                return await answered(request, handler, route, meter, now)
        return await otherwise(request)

    return handle
