"""A server that is cut off waits; it does not turn in circles."""

from __future__ import annotations

from tests.sim.schedule import Schedule
from tests.sim.world import World


def test_a_cut_off_reader_costs_no_ticks() -> None:
    """A question to the leader that can't be repeated now is no reason to tick at once again.

    Its follower is cut off with a read under way. Before its election timeout is over it has
    nothing to do: the next tick must be due later than now.
    """
    world = World(1)
    Schedule(world).begin()
    leader = world.leader()
    assert leader is not None
    follower = world.servers[min(set(world.servers) - {leader.name})]
    world.run(1.0)
    answers = world.read(follower.name)
    world.run(0.0003)  # the question has left, its answer can't be here yet
    world.network.cut_off(follower.name)
    world.run(0.75)  # longer than questions wait for an answer
    assert answers == []
    assert follower.node is not None
    assert follower.node.tick() > follower.clock()
