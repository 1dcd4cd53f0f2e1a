"""When a follower stops to name a leader."""

from __future__ import annotations

from random import Random

from raftreg.raft.election import Election


def test_a_leader_is_named_while_it_is_heard() -> None:
    """Never heard, lost, or silent for the longest timeout: there is no leader to name."""
    election = Election(0.4, 0.8, Random(1), 100.0)
    assert election.leader_is_silent(100.0)
    election.leader_heard(100.0)
    assert not election.leader_is_silent(100.0)
    assert not election.leader_is_silent(100.8 - 1e-9)
    assert election.leader_is_silent(100.9)
    election.leader_heard(101.0)
    election.leader_lost(101.1)
    assert election.leader_is_silent(101.1)
