"""One target of an upstream with all that is known of it: who can be called, and who holds up.

What is learned of it (breakers, ejections, load, limits) stays with this object, so whoever keeps
it over a change of the configuration keeps that too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from raftreg.mesh.adaptive import Sample
from raftreg.mesh.balance.pool import Pool, PoolSettings
from raftreg.mesh.breaker import Breaker, Permit, State, Transition
from raftreg.mesh.breaker_table import InstanceBreakers
from raftreg.mesh.bulkhead import Bulkhead, Ticket
from raftreg.mesh.events import BreakerChanged, Ejected, Event, Returned
from raftreg.mesh.nouns import Call, Failure, Instance, Outcome, Randomness
from raftreg.mesh.outlier import OutlierDetector
from raftreg.mesh.route import Target
from raftreg.mesh.settings import ServiceSettings

#: Choices of an instance before a call gives up on those whose breakers refuse it.
_CHOICES_MAX: Final = 8
_RESET: Final = Outcome(failure=Failure.RESET)


class Lease(msgspec.Struct, frozen=True):
    """An instance on which a call is under way.

    Attributes:
        instance: Where it was sent.
        permit: Of the target's breaker; None when it has none.
        own: The instance's breaker, and what it gave; None when it has none.
    """

    instance: Instance
    permit: Permit | None
    own: tuple[Breaker, Permit] | None


class TargetState:
    """A target.

    Args:
        upstream: Service that calls ask for, for events.
        target: What it stands for.
        settings: Of its service.
        pool: How an instance is chosen.
        rng: Where chance comes from.
        sink: Is told what happens.
        now_s: Monotonic seconds.

    Attributes:
        bulkhead: How many calls it holds.
        in_flight: Calls that are under way on instances.
        has_instances: Whether there is one that calls may be sent to.
    """

    def __init__(
        self,
        upstream: str,
        target: Target,
        settings: ServiceSettings,
        pool: PoolSettings,
        rng: Randomness,
        sink: Callable[[Event], None],
        now_s: float,
    ) -> None:
        self.upstream = upstream
        self.target = target
        self.settings = settings
        self.pool_settings = pool
        self.bulkhead = Bulkhead(settings.bulkhead)
        self.in_flight = 0
        self._sink = sink
        self._pool = Pool(pool, rng)
        self._instances: Sequence[Instance] = ()
        self._critical: frozenset[str] = frozenset()
        #: When instances whose breakers are open may be tried again.
        self._shut_until_s: dict[str, float] = {}
        self._breaker: Breaker | None = None
        if settings.breaker is not None:
            self._breaker = Breaker(target.id, settings.breaker, rng, self._tell)
        self._breakers: InstanceBreakers | None = None
        if settings.instance_breaker is not None:
            self._breakers = InstanceBreakers(
                target.id, settings.instance_breaker, rng, self._tell_instance
            )
        self._outlier: OutlierDetector | None = None
        if settings.outlier is not None:
            self._outlier = OutlierDetector(settings.outlier, now_s)
        self._stale = False
        self._wakes: dict[Ticket, Callable[[], None]] = {}
        self.has_instances = False

    # -- instances -----------------------------------------------------------------------------

    def update(
        self, instances: Sequence[Instance], now_s: float, critical: Collection[str] = ()
    ) -> None:
        """Replaces the instances.

        Args:
            instances: All that belong to the target.
            now_s: Monotonic seconds.
            critical: Keys of those whose checks fail: used in panic alone.
        """
        self._instances = instances
        self._critical = frozenset(critical)
        keys = [each.key for each in instances]
        if self._outlier is not None:
            for key in self._outlier.update(keys):
                self._sink(Returned(self.upstream, self.target.id, key))
        if self._breakers is not None:
            self._breakers.update(keys)
            known = set(keys)
            self._shut_until_s = {
                key: until_s for key, until_s in self._shut_until_s.items() if key in known
            }
        self._refill(now_s)

    def sweep(self, now_s: float) -> None:
        """Lets those return whose time is over, and looks at rates; for a timer."""
        if self._outlier is not None and now_s >= self._outlier.due_s():
            swept = self._outlier.sweep(now_s)
            for ejection in swept.ejected:
                self._sink(Ejected(self.upstream, self.target.id, ejection))
            for key in swept.returned:
                self._sink(Returned(self.upstream, self.target.id, key))
            self._stale = self._stale or bool(swept.ejected or swept.returned)
        due = [key for key, until_s in self._shut_until_s.items() if until_s <= now_s]
        for key in due:
            del self._shut_until_s[key]
        if due or self._stale:
            self._refill(now_s)

    def _refill(self, now_s: float) -> None:
        self._stale = False
        ejected = self._outlier.ejected if self._outlier is not None else frozenset[str]()
        unfit = self._critical | ejected | self._shut_until_s.keys()
        self._pool.update(self._instances, now_s, unfit)
        self.has_instances = any(load > 0.0 for load in self._pool.spread.loads)

    # -- calls ---------------------------------------------------------------------------------

    def would_admit(self, now_s: float) -> bool:
        """Whether its breaker lets calls through, as far as can be told without asking it."""
        return self._breaker is None or self._breaker.would_admit(now_s)

    def retry_after_s(self, now_s: float) -> float:
        """Seconds until its breaker lets calls through again; 0 when it does."""
        return 0.0 if self._breaker is None else self._breaker.retry_after_s(now_s)

    def take(self, call: Call, now_s: float, avoid: Collection[str] = ()) -> Lease | None:
        """Takes an instance for a call, which is handed back by `give_back`, once.

        None when no breaker lets it through, or there is no instance.
        """
        if self._stale:
            self._refill(now_s)
        permit: Permit | None = None
        if self._breaker is not None:
            permit = self._breaker.admit(now_s)
            if permit is None:
                return None
        found = self._choose(call, now_s, avoid)
        if found is None:
            if self._breaker is not None and permit is not None:
                self._breaker.release(permit)
            return None
        instance, own = found
        self._pool.began(instance, now_s)
        self.in_flight += 1
        return Lease(instance, permit, own)

    def _choose(
        self, call: Call, now_s: float, avoid: Collection[str]
    ) -> tuple[Instance, tuple[Breaker, Permit] | None] | None:
        """An instance whose breaker lets the call through, with that and what it gave."""
        if self._breakers is None:
            chosen = self._pool.choose(call, now_s, avoid)
            return None if chosen is None else (chosen, None)
        refused: set[str] = set()
        for _ in range(_CHOICES_MAX):
            chosen = self._pool.choose(call, now_s, refused.union(avoid) if refused else avoid)
            if chosen is None or chosen.key in refused:
                return None
            breaker = self._breakers.get(chosen.key)
            if breaker is None:
                return chosen, None
            permit = breaker.admit(now_s)
            if permit is not None:
                return chosen, (breaker, permit)
            refused.add(chosen.key)
        return None

    def learn(self, lease: Lease, outcome: Outcome, now_s: float) -> None:
        """Takes what became of a call: at the head of its answer, or when it failed."""
        if self._breaker is not None and lease.permit is not None:
            self._breaker.record(lease.permit, outcome, now_s)
        if lease.own is not None:
            breaker, permit = lease.own
            breaker.record(permit, outcome, now_s)
        self._watch(lease.instance.key, outcome, now_s)

    def broke(self, lease: Lease, now_s: float) -> None:
        """The answer ended before it was whole, after `learn` took its head for good."""
        own = lease.own[0] if lease.own is not None else None
        for breaker in (self._breaker, own):
            # While half-open the call's trial is over already, and another is not to be taken.
            if breaker is not None and breaker.state is State.CLOSED:
                permit = breaker.admit(now_s)
                if permit is not None:
                    breaker.record(permit, _RESET, now_s)
        self._watch(lease.instance.key, _RESET, now_s)

    def release(self, lease: Lease) -> None:
        """In place of `learn`: nothing was learned, as the caller left before."""
        if self._breaker is not None and lease.permit is not None:
            self._breaker.release(lease.permit)
        if lease.own is not None:
            breaker, permit = lease.own
            breaker.release(permit)

    def give_back(self, lease: Lease, outcome: Outcome, now_s: float) -> None:
        """The call is off the instance: its answer was passed on whole, or there is none."""
        self.in_flight -= 1
        self._pool.ended(lease.instance, outcome, now_s)

    def wait(self, ticket: Ticket, wake: Callable[[], None] | None) -> None:
        """Notes whom to wake when a ticket waits no longer."""
        if wake is not None:
            self._wakes[ticket] = wake

    def leave(self, ticket: Ticket, sample: Sample, now_s: float) -> None:
        """Gives a place in the bulkhead back, and wakes those who need not wait any more."""
        self._wakes.pop(ticket, None)
        for called in self.bulkhead.leave(ticket, sample, now_s):
            wake = self._wakes.pop(called, None)
            if wake is not None:
                wake()

    # -- events --------------------------------------------------------------------------------

    def _watch(self, key: str, outcome: Outcome, now_s: float) -> None:
        if self._outlier is None:
            return
        ejection = self._outlier.record(key, outcome, now_s)
        if ejection is not None:
            self._sink(Ejected(self.upstream, self.target.id, ejection))
            self._stale = True

    def _tell(self, transition: Transition) -> None:
        self._sink(BreakerChanged(self.upstream, self.target.id, transition))

    def _tell_instance(self, transition: Transition) -> None:
        key = transition.breaker.removeprefix(f"{self.target.id}/")
        if transition.after is State.OPEN:
            self._shut_until_s[key] = transition.at_s + transition.open_s
        else:
            self._shut_until_s.pop(key, None)
        self._stale = True
        self._tell(transition)
