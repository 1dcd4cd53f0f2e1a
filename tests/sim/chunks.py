"""What a worker process of `python -m tests.sim` runs (it can't be in `__main__`)."""

from __future__ import annotations

from collections.abc import Sequence

from tests.sim.schedule import Outcome, run_seed
from tests.sim.scheduler import Violation


def run_chunk(seeds: Sequence[int], seconds: float) -> list[Outcome] | str:
    """Runs some seeds; gives their outcomes, or the report of the first violation."""
    outcomes = []
    for seed in seeds:
        try:
            outcomes.append(run_seed(seed, seconds))
        except Violation as violation:
            return str(violation)
    return outcomes
