"""What a worker process of `python -m tests.sim` runs (it can't be in `__main__`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from tests.sim.schedule import Outcome, run_seed
from tests.sim.scheduler import Violation
from tests.sim.whole.run import WholeOutcome, run_whole_seed

#: Every so many seeds one is a whole cluster of servers, agents and clients; the others are Raft.
WHOLE_EVERY = 4

AnyOutcome: TypeAlias = Outcome | WholeOutcome


def is_whole(seed: int) -> bool:
    """Whether a seed stands for whole servers."""
    return seed % WHOLE_EVERY == WHOLE_EVERY - 1


def run_any(seed: int, seconds: float) -> AnyOutcome:
    """Runs what a seed stands for.

    Raises:
        Violation: A promise was broken.
    """
    return run_whole_seed(seed, seconds) if is_whole(seed) else run_seed(seed, seconds)


def run_chunk(seeds: Sequence[int], seconds: float) -> list[AnyOutcome] | str:
    """Runs some seeds; gives their outcomes, or the report of the first violation."""
    outcomes: list[AnyOutcome] = []
    for seed in seeds:
        try:
            outcomes.append(run_any(seed, seconds))
        except Violation as violation:
            return str(violation)
    return outcomes
