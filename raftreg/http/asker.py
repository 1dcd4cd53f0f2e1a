"""Who asks: what an agent says of a request that it hands on, and what a server reads from it."""

from __future__ import annotations

from urllib.parse import unquote

from aiohttp import web

from raftreg.http.reply import AGENT_HEADER

FORWARDED_HEADER = "X-Forwarded-For"


def agent_of(request: web.BaseRequest) -> str:
    """Node of the agent that handed a request on; "" when it came at once."""
    return unquote(request.headers.get(AGENT_HEADER, ""))


def address_of(request: web.BaseRequest) -> str:
    """IP address that a question came from: what a proxy says of it comes first, as in Consul."""
    forwarded = request.headers.get(FORWARDED_HEADER, "").partition(",")[0].strip()
    return forwarded or request.remote or ""
