"""Who asks: what an agent says of a request that it hands on, and what a server reads from it."""

from __future__ import annotations

from aiohttp import web

AGENT_HEADER = "X-Raftreg-Agent"
FORWARDED_HEADER = "X-Forwarded-For"


def agent_of(request: web.BaseRequest) -> str:
    """Node of the agent that handed a request on; "" when it came at once."""
    return request.headers.get(AGENT_HEADER, "")


def address_of(request: web.BaseRequest) -> str:
    """IP address that a question came from: what a proxy says of it comes first, as in Consul."""
    forwarded = request.headers.get(FORWARDED_HEADER, "").partition(",")[0].strip()
    return forwarded or request.remote or ""


def said_of(request: web.BaseRequest, node: str) -> dict[str, str]:
    """Headers by which an agent says who asked it.

    Args:
        request: What it was asked.
        node: Its own node.
    """
    address = address_of(request)
    said = {AGENT_HEADER: agent_of(request) or node}
    return said | ({FORWARDED_HEADER: address} if address else {})
