"""Runs one program beside our own work: no shell, signals passed on, its exit code kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType

from raftreg_cli import leash

#: What a person or a service supervisor sends to the program that we stand in for.
_FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
#: The terminal sends these to the whole foreground group: the program has had them already.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)


class Child:
    """A running program.

    Args:
        process: The process, on a leash.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Waits for its end; gives its exit code, 128 + N when signal N ended it (as shells do)."""
        code = await self._process.wait()
        return 128 - code if code < 0 else code

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def stop(self, grace_s: float) -> int:
        """Sends SIGTERM, after `grace_s` seconds SIGKILL; gives the exit code."""
        if self._process.returncode is None:
            self.send(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_s):
                    await self._process.wait()
            except TimeoutError:
                self.send(signal.SIGKILL)
        return await self.wait()


@contextlib.asynccontextmanager
async def started(
    arguments: Sequence[str], *, extra_env: Mapping[str, str] | None = None, grace_s: float = 10.0
) -> AsyncIterator[Child]:
    """Starts a program, passes signals on to it, and stops it at the end of the block.

    Args:
        arguments: Program and its arguments; no shell sees them.
        extra_env: Variables to add to our environment.
        grace_s: Seconds between SIGTERM and SIGKILL when the block is left early.
    """
    process = await asyncio.create_subprocess_exec(
        *leash.command(list(arguments)), env={**os.environ, **(extra_env or {})}
    )
    child = Child(process)
    with _Forwarding(child):
        try:
            yield child
        finally:
            await asyncio.shield(child.stop(grace_s))


class _Forwarding:
    """While entered, the signals of `_FORWARDED` go to the child instead of ending us."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        for number in _FORWARDED:
            self._loop.add_signal_handler(number, self._forward, number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in _FORWARDED:
            self._loop.remove_signal_handler(number)

    def _forward(self, number: signal.Signals) -> None:
        if number in _FROM_TERMINAL and _in_foreground():
            return
        self._child.send(number)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False
