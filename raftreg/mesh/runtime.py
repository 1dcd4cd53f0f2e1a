"""An upstream at work: its routes with the settings that hold for each, and what it has learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeGuard

import msgspec

from raftreg.mesh.balance.pool import PoolSettings
from raftreg.mesh.budget import RetryBudget
from raftreg.mesh.deadline import TimeoutSettings
from raftreg.mesh.events import Event
from raftreg.mesh.fallback import Fallback
from raftreg.mesh.fault import Faults
from raftreg.mesh.intention import Intentions
from raftreg.mesh.learned import LearnedRetries
from raftreg.mesh.nouns import Randomness
from raftreg.mesh.rate_limit import RateLimit
from raftreg.mesh.retry import RetryPolicy
from raftreg.mesh.route import Destination, Routed, RoutingTable, Target
from raftreg.mesh.settings import (
    DEFAULTS,
    ServiceSettings,
    balanced,
    retries_of_route,
    timeouts_of_route,
)
from raftreg.mesh.upstream import TargetState


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One service that can be called.

    Attributes:
        routes: Where calls to it go.
        intentions: Who is let in; None where that is not decided here, as on the caller's side.
    """

    routes: RoutingTable
    intentions: Intentions | None = None


class MeshTable(msgspec.Struct, frozen=True, kw_only=True):
    """A whole configuration.

    Attributes:
        upstreams: What can be called, by the name that callers use.
        settings: How calls to a service are treated, by its name; defaults for those not there.
        zone: Where the caller is; "" when that is unknown.
        revision: Which configuration it is, for whoever asks.
    """

    upstreams: Mapping[str, UpstreamConfig] = {}
    settings: Mapping[str, ServiceSettings] = {}
    zone: str = ""
    revision: int = 0


class Moment(msgspec.Struct, frozen=True):
    """The time, by both clocks.

    Attributes:
        now_s: Monotonic seconds.
        unix_s: Seconds since the Unix epoch.
    """

    now_s: float
    unix_s: float


class Surroundings(msgspec.Struct, frozen=True):
    """What an upstream has from outside.

    Attributes:
        rng: Where chance comes from.
        sink: Is told what happens.
    """

    rng: Randomness
    sink: Callable[[Event], None]


class Generation:
    """A configuration at work, as the calls that began under it see it.

    Args:
        around: What upstreams have from outside.
        revision: Which configuration it is.
        upstreams: Its upstreams by name.

    Attributes:
        calls: Calls under it that are not over.
    """

    __slots__ = ("around", "calls", "revision", "upstreams")

    def __init__(
        self, around: Surroundings, revision: int, upstreams: Mapping[str, Upstream]
    ) -> None:
        self.around = around
        self.revision = revision
        self.upstreams = upstreams
        self.calls = 0


class Leg(msgspec.Struct, frozen=True):
    """One of the ways that calls take, with all that holds on it.

    Attributes:
        routed: Where it leads.
        states: Its targets in the order in which they are tried.
        retry: When calls are repeated.
        timeouts: How long they may take.
    """

    routed: Routed
    states: tuple[TargetState, ...]
    retry: RetryPolicy
    timeouts: TimeoutSettings


class Upstream:
    """An upstream at work.

    What it has learned is taken over from the one before where the settings stayed the same.

    Args:
        name: What callers call it.
        config: Its routes.
        table: The configuration that it is a part of.
        around: What it has from outside.
        moment: Now.
        before: The one with this name until now.

    Attributes:
        targets: Its targets by id.

    Raises:
        MeshConfigError: Its settings contradict themselves.
    """

    def __init__(
        self,
        name: str,
        config: UpstreamConfig,
        table: MeshTable,
        around: Surroundings,
        moment: Moment,
        before: Upstream | None,
    ) -> None:
        self.name = name
        self.config = config
        self.settings = settings = table.settings.get(config.routes.service, DEFAULTS)
        self._table = table
        self._around = around
        self.targets: dict[str, TargetState] = {}
        self.budget: RetryBudget = (
            before.budget if _kept(before, settings, "budget") else RetryBudget(settings.budget)
        )
        self.learner: LearnedRetries | None = (
            before.learner if _kept(before, settings, "learn") else _learner(settings)
        )
        self.rate_limit: RateLimit | None = (
            before.rate_limit if _kept(before, settings, "rate_limit") else _rate_limit(settings)
        )
        self.faults: Faults = (
            before.faults
            if _kept(before, settings, "faults")
            else Faults(settings.faults, around.rng, moment.now_s, moment.unix_s)
        )
        self.fallback: Fallback | None = (
            before.fallback if _kept(before, settings, "fallback") else _fallback(settings)
        )
        known = before.targets if before is not None else {}
        self._legs = {
            id(routed): self._leg(routed, known, moment.now_s) for routed in config.routes.legs()
        }

    def leg(self, routed: Routed) -> Leg:
        """The way that a call takes which was routed here."""
        return self._legs[id(routed)]

    def _leg(self, routed: Routed, known: Mapping[str, TargetState], now_s: float) -> Leg:
        destination = routed.destination
        settings = retries_of_route(self.settings, routed.retry)
        return Leg(
            routed=routed,
            states=tuple(
                self._state(target, destination, known, now_s) for target in destination.targets
            ),
            retry=RetryPolicy(settings, self.budget, self._around.rng, self.learner),
            timeouts=timeouts_of_route(self.settings, routed.timeout_s, routed.idle_timeout_s),
        )

    def _state(
        self,
        target: Target,
        destination: Destination,
        known: Mapping[str, TargetState],
        now_s: float,
    ) -> TargetState:
        """The state of a target, made once; the known one if nothing about it has changed."""
        made = self.targets.get(target.id)
        if made is not None:
            return made
        settings = self._table.settings.get(target.service, DEFAULTS)
        own = target.id == destination.targets[0].id
        pool = balanced(settings, destination.load_balancer if own else None, self._table.zone)
        state = known.get(target.id)
        if state is None or not _same(state, target, settings, pool):
            state = TargetState(
                self.name, target, settings, pool, self._around.rng, self._around.sink, now_s
            )
        self.targets[target.id] = state
        return state


def _kept(before: Upstream | None, settings: ServiceSettings, field: str) -> TypeGuard[Upstream]:
    """Whether what was learned under these settings can go on."""
    return before is not None and getattr(before.settings, field) == getattr(settings, field)


def _learner(settings: ServiceSettings) -> LearnedRetries | None:
    return LearnedRetries(settings.learn) if settings.learn is not None else None


def _rate_limit(settings: ServiceSettings) -> RateLimit | None:
    return RateLimit(settings.rate_limit) if settings.rate_limit is not None else None


def _fallback(settings: ServiceSettings) -> Fallback | None:
    return Fallback(settings.fallback) if settings.fallback is not None else None


def _same(
    state: TargetState, target: Target, settings: ServiceSettings, pool: PoolSettings
) -> bool:
    return (state.target, state.settings, state.pool_settings) == (target, settings, pool)
