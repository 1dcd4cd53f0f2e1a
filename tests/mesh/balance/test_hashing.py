"""Ring and maglev table, and what is hashed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.balance.hash_key import HashField, HashPolicy, HashTable, hash64, hash_call
from raftreg.mesh.balance.hashed import Hashed
from raftreg.mesh.balance.maglev import Maglev, MaglevSettings, offset_and_skip, populate
from raftreg.mesh.balance.ring_hash import Ring, points_of
from raftreg.mesh.nouns import Call, Instance
from tests.mesh.balance.instances import BY_USER, CALL, counted, instance, seeded, users, weighted

TABLES: dict[str, Callable[[], HashTable]] = {
    "ring": lambda: Ring(1024, 131_072),
    "maglev": Maglev,
}
CALLS = users(5000)
tables = pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
MakeTable = Callable[[], HashTable]


def hashed(make: MakeTable, instances: list[Instance]) -> Hashed:
    """A balancer with these instances that hashes by user."""
    balancer = Hashed(make, BY_USER, seeded())
    balancer.update(instances, 0.0)
    return balancer


def owners(balancer: Hashed) -> list[str]:
    """Whose each of the calls is."""
    return [each.key for call in CALLS if (each := balancer.choose(call, 0.0)) is not None]


@tables
@pytest.mark.parametrize("weights", [(1,) * 10, (1, 1, 2, 4), (10, 30, 60), (65_535, 65_535)])
def test_shares_are_by_weight(make: MakeTable, weights: tuple[int, ...]) -> None:
    """The shares of 5000 users are within a quarter of those of the weights."""
    balancer = hashed(make, weighted(*weights))
    counts = counted(balancer.choose(call, 0.0) for call in CALLS)
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(counts[f"i{number}"] / len(CALLS) - share) < share / 4


@tables
@pytest.mark.parametrize("count", [2, 3, 4, 7, 8, 16, 20])
def test_removing_one_moves_its_keys_and_few_others(make: MakeTable, count: int) -> None:
    """Keys of the one that left go to the others; of the rest at most 4 % move."""
    balancer = hashed(make, weighted(*[1] * count))
    before = owners(balancer)
    balancer.update(weighted(*[1] * count)[1:], 0.0)
    after = owners(balancer)
    assert "i0" not in after
    moved = [old for old, new in zip(before, after, strict=True) if old != new]
    assert abs(moved.count("i0") / len(CALLS) - 1 / count) < 0.3 / count
    assert len(moved) - moved.count("i0") < 0.04 * len(CALLS)


def test_a_ring_moves_no_others_at_all() -> None:
    """Points of those that stay are the same, so none of their keys moves; adding takes 1/n."""
    balancer = hashed(TABLES["ring"], weighted(*[7] * 9))
    before = owners(balancer)
    balancer.update(weighted(*[7] * 10), 0.0)
    moved = [new for old, new in zip(before, owners(balancer), strict=True) if old != new]
    assert set(moved) == {"i9"}
    assert 0.05 < len(moved) / len(CALLS) < 0.15


@tables
def test_the_order_of_instances_does_not_matter(make: MakeTable) -> None:
    """All callers agree, in whatever order they heard of the instances."""
    instances = weighted(1, 2, 3, 4, 5)
    assert owners(hashed(make, instances)) == owners(hashed(make, instances[::-1]))


@tables
def test_an_instance_that_moves_keeps_its_keys(make: MakeTable) -> None:
    """Another address of the same key is given out at once, to the same calls."""
    balancer = hashed(make, weighted(1, 1))
    before = owners(balancer)
    balancer.update([instance(f"i{number}", port=9000 + number) for number in range(2)], 0.0)
    assert owners(balancer) == before
    choice = balancer.choose(CALLS[0], 0.0)
    assert choice is not None
    assert choice.port >= 9000


def test_a_set_that_returns_soon_needs_no_new_table() -> None:
    """Ejections that end find the table of before; no more than a few are kept."""
    made: list[Maglev] = []

    def make() -> Maglev:
        made.append(Maglev(251))
        return made[-1]

    balancer = Hashed(make, BY_USER, seeded())
    everyone = weighted(*[1] * 8)
    for _ in range(3):
        balancer.update(everyone, 0.0)
        before = owners(balancer)
        balancer.update(everyone[1:], 0.0)
        assert "i0" not in owners(balancer)
        balancer.update(everyone, 0.0)
        assert owners(balancer) == before
    assert len(made) == 3  # the empty one, and two more
    for left in range(8):
        balancer.update(everyone[:left], 0.0)
    assert len(balancer._tables) == 4


@tables
def test_calls_without_the_key_are_spread(make: MakeTable) -> None:
    """A call that has nothing to hash goes to any instance."""
    balancer = hashed(make, weighted(1, 1, 1))
    counts = counted(balancer.choose(CALL, 0.0) for _ in range(3000))
    assert min(counts.values()) > 800


@given(
    weights=st.lists(st.integers(1, 65_535), min_size=1, max_size=40),
    size_min=st.integers(1, 2000),
    more=st.integers(0, 5000),
)
def test_a_ring_keeps_to_its_bounds(weights: list[int], size_min: int, more: int) -> None:
    """Each has a point, no heavier one has fewer, and the ring is as large as was asked for."""
    points = points_of(weights, size_min, size_min + more)
    assert min(points) >= 1
    assert sum(points) <= max(size_min + more, len(weights))
    by_weight = [count for _, count in sorted(zip(weights, points, strict=True))]
    assert by_weight == sorted(by_weight)
    if more >= size_min + len(weights):
        assert sum(points) >= size_min


@given(weights=st.lists(st.integers(1, 100), min_size=1, max_size=20))
def test_points_are_in_proportion_to_weights(weights: list[int]) -> None:
    """Each has its part of the 512 or more points of the heaviest, to one point."""
    points = points_of(weights, 1024, 131_072)
    unit = max(points) / max(weights)
    assert max(points) >= 512
    assert all(abs(had - weight * unit) <= 1 for had, weight in zip(points, weights, strict=True))


@given(count=st.integers(1, 200), weight=st.integers(1, 65_535))
def test_points_of_equals_do_not_depend_on_their_number(count: int, weight: int) -> None:
    """So none of the keys of those that stay moves, while the bounds are not reached."""
    alone = points_of([weight], 1, 262_144)[0]
    assert points_of([weight] * count, 1, 262_144) == [alone] * count


def by_the_paper(instances: list[Instance], slots: int) -> list[int]:
    """The table of the paper's pseudocode, with the orders written out; equal weights."""
    orders = []
    for each in instances:
        offset, skip = offset_and_skip(each.key, slots)
        orders.append([(offset + place * skip) % slots for place in range(slots)])
    table, following, filled = [-1] * slots, [0] * len(instances), 0
    while True:
        for owner, wanted in enumerate(orders):
            while table[wanted[following[owner]]] >= 0:
                following[owner] += 1
            table[wanted[following[owner]]] = owner
            filled += 1
            if filled == slots:
                return table


