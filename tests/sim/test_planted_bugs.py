"""The simulator proves itself: it must find every bug that is planted."""

from __future__ import annotations

import pytest

from tests.sim.__main__ import main
from tests.sim.planted import PLANTS, Plant, acks_before_sync
from tests.sim.schedule import run_seed
from tests.sim.scheduler import Violation

SEEDS_MAX = 150
SECONDS = 6.0


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one rule of the envelope switched off, some of these seeds report a violation."""
    plant(monkeypatch)
    with pytest.raises(Violation, match=r"seed \d+ at "):
        run_seeds(SEEDS_MAX)


def run_seeds(seeds: int) -> None:
    """Runs that many seeds, one after the other; first those that end with every check."""
    for seed in sorted(range(seeds), key=lambda seed: (seed % 4 != 0, seed)):
        run_seed(seed, SECONDS)


def test_a_violation_is_reported_with_its_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report names the seed, how to replay it, the faults before it and every server."""
    acks_before_sync(monkeypatch)
    assert main(["--seed", "0", "--seconds", "6"]) == 1
    said = capsys.readouterr().out
    for part in ("seed 0 at", "make sim SEED=0", "acknowledged", "leads term", "n0: ", "applied"):
        assert part in said
