"""A figure from the command line to its record, on real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jepsen_like.figures import record as records


def test_a_quick_figure_is_measured_on_real_processes(tmp_path: Path) -> None:
    """Leaders are killed, writes come back, all that was acknowledged is there, all is recorded."""
    command = ["figures", "leader-kills", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "jepsen_like", *command],
        capture_output=True,
        check=False,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = records.load(tmp_path / "leader-kills-quick.json")
    assert found is not None
    assert found.complete
    assert found.all_losses == []
    for one in found.rounds:
        assert one.facts["pid"] != one.facts["pid_after"]
        assert one.values["outage_s"] > 0
        assert one.values["acknowledged"] > 0
