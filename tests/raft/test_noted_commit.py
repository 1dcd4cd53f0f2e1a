"""A restarted server knows what it had committed, before any leader tells it."""

from __future__ import annotations

from tests.sim.world import World


def test_a_server_restarted_alone_applies_what_it_knew_to_be_committed() -> None:
    """Its stale answers do not go back to an empty registry while no leader is there."""
    world = World(7)
    world.run_while(lambda: world.leader() is None, "no leader")
    for number in range(20):
        world.write("n0", f"w{number}".encode())
    world.run_while(lambda: len(world.invariants.acked) < 20, "writes wait")
    world.run(1.0)
    for name in ("n0", "n1", "n2"):
        world.power_off(name)
    world.start("n1")
    world.run(0.5)
    assert world.servers["n1"].machine.commands == world.invariants.history
