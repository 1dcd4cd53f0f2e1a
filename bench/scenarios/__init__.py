"""What is measured, by the names that `--only` takes, in the order of running."""

from __future__ import annotations

from bench.lab import Scenario
from bench.scenarios import costs, discovery, disk, failures, generator, idle, rates, starts

SCENARIOS: dict[str, Scenario] = {
    "generator": generator.run,
    "disk": disk.run,
    "idle": idle.run,
    "puts": rates.puts,
    "gets": rates.gets,
    "health": discovery.health,
    "dns": discovery.names,
    "watchers": discovery.watchers,
    "registrations": rates.registrations,
    "heartbeats": rates.heartbeats,
    "cpu": costs.processor,
    "memory": costs.memory,
    "alarms": failures.false_alarms,
    "host": failures.host_killed,
    "leader": failures.leader_lost,
    "starts": starts.run,
}
