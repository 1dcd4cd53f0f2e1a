"""Which policy a balancer follows: the closed union of their settings, and what makes one."""

from __future__ import annotations

from typing import assert_never

import msgspec

from raftreg.mesh.balance.base import Balancer
from raftreg.mesh.balance.hash_key import HashPolicy
from raftreg.mesh.balance.hashed import Hashed
from raftreg.mesh.balance.least_request import LeastRequest, LeastRequestSettings
from raftreg.mesh.balance.maglev import Maglev, MaglevSettings
from raftreg.mesh.balance.peak_ewma import PeakEwma, PeakEwmaSettings
from raftreg.mesh.balance.random_choice import RandomChoice
from raftreg.mesh.balance.ring_hash import Ring, RingHashSettings
from raftreg.mesh.balance.round_robin import RoundRobin
from raftreg.mesh.balance.slow_start import SlowStart
from raftreg.mesh.nouns import Randomness


class RoundRobinSettings(msgspec.Struct, frozen=True, kw_only=True, tag="round-robin"):
    """Round robin has no settings of its own."""


class RandomChoiceSettings(msgspec.Struct, frozen=True, kw_only=True, tag="random"):
    """Random choice has no settings of its own."""


Policy = (
    RoundRobinSettings
    | RandomChoiceSettings
    | LeastRequestSettings
    | PeakEwmaSettings
    | RingHashSettings
    | MaglevSettings
)


def make_balancer(
    policy: Policy, rng: Randomness, *, slow_start: SlowStart | None = None
) -> Balancer:
    """Makes the balancer of a policy.

    Args:
        policy: Settings of the policy.
        rng: Where chance comes from.
        slow_start: How the weight of a new instance grows; None for at once. Hashing policies have
            none, since a share that changes would move calls.
    """
    match policy:
        case RoundRobinSettings():
            return RoundRobin(slow_start, rng)
        case RandomChoiceSettings():
            return RandomChoice(slow_start, rng)
        case LeastRequestSettings():
            return LeastRequest(policy, slow_start, rng)
        case PeakEwmaSettings():
            return PeakEwma(policy, slow_start, rng)
        case RingHashSettings():
            return Hashed(lambda: Ring(policy.size_min, policy.size_max), policy.policies, rng)
        case MaglevSettings():
            return Hashed(lambda: Maglev(policy.slots), policy.policies, rng)
    assert_never(policy)


def hash_policies(policy: Policy) -> tuple[HashPolicy, ...]:
    """What calls are hashed by; empty for a policy that hashes nothing."""
    if isinstance(policy, RingHashSettings | MaglevSettings):
        return policy.policies
    return ()
