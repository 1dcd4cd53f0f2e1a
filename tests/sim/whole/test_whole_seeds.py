"""Whole servers, agents and clients under random faults, judged by the harness's own checkers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jepsen_like.workloads import WORKLOADS
from tests.sim.__main__ import main
from tests.sim.whole.run import run_whole_seed

ROOT = Path(__file__).parents[3]
SECONDS = 8.0


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
@pytest.mark.parametrize("first", [0, 2])
def test_every_promise_holds_under_faults(workload: str, first: int) -> None:
    """No violation, no anomaly, and some operations succeed."""
    outcomes = [run_whole_seed(seed, SECONDS, workload) for seed in range(first, first + 2)]
    assert sum(outcome.acked for outcome in outcomes) > 0
    assert sum(outcome.faults for outcome in outcomes) > 0


@pytest.mark.parametrize("seed", [3, 15])
def test_a_seed_gives_the_same_run_in_any_process(seed: int) -> None:
    """One seed, one history: again in this process, and in others that hash otherwise."""
    here = run_whole_seed(seed, 4.0)
    assert run_whole_seed(seed, 4.0) == here
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


def test_the_command_line_mixes_both_kinds(capfd: pytest.CaptureFixture[str]) -> None:
    """Of four seeds in a row, one is a whole cluster, and the summary tells of both kinds."""
    assert main(["--seeds", "4", "--seconds", "2", "--jobs", "1"]) == 0
    said = capfd.readouterr().out
    assert "consensus: " in said
    assert "whole servers: " in said
