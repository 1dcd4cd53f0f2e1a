"""Whole clusters under random faults. A failing seed prints its trace and how to replay it.

`make sim SEEDS=…` runs as many as one likes; here are enough to notice what was broken today.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.__main__ import main
from tests.sim.schedule import run_seed

SEEDS = 240
CHUNK = 10
SECONDS = 8.0
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_holds_under_faults(first: int) -> None:
    """No violation in any of these runs, and writes and reads are answered in all of them."""
    outcomes = [run_seed(seed, SECONDS) for seed in range(first, first + CHUNK)]
    assert sum(outcome.reads for outcome in outcomes) > 0
    assert sum(outcome.acked for outcome in outcomes) > sum(o.writes for o in outcomes) / 10


def test_the_faults_reach_what_they_are_meant_for() -> None:
    """Snapshots are installed, disks are lost, leaders change: the runs are not idle."""
    outcomes = [run_seed(seed, SECONDS) for seed in range(1000, 1012)]
    assert sum(outcome.snapshots for outcome in outcomes) > 0
    assert sum(outcome.wiped for outcome in outcomes) > 0
    assert sum(outcome.terms for outcome in outcomes) > 2 * len(outcomes)


@pytest.mark.parametrize("seed", [4, 8])
def test_a_seed_gives_the_same_run_in_any_process(seed: int) -> None:
    """One seed, one history: again in this process, and in others that hash otherwise."""
    here = run_seed(seed, 4.0)
    assert run_seed(seed, 4.0) == here
    for hash_seed in ("0", "4711"):
        again = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", str(seed), "--seconds", "4"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert here.digest in again.stdout


def test_the_command_line_runs_many_seeds(capfd: pytest.CaptureFixture[str]) -> None:
    """`python -m tests.sim` works in several processes, reports progress and a summary."""
    assert main(["--seeds", "4", "--seconds", "2", "--jobs", "2"]) == 0
    said = capfd.readouterr().out
    assert "4 of 4 seeds held" in said
    assert "writes acknowledged under faults" in said
