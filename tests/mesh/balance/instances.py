"""Instances for the tests of balancing, and what is counted of choices."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hypothesis import strategies as st

from raftreg.mesh.balance.base import Balancer
from raftreg.mesh.balance.hash_key import HashField, HashPolicy
from raftreg.mesh.balance.least_request import LeastRequestSettings
from raftreg.mesh.balance.maglev import MaglevSettings
from raftreg.mesh.balance.peak_ewma import PeakEwmaSettings
from raftreg.mesh.balance.policy import Policy, RandomChoiceSettings, RoundRobinSettings
from raftreg.mesh.balance.ring_hash import RingHashSettings
from raftreg.mesh.nouns import Call, Instance, Outcome

BY_USER = (HashPolicy(field=HashField.HEADER, name="x-user"),)
#: Every policy; the tables are small, so that examples are quick.
POLICIES: Mapping[str, Policy] = {
    "round-robin": RoundRobinSettings(),
    "random": RandomChoiceSettings(),
    "least-request": LeastRequestSettings(),
    "peak-ewma": PeakEwmaSettings(),
    "ring-hash": RingHashSettings(policies=BY_USER, size_min=16, size_max=64),
    "maglev": MaglevSettings(policies=BY_USER, slots=251),
}
policies = st.sampled_from(sorted(POLICIES)).map(lambda name: POLICIES[name])
CALL = Call(method="GET")
FINE = Outcome(status=200, duration_s=0.01)


def instance(key: str, **fields: object) -> Instance:
    """An instance of this key."""
    return Instance(**{"key": key, "address": "127.0.0.1", "port": 80, **fields})  # type: ignore[arg-type]


def weighted(*weights: int) -> list[Instance]:
    """Instances i0, i1 … of these weights."""
    return [instance(f"i{number}", weight=weight) for number, weight in enumerate(weights)]


def users(count: int) -> list[Call]:
    """Calls of as many users, told apart by a header."""
    return [Call(headers={"x-user": f"user {number}"}) for number in range(count)]


def counted(chosen: Iterable[Instance | None]) -> Counter[str]:
    """How often each was chosen; a call without an instance is an error."""
    keys: Counter[str] = Counter()
    for each in chosen:
        assert each is not None
        keys[each.key] += 1
    return keys


def chosen(
    balancer: Balancer, count: int, now_s: float = 0.0, calls: Sequence[Call] = (CALL,)
) -> Counter[str]:
    """How often each is chosen, by calls that end before the next begins."""
    keys: Counter[str] = Counter()
    for number in range(count):
        each = balancer.choose(calls[number % len(calls)], now_s)
        assert each is not None
        balancer.began(each, now_s)
        balancer.ended(each, FINE, now_s)
        keys[each.key] += 1
    return keys


def choices(balancer: Balancer, count: int, now_s: float = 0.0) -> set[str]:
    """Keys of what is chosen for a few calls that do not begin."""
    return set(counted(balancer.choose(CALL, now_s) for _ in range(count)))


def seeded(seed: int = 1) -> random.Random:
    """Chance that is the same in each run."""
    return random.Random(seed)
