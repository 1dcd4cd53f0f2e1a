"""The harness finds known bugs. Here the quickest; `make jepsen-prove` proves all of them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from jepsen_like.checkers.verdict import Anomaly, Valid, Verdict
from jepsen_like.folder import Results
from jepsen_like.nemeses import FAULTS
from jepsen_like.nemeses.combination import NONE, parts
from jepsen_like.planted import BUGS, prove
from jepsen_like.planted.bug import Bug, replace
from jepsen_like.workloads import WORKLOADS


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", ["blind-cas", "torn-txn"])
def test_a_bug_is_caught_by_the_run_that_is_named_for_it(name: str, tmp_path: Path) -> None:
    """Real servers with the bug, real clients, and the anomaly that the bug must show."""
    done = prove.attempt(BUGS[name], 1, tmp_path / "run", root=False)
    assert done.caught, done.how


@pytest.mark.parametrize("bug", BUGS.values(), ids=lambda bug: bug.name)
def test_every_bug_names_a_run_that_exists(bug: Bug) -> None:
    """Its workload, with these options, and its nemesis."""
    WORKLOADS[bug.workload](**bug.options)
    assert bug.nemesis == NONE or parts(bug.nemesis, FAULTS)
    assert bug.kinds


def test_every_bug_still_fits_raftreg() -> None:
    """The parts that they replace are still there (in a process that ends with the test)."""
    patch_all = "from jepsen_like.planted import BUGS; [bug.patch() for bug in BUGS.values()]"
    command = [sys.executable, "-c", patch_all]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_process_with_a_bug_runs_the_command_line() -> None:
    """As the harness starts servers with it."""
    command = [sys.executable, "-m", "jepsen_like.planted", "blind-cas", "--", "version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_bug_that_fits_nothing_says_so() -> None:
    """A part that was renamed must not make the bug vanish silently."""
    with pytest.raises(AttributeError, match="gone"):
        replace(importlib.import_module("raftreg.core.kv"), "gone", None)


@pytest.mark.parametrize("arguments", [[], ["blind-cas"], ["no-such-bug", "--", "version"]])
def test_a_wrong_command_line_is_refused(arguments: list[str]) -> None:
    """With a sentence, not with a cluster that has no bug at all."""
    command = [sys.executable, "-m", "jepsen_like.planted", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "usage" in done.stderr or "no such bug" in done.stderr


def results(valid: Valid, *kinds: str) -> Results:
    """The results of a run with these anomalies."""
    anomalies = tuple(Anomaly(kind, kind) for kind in kinds)
    return Results(
        valid=valid,
        why="",
        verdicts=[Verdict("any", valid, anomalies)],
        operations=1,
        acknowledged=1,
        failed=0,
        unknown=0,
        by_f={},
        faults={},
        duration_s=1.0,
        load_s=1.0,
        interrupted=False,
        workload="set",
        nemesis="none",
        seed=1,
    )


def test_only_what_the_bug_must_show_counts() -> None:
    """Its own anomalies or a crash; not another anomaly, and not an undecided run."""
    bug = BUGS["blind-cas"]
    assert prove.judge(bug, 1, results(Valid.FALSE, "id-twice")).caught
    assert prove.judge(bug, 1, results(Valid.FALSE, "crash")).caught
    assert not prove.judge(bug, 1, results(Valid.FALSE, "phantom")).caught
    assert not prove.judge(bug, 1, results(Valid.UNKNOWN)).caught
    assert not prove.judge(bug, 1, results(Valid.TRUE)).caught


def test_a_bug_that_does_not_exist_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """With the nearest names."""
    assert prove.main(["blind-cass"]) == 2
    assert "blind-cas" in capsys.readouterr().out


def test_a_bug_that_this_machine_can_not_show_is_not_proved(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It counts as missed, and the table says why."""
    assert prove.main(["early-commit"], root=False) == 1
    assert "0 of 1 known bugs were caught" in capsys.readouterr().out
