"""What a person sees while a run goes on: a live line, or plain lines without a terminal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from jepsen_like.history import Type

LIVE_S: Final = 0.25  #: between two looks at a terminal
PLAIN_S: Final = 5.0  #: between two lines elsewhere


class Progress:
    """The state of a run in words, and its view. The runner sets the attributes.

    Args:
        console: Where to; None is quiet.
        name: Of the run.
        limit_s: Length of the load.
    """

    def __init__(self, console: Console | None, name: str, limit_s: float) -> None:
        self.console = console
        self.name = name
        self.limit_s = limit_s
        self.phase = "starting"
        self.leader = ""
        self.faults: Callable[[], list[str]] = list
        self.counts: Callable[[], dict[Type, int]] = dict
        self.since: Callable[[], float] = lambda: 0.0  #: seconds since the load began

    def line(self) -> Text:
        """The state at this moment."""
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"{self.name} ", style="bold")
        text.append(f"{self.phase:<9}")
        if self.phase == "load":
            text.append(f"{self.since():4.0f} of {self.limit_s:g} s  ")
        counts = self.counts()
        for kind, style in ((Type.OK, "green"), (Type.FAIL, "yellow"), (Type.INFO, "magenta")):
            text.append(f"{kind.value} {counts.get(kind, 0)}  ", style=style)
        if faults := self.faults():
            text.append(f"{' + '.join(faults)}  ", style="bold red")
        if self.leader:
            text.append(f"leader {self.leader}", style="dim")
        return text

    def say(self, text: str, style: str = "") -> None:
        """Prints a line that stays."""
        if self.console is not None:
            self.console.print(Text(text, style=style), soft_wrap=True)

    async def show(self) -> None:
        """Shows the state until it is cancelled."""
        if self.console is None:
            return
        if not self.console.is_terminal:
            await self._show_plainly(self.console)
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self.line(), refresh=True)
                await asyncio.sleep(LIVE_S)

    async def _show_plainly(self, console: Console) -> None:
        """A line every few seconds, and one as soon as the phase or the faults change."""
        shown: tuple[str, list[str]] | None = None
        waited_s = 0.0
        while True:
            state = (self.phase, self.faults())
            if state != shown or waited_s >= PLAIN_S:
                console.print(self.line(), soft_wrap=True)
                shown, waited_s = state, 0.0
            await asyncio.sleep(LIVE_S)
            waited_s += LIVE_S


@contextlib.contextmanager
def busy(console: Console | None, what: str) -> Iterator[None]:
    """Shows that something goes on that can't tell how far it is."""
    if console is None:
        yield
    elif console.is_terminal:
        with console.status(what):
            yield
    else:
        console.print(f"{what} …")
        yield
