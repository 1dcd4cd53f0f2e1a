"""Where the simulated world is put under real code: the few names that reach for the real one.

`installed` replaces them while simulated processes run, and puts them back. It is all there is of
patching; everything else comes in through arguments, as it does in production.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import aiohappyeyeballs
import aiohttp.connector
import structlog

from raftreg.client import http as client_http
from raftreg.dns import datagram
from raftreg.raft import listener, replica
from raftreg_agent.lease import LeaseKeeper
from tests.sim.server import SimJournal
from tests.sim.whole.stream import Dialled, connect
from tests.sim.whole.witness import WatchedTransport

if TYPE_CHECKING:
    from tests.sim.whole.loop import ProcessLoop
    from tests.sim.whole.world import WholeWorld

_SEGMENT_BYTES = 16 * 1024


def _loop() -> ProcessLoop:
    from tests.sim.whole.loop import ProcessLoop  # noqa: PLC0415 - it needs this module's friends

    loop = asyncio.get_running_loop()
    assert isinstance(loop, ProcessLoop)
    return loop


@contextlib.contextmanager
def installed(world: WholeWorld) -> Iterator[None]:
    """Lets real code run in a world."""

    def open_journal(disk: Any, **callbacks: Any) -> SimJournal:
        return SimJournal.open(disk, segment_bytes=_SEGMENT_BYTES, **callbacks)

    def open_disk(_: object, __: object) -> Any:
        return world.process().open_disk()

    real_session = client_http.Wire._open

    def open_session(wire: client_http.Wire, *, force_close: bool) -> aiohttp.ClientSession:
        session = real_session(wire, force_close=force_close)
        world.sessions.append(session)
        return session

    real_renew = LeaseKeeper.renew

    async def renew(keeper: LeaseKeeper) -> str:
        sent_at, word = world.timeline.now, await real_renew(keeper)
        if word != "unknown":  # there is no such host yet, and no lease
            world.witness.invariants.leases.renewed(world.process().name, sent_at, keeper._ttl_s)
        return word

    WatchedTransport.witness = world.witness
    with contextlib.ExitStack() as stack:
        for target, name, instead in (
            (replica, "RealDisk", SimpleNamespace(open=open_disk)),
            (replica, "DurableJournal", SimpleNamespace(open=open_journal)),
            (replica, "PeerTransport", WatchedTransport),
            (replica, "new_id", lambda: world.process().new_id()),
            (replica, "pause", lambda _: None),
            (listener, "_bind", _bind),
            (datagram, "watches_sockets", lambda _: False),
            (aiohappyeyeballs, "start_connection", _start_connection),
            (aiohttp.connector, "monotonic", lambda: world.timeline.now),
            (aiohttp.connector, "Connection", _QuietConnection),
            (client_http.Wire, "_open", open_session),
            (LeaseKeeper, "renew", renew),
        ):
            stack.enter_context(mock.patch.object(target, name, instead))
        stack.enter_context(_logging_to(world.logged))
        stack.enter_context(_framework_watched(world))
        yield


class _QuietConnection(aiohttp.connector.Connection):
    """Says nothing when it is swept up: killed processes close nothing."""

    def __del__(self, _warnings: Any = None) -> None:
        """Nothing is left to be released."""


async def _bind(bind: Any) -> Any:
    return _loop().listen_raw(bind.host, bind.port)


async def _start_connection(addr_infos: Any, **_: Any) -> Dialled:
    host, port = addr_infos[0][4][:2]
    return await connect(_loop(), host, port)


class _Complaints(logging.Handler):
    """What aiohttp says of a handler that failed is a fault, unless the connection was gone."""

    def __init__(self, world: WholeWorld) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, ConnectionError):
            self._world.broken(record.getMessage(), error)


@contextlib.contextmanager
def _framework_watched(world: WholeWorld) -> Iterator[None]:
    logger, handler = logging.getLogger("aiohttp.server"), _Complaints(world)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


@contextlib.contextmanager
def _logging_to(
    told: Callable[[str, Mapping[str, Any]], None],
) -> Iterator[None]:
    """Hands every log line to the world instead of a stream."""

    def drop(_: Any, level: str, line: MutableMapping[str, Any]) -> Any:
        told(level, line)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[drop],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
