"""Accepts connections from peers, and bounds what strangers can occupy."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Final

from raftreg.errors import ConfigurationError, RaftregError
from raftreg.raft.connection import Connection, Disconnected
from raftreg.raft.peers import Address, TransportLimits
from raftreg.raft.security import AuthenticationFailed, HandshakeTimeout

_BACKLOG: Final = 256
_ACCEPT_RETRY_S: Final = 0.2
_ACCEPTED_AT_ONCE_MAX: Final = 32


class BindFailed(ConfigurationError):
    """The address to listen on can't be used."""

    code = "bind_failed"


class Crowded(RaftregError):
    """Too many inbound connections."""

    code = "crowded"
    http_status = 503


class Listener:
    """Owns the listening socket and each inbound connection until its hello is accepted.

    Accepting by hand instead of `loop.create_server` lets a TLS handshake count as an
    unauthenticated connection, so that it is bounded like the rest.

    Args:
        limits: see `TransportLimits`.
        make_connection: gives a fresh listening side.
        tls_context: gives the context for a new connection, None without TLS.
        inbound_count: gives the number of inbound connections, those in the making included.
        give_up: closes a connection for an error and reports it.
        refused: reports a connection that was never looked at, by its remote host.
        spawn: starts a task that the owner of this listener ends.
    """

    def __init__(
        self,
        *,
        limits: TransportLimits,
        make_connection: Callable[[], Connection],
        tls_context: Callable[[], ssl.SSLContext | None],
        inbound_count: Callable[[], int],
        give_up: Callable[[Connection, str, RaftregError], None],
        refused: Callable[[str, RaftregError], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self._limits = limits
        self._make_connection = make_connection
        self._tls_context = tls_context
        self._inbound_count = inbound_count
        self._give_up = give_up
        self._refused = refused
        self._spawn = spawn
        self._socket: socket.socket | None = None
        self._retry: asyncio.TimerHandle | None = None
        # Insertion order is age: the first is the one to cut off.
        self._waiting: dict[asyncio.Task[None], Connection] = {}
        self._untouched: set[socket.socket] = set()

    async def start(self, bind: Address) -> Address:
        """Binds and starts to accept.

        Returns:
            The bound address, with the real port if 0 was asked for.

        Raises:
            BindFailed: with what is wrong in words.
        """
        self._socket = await _bind(bind)
        self._socket.setblocking(False)
        self._watch()
        return Address(bind.host, self._socket.getsockname()[1])

    def close(self) -> None:
        """Accepts no more."""
        if self._retry is not None:
            self._retry.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _watch(self) -> None:
        # Not loop.sock_accept: cancelled at the wrong moment it drops a socket it has accepted.
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept, self._socket)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE_MAX):
            try:
                accepted, remote = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors, as a rule; peers wait in the backlog meanwhile.
                self._refused("listener", Disconnected(f"cannot accept: {error}"))
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening.fileno())
                self._retry = loop.call_later(_ACCEPT_RETRY_S, self._watch)
                return
            accepted.setblocking(False)
            self._admit(accepted, str(remote[0]))

    def _admit(self, accepted: socket.socket, host: str) -> None:
        if self._inbound_count() >= self._limits.inbound_max:
            accepted.close()
            self._refused(host, Crowded(f"over {self._limits.inbound_max} inbound connections"))
            return
        if len(self._waiting) >= self._limits.unauthenticated_max:
            self._evict_oldest()
        self._untouched.add(accepted)
        connection = self._make_connection()
        task = self._spawn(self._serve(accepted, host, connection), f"peer-inbound-{host}")
        self._waiting[task] = connection
        task.add_done_callback(lambda done: self._served(done, accepted, connection))

    def _evict_oldest(self) -> None:
        # A stranger who holds connections open must not keep a peer out, who needs milliseconds.
        for task, connection in self._waiting.items():
            # One that was accepted just now is no stranger; its task is about to end.
            if not connection.established.done():
                del self._waiting[task]
                task.cancel()
                return

    def _served(
        self, task: asyncio.Task[None], accepted: socket.socket, connection: Connection
    ) -> None:
        self._waiting.pop(task, None)
        if task.cancelled():
            self._give_up(connection, "", Crowded("evicted by newer connections, or stopping"))
        if accepted in self._untouched:
            # Cancelled before its first step. Later the socket is the loop's to close.
            self._untouched.remove(accepted)
            accepted.close()

    async def _serve(self, accepted: socket.socket, host: str, connection: Connection) -> None:
        self._untouched.remove(accepted)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.handshake_s_max):
                await loop.connect_accepted_socket(
                    lambda: connection, accepted, ssl=self._tls_context()
                )
                await connection.established
        except TimeoutError:
            limit_s = self._limits.handshake_s_max
            self._give_up(connection, host, HandshakeTimeout(f"no hello within {limit_s} s"))
        except ssl.SSLError as error:
            self._give_up(connection, host, AuthenticationFailed(f"TLS: {error}"))
        except OSError as error:
            self._give_up(connection, host, Disconnected(f"lost in the handshake: {error}"))


async def _bind(bind: Address) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise BindFailed(f"cannot listen on {bind}: host is unknown: {error}") from error
    except (OSError, OverflowError) as error:
        raise BindFailed(f"cannot listen on {bind}: {_bind_reason(error)}") from error


def _bind_reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return "address already in use; does another server run there?"
    if number == errno.EADDRNOTAVAIL:
        return "no interface of this host has this address"
    if number == errno.EACCES:
        return "not permitted; ports below 1024 need a privilege"
    return os.strerror(number) if number else str(error)
