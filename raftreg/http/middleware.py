"""What every request passes through: errors become texts, and requests are counted.

One middleware does it all: each further one would cost another coroutine a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from raftreg.errors import RaftregError
from raftreg.http.problems import (
    INTERNAL_ERROR_TEXT,
    method_not_allowed,
    path_not_found,
    problem,
    text_response,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = structlog.get_logger(__name__)


class RequestMeter(Protocol):
    """Counts answers."""

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Takes note of one answered request.

        Args:
            route: Path pattern (`/v1/kv/{key}`), never the path itself: labels stay few.
            method: HTTP method.
            status: HTTP status.
            seconds: From the parsed head to the finished answer (waiting included).
        """
        ...


#: `request[UNTIMED] = True` keeps a blocking query's wait out of the latency figures.
UNTIMED = web.RequestKey("UNTIMED", bool)
#: `request[BEGUN] = response` says that the head of this long answer has been sent.
BEGUN = web.RequestKey("BEGUN", web.StreamResponse)


def answer_errors(meter: RequestMeter, now: Callable[[], float]) -> Middleware:
    """Makes the middleware.

    Args:
        meter: Counts each answer.
        now: Monotonic seconds.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await answered(request, handler, route_of(request), meter, now)

    return middleware


async def answered(
    request: web.Request,
    handler: Handler,
    route: str,
    meter: RequestMeter,
    now: Callable[[], float],
) -> web.StreamResponse:
    """Calls a handler; errors become answers, and the answer is counted.

    Args:
        request: Is passed to the handler.
        handler: Answers it.
        route: Path pattern, for the figures.
        meter: Counts the answer.
        now: Monotonic seconds.
    """
    start_s = now()
    status = 499  # the client went away
    try:
        response = await handler(request)
        status = response.status
    except RaftregError as error:
        response = problem(error)
        status = response.status
    except web.HTTPException as error:
        response = _framework_problem(request, error)
        status = response.status
    except asyncio.CancelledError:
        raise
    except ConnectionError:
        if BEGUN not in request:
            raise
        response = request[BEGUN]
    except Exception:  # noqa: BLE001 - the last line of defence; the fault is logged in full
        _log.exception("request_failed", method=request.method, path=request.path)
        response = text_response(INTERNAL_ERROR_TEXT, 500)
        status = 500
    finally:
        # Left out on purpose: the time that a blocking query waits is no latency.
        seconds = 0.0 if UNTIMED in request else now() - start_s
        meter.observe(route, request.method, status, seconds)
    begun = request.get(BEGUN)
    return response if begun is None or status < 400 else _broken_off(request, begun)


def _broken_off(request: web.Request, begun: web.StreamResponse) -> web.StreamResponse:
    """Breaks the connection: nothing else can tell that an answer begun is not whole.

    Another answer after the head of the first would be read as a piece of its body.
    """
    if request.transport is not None:
        request.transport.abort()
    return begun


def route_of(request: web.Request) -> str:
    """The pattern that matched, for labels."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


def _framework_problem(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """Aiohttp's own refusals, in the words that clients of this API know."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        return method_not_allowed(request.method, set(error.allowed_methods))
    if isinstance(error, web.HTTPNotFound):
        return path_not_found()
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return text_response(f"Request body too large: {error.text}", 413)
    return text_response(error.text or error.reason, error.status)
