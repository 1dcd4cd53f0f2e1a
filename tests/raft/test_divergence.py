"""A server comes back whose log ends in entries that the others don't have."""

from __future__ import annotations

import pytest

from tests.raft.lab import EnvelopeLab

#: A few round trips: finding where the logs part, sending what is missing, telling that it commits.
ROUNDS = 8


def parted(entries: int) -> EnvelopeLab:
    """A led, and alone has so many entries more; B, in a later term, has others in their place.

    Connections stand, and all between A and the others is lost: so B has sent its entries to A and
    goes on behind them.
    """
    lab = EnvelopeLab("ABC", compact_after=100_000)
    lab.elect("A", "BC")
    lab.flow("ABC")
    for number in range(entries):
        lab.write("A", f"alone{number}")
        lab.tick("A", dt=0.001)
        lose(lab)
    assert lab.elect("B", "C")
    for number in range(entries):
        lab.write("B", f"kept{number}")
        lab.tick("B", dt=0.001)
        lab.flow("BC", rounds=1)
        lose(lab)
    return lab


def lose(lab: EnvelopeLab) -> None:
    """What is on its way between A and the others."""
    for other in "BC":
        lab.drop("A", other)
        lab.drop(other, "A")


@pytest.mark.parametrize("entries", [1, 40, 400])
@pytest.mark.parametrize("writing", [False, True])
def test_a_long_divergent_log_costs_no_more_round_trips_than_a_short_one(
    entries: int, writing: bool
) -> None:
    """It has the leader's log after a few round trips, also while the leader goes on writing."""
    lab = parted(entries)
    assert lab.last("A")[0] > entries
    for number in range(ROUNDS):
        if writing:
            lab.write("B", f"more{number}")
        lab.flow("ABC", rounds=1)
    lab.flow("ABC", rounds=2)  # no more writes: what was sent last arrives
    assert lab.last("A") == lab.last("B")
    assert lab.values("A") == lab.values("B")
    assert not any(key.startswith("alone") for key in lab.values("A"))
