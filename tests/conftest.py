"""Settings for all tests: how Hypothesis searches, and how a failure is replayed."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Before any test imports the engine by itself: see there what importing it does to `socket`.
import raftreg.raft  # noqa: F401

# No deadline: how long an example takes depends on the machine, and time belongs to the benchmarks.
# A failing property prints the blob that replays it.
settings.register_profile(
    "default",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# A longer search, for a night: HYPOTHESIS_PROFILE=thorough make test
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2000)
# What gates a change must not depend on luck: the same examples each time. New ones are looked for
# by everyone else's runs.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
_default = "ci" if os.environ.get("CI") else "default"
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", _default))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Tells how to repeat the random order of a failed run, which `-q` would hide."""
    seed = config.getoption("randomly_seed", None)
    if exitstatus and isinstance(seed, int):
        terminalreporter.write_line(f"this order of tests again: --randomly-seed={seed}")
