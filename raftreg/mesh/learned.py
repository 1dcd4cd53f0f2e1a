"""When to repeat a failed call, learned from how long failures of that service have lasted.

With F(t) the share of failures that are over t seconds after they were met (`recovery`), a plan is
a list of delays t1 < t2 < ... since the failure, at which the call is repeated until it succeeds.
Its worth, counted in calls recovered, is

    F(tn)  -  try_cost * E[repeats]  -  wait_cost_per_s * E[seconds until the last repeat made]

so `try_cost` is the least chance of success for which a repeat is worth its load, and
`wait_cost_per_s` what a caller's second is worth. A repeat at t2 is made only if the one at t1
failed, with probability 1 - F(t1); so the worth is a sum over pairs of neighbours,

    F(tj) - F(ti)  -  (1 - F(ti)) * (try_cost + wait_cost_per_s * (tj - ti)),

and the best plan of at most n repeats is found exactly, by dynamic programming over the grid of
delays (a shortest path of at most n edges). If no repeat is worth its cost the plan is empty.

A plan sees only what it tries. So a small share of the failed calls repeats at random times, spread
evenly over the orders of magnitude up to the horizon: that is how a plan is found at all where the
default gives up too soon, and how a change is noticed. Until enough failures were seen, the others
wait exponentially with full jitter. Old failures lose their weight by halves.

The model is that of an outage: once over, it stays over. Where each attempt fails on its own, by
chance, time plays no part; a plan then recovers about what the default does, but it may wait longer
than it need, and if most attempts fail it may find the second repeat not worth it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from raftreg.mesh.backoff import BackoffSettings
from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Randomness
from raftreg.mesh.recovery import DELAY_MAX_S, DELAY_MIN_S, DELAYS, Recoveries, delay_of, delay_s

REPEATS_MAX: Final = 10


class LearnSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a repeat costs, and how fast is learned.

    Attributes:
        retries_max: Most repeats of a call, 1 to 10.
        horizon_s: Latest repeat after the first failure, in seconds, up to 60.
        try_cost: Cost of a repeat, in recovered calls: 0.05 repeats at a chance of 5 % or more.
        wait_cost_per_s: Cost of a second that a caller waits, in recovered calls.
        failures_min: Weight of failures from which on a plan is made.
        half_life_s: Seconds in which an old failure loses half of its weight.
        window_s: Seconds from one plan to the next.
        explore_share: Share of failed calls that repeat at random times. 0 learns only from the
            delays that are used anyway.
        jitter: Delays of a plan are spread upwards by up to this share of themselves.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    retries_max: int = 2
    horizon_s: float = 5.0
    try_cost: float = 0.05
    wait_cost_per_s: float = 0.1
    failures_min: float = 50.0
    half_life_s: float = 600.0
    window_s: float = 10.0
    explore_share: float = 0.05
    jitter: float = 0.1

    def __post_init__(self) -> None:
        within("retries_max", self.retries_max, 1, REPEATS_MAX)
        within("horizon_s", self.horizon_s, DELAY_MIN_S, DELAY_MAX_S)
        within("try_cost", self.try_cost, 0.0, 1.0)
        within("wait_cost_per_s", self.wait_cost_per_s, 0.0, 1000.0)
        within("failures_min", self.failures_min, 1.0, 1e6)
        within("half_life_s", self.half_life_s, 1.0, 86_400.0 * 7)
        within("window_s", self.window_s, 0.1, 3600.0)
        within("explore_share", self.explore_share, 0.0, 0.5)
        within("jitter", self.jitter, 0.0, 1.0)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """When failed calls are repeated, and what is expected of it.

    Attributes:
        delays_s: Seconds since the first failure; empty: not at all.
        recovered_share: Share of failures that it recovers.
        repeats_expected: Repeats for a failed call, on average.
        wait_expected_s: Seconds until the last repeat that is made, on average.
    """

    delays_s: tuple[float, ...]
    recovered_share: float
    repeats_expected: float
    wait_expected_s: float


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """How many failures are over by then.

    Attributes:
        delay_s: Seconds since the failure.
        recovered_share: Share of failures that have recovered, 0 to 1.
    """

    delay_s: float
    recovered_share: float


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the failures of a service, for people (`raftreg mesh retries`).

    Attributes:
        service: Its name.
        failures: Weight of the failures that were seen.
        failures_min: Weight from which on a plan is made.
        plan: What is done; None: the default, since there is not enough data.
        default: What the exponential default would do, by its mean delays; None without data.
        curve: Recovery over time up to the horizon; empty without data.
    """

    service: str
    failures: float
    failures_min: float
    plan: Plan | None
    default: Plan | None
    curve: tuple[CurvePoint, ...]


