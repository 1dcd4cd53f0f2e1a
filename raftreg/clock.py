"""The only door to time, randomness of ids, and sleeping.

Everything else takes a `Clock` (or plain `now` values) as an argument, so that the same code runs
in the deterministic simulator.
"""

from __future__ import annotations

import time
import uuid
from random import Random
from typing import Protocol


class Clock(Protocol):
    """Reads of time. Both values are in seconds."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...

    def wall(self) -> float:
        """Seconds since the Unix epoch; may jump. For people and log lines, never for decisions."""
        ...


class SystemClock:
    """The clocks of this host."""

    def monotonic(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds of `time.time`."""
        return time.time()


class ManualClock:
    """A clock that moves when told to: for tests and the simulator.

    Args:
        start_s: First value of both clocks, in seconds.
    """

    def __init__(self, start_s: float = 1_000.0) -> None:
        self._monotonic_s = start_s
        self._wall_offset_s = 0.0

    def monotonic(self) -> float:
        """Seconds as set by `advance`."""
        return self._monotonic_s

    def wall(self) -> float:
        """The monotonic value plus what `jump_wall` added."""
        return self._monotonic_s + self._wall_offset_s

    def advance(self, seconds: float) -> None:
        """Moves both clocks forward.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        self._monotonic_s += seconds

    def jump_wall(self, seconds: float) -> None:
        """Moves the wall clock alone, in either direction."""
        self._wall_offset_s += seconds


def new_id(rng: Random | None = None) -> str:
    """Makes a random UUID (RFC 9562, version 4) in its text form.

    Args:
        rng: Source of the 122 random bits; None takes the operating system's.
    """
    if rng is None:
        return str(uuid.uuid4())
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def pause(seconds: float) -> None:
    """Sleeps in a worker thread, so that others get the interpreter. Never call it on a loop."""
    time.sleep(seconds)