@given(count=st.integers(1, 30), slots=st.sampled_from([3, 31, 251, 1021]))
def test_the_table_is_that_of_the_paper(count: int, slots: int) -> None:
    """The shortcut at the end fills the very table that walking all orders does."""
    instances = sorted(weighted(*[1] * count), key=lambda each: each.key)
    assert populate(instances, slots) == by_the_paper(instances, slots)


@given(weights=st.lists(st.integers(1, 10), min_size=1, max_size=12))
def test_slots_are_by_weight(weights: list[int]) -> None:
    """Slots differ from the shares of the weights by one turn of the round at most."""
    table = populate(weighted(*weights), 1021)
    for owner, weight in enumerate(weights):
        share = 1021 * weight / sum(weights)
        assert abs(table.count(owner) - share) <= 2.0 + len(weights) * weight / sum(weights)


def test_more_instances_than_slots() -> None:
    """A table that is too small still finds someone for every call."""
    table = Maglev(MaglevSettings(slots=3).slots)
    table.update(weighted(*[1] * 5))
    assert all(table.find(number) is not None for number in range(10))


POLICY = {
    "header": HashPolicy(field=HashField.HEADER, name="X-User"),
    "cookie": HashPolicy(field=HashField.COOKIE, name="sid"),
    "query": HashPolicy(field=HashField.QUERY, name="id"),
    "ip": HashPolicy(field=HashField.SOURCE_IP),
    "source": HashPolicy(field=HashField.SOURCE),
}


@pytest.mark.parametrize(
    ("policy", "call"),
    [
        ("header", Call(headers={"x-user": "v"})),
        ("cookie", Call(headers={"cookie": "a=b; sid=v; c=d"})),
        ("cookie", Call(headers={"cookie": ' sid="v"'})),
        ("query", Call(query={"id": "v"})),
        ("ip", Call(source_address="v")),
        ("source", Call(source="v")),
    ],
)
def test_the_named_part_is_hashed(policy: str, call: Call) -> None:
    """Equal values have equal hashes, wherever they come from; nothing else counts."""
    assert hash_call(call, [POLICY[policy]]) == hash64("v")


@pytest.mark.parametrize("policy", sorted(POLICY))
def test_a_call_without_the_part_has_no_hash(policy: str) -> None:
    """Neither has one whose cookies are malformed."""
    call = Call(headers={"cookie": ";;=; sid; xsid=1"})
    assert hash_call(call, [POLICY[policy]]) is None


def test_policies_are_combined_until_a_terminal_one() -> None:
    """All parts that are there count, in their order; after a terminal one that is there, none."""
    call = Call(headers={"x-user": "u"}, source="web", source_address="10.0.0.1")
    both = hash_call(call, [POLICY["header"], POLICY["source"]])
    assert both == ((hash64("u") << 1 | hash64("u") >> 63) & (2**64 - 1)) ^ hash64("web")
    assert both != hash_call(call, [POLICY["source"], POLICY["header"]])
    last = HashPolicy(field=HashField.HEADER, name="x-user", terminal=True)
    assert hash_call(call, [last, POLICY["source"]]) == hash64("u")
    assert hash_call(Call(source="web"), [last, POLICY["source"]]) == hash64("web")


def test_hashes_are_the_same_everywhere() -> None:
    """A hash is a fixed function of the text, whatever the text is."""
    assert hash64("user 1") == 0x82734ADF23BC02AB
    assert 0 <= hash64("\udcff\x00ü") < 2**64


@given(value=st.text(), name=st.text(min_size=1))
def test_any_cookie_header_is_read(value: str, name: str) -> None:
    """No text breaks it."""
    hash_call(Call(headers={"cookie": value}), [HashPolicy(field=HashField.COOKIE, name=name)])


def test_chance_is_asked_only_when_there_is_no_key() -> None:
    """The place of a call with a key does not depend on the seed."""
    one, two = (Hashed(lambda: Ring(1024, 4096), BY_USER, random.Random(seed)) for seed in (1, 2))
    for balancer in (one, two):
        balancer.update(weighted(1, 1, 1), 0.0)
    assert owners(one) == owners(two)