def expected(delays_s: Sequence[float], curve: Sequence[float]) -> Plan:
    """What is to be expected of repeats at these delays.

    Args:
        delays_s: Seconds since the failure, ascending.
        curve: Share that has recovered by each place of the grid.
    """
    recovered = repeats = waited_s = before_s = 0.0
    for at_s in delays_s:
        repeats += 1 - recovered
        waited_s += (1 - recovered) * (at_s - before_s)
        before_s = at_s
        recovered = max(recovered, curve[delay_of(at_s)])
    return Plan(
        delays_s=tuple(delays_s),
        recovered_share=recovered,
        repeats_expected=repeats,
        wait_expected_s=waited_s,
    )


def best_plan(curve: Sequence[float], settings: LearnSettings) -> Plan:
    """The plan of the greatest worth, see above; O(repeats * delays**2).

    Args:
        curve: Share that has recovered by each place of the grid, `DELAYS` of them, ascending.
        settings: Costs and limits.
    """
    latest_s = settings.horizon_s / (1 + settings.jitter)
    # Place 0 of these lists is the failure itself; a place of the grid is one further.
    times_s = [0.0, *(at_s for at_s in map(delay_s, range(DELAYS)) if at_s <= latest_s)]
    shares = [0.0, *curve[: len(times_s) - 1]]
    worth = [0.0] * len(times_s)
    choices: list[list[int]] = []
    for _ in range(settings.retries_max):
        worth, chosen = _one_more(times_s, shares, worth, settings)
        choices.append(chosen)
    delays_s: list[float] = []
    place = 0
    for chosen in reversed(choices):
        place = chosen[place]
        if not place:
            break
        delays_s.append(times_s[place])
    return expected(delays_s, curve)


def _one_more(
    times_s: Sequence[float],
    shares: Sequence[float],
    later: Sequence[float],
    settings: LearnSettings,
) -> tuple[list[float], list[int]]:
    """Worth of the best next repeat after each place, and where that is (0: none is worth it).

    Args:
        times_s: Delay of each place, in seconds.
        shares: Share that has recovered by each place.
        later: Worth of what follows a repeat at each place, with one repeat less.
        settings: Costs.
    """
    best = [0.0] * len(times_s)
    chosen = [0] * len(times_s)
    for before, before_s in enumerate(times_s):
        left = 1 - shares[before]
        for place in range(before + 1, len(times_s)):
            waited_s = times_s[place] - before_s
            cost = left * (settings.try_cost + settings.wait_cost_per_s * waited_s)
            value = shares[place] - shares[before] - cost + later[place]
            if value > best[before]:
                best[before], chosen[before] = value, place
    return best, chosen


