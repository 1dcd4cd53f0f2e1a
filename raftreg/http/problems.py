"""Errors as HTTP answers: text/plain, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aiohttp import web

from raftreg.errors import NoLeader, RaftregError

NO_LEADER_TEXT = "No cluster leader"
NOT_FOUND_TEXT = "404 page not found"
INTERNAL_ERROR_TEXT = "Internal error; the server's log tells more"


class NoPathToDatacenter(RaftregError):
    """Another datacenter was asked for; servers of several don't talk to each other."""

    code: ClassVar[str] = "no_path_to_datacenter"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 4


class AclDisabled(RaftregError):
    """What Consul answers to all of its access control while that is disabled."""

    code: ClassVar[str] = "acl_disabled"
    http_status: ClassVar[int] = 401
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str = "ACL support disabled") -> None:
        super().__init__(message)


class TooManyWatches(RaftregError):
    """So many blocking queries wait already that no more are taken."""

    code: ClassVar[str] = "too_many_watches"
    http_status: ClassVar[int] = 429
    exit_code: ClassVar[int] = 6


def check_datacenter(asked: str, own: str) -> None:
    """Lets requests for this datacenter pass ("" means this one).

    Raises:
        NoPathToDatacenter: It is another one.
    """
    if asked and asked != own:
        raise NoPathToDatacenter("No path to datacenter")


def text_response(text: str, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """A plain-text answer."""
    return web.Response(text=text, status=status, content_type="text/plain", headers=headers)


def problem(error: RaftregError, headers: Mapping[str, str] | None = None) -> web.Response:
    """The answer to a request that failed.

    `X-Raftreg-Error` names the kind of error for programs; an outcome that is unknown says in its
    text that the request may still take effect.
    """
    extra = dict(headers or {})
    extra["X-Raftreg-Error"] = error.code
    return text_response(problem_text(error), error.http_status, extra)


def problem_text(error: RaftregError) -> str:
    """What a client is told of an error."""
    text = NO_LEADER_TEXT if isinstance(error, NoLeader) else error.message
    if not error.definite and "may " not in text:
        text = f"{text}: the outcome is unknown, the write may still commit"
    return text


def method_not_allowed(method: str, allowed: set[str]) -> web.Response:
    """405 in the words that clients know."""
    return text_response(f"method {method} not allowed", 405, {"Allow": ",".join(sorted(allowed))})


def path_not_found() -> web.Response:
    """404 for a path that is not served at all."""
    return text_response(NOT_FOUND_TEXT, 404)
