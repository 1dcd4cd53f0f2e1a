"""The shell of a long-running process: event loop, garbage collector and signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

#: Python's own 700 means a pass every few hundred requests and, every few seconds, one over all
#: modules that takes 0.1 s: as long as some heartbeats. Rows are not tracked at all (msgspec).
_GC_THRESHOLDS = (10_000, 10, 10)

_T = TypeVar("_T")


def collect_rarely() -> None:
    """Sets the collector up for a process that stays; best before the heavy imports."""
    gc.set_threshold(*_GC_THRESHOLDS)


def run(main: Coroutine[Any, Any, _T], *, stays: bool = False) -> _T:
    """Runs a coroutine on uvloop when it is installed, else on asyncio's own loop.

    Args:
        main: What to run.
        stays: It runs for long: the collector is to pass over what is there by now (modules,
            classes, functions).
    """
    if stays:
        gc.freeze()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # optional: the extra `fast`
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextlib.contextmanager
def stop_on_signals(
    reload: Callable[[], None], *, on_stop: Callable[[], None] | None = None
) -> Iterator[asyncio.Event]:
    """Gives an event that SIGTERM and SIGINT set, calling `on_stop` too; SIGHUP calls `reload`.

    A second SIGTERM or SIGINT ends the process at once: leaving may hang on a dead network.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def end(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()
        if on_stop is not None:
            on_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
