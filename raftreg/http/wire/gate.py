"""Linearizable reads of many callers at the cost of one: those who come while a confirmation is
under way share the next one (Raft dissertation, section 6.4, says it of a leader's rounds).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import structlog

from raftreg.errors import RaftregError
from raftreg.http.wire.road import Caller

#: Runs a coroutine in the application's group of tasks.
Spawn = Callable[[Coroutine[Any, Any, None]], object]

_log = structlog.get_logger(__name__)


class Confirmed(Protocol):
    """A route whose answer must hold what was acknowledged before the request."""

    def confirmed(self, caller: Caller, error: RaftregError | None) -> None:
        """The state is new enough, or it is not known to be.

        Args:
            caller: Given to `join`.
            error: Why it is not.
        """
        ...


class ReadGate:
    """Lets callers read in batches.

    A batch is closed *before* its confirmation begins, so each caller's read index was taken after
    the caller came.

    Args:
        confirm: Returns when the state is at least as new as at the call; a `RaftregError` says
            why it is not.
        spawn: Runs a coroutine in the application's group of tasks.
    """

    def __init__(
        self,
        confirm: Callable[[], Awaitable[object]],
        spawn: Spawn,
    ) -> None:
        self._confirm = confirm
        self._spawn = spawn
        self._waiting: list[tuple[Confirmed, Caller]] = []
        self._running = False

    def join(self, route: Confirmed, caller: Caller) -> None:
        """Calls `route.confirmed(caller, …)` once, later."""
        self._waiting.append((route, caller))
        if not self._running:
            self._running = True
            # Not yet: others whose requests the loop reads in this turn come along.
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._spawn(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._let_in()
        finally:
            self._running = False

    async def _let_in(self) -> None:
        batch, self._waiting = self._waiting, []
        fault: RaftregError | None = None
        try:
            await self._confirm()
        except RaftregError as error:
            fault = error
        except Exception:  # noqa: BLE001 - it must not take the process; the fault is logged in full
            _log.exception("short_way_failed")
            for _, caller in batch:
                caller.abort()
            return
        for route, caller in batch:
            try:
                route.confirmed(caller, fault)
            except Exception:  # noqa: BLE001 - one caller's fault must not take others' answers
                _log.exception("short_way_failed")
                caller.abort()
