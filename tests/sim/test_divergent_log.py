"""A leader that was cut off comes back with many entries that nobody else has."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from raftreg.raft.engine import Peer
from raftreg.raft.entries import Batch, Proposal, encode_batch
from tests.sim import server
from tests.sim.schedule import Schedule
from tests.sim.world import World

DIVERGENT = 400


def test_a_divergent_log_is_replaced_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is, and while clients go on writing: not an entry a round trip."""
    # With the small limits of other simulations a snapshot would replace the log.
    limits = msgspec.structs.replace(server.LIMITS, entries_max=100_000)
    monkeypatch.setattr(server, "LIMITS", limits)
    world = World(3)
    Schedule(world).begin()
    old = world.leader()
    assert old is not None
    assert old.node is not None
    world.network.cut_off(old.name)
    first = old.journal.last_index + 1
    for number in range(DIVERGENT):
        proposal = Proposal("stray", number + 1, 0, b"stray %d" % number)
        old.node._engine.submit(encode_batch(Batch(old.node.cluster_time_ms(), [proposal])))
    old.poke()
    world.run_while(lambda: old.journal.last_index < first + DIVERGENT - 1, "appending strays")
    others = [each for each in world.servers.values() if each is not old]

    def nobody_leads() -> bool:
        return not any(other.node is not None and other.node.leads for other in others)

    world.run_while(nobody_leads, "an election")
    new = next(other for other in others if other.node is not None and other.node.leads)
    first_of_new = new.journal.last_index

    def short() -> bool:
        world.write_next(new.name)
        return new.journal.last_index < first_of_new + DIVERGENT // 2

    world.run_while(short, "writes meanwhile")
    # A leader begins at its own end with everybody: this one knows nothing of the old one's log.
    third = next(other for other in others if other is not new)
    assert new.node is not None
    new.node.transfer_to(third.name)
    new.poke()
    world.run_while(lambda: third.node is None or not third.node.leads, "the transfer")
    new = third
    world.network.unblock_all()
    sent = world.network.sent

    goal = new.journal.last_index

    def behind() -> bool:
        world.write_next(new.name)
        return old.commit_seen < goal

    world.run_while(behind, "rejoining", limit_s=1.5)
    # Heartbeats, writes and their acknowledgements among three servers: some hundreds.
    assert world.network.sent - sent < DIVERGENT * 2
    assert not any(command.startswith(b"stray") for command in old.machine.commands)


def test_a_log_that_is_only_short_is_asked_for_from_its_end() -> None:
    """What is here already need not come again: from the commit index on it could take a snapshot.

    Only once the terms are known to differ, the end of the log is of no use.
    """
    world = World(4)
    Schedule(world).begin()
    world.run(1.0)
    leader = world.leader()
    assert leader is not None
    follower = next(each for each in world.servers.values() if each is not leader)
    assert follower.node is not None
    follower.journal.add(b"\x00beyond the commit index", follower.journal.last_index + 1, 1)
    engine, asked = follower.node._engine, list[int]()

    def keep(peer: str, message: dict[str, Any]) -> bool:
        asked.append(message["next_node_idx"])
        return True

    engine._SyncObj__transport._send = keep
    me = Peer(leader.name)
    engine._SyncObj__sendNextNodeIdx(me, reset=True)
    assert asked == [follower.journal.last_index + 1]
    engine._SyncObj__sendNextNodeIdx(me, reset=True, nextNodeIdx=follower.journal.last_index)
    engine._SyncObj__sendNextNodeIdx(me, reset=True)
    assert asked[1:] == [engine.commit_index + 1]
