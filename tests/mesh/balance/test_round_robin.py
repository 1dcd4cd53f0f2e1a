from __future__ import annotations

import random
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.balance.round_robin import RoundRobin
from tests.mesh.balance.instances import CALL, instance, seeded, weighted

seeds = st.integers(0, 10_000)


def sequence(balancer: RoundRobin, count: int) -> list[str]:
    """Keys of the next choices."""
    return [each.key for _ in range(count) if (each := balancer.choose(CALL, 0.0)) is not None]


@given(count=st.integers(1, 20), seed=seeds)
def test_equals_take_turns(count: int, seed: int) -> None:
    """Instances of one weight come each once in every round, in the same order."""
    balancer = RoundRobin(None, random.Random(seed))
    balancer.update(weighted(*[3] * count), 0.0)
    first = sequence(balancer, count)
    assert sorted(first) == sorted(each.key for each in weighted(*[3] * count))
    assert sequence(balancer, count) == first


@given(weights=st.lists(st.integers(1, 30), min_size=1, max_size=8), seed=seeds)
def test_turns_are_by_weight_at_every_point(weights: list[int], seed: int) -> None:
    """After any number of choices, each had its share of them but for a few.

    At a virtual time T an instance had w*T turns but for one, and all together W*T but for n/2.
    """
    balancer = RoundRobin(None, random.Random(seed))
    balancer.update(weighted(*weights), 0.0)
    total, count = sum(weights), len(weights)
    had = [0] * count
    for turn, key in enumerate(sequence(balancer, 2 * total), start=1):
        had[int(key[1:])] += 1
        for weight, turns in zip(weights, had, strict=True):
            share = weight / total
            assert abs(turns - turn * share) <= 1.0 + count * share + 1e-6


def test_turns_are_interleaved() -> None:
    """A heavy instance among many light ones has no more than three turns in a row; nginx's way."""
    balancer = RoundRobin(None, seeded())
    balancer.update(weighted(50, *[1] * 50), 0.0)
    turns = sequence(balancer, 200)
    runs = [len(list(run)) for heavy, run in groupby(turns, lambda key: key == "i0") if heavy]
    assert max(runs) <= 3
    assert turns.count("i0") == 100


def test_those_that_stay_keep_their_place() -> None:
    """A change of the set does not begin the round anew: no one is passed over or doubled."""
    balancer = RoundRobin(None, seeded())
    balancer.update(weighted(1, 1, 1, 1), 0.0)
    first = sequence(balancer, 2)
    balancer.update([each for each in weighted(1, 1, 1, 1) if each.key != first[0]], 0.0)
    rest = sequence(balancer, 2)
    assert first[1] not in rest
    assert len({*first, *rest}) == 4


def test_a_weight_that_grows_acts_at_once() -> None:
    """An instance that had weight 1 among 1000 need not wait for its old turn."""
    balancer = RoundRobin(None, seeded())
    balancer.update(weighted(1, 1000), 0.0)
    sequence(balancer, 10)
    balancer.update(weighted(1000, 1000), 0.0)
    assert 8 <= sequence(balancer, 20).count("i0") <= 12


def test_many_callers_do_not_begin_with_the_same() -> None:
    """Balancers with other seeds start at other instances."""
    starts = set()
    for seed in range(50):
        balancer = RoundRobin(None, random.Random(seed))
        balancer.update([instance(key) for key in "abcde"], 0.0)
        starts.update(sequence(balancer, 1))
    assert starts == set("abcde")
