"""The shell of a long-running process: event loop, signals, word to the service supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Runs a coroutine on uvloop when it is installed, else on asyncio's own loop."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # optional: the extra `fast`
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextlib.contextmanager
def stop_on_signals(reload: Callable[[], None]) -> Iterator[asyncio.Event]:
    """Gives an event that SIGTERM and SIGINT set; SIGHUP calls `reload`.

    A second SIGTERM or SIGINT ends the process at once: leaving may hang on a dead network.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def end(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


def notify(state: str) -> None:
    """Tells systemd about this process (sd_notify(3)); nothing happens without it.

    Args:
        state: For example "READY=1" or "STOPPING=1".
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    # A leading "@" stands for the NUL byte of Linux's abstract sockets.
    target = "\0" + address[1:] if address[0] == "@" else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection,
    ):
        connection.sendto(state.encode(), target)
