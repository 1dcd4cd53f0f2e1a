"""How calls to a service are treated: everything that is set, as one value."""

from __future__ import annotations

from typing import Final

import msgspec

from raftreg.core.entries.routing import LoadBalancer
from raftreg.mesh.balance.hash_key import POLICIES_MAX, HashField, HashPolicy
from raftreg.mesh.balance.least_request import LeastRequestSettings
from raftreg.mesh.balance.maglev import MaglevSettings
from raftreg.mesh.balance.policy import Policy, RandomChoiceSettings, RoundRobinSettings
from raftreg.mesh.balance.pool import PoolSettings
from raftreg.mesh.balance.ring_hash import RingHashSettings
from raftreg.mesh.breaker import BreakerSettings
from raftreg.mesh.budget import BudgetSettings
from raftreg.mesh.bulkhead import BulkheadSettings
from raftreg.mesh.deadline import TimeoutSettings
from raftreg.mesh.fallback import FallbackSettings
from raftreg.mesh.fault import FaultRule
from raftreg.mesh.learned import LearnSettings
from raftreg.mesh.nouns import MeshConfigError
from raftreg.mesh.outlier import OutlierSettings
from raftreg.mesh.rate_limit import RateLimitSettings
from raftreg.mesh.retry import RETRIES_MAX, RetrySettings
from raftreg.mesh.retry_on import Condition
from raftreg.mesh.route import RouteRetry

#: Bounds that numbers of Consul's entries, which have none, are cut to.
CHOICES_MAX: Final = 10
RING_MIN: Final = 1024
RING_MAX: Final = 131_072


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How calls to a service are treated.

    Attributes:
        timeouts: How long calls may take; a route may say otherwise of the whole call.
        pool: How an instance is chosen.
        near_first: Instances in the caller's zone are preferred while they can take the calls.
        breaker: Of the service as a whole; None for none.
        instance_breaker: Of each instance; None for none.
        outlier: When an instance is left out; None for never.
        bulkhead: How many calls may be under way, and how many wait.
        retry: When a call is repeated.
        budget: How many repeats there may be.
        learn: How the waits before repeats are learned; None for never.
        rate_limit: How many calls each source may make; None for any number.
        fallback: What a caller gets instead of a failure; None for the failure.
        faults: What is done to calls on purpose.
        sticky: What keeps a caller on one leg of a split; empty to draw for each call.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    timeouts: TimeoutSettings = TimeoutSettings()
    pool: PoolSettings = PoolSettings()
    near_first: bool = False
    breaker: BreakerSettings | None = BreakerSettings()
    instance_breaker: BreakerSettings | None = None
    outlier: OutlierSettings | None = OutlierSettings()
    bulkhead: BulkheadSettings = BulkheadSettings()
    retry: RetrySettings = RetrySettings()
    budget: BudgetSettings = BudgetSettings()
    learn: LearnSettings | None = LearnSettings()
    rate_limit: RateLimitSettings | None = None
    fallback: FallbackSettings | None = None
    faults: tuple[FaultRule, ...] = ()
    sticky: tuple[HashPolicy, ...] = ()


DEFAULTS = ServiceSettings()


def timeouts_of_route(
    settings: ServiceSettings, timeout_s: float | None, idle_s: float | None
) -> TimeoutSettings:
    """The timeouts of a service, where a route does not say otherwise."""
    timeouts = settings.timeouts
    if timeout_s is not None:
        timeouts = msgspec.structs.replace(timeouts, request_s=timeout_s)
    if idle_s is not None:
        timeouts = msgspec.structs.replace(timeouts, idle_s=idle_s)
    return timeouts


def retries_of_route(settings: ServiceSettings, route: RouteRetry | None) -> RetrySettings:
    """The retries of a service, where a route does not say otherwise.

    A route that names conditions or status codes replaces all of the service's.
    """
    retry = settings.retry
    per_try_s = settings.timeouts.per_try_s
    if per_try_s and (retry.per_try_timeout_s is None or per_try_s < retry.per_try_timeout_s):
        retry = msgspec.structs.replace(retry, per_try_timeout_s=per_try_s)
    if route is None:
        return retry
    if route.conditions or route.statuses:
        retry = msgspec.structs.replace(
            retry,
            conditions=frozenset(_condition(name) for name in route.conditions),
            status_codes=frozenset(route.statuses),
        )
    if route.retries_max is not None:
        retry = msgspec.structs.replace(retry, retries_max=min(route.retries_max, RETRIES_MAX))
    return retry


def balanced(settings: ServiceSettings, balancer: LoadBalancer | None, zone: str) -> PoolSettings:
    """How an instance of a target is chosen.

    Args:
        settings: Of its service.
        balancer: What its resolver says; None or without a policy for what the settings say.
        zone: The caller's; "" when that is unknown.
    """
    pool = settings.pool
    policy = _policy(balancer) if balancer else None
    if policy is not None:
        pool = msgspec.structs.replace(pool, policy=policy)
    if settings.near_first and zone and not pool.locality.zones:
        near = msgspec.structs.replace(pool.locality, zones=(zone,))
        pool = msgspec.structs.replace(pool, locality=near)
    return pool


def _condition(name: str) -> Condition:
    try:
        return Condition(name)
    except ValueError:
        raise MeshConfigError(f"RetryOn: {name[:64]!r} is no condition") from None


def _policy(balancer: LoadBalancer) -> Policy | None:
    """The policy that a resolver names (Consul's `LoadBalancer`); None when it names none."""
    match balancer.get("Policy", ""):
        case "round_robin":
            return RoundRobinSettings()
        case "random":
            return RandomChoiceSettings()
        case "least_request":
            choices = balancer.get("LeastRequestConfig", {}).get("ChoiceCount") or 2
            return LeastRequestSettings(choices=min(max(choices, 2), CHOICES_MAX))
        case "ring_hash":
            ring = balancer.get("RingHashConfig", {})
            size_min = min(ring.get("MinimumRingSize") or RING_MIN, RING_MAX)
            size_max = min(ring.get("MaximumRingSize") or RING_MAX, RING_MAX)
            return RingHashSettings(
                policies=hash_policies(balancer),
                size_min=min(size_min, size_max),
                size_max=size_max,
            )
        case "maglev":
            return MaglevSettings(policies=hash_policies(balancer))
        case _:
            return None


def hash_policies(balancer: LoadBalancer) -> tuple[HashPolicy, ...]:
    """What calls are hashed by, as a resolver says."""
    return tuple(
        HashPolicy(
            field=HashField.SOURCE_IP if each.get("SourceIP") else HashField(each.get("Field")),
            name=each.get("FieldValue", ""),
            terminal=each.get("Terminal", False),
        )
        for each in balancer.get("HashPolicies", ())[:POLICIES_MAX]
    )
