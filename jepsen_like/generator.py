"""When operations begin: a seeded Poisson process for each worker.

Waits between the beats of a worker are exponentially distributed (Jepsen's `gen/stagger` draws them
uniformly), so that operations of different workers meet in every way. The total rate is shared
evenly. A worker that was busy over some of its beats skips them: it does not catch up, because a
burst after every stall would measure the harness's queue instead of the cluster.
"""

from __future__ import annotations

from random import Random


class Beats:
    """The beats of one worker.

    Args:
        rng: Its randomness.
        rate: Its own beats a second.
        start_s: When the first interval begins.

    Raises:
        ValueError: The rate is not positive.
    """

    def __init__(self, rng: Random, rate: float, start_s: float) -> None:
        if not rate > 0:
            raise ValueError(f"the rate must be positive, not {rate}")
        self._rng = rng
        self._rate = rate
        self._at_s = start_s
        self.skipped = 0  #: beats that passed while the worker was busy

    def after(self, now_s: float) -> float:
        """The time of the next beat, not before `now_s`; beats that are past are skipped."""
        self._at_s += self._rng.expovariate(self._rate)
        while self._at_s < now_s:
            self.skipped += 1
            self._at_s += self._rng.expovariate(self._rate)
        return self._at_s


def child(seed: int, name: str) -> Random:
    """A generator of its own for a part of the run, so that parts don't disturb each other."""
    return Random(f"{seed}/{name}")
