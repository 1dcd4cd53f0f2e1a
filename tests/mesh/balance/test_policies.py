"""What holds for every policy, whatever happens in whatever order."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.balance.hash_key import HashField, HashPolicy
from raftreg.mesh.balance.least_request import LeastRequestSettings
from raftreg.mesh.balance.locality import Locality
from raftreg.mesh.balance.maglev import MaglevSettings
from raftreg.mesh.balance.peak_ewma import PeakEwmaSettings
from raftreg.mesh.balance.policy import Policy, make_balancer
from raftreg.mesh.balance.pool import PoolSettings
from raftreg.mesh.balance.ring_hash import RingHashSettings
from raftreg.mesh.balance.slow_start import SlowStart
from raftreg.mesh.nouns import Call, Failure, Instance, MeshConfigError, Outcome
from tests.mesh.balance.instances import (
    CALL,
    POLICIES,
    chosen,
    instance,
    policies,
    seeded,
    weighted,
)

outcomes = st.builds(
    Outcome,
    status=st.sampled_from([0, 200, 404, 500, 503]),
    failure=st.none() | st.sampled_from(Failure),
    duration_s=st.floats(-1.0, 100.0),
)
sets = st.lists(
    st.builds(
        instance,
        st.sampled_from("abcdef"),
        weight=st.integers(1, 65_535),
        since_s=st.floats(-100.0, 100.0),
    ),
    max_size=6,
    unique_by=lambda each: each.key,
)
steps = st.lists(
    st.one_of(
        sets,
        st.tuples(st.integers(0, 20), outcomes),
        st.builds(Call, headers=st.dictionaries(st.just("x-user"), st.text(max_size=4))),
    ),
    max_size=40,
)


@given(policy=policies, script=steps, seed=st.integers(0, 1000), slow=st.booleans())
def test_only_what_is_in_the_set_is_chosen(
    policy: Policy,
    script: Sequence[Sequence[Instance] | tuple[int, Outcome] | Call],
    seed: int,
    slow: bool,
) -> None:
    """A choice is one of the latest set, as the set has it; None if and only if the set is empty.

    Calls end late, for instances that left or came back.
    """
    rng = random.Random(seed)
    balancer = make_balancer(policy, rng, slow_start=SlowStart() if slow else None)
    present: Sequence[Instance] = ()
    running: list[Instance] = []
    for now_s, step in enumerate(script):
        match step:
            case Call():
                choice = balancer.choose(step, now_s)
                assert (choice is None) == (not present)
                if choice is not None:
                    assert any(choice is each for each in present)
                    balancer.began(choice, now_s)
                    running.append(choice)
            case (int(place), Outcome() as outcome):
                if running:
                    balancer.ended(running.pop(place % len(running)), outcome, now_s)
            case _:
                present = step
                balancer.update(present, now_s)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_ends_that_no_one_awaits_are_harmless(name: str) -> None:
    """A call that ends for an instance which is gone or never was known changes nothing."""
    balancer = make_balancer(POLICIES[name], seeded())
    stranger = instance("stranger")
    balancer.ended(stranger, Outcome(status=200), 0.0)
    balancer.update(weighted(1, 1), 0.0)
    balancer.ended(stranger, Outcome(status=200), 1.0)
    balancer.began(stranger, 1.0)
    balancer.ended(stranger, Outcome(failure=Failure.RESET), 2.0)
    assert set(chosen(balancer, 50, 3.0)) <= {"i0", "i1"}


@pytest.mark.parametrize("name", ["random", "round-robin", "least-request"])
@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 3), (100, 1, 1), (5, 5, 5, 85)])
def test_weights_are_honoured(name: str, weights: tuple[int, ...]) -> None:
    """Where nothing else tells instances apart, calls are shared by weight within 2 % of all."""
    balancer = make_balancer(POLICIES[name], seeded())
    balancer.update(weighted(*weights), 0.0)
    counts = chosen(balancer, 10_000)
    for number, weight in enumerate(weights):
        assert abs(counts[f"i{number}"] / 10_000 - weight / sum(weights)) < 0.02


@pytest.mark.parametrize("name", ["random", "round-robin", "least-request"])
def test_a_new_instance_gets_its_share_by_and_by(name: str) -> None:
    """In slow start, two instances of one weight share as 1 : ramp, and evenly when it is over."""
    slow = SlowStart(window_s=100.0, min_weight=0.1)
    balancer = make_balancer(POLICIES[name], seeded(), slow_start=slow)
    balancer.update([instance("old", since_s=-1000.0), instance("new", since_s=0.0)], 0.0)
    for now_s, ramp in ((0.0, 0.1), (5.0, 0.1), (25.0, 0.25), (50.0, 0.5), (100.0, 1.0)):
        share = chosen(balancer, 10_000, now_s)["new"] / 10_000
        assert abs(share - ramp / (1.0 + ramp)) < 0.02


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_all_new_is_as_none_new(name: str) -> None:
    """When every instance is in slow start alike, each still gets calls."""
    balancer = make_balancer(POLICIES[name], seeded(), slow_start=SlowStart(min_weight=0.001))
    balancer.update(weighted(1, 1, 1), 0.0)
    calls = [Call(headers={"x-user": str(number)}) for number in range(300)]
    assert min(chosen(balancer, 300, 0.0, calls).values()) > 30


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_choices_replay_from_a_seed(name: str) -> None:
    """The same seed and the same calls give the same choices."""

    def run() -> list[str]:
        balancer = make_balancer(POLICIES[name], seeded(7))
        balancer.update(weighted(3, 1, 2), 0.0)
        return [str(balancer.choose(CALL, 0.0)) for _ in range(50)]

    assert run() == run()


SOURCES = (HashPolicy(field=HashField.SOURCE),)
SENSELESS: tuple[tuple[type, Mapping[str, object], str], ...] = (
    (LeastRequestSettings, {"choices": 1}, "choices"),
    (PeakEwmaSettings, {"decay_s": 0.0}, "decay_s"),
    (PeakEwmaSettings, {"failure_cost_s": float("nan")}, "failure_cost_s"),
    (RingHashSettings, {"size_min": 2048, "size_max": 1024}, "size_min"),
    (RingHashSettings, {"size_max": 8_388_609}, "size_max"),
    (RingHashSettings, {"policies": SOURCES * 17}, "policies"),
    (MaglevSettings, {"slots": 65_536}, "slots"),
    (MaglevSettings, {"policies": SOURCES * 17}, "policies"),
    (HashPolicy, {"field": HashField.HEADER}, "name"),
    (HashPolicy, {"field": HashField.SOURCE_IP, "name": "x"}, "name"),
    (SlowStart, {"window_s": -1.0}, "window_s"),
    (SlowStart, {"aggression": 0.0}, "aggression"),
    (SlowStart, {"min_weight": 0.0}, "min_weight"),
    (Locality, {"overprovisioning": 0.9}, "overprovisioning"),
    (Locality, {"zones": ("a", "a")}, "zones"),
    (Locality, {"zones": tuple(map(str, range(65)))}, "zones"),
    (PoolSettings, {"panic_threshold": 1.1}, "panic_threshold"),
)


@pytest.mark.parametrize("row", range(len(SENSELESS)))
def test_settings_that_make_no_sense_are_refused(row: int) -> None:
    """The error names the field."""
    settings, fields, field = SENSELESS[row]
    with pytest.raises(MeshConfigError, match=rf"^{field}: "):
        settings(**fields)
