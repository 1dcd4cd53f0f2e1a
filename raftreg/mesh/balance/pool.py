"""The instances of one upstream, and the choice among them: subset, panic, locality, policy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from raftreg.mesh.balance.base import Balancer
from raftreg.mesh.balance.hash_key import hash_call
from raftreg.mesh.balance.least_request import LeastRequestSettings
from raftreg.mesh.balance.locality import Level, Locality, Spread, spread
from raftreg.mesh.balance.policy import Policy, hash_policies, make_balancer
from raftreg.mesh.balance.slow_start import SlowStart
from raftreg.mesh.balance.subset import Subset
from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Call, Instance, Outcome, Randomness

#: Choices by the policy before an instance that was not tried is simply looked for.
_AGAIN_MAX = 3


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How an instance of an upstream is chosen.

    Attributes:
        policy: How one is chosen among its like.
        slow_start: How the weight of a new instance grows; None for at once.
        locality: Which zones are tried first.
        panic_threshold: Share of fit instances, 0 to 1, below which all are used; 0 for never.
        subset: Which instances are used at all.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    policy: Policy = LeastRequestSettings()
    slow_start: SlowStart | None = None
    locality: Locality = Locality()
    panic_threshold: float = 0.5
    subset: Subset = Subset()

    def __post_init__(self) -> None:
        within("panic_threshold", self.panic_threshold, 0.0, 1.0)


class Pool:
    """A balancer over levels of instances, each with a balancer of the same policy.

    Args:
        settings: How an instance is chosen.
        rng: Where chance comes from.
        where: What must hold for an instance besides the subset, such as a compiled filter.
    """

    def __init__(
        self,
        settings: PoolSettings,
        rng: Randomness,
        *,
        where: Callable[[Instance], bool] | None = None,
    ) -> None:
        self._settings = settings
        self._rng = rng
        self._where = where
        self._hash_policies = hash_policies(settings.policy)
        zones = settings.locality.zones
        self._level_of = {zone: level for level, zone in enumerate(zones)}
        self._rest = len(zones)
        self._balancers: list[Balancer] = [
            make_balancer(settings.policy, rng, slow_start=settings.slow_start)
            for _ in range(len(zones) + 1)
        ]
        self._usable: list[Instance] = []
        self._bounds: list[tuple[float, Balancer]] = []
        self.spread = Spread((), ())

    def update(
        self, instances: Sequence[Instance], now_s: float, unfit: Collection[str] = ()
    ) -> None:
        """Replaces the instances.

        Args:
            instances: All that there are; one of weight 0 wants no calls and gets none.
            now_s: Monotonic seconds.
            unfit: Keys of those that are critical or ejected: used in panic alone.
        """
        wanted = [each for each in instances if each.weight > 0]
        members: list[list[Instance]] = [[] for _ in self._balancers]
        for each in self._settings.subset.select(wanted, self._where):
            members[self._level(each)].append(each)
        fit = [[each for each in level if each.key not in unfit] for level in members]
        self.spread = spread(
            [Level(len(good), len(level)) for good, level in zip(fit, members, strict=True)],
            overprovisioning=self._settings.locality.overprovisioning,
            panic_threshold=self._settings.panic_threshold,
        )
        self._fill([
            level if panic else good
            for level, good, panic in zip(members, fit, self.spread.panic, strict=True)
        ], now_s)  # fmt: skip

    def _fill(self, levels: Sequence[Sequence[Instance]], now_s: float) -> None:
        """Hands each level its instances, and notes where its share of the calls ends."""
        self._usable, self._bounds = [], []
        reached = 0.0
        for balancer, level, load in zip(self._balancers, levels, self.spread.loads, strict=True):
            balancer.update(level, now_s)
            if load > 0.0 and level:
                reached += load
                self._usable.extend(level)
                self._bounds.append((reached, balancer))

    def choose(self, call: Call, now_s: float, avoid: Collection[str] = ()) -> Instance | None:
        """Chooses an instance; None when there is none.

        Args:
            call: For what.
            now_s: Monotonic seconds.
            avoid: Keys of instances that were tried for this call already: none of them is chosen
                while there is another, though it be farther.
        """
        chosen = self._choose(call, now_s)
        if not avoid or chosen is None or chosen.key not in avoid:
            return chosen
        for _ in range(_AGAIN_MAX):
            again = self._choose(call, now_s)
            if again is not None and again.key not in avoid:
                return again
        return self._untried(avoid) or chosen

    def _choose(self, call: Call, now_s: float) -> Instance | None:
        """Chooses a level by its share of the calls, and there an instance by the policy."""
        bounds = self._bounds
        if not bounds:
            return None
        if len(bounds) > 1:
            at = self._place(call)
            for reached, balancer in bounds:
                if at < reached:
                    return balancer.choose(call, now_s)
        return bounds[-1][1].choose(call, now_s)

    def _place(self, call: Call) -> float:
        """Where a call lies among the shares of the levels: like calls at the same place."""
        hashed = hash_call(call, self._hash_policies) if self._hash_policies else None
        if hashed is None:
            return self._rng.random()
        # The low half, as the high bits say where on a ring it lies.
        return (hashed & 0xFFFF_FFFF) / 2.0**32

    def _untried(self, avoid: Collection[str]) -> Instance | None:
        """Any instance that is not to be avoided, looked for from a random place on."""
        usable = self._usable
        start = int(self._rng.random() * len(usable))
        for step in range(min(len(avoid) + 1, len(usable))):
            instance = usable[(start + step) % len(usable)]
            if instance.key not in avoid:
                return instance
        return None

    def began(self, instance: Instance, now_s: float) -> None:
        """A call to it began."""
        self._balancers[self._level(instance)].began(instance, now_s)

    def ended(self, instance: Instance, outcome: Outcome, now_s: float) -> None:
        """It ended; called once for each `began`, with the same instance."""
        self._balancers[self._level(instance)].ended(instance, outcome, now_s)

    def _level(self, instance: Instance) -> int:
        """Number of the level that it belongs to, by its zone."""
        return self._level_of.get(instance.zone, self._rest)
