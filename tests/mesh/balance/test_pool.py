"""Levels, panic, subsets, and all of them together."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.balance.locality import Level, Locality, spread
from raftreg.mesh.balance.policy import Policy
from raftreg.mesh.balance.pool import Pool, PoolSettings
from raftreg.mesh.balance.subset import Fallback, Subset
from raftreg.mesh.nouns import Call, Instance
from tests.mesh.balance.instances import (
    CALL,
    FINE,
    POLICIES,
    choices,
    chosen,
    instance,
    policies,
    seeded,
    users,
    weighted,
)

NEAR = tuple(instance(f"near{number}", zone="a") for number in range(4))
FAR = tuple(instance(f"far{number}", zone="b") for number in range(4))
some = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted)
levels = st.lists(some.map(lambda pair: Level(*pair)), min_size=1, max_size=5)


def pool(policy: str = "round-robin", **fields: object) -> Pool:
    """A pool whose near zone is a."""
    fields.setdefault("locality", Locality(zones=("a",)))
    return Pool(PoolSettings(policy=POLICIES[policy], **fields), seeded())  # type: ignore[arg-type]


def far_share(made: Pool, count: int = 4000) -> float:
    """Share of the calls that leave the near zone."""
    counts = chosen(made, count)
    return sum(had for key, had in counts.items() if key.startswith("far")) / count


# From https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/
# priority and panic_threshold: healthy percent of each level, load in percent, panic.
ENVOY: tuple[tuple[Sequence[int], Sequence[int], Sequence[bool]], ...] = (
    ((100, 100), (100, 0), (False, False)),
    ((72, 72), (100, 0), (False, False)),
    ((71, 71), (99, 1), (False, False)),
    ((50, 50), (70, 30), (False, False)),
    ((25, 100), (35, 65), (False, False)),
    ((25, 25), (50, 50), (True, True)),
    ((0, 100), (0, 100), (False, False)),
    ((5, 65), (7, 93), (True, False)),
    ((100, 0, 0), (100, 0, 0), (False, False, False)),
    # Our own: 105 % in all is no panic, and the last takes what is left; 70 % in all is panic, and
    # with panic everywhere levels share by the number of instances.
    ((25, 25, 25), (35, 35, 30), (False, False, False)),
    ((20, 20, 10), (33, 33, 33), (True, True, True)),
)


@pytest.mark.parametrize("row", range(len(ENVOY)))
def test_levels_share_calls_as_in_envoys_tables(row: int) -> None:
    """What the nearer levels can't take goes to the next; panic only when all can't take it."""
    healthy, loads, panic = ENVOY[row]
    found = spread([Level(percent, 100) for percent in healthy])
    assert [round(load * 100) for load in found.loads] == pytest.approx(loads, abs=1)
    assert list(found.panic) == list(panic)


def test_in_panic_everywhere_calls_go_by_the_number_of_instances() -> None:
    """Nobody is fit: a level of three gets three times what a level of one gets."""
    found = spread([Level(0, 3), Level(0, 0), Level(0, 1)])
    assert found.loads == (0.75, 0.0, 0.25)
    assert found.panic == (True, False, True)


@given(levels=levels, factor=st.floats(1.0, 3.0), threshold=st.floats(0.0, 1.0))
def test_shares_of_levels_add_up(levels: list[Level], factor: float, threshold: float) -> None:
    """To 1, or to 0 when none can take a call; none goes to a level with nobody to take it."""
    found = spread(levels, overprovisioning=factor, panic_threshold=threshold)
    together = sum(found.loads)
    assert together == pytest.approx(1.0) or (together == 0.0 and not any(lv.fit for lv in levels))
    for level, load, panic in zip(levels, found.loads, found.panic, strict=True):
        assert 0.0 <= load <= 1.0
        assert load < 1e-9 or level.fit or (panic and level.total)


@pytest.mark.parametrize(
    ("unfit", "share"),
    [(0, 0.0), (1, 0.0), (2, 0.3), (3, 0.65), (4, 1.0)],
)
def test_calls_stay_near_while_enough_are_fit(unfit: int, share: float) -> None:
    """Three of four fit: 105 % after overprovisioning; two: 70 %; one: 35 %; none: all go far."""
    made = pool()
    made.update([*NEAR, *FAR], 0.0, unfit={each.key for each in NEAR[:unfit]})
    assert abs(far_share(made) - share) < 0.03


def test_zones_that_are_not_named_come_last_together() -> None:
    """The order of zones is kept; an unknown zone is as far as any other."""
    made = pool(locality=Locality(zones=("a", "b")))
    unknown = instance("unknown")
    made.update([*NEAR, *FAR, unknown], 0.0, unfit={each.key for each in NEAR})
    assert set(chosen(made, 100)) == {each.key for each in FAR}
    made.update([unknown], 0.0)
    assert set(chosen(made, 100)) == {"unknown"}


def test_few_fit_ones_make_all_be_used() -> None:
    """With 1 of 4 fit all are used, with 2 of 4 the fit ones alone; never when it is turned off."""
    keys = {each.key for each in NEAR}
    made = pool()
    made.update(NEAR, 0.0, unfit=sorted(keys)[:3])
    assert set(chosen(made, 100)) == keys
    assert any(made.spread.panic)
    made.update(NEAR, 0.0, unfit=sorted(keys)[:2])
    assert set(chosen(made, 100)) == set(sorted(keys)[2:])
    assert not any(made.spread.panic)
    calm = pool(panic_threshold=0.0)
    calm.update(NEAR, 0.0, unfit=keys)
    assert calm.choose(CALL, 0.0) is None


def test_like_calls_stay_together_while_others_spill_over() -> None:
    """With a hashing policy a user stays with one instance, and the right share spills over."""
    made = pool("ring-hash")
    made.update([*NEAR, *FAR], 0.0, unfit={each.key for each in NEAR[:2]})
    first = [made.choose(call, 0.0) for call in users(3000)]
    assert [made.choose(call, 0.0) for call in users(3000)] == first
    gone = sum(each in FAR for each in first) / 3000
    assert abs(gone - 0.3) < 0.05


def test_an_instance_of_weight_zero_gets_no_calls() -> None:
    """Consul lets an instance whose checks warn have weight 0."""
    made = pool()
    made.update(weighted(0, 1), 0.0)
    assert set(chosen(made, 10)) == {"i1"}
    made.update(weighted(0), 0.0)
    assert made.choose(CALL, 0.0) is None


def test_open_calls_are_counted_where_they_began() -> None:
    """Least request sees the calls of each zone, and forgets them when they end."""
    made = pool("least-request")
    made.update([*NEAR[:2], *FAR[:1]], 0.0)
    busy = made.choose(CALL, 0.0)
    assert busy is not None
    made.began(busy, 0.0)
    others = choices(made, 20, 0.0)
    assert busy.key not in others
    made.update(FAR, 1.0)
    made.ended(busy, FINE, 2.0)
    made.update(NEAR[:2], 3.0)
    assert choices(made, 50, 3.0) == {"near0", "near1"}


@given(
    policy=policies,
    count=st.integers(0, 8),
    avoid=st.sets(st.integers(0, 9)),
    far=st.integers(0, 8),
    seed=st.integers(0, 100),
    user=st.text(max_size=3),
)
def test_one_that_was_tried_is_avoided_while_there_is_another(
    policy: Policy, count: int, avoid: set[int], far: int, seed: int, user: str
) -> None:
    """A retry goes to another instance, near or spilled over to; if all were tried, to any."""
    made = Pool(PoolSettings(policy=policy, locality=Locality(zones=("a",))), random.Random(seed))
    instances = [instance(f"i{n}", zone="b" if n < far else "a") for n in range(count)]
    made.update(instances, 0.0, unfit={"i1"})
    keys = {f"i{number}" for number in avoid}
    choice = made.choose(Call(headers={"x-user": user}), 0.0, keys)
    assert (choice is None) == (not instances)
    usable = {each.key for each in made._usable}
    if choice is not None:
        assert choice in instances
        assert choice.key not in keys or usable <= keys


SUBJECTS: tuple[Instance, ...] = (
    instance("v1", meta={"version": "1", "env": "prod"}, tags=("primary",)),
    instance("v2", meta={"version": "2", "env": "prod"}, tags=("primary", "new")),
    instance("warning", meta={"version": "2"}, tags=("new",), passing=False),
)


@pytest.mark.parametrize(
    ("subset", "keys"),
    [
        (Subset(), "v1 v2 warning"),
        (Subset(meta={"version": "2"}), "v2 warning"),
        (Subset(meta={"version": "2", "env": "prod"}), "v2"),
        (Subset(tags=("new",), only_passing=True), "v2"),
        (Subset(meta={"version": "3"}), ""),
        (Subset(meta={"version": "3"}, fallback=Fallback.ANY), "v1 v2 warning"),
    ],
    ids=["all", "meta", "two of meta", "tags and passing", "none", "none, so any"],
)
def test_a_subset_is_chosen_by_metadata_and_tags(subset: Subset, keys: str) -> None:
    """Each thing that is asked for must hold."""
    assert [each.key for each in subset.select(SUBJECTS)] == keys.split()


def test_a_pool_uses_its_subset_alone() -> None:
    """And what a filter says besides."""
    made = Pool(
        PoolSettings(subset=Subset(meta={"version": "2"})),
        seeded(),
        where=lambda each: each.passing,
    )
    made.update(SUBJECTS, 0.0)
    assert set(chosen(made, 50)) == {"v2"}
