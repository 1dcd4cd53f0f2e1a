from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc
from raftreg_cli import process
process.collect_rarely()
async def main():
    return gc.get_freeze_count(), gc.get_threshold()[0]
frozen, threshold = process.run(main(), stays=True)
assert frozen > 1000, frozen
assert threshold >= 10_000, threshold
"""


def test_the_collector_passes_over_what_was_loaded() -> None:
    """A pass over all modules takes as long as some heartbeats: a process that stays has none."""
    ran = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