class LearnedRetries:
    """When to repeat failed calls to one service.

    A sidecar feeds it with what its calls saw and sends what `take` gives to the registry; the
    registry merges that of all sidecars into one of its own and gives its plan back, which `adopt`
    puts before the sidecar's. `observe` and `schedule` are O(1); `turn` is for a timer.

    Args:
        settings: Costs and limits.

    Attributes:
        settings: What was given.
        plan: What is done; None: the exponential default.
    """

    __slots__ = ("_adopted", "_fresh", "_own", "_sums", "_turned_s", "settings")

    def __init__(self, settings: LearnSettings) -> None:
        self.settings = settings
        self._fresh = Recoveries()
        self._sums = Recoveries()
        self._own: Plan | None = None
        self._adopted: Plan | None = None
        self._turned_s: float | None = None

    @property
    def plan(self) -> Plan | None:
        """The registry's plan, or else the one of here; None: the exponential default."""
        return self._adopted or self._own

    def observe(self, failed_s: float | None, succeeded_s: float | None) -> None:
        """Counts what a failed call saw, see `Recoveries.observe`."""
        self._fresh.observe(failed_s, succeeded_s)
        self._sums.observe(failed_s, succeeded_s)

    def merge(self, other: Recoveries) -> None:
        """Adds what a sidecar saw."""
        self._sums.merge(other)

    def take(self) -> Recoveries:
        """Gives what was observed here since the last time, for the registry."""
        taken, self._fresh = self._fresh, Recoveries()
        return taken

    def adopt(self, plan: Plan | None) -> None:
        """Takes the registry's plan; None when it has none.

        Delays beyond this one's own limits are left out.
        """
        if plan is not None:
            limit_s = self.settings.horizon_s
            delays_s = [at_s for at_s in plan.delays_s if 0 <= at_s <= limit_s]
            kept = tuple(sorted(delays_s))[: self.settings.retries_max]
            plan = msgspec.structs.replace(plan, delays_s=kept)
        self._adopted = plan

    def turn(self, now_s: float) -> None:
        """Makes a new plan when a window has passed, unless one was adopted.

        That takes 10 to 50 milliseconds: in a sidecar it happens only without the registry.

        Args:
            now_s: Monotonic time in seconds.
        """
        if self._turned_s is None:
            self._turned_s = now_s
        passed_s = now_s - self._turned_s
        if passed_s < self.settings.window_s:
            return
        self._turned_s = now_s
        self._sums.decay(0.5 ** (passed_s / self.settings.half_life_s))
        wanted = self._adopted is None and self._sums.weight >= self.settings.failures_min
        self._own = best_plan(self._sums.curve(), self.settings) if wanted else None

    def schedule(self, chance: Randomness) -> tuple[float, ...] | None:
        """When to repeat a call that just failed, in seconds since then; None: the default.

        Args:
            chance: Decides who explores, and spreads the delays.
        """
        if chance.random() < self.settings.explore_share:
            return self._explore(chance)
        if (plan := self.plan) is None:
            return None
        spread = 1 + self.settings.jitter * chance.random()
        return tuple(at_s * spread for at_s in plan.delays_s)

    def _explore(self, chance: Randomness) -> tuple[float, ...]:
        span = math.log(self.settings.horizon_s / DELAY_MIN_S)
        draws = (chance.random() for _ in range(self.settings.retries_max))
        return tuple(sorted(DELAY_MIN_S * math.exp(draw * span) for draw in draws))

    def shown(self, service: str, backoff: BackoffSettings) -> Learned:
        """What is known and done, for people; as slow as `turn`.

        Args:
            service: Its name.
            backoff: The default to compare with.
        """
        known = bool(self._sums.weights)
        curve = self._sums.curve()
        default: list[float] = []
        for retry in range(self.settings.retries_max):
            default.append((default[-1] if default else 0.0) + backoff.bound_s(retry) / 2)
        points = [
            CurvePoint(delay_s=delay_s(place), recovered_share=share)
            for place, share in enumerate(curve)
            if delay_s(place) <= self.settings.horizon_s
        ]
        return Learned(
            service=service,
            failures=self._sums.weight,
            failures_min=self.settings.failures_min,
            plan=self.plan,
            default=expected(default, curve) if known else None,
            curve=tuple(points) if known else (),
        )
