"""The simulator of whole servers proves itself: it must find every bug that is planted."""

from __future__ import annotations

import pytest

from tests.sim.scheduler import Violation
from tests.sim.whole.plants import PLANTS, Plant, blind_cas
from tests.sim.whole.run import run_whole_seed

SEEDS_MAX = 40
SECONDS = 10.0


def run_seeds(bug: Plant) -> None:
    """Runs seeds until one reports a violation."""
    for seed in range(SEEDS_MAX):
        run_whole_seed(seed, SECONDS, bug.workload, bug.faults)


@pytest.mark.parametrize("bug", PLANTS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one promise broken, some of these seeds report a violation, by the right judge."""
    bug.plant(monkeypatch)
    with pytest.raises(Violation, match=rf"seed \d+ at [\d.]+ s: {bug.says}"):
        run_seeds(bug)


def test_a_violation_is_reported_with_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report names the seed, how to replay it, what shows the anomaly, and every server."""
    blind_cas(monkeypatch)
    with pytest.raises(Violation) as caught:
        run_seeds(Plant(blind_cas, "unique", ""))
    said = str(caught.value)
    for part in ("make sim SEED=", "trace:", "leads term", "anomaly ", "servers:", "n1 (n1-1): "):
        assert part in said
