"""Keeps one wanted address connected: dials, waits for the hello, dials again when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable

from raftreg.errors import RaftregError
from raftreg.raft.connection import Connection, Disconnected
from raftreg.raft.peers import Address, TransportLimits
from raftreg.raft.security import AuthenticationFailed, HandshakeTimeout


class SelfConnected(RaftregError):
    """The address leads to this server itself."""


class Redundant(RaftregError):
    """The peer at this address is already connected by another address."""


class Dialler:
    """One wanted address.

    Args:
        address: where to dial.
        limits: see `TransportLimits`.
        make_connection: gives a fresh dialling side for this dialler.
        tls_context: gives the context for a new connection, None without TLS.
        is_redundant: whether the peer that answered here last is connected by another address.
        give_up: closes a connection for an error and reports it.
        clock: seconds, monotonic.
        rng: source of the jitter.

    Attributes:
        connection: the connection or attempt of the moment.
        peer_id: who answered here last; None before the first answer.
    """

    def __init__(
        self,
        *,
        address: Address,
        limits: TransportLimits,
        make_connection: Callable[[Dialler], Connection],
        tls_context: Callable[[], ssl.SSLContext | None],
        is_redundant: Callable[[Dialler], bool],
        give_up: Callable[[Connection, str, RaftregError], None],
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.address = address
        self.connection: Connection | None = None
        self.peer_id: str | None = None
        self.task: asyncio.Task[None] | None = None
        self._limits = limits
        self._make_connection = make_connection
        self._tls_context = tls_context
        self._is_redundant = is_redundant
        self._give_up = give_up
        self._clock = clock
        self._rng = rng
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Ends the present pause: there is reason to believe that a dial succeeds now."""
        self._woken.set()

    def stop(self, reason: RaftregError) -> None:
        """Closes the connection, after what is queued on it, and dials no more."""
        if self.task is not None:
            self.task.cancel()
        if self.connection is not None:
            self.connection.close(reason)

    async def run(self) -> None:
        """Dials for ever; returns when the address turns out to be this server's own."""
        failures = 0
        while True:
            if self._is_redundant(self):
                await self._pause(self._limits.backoff_s_max)
                continue
            began_s = self._clock()
            error = await self._hold_connection()
            if isinstance(error, SelfConnected):
                return
            # A peer that accepts and hangs up at once must not be dialled in a tight loop.
            lasted = self._clock() - began_s >= self._limits.backoff_s_max
            failures = 0 if lasted and isinstance(error, Disconnected) else failures + 1
            await self._pause(self._backoff_s(failures))

    def _backoff_s(self, failures: int) -> float:
        doubled_s = self._limits.backoff_s_min * 2.0 ** min(max(failures - 1, 0), 16)
        return min(doubled_s, self._limits.backoff_s_max) * self._rng.uniform(0.5, 1.0)

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._woken.wait()
        self._woken.clear()

    async def _hold_connection(self) -> RaftregError | None:
        """Dials once; if that succeeds, returns when the connection is lost. Gives the error."""
        connection = self.connection = self._make_connection(self)
        try:
            await self._connect(connection)
            # Not awaited itself: cancelling this task must not cancel the future.
            await asyncio.wait((connection.closed,))
        except asyncio.CancelledError:
            # One that `stop` is closing may still send what is queued.
            if connection.error is None or not connection.was_made:
                self._give_up(connection, "", Disconnected("no longer wanted"))
            raise
        except RaftregError as error:
            self._give_up(connection, str(self.address), error)
        finally:
            self.connection = None
        return connection.error

    async def _connect(self, connection: Connection) -> None:
        """Returns when the hellos are accepted, or the connection was closed over them.

        Raises:
            Disconnected: nobody listens, or the host can't be reached.
            HandshakeTimeout: somebody listens and does not go on.
            AuthenticationFailed: the TLS handshake failed.
        """
        limits = self._limits
        context = self._tls_context()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limits.connect_s_max):
                await loop.create_connection(
                    lambda: connection, self.address.host, self.address.port, ssl=context
                )
        except TimeoutError:
            raise Disconnected(f"not connected within {limits.connect_s_max} s") from None
        except ssl.SSLError as error:
            raise AuthenticationFailed(f"TLS: {error}") from error
        except (OSError, OverflowError, UnicodeError) as error:
            raise Disconnected(f"cannot connect: {error}") from error
        try:
            async with asyncio.timeout(limits.handshake_s_max):
                await connection.established
        except TimeoutError:
            raise HandshakeTimeout(f"no hello within {limits.handshake_s_max} s") from None
