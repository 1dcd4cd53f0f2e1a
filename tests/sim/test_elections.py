"""A leader dies: how many elections it takes."""

from __future__ import annotations

import pytest

from tests.sim.schedule import Schedule
from tests.sim.world import World


@pytest.mark.parametrize("disk_s", [0.0, 0.008])
def test_two_followers_do_not_split_the_votes(disk_s: float) -> None:
    """Both lose the leader in the same instant; one term is enough, also when votes sync slowly."""
    for seed in range(60):
        world = World(seed)
        world.restart_mean_s = None
        Schedule(world).begin()
        world.run(1.0)
        for server in world.servers.values():
            server.disk.stall(disk_s)
        old = world.leader()
        assert old is not None
        term = old.term_seen
        world.kill(old.name)
        world.run_while(lambda world=world: world.leader() is None, "an election")  # type: ignore[misc]
        new = world.leader()
        assert new is not None
        assert new.term_seen <= term + 1, f"seed {seed}"
