"""Writes a history while it happens: each event at once into a buffer, the buffer to the file soon.

A harness that is killed leaves all but the last tenth of a second, whole lines in order.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from jepsen_like.history import NEMESIS, Event, Type, encode

FLUSH_S: Final = 0.1
_BUFFER_BYTES: Final = 1 << 20


class Recorder:
    """The one writer of a history. Its order of events is the order of its calls.

    Args:
        path: The file; it must not exist.
        now_ns: Monotonic time since the run began, in nanoseconds.
    """

    def __init__(self, path: Path, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns
        self.counts: Counter[Type] = Counter()  #: events of clients by type
        self._file = path.open("xb", buffering=_BUFFER_BYTES)
        self.process_max = NEMESIS  #: the highest process number so far
        self._index = 0
        self._last_ns = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(
        self,
        process: int,
        kind: Type,
        f: str,
        *,
        key: str | None = None,
        value: Any = None,
        node: str | None = None,
        raft_index: int | None = None,
        error: str | None = None,
    ) -> Event:
        """Records one event, now.

        Args:
            process: The logical process, or `NEMESIS`.
            kind: Invocation or way of completion.
            f: What is done.
            key: To which object.
            value: Argument or result; it must be JSON.
            node: Who was asked.
            raft_index: The registry's index in the answer.
            error: Why it is not OK.
        """
        # Two events may get the same time from a coarse clock, but never an earlier one.
        self._last_ns = max(self._last_ns, self.now_ns())
        event = Event(
            index=self._index,
            time_ns=self._last_ns,
            process=process,
            type=kind,
            f=f,
            key=key,
            value=value,
            node=node,
            raft_index=raft_index,
            error=error,
        )
        self._file.write(encode(event))
        self._index += 1
        if process != NEMESIS:
            self.counts[kind] += 1
            self.process_max = max(self.process_max, process)
        return event

    def note(self, f: str, value: Any = None, error: str | None = None) -> Event:
        """Records something that the nemesis or the runner did; all such events are INFO."""
        return self.add(NEMESIS, Type.INFO, f, value=value, error=error)

    def flush(self) -> None:
        """Hands what waits to the operating system."""
        self._file.flush()

    async def flush_often(self) -> None:
        """Flushes every `FLUSH_S` until it is cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            self.flush()

    def close(self) -> None:
        """Writes the rest."""
        self._file.close()
