"""TCP and UDP checks: is somebody there?"""

from __future__ import annotations

import asyncio
import contextlib

from raftreg.config import split_host_port
from raftreg.errors import ConfigurationError
from raftreg.http.decode import CheckDefinition
from raftreg.model import Status
from raftreg_agent.checks.machine import CheckResult
from raftreg_agent.checks.runners import critical, reason, timeout_s


def target(text: str) -> tuple[str, int]:
    """Reads "host:port".

    Raises:
        ConfigurationError: There is no host or no port.
    """
    host, port = split_host_port(text, 0)
    if port == 0:
        raise ConfigurationError(f"{text!r} is no address: write HOST:PORT")
    return host, port


class TcpRunner:
    """Passing when a connection can be opened within the timeout."""

    async def run(self, check: CheckDefinition) -> CheckResult:
        """See `Runner`."""
        try:
            host, port = target(check.tcp)
            async with asyncio.timeout(timeout_s(check)):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return critical(f"dial tcp {check.tcp}: no answer in {timeout_s(check):g}s", check)
        except (OSError, ConfigurationError, UnicodeError) as error:
            return critical(f"dial tcp {check.tcp}: {reason(error)}", check)
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()
        return CheckResult(Status.PASSING, f"TCP connect {check.tcp}: Success")


class _Answer(asyncio.DatagramProtocol):
    """Ends `done` with the first datagram, or with the ICMP error the system reports."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self._done = done

    def datagram_received(self, data: bytes, addr: object) -> None:
        del data, addr
        if not self._done.done():
            self._done.set_result(None)

    def error_received(self, exc: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(exc)


class UdpRunner:
    """Sends a datagram; critical when the host says that the port is closed.

    Silence is passing, as in Consul: most services answer only what they understand.
    """

    async def run(self, check: CheckDefinition) -> CheckResult:
        """See `Runner`."""
        try:
            await self._probe(check)
        except (OSError, ConfigurationError, UnicodeError) as error:
            return critical(f"UDP connect {check.udp}: {reason(error)}", check)
        return CheckResult(Status.PASSING, f"UDP connect {check.udp}: Success")

    async def _probe(self, check: CheckDefinition) -> None:
        host, port = target(check.udp)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Answer(done), remote_addr=(host, port)
        )
        try:
            transport.sendto(b"hello")
            # asyncio.wait does not raise on time: what silence means is decided above.
            await asyncio.wait((done,), timeout=timeout_s(check))
            if done.done():
                done.result()
        finally:
            transport.close()
