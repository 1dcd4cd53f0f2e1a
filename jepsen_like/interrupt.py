"""Ctrl-C: once ends a run in order, twice at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator


class Interrupt:
    """Whether somebody wants the run to end.

    Args:
        noticed: Called with the signal's name at the first one; may be replaced.
    """

    def __init__(self, noticed: Callable[[str], object]) -> None:
        self.event = asyncio.Event()
        self.number = 0  #: of the first signal
        self.noticed = noticed

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Takes SIGINT and SIGTERM from here on."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self._got, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _got(self, number: signal.Signals) -> None:
        if self.number:
            # The processes of the cluster are on a leash, namespaces end with their last process.
            os._exit(128 + number)
        self.number = number
        self.event.set()
        self.noticed(number.name)
