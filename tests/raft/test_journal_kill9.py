"""Real files, real processes, SIGKILL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raftreg.raft.disk import RealDisk
from raftreg.raft.journal import DurableJournal

CHILD = Path(__file__).with_name("kill9_child.py")


def run_until_killed(directory: Path, mode: str, reports: int) -> tuple[int, int]:
    """Kill a writer after so many reports; return the last (term, durable index) it made."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(directory), mode], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(reports)]
        child.kill()
        # What it still said before it died was durable, too. The last line may be cut short.
        said += child.stdout.read().splitlines(keepends=True)
    term, durable = map(int, [line for line in said if line.endswith("\n")][-1].split())
    return term, durable


def no_loop(_call: Callable[[], None]) -> None:
    """Nothing is done in the background while a journal is only read."""


@pytest.mark.parametrize(("mode", "segments_max"), [("append", 10_000), ("compact", 12)])
def test_sigkill_loses_nothing_that_was_reported_durable(
    tmp_path: Path, mode: str, segments_max: int
) -> None:
    """Killed during appends or compactions, again and again: all that was durable is there."""
    for round_number in range(1, 5):
        term, durable = run_until_killed(tmp_path, mode, reports=3 + round_number * 7)
        assert term == round_number
        disk = RealDisk.open(tmp_path, no_loop)
        journal = DurableJournal.open(disk)
        assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (term, f"n{term}")
        assert journal.last_index >= durable
        assert journal.first_index == 1 or journal.last_index - journal.first_index >= 800
        expected = range(journal.first_index, journal.last_index + 1)
        assert [index for _, index, _ in journal[:]] == list(expected)
        assert all(command == b"\x00%d" % index * 20 for command, index, _ in journal[:])
        assert len(disk.list()) <= segments_max
        disk.close()
