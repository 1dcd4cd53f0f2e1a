"""What is measured, by the names that `--only` takes, in the order of running."""

from __future__ import annotations

from bench.lab import Scenario
from bench.scenarios import disk, failures, idle, rates, starts

SCENARIOS: dict[str, Scenario] = {
    "disk": disk.run,
    "idle": idle.run,
    "puts": rates.puts,
    "gets": rates.gets,
    "registrations": rates.registrations,
    "alarms": failures.false_alarms,
    "host": failures.host_killed,
    "leader": failures.leader_lost,
    "starts": starts.run,
}
