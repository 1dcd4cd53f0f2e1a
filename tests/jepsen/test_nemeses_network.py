"""Faults of the network: shapes of cuts, and what counts as a proof that one acted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.ground.api import Ground, PairCount, Rule
from jepsen_like.ground.fabric import Fabric
from jepsen_like.nemeses import network
from jepsen_like.nemeses.base import Fault
from jepsen_like.nemeses.network import Pair, Rules

clusters = st.integers(1, 15).map(lambda count: [f"n{i}" for i in range(1, count + 1)])
kinds = st.sampled_from(network.FAULTS)


class ScriptedNetwork:
    """Takes rules as the switch does, and counts what a test tells it to."""

    def __init__(self, names: Iterable[str]) -> None:
        self._fabric = Fabric(list(names), Random(0))
        self.rules: Rules = {}
        self.counted = {pair: PairCount() for pair in self._fabric.lanes}

    async def set_rules(self, rules: Mapping[Pair, Rule]) -> None:
        """Refuses what the switch would refuse."""
        self._fabric.set_rules(rules, 0.0)
        self.rules = dict(rules)

    async def counts(self) -> dict[Pair, PairCount]:
        """What was told."""
        return dict(self.counted)

    def happen(self, pairs: Iterable[Pair], **fields: int) -> None:
        """Packets on some lanes."""
        for pair in pairs:
            now = self.counted[pair]
            grown = {name: getattr(now, name) + number for name, number in fields.items()}
            self.counted[pair] = msgspec.structs.replace(now, **grown)


class Scene:
    """A ground of names only."""

    def __init__(self, servers: list[str], leader: str | None, agents: list[str]) -> None:
        self.servers = [SimpleNamespace(name=name) for name in servers]
        self.spares: list[Any] = []
        self.agents = [SimpleNamespace(name=name) for name in agents]
        self.network = ScriptedNetwork([*servers, *agents, "client"])
        self._leader = leader

    async def leader(self, timeout_s: float = 5.0) -> Any:
        """The one that the test names."""
        del timeout_s
        return next((host for host in self.servers if host.name == self._leader), None)


def scene(servers: int = 5, leader: str | None = "n2", agents: int = 1) -> Any:
    """Servers n1…, agents a1…; typed as anything, for it is both a Ground and more."""
    names = [f"n{i}" for i in range(1, servers + 1)]
    return Scene(names, leader, [f"a{i}" for i in range(1, agents + 1)])


def sees(names: list[str], rules: Rules) -> dict[str, set[str]]:
    """Whom each host can talk with, both ways."""
    return {
        one: {b for b in names if b != one and not {(one, b), (b, one)} & rules.keys()}
        for one in names
    }


@given(names=clusters)
def test_a_ring_leaves_everyone_its_two_neighbours(names: list[str]) -> None:
    """Of four servers or more each sees two others, all are connected; of three a line stays."""
    view = sees(names, network.ring(names))
    reached = {names[0]}
    for _ in names:
        reached |= {other for one in reached for other in view[one]}
    assert reached == set(names)
    assert all(len(seen) <= 2 for seen in view.values())
    if len(names) > 3:
        assert all(len(seen) == 2 for seen in view.values())
    if len(names) == 3:
        assert sorted(map(len, view.values())) == [1, 1, 2]


@given(names=clusters)
def test_a_bridge_has_one_server_that_sees_all(names: list[str]) -> None:
    """The others see their own half and the bridge, nothing else."""
    view = sees(names, network.bridge(names))
    middle = len(names) // 2
    left, right = set(names[:middle]), set(names[middle + 1 :])
    assert view[names[middle]] == left | right
    for side in (left, right):
        for one in side:
            assert view[one] == (side - {one}) | {names[middle]}


@given(names=clusters, kind=kinds, seed=st.integers(0, 999), leads=st.booleans())
async def test_rules_are_always_such_that_the_switch_takes_them(
    names: list[str], kind: type[Fault], seed: int, *, leads: bool
) -> None:
    """Any size of cluster, any seed, with and without a leader; no lane of clients is touched."""
    stage = scene(len(names), names[-1] if leads else None)
    await kind().inject(cast(Ground, stage), Random(seed))
    assert not any("client" in pair for pair in stage.network.rules)


@given(kind=kinds, seed=st.integers(0, 99))
async def test_a_seed_decides_the_rules(kind: type[Fault], seed: int) -> None:
    """The same seed, the same fault."""
    rules = []
    for _ in range(2):
        stage = scene()
        await kind().inject(stage, Random(seed))
        rules.append(stage.network.rules)
    assert rules[0] == rules[1] != {}


@given(kind=kinds, seed=st.integers(0, 99))
async def test_a_fault_without_traffic_is_not_proved(kind: type[Fault], seed: int) -> None:
    """Rules alone prove nothing; the rules are gone afterwards."""
    stage, fault = scene(), kind()
    await fault.inject(stage, Random(seed))
    assert not (await fault.heal(stage)).acted
    assert stage.network.rules == {}


@given(kind=kinds, seed=st.integers(0, 99))
async def test_what_was_counted_before_does_not_prove(kind: type[Fault], seed: int) -> None:
    """Only growth since the injection, and only on lanes of the fault."""
    stage, fault = scene(), kind()
    fields = {name: 9 for name in PairCount.__struct_fields__ if name != "passed"}
    stage.network.happen(stage.network.counted, **fields)
    await fault.inject(stage, Random(seed))
    stage.network.happen([("n1", "client"), ("client", "n1")], **fields)
    assert not (await fault.heal(stage)).acted


@pytest.mark.parametrize("kind", network.FAULTS, ids=lambda kind: kind.name)
async def test_the_counter_of_its_kind_proves_a_fault(kind: type[network.Lanes]) -> None:
    """Facts tell the counts; healed a second time, it claims nothing."""
    stage, fault = scene(), kind()
    await fault.inject(cast(Ground, stage), Random(1))
    stage.network.happen(list(stage.network.rules)[:1], **{kind.counter: 3})
    if kind is network.PartitionFlapping:
        stage.network.happen(stage.network.rules, passed=1)
    evidence = await fault.heal(cast(Ground, stage))
    assert evidence.acted
    assert evidence.facts[kind.counter] == 3
    assert not (await fault.heal(cast(Ground, stage))).acted


async def test_a_cut_that_leaks_is_not_proved() -> None:
    """One packet that passed a lane that was cut, and there was no partition."""
    stage, fault = scene(), network.PartitionLeader()
    await fault.inject(stage, Random(1))
    stage.network.happen(stage.network.rules, dropped=5)
    stage.network.happen([("n2", "n1")], passed=1)
    assert not (await fault.heal(stage)).acted


async def test_a_flapping_cut_must_have_let_packets_pass() -> None:
    """One that never opened did not flap."""
    stage, fault = scene(), network.PartitionFlapping()
    await fault.inject(stage, Random(1))
    stage.network.happen(stage.network.rules, dropped=5)
    assert not (await fault.heal(stage)).acted


@given(seed=st.integers(0, 999))
async def test_sides_of_the_partitions(seed: int) -> None:
    """The leader stays with the majority, or alone, as the names say; one way is one way."""
    stage = scene(5)
    alone = (await network.PartitionLeader().inject(stage, Random(seed)))["sides"]
    assert alone == [["n2"], ["n1", "n3", "n4", "n5"]]
    few, many = (await network.PartitionMinority().inject(stage, Random(seed)))["sides"]
    assert (len(few), len(many)) == (2, 3)
    assert "n2" in many
    halves = (await network.PartitionMajority().inject(stage, Random(seed)))["sides"]
    assert sorted(map(len, halves)) == [2, 3]
    await network.PartitionOneWay().inject(stage, Random(seed))
    assert len(stage.network.rules) == 4
    assert not any((b, a) in stage.network.rules for a, b in stage.network.rules)
    await network.PartitionAgents().inject(stage, Random(seed))
    cut = {frozenset(pair) for pair in itertools.product(["a1"], ["n1", "n2", "n3", "n4", "n5"])}
    assert {frozenset(pair) for pair in stage.network.rules} == cut
    assert len(stage.network.rules) == 10


async def test_nobody_is_cut_off_as_leader_while_nobody_leads() -> None:
    """A fault that could not be done is not proved, and says that there was no leader."""
    stage, fault = scene(leader=None), network.PartitionLeader()
    assert await fault.inject(stage, Random(1)) == {"leader": None}
    assert not (await fault.heal(stage)).acted


async def test_without_a_switch_it_is_refused_and_heals_harmlessly() -> None:
    """Hosts on loopback can't be cut; healing is always allowed."""
    stage = scene()
    stage.network = None
    with pytest.raises(network.NoNetwork, match="loopback"):
        await network.Loss().inject(stage, Random(1))
    assert not (await network.Loss().heal(stage)).acted
