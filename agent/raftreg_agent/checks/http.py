"""HTTP checks: 2xx is passing, 429 a warning, everything else critical (Consul's rule)."""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus

import aiohttp

from raftreg.http.decode import CheckDefinition
from raftreg.model import Status
from raftreg_agent.checks.machine import CheckResult
from raftreg_agent.checks.runners import clipped, critical, output_bytes_max, reason, timeout_s

REDIRECTS_MAX = 10
USER_AGENT = "raftreg Health Check"


def tls_context(check: CheckDefinition) -> ssl.SSLContext:
    """TLS of a probe; `tls_skip_verify` turns the verification off, as the definition asks."""
    context = ssl.create_default_context()
    if check.tls_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class HttpRunner:
    """Asks a URL and judges the status. Redirects are followed, as Consul does.

    Each probe opens its own connection: what is checked is whether a new client is served.
    """

    def __init__(self) -> None:
        self._contexts: dict[bool, ssl.SSLContext] = {}

    async def run(self, check: CheckDefinition) -> CheckResult:
        """See `Runner`."""
        try:
            async with asyncio.timeout(timeout_s(check)):
                return await self._ask(check)
        except TimeoutError:
            return critical(
                f"{_method(check)} {check.url}: no answer in {timeout_s(check):g}s", check
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return critical(f"{_method(check)} {check.url}: {reason(error)}", check)

    async def _ask(self, check: CheckDefinition) -> CheckResult:
        connector = aiohttp.TCPConnector(force_close=True, limit=1)
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.request(
                _method(check),
                check.url,
                headers=_headers(check),
                data=check.body.encode() if check.body else None,
                ssl=self._context(check),
                server_hostname=check.tls_server_name or None,
                max_redirects=REDIRECTS_MAX,
            ) as answer,
        ):
            body = await _read_at_most(answer.content, output_bytes_max(check))
        phrase = answer.reason or _phrase(answer.status)
        text = f"HTTP {_method(check)} {check.url}: {answer.status} {phrase} Output: "
        shown = text + body.decode("utf-8", "replace")
        return CheckResult(_judge(answer.status), clipped(shown, check))

    def _context(self, check: CheckDefinition) -> ssl.SSLContext:
        # Loading the system's certificates takes tens of milliseconds; two contexts serve all.
        if check.tls_skip_verify not in self._contexts:
            self._contexts[check.tls_skip_verify] = tls_context(check)
        return self._contexts[check.tls_skip_verify]


def _method(check: CheckDefinition) -> str:
    return check.method or "GET"


def _headers(check: CheckDefinition) -> list[tuple[str, str]]:
    """Header lines; the definition's own come last and replace ours."""
    given = [(name, value) for name, values in check.headers.items() for value in values]
    names = {name.lower() for name, _ in given}
    ours = [("User-Agent", USER_AGENT), ("Accept", "text/plain, text/*, */*")]
    return [(name, value) for name, value in ours if name.lower() not in names] + given


async def _read_at_most(stream: aiohttp.StreamReader, size_max: int) -> bytes:
    parts = bytearray()
    while len(parts) < size_max:
        part = await stream.read(size_max - len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)


def _judge(status: int) -> Status:
    if 200 <= status < 300:
        return Status.PASSING
    return Status.WARNING if status == HTTPStatus.TOO_MANY_REQUESTS else Status.CRITICAL


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
