"""Whether a failed call is repeated, when, and where not.

A repeat is made when a condition holds (`retry_on`), it is safe, and tries, time and budget are
left. The wait is the one that was learned, or else exponential with full jitter (`backoff`).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

import msgspec

from raftreg.mesh.backoff import BackoffSettings, retry_after_s
from raftreg.mesh.budget import RetryBudget
from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Call, Instance, MeshConfigError, Outcome, Randomness
from raftreg.mesh.retry_on import Condition, Repeatable

RETRIES_MAX: Final = 10
CODES_MAX: Final = 64
_NO_HEADERS: Final[Mapping[str, str]] = {}


class RetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """When calls to an upstream are repeated.

    Attributes:
        conditions: Any of them makes an attempt one that may be repeated.
        retries_max: Most repeats of a call, 0 to 10.
        per_try_timeout_s: Most seconds of one attempt up to the head of the answer; None: only the
            call's deadline counts.
        status_codes: Further status codes that may be repeated.
        headers: Names of headers of an answer, in lower case, that say it may be repeated.
        unsafe_methods: Repeat any method, also one that may take effect twice.
        backoff: Waits when nothing was learned.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    conditions: frozenset[Condition] = frozenset(
        {Condition.CONNECT_FAILURE, Condition.REFUSED_STREAM, Condition.GATEWAY_ERROR}
    )
    retries_max: int = 2
    per_try_timeout_s: float | None = None
    status_codes: frozenset[int] = frozenset()
    headers: tuple[str, ...] = ()
    unsafe_methods: bool = False
    backoff: BackoffSettings = BackoffSettings()

    def __post_init__(self) -> None:
        within("retries_max", self.retries_max, 0, RETRIES_MAX)
        if self.per_try_timeout_s is not None:
            within("per_try_timeout_s", self.per_try_timeout_s, 0.001, 86_400.0)
        within("status_codes", len(self.status_codes), 0, CODES_MAX)
        for code in self.status_codes:
            within("status_codes", code, 100, 599)
        within("headers", len(self.headers), 0, CODES_MAX)
        for name in self.headers:
            if not name or name != name.lower():
                raise MeshConfigError(f"headers: {name!r} is no name in lower case")


class Stop(enum.Enum):
    """Why a failed call is not repeated; for metrics."""

    UNSAFE = "unsafe"  #: it may have taken effect
    BODY_GONE = "body-gone"  #: the request's body was sent and is not kept
    TRIES = "tries"  #: all repeats are made, or none is worth its load
    RETRY_AFTER = "retry-after"  #: the server asks for a longer wait than is allowed
    DEADLINE = "deadline"  #: the wait would outlast the call
    BUDGET = "budget"  #: repeats would become the load


class Settled(msgspec.Struct, frozen=True):
    """The attempt's answer (or failure) is the call's: there is no condition to repeat it."""


class Again(msgspec.Struct, frozen=True):
    """The call is repeated.

    Attributes:
        wait_s: Seconds from now to the next attempt.
    """

    wait_s: float


class GiveUp(msgspec.Struct, frozen=True):
    """The attempt failed, and what it gave is the call's answer all the same.

    Attributes:
        why: What forbids the repeat.
    """

    why: Stop


Verdict = Settled | Again | GiveUp


class Learner(Protocol):
    """What knows when repeats succeed (`LearnedRetries` is one)."""

    def schedule(self, chance: Randomness) -> tuple[float, ...] | None:
        """When to repeat, in seconds since the first failure; None: the exponential default."""
        ...

    def observe(self, failed_s: float | None, succeeded_s: float | None) -> None:
        """What a failed call saw: its last repeat that failed, its first that did not."""
        ...


class RetryPolicy:
    """How calls to one upstream are repeated.

    Args:
        settings: When a call may be repeated.
        budget: Of the upstream.
        chance: Source of the jitter.
        learner: When repeats succeed; None: always the exponential default.
    """

    __slots__ = ("budget", "chance", "learner", "repeatable", "settings")

    def __init__(
        self,
        settings: RetrySettings,
        budget: RetryBudget,
        chance: Randomness,
        learner: Learner | None = None,
    ) -> None:
        self.settings = settings
        self.budget = budget
        self.chance = chance
        self.learner = learner
        self.repeatable = Repeatable(
            settings.conditions,
            status_codes=settings.status_codes,
            headers=settings.headers,
            unsafe_methods=settings.unsafe_methods,
        )

    def begin(self, call: Call, now_s: float, deadline_s: float = math.inf) -> Tries:
        """A call begins; it earns its part of the budget.

        Args:
            call: What is asked.
            now_s: Monotonic time in seconds.
            deadline_s: Monotonic time at which the call ends in any case.
        """
        self.budget.deposit(now_s)
        return Tries(self, call, deadline_s)


class Tries:
    """The attempts of one call: `began`, `ended`, and again as long as that says `Again`.

    Args:
        policy: Of the upstream.
        call: What is asked.
        deadline_s: Monotonic time at which the call ends in any case.

    Attributes:
        avoid: Keys of the instances that were tried; the next attempt goes elsewhere while there is
            another (`elsewhere`).
        repeats: How many repeats were allowed so far.
    """

    __slots__ = (
        "_began_s",
        "_call",
        "_deadline_s",
        "_failed_s",
        "_first_s",
        "_policy",
        "_schedule",
        "avoid",
        "repeats",
    )

    def __init__(self, policy: RetryPolicy, call: Call, deadline_s: float) -> None:
        self._policy = policy
        self._call = call
        self._deadline_s = deadline_s
        self._schedule: tuple[float, ...] | None = None
        self._first_s: float | None = None
        self._failed_s: float | None = None
        self._began_s = 0.0
        self.avoid: set[str] = set()
        self.repeats = 0

    def began(self, key: str, now_s: float) -> float:
        """An attempt begins.

        Args:
            key: The instance's.
            now_s: Monotonic time in seconds.

        Returns:
            Seconds that it may take up to the head of the answer; 0 when the deadline has passed,
            infinite when nothing limits it.
        """
        self.avoid.add(key)
        self._began_s = now_s
        left_s = max(self._deadline_s - now_s, 0.0)
        limit_s = self._policy.settings.per_try_timeout_s
        return left_s if limit_s is None else min(left_s, limit_s)

    def ended(
        self,
        outcome: Outcome,
        now_s: float,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        replayable: bool = True,
    ) -> Verdict:
        """An attempt ended; nothing of its answer has been passed on yet.

        Args:
            outcome: What became of it.
            now_s: Monotonic time in seconds.
            headers: Of the answer, by name in lower case.
            replayable: Whether the request can be sent again whole; False once a part of its body
                was sent and is not kept.
        """
        if not self._policy.repeatable.wanted(outcome, headers):
            self._learn(None if outcome.failed else self._began_s)
            return Settled()
        self._count_failure(now_s)
        verdict = self._next(outcome, now_s, headers, replayable)
        if isinstance(verdict, Again):
            self.repeats += 1
        else:
            self._learn(None)
        return verdict

    def abandoned(self) -> None:
        """Nobody waits for the call any more (the caller hung up, or its deadline passed)."""
        self._learn(None)

    def _count_failure(self, now_s: float) -> None:
        if self._first_s is not None:
            self._failed_s = max(self._began_s - self._first_s, 0.0)
            return
        self._first_s = now_s
        learner = self._policy.learner
        self._schedule = learner.schedule(self._policy.chance) if learner else None

    def _learn(self, succeeded_s: float | None) -> None:
        """Tells the learner what was seen, once a call and only if it failed at first."""
        learner, first_s = self._policy.learner, self._first_s
        self._first_s = None
        if learner is None or first_s is None:
            return
        after_s = None if succeeded_s is None else max(succeeded_s - first_s, 0.0)
        learner.observe(self._failed_s, after_s)

    def _next(
        self, outcome: Outcome, now_s: float, headers: Mapping[str, str], replayable: bool
    ) -> Verdict:
        policy = self._policy
        if not policy.repeatable.safe(self._call, outcome):
            return GiveUp(Stop.UNSAFE)
        if not replayable:
            return GiveUp(Stop.BODY_GONE)
        if self.repeats >= self._repeats_max():
            return GiveUp(Stop.TRIES)
        asked_s = retry_after_s(headers)
        if asked_s is not None and asked_s > policy.settings.backoff.retry_after_max_s:
            return GiveUp(Stop.RETRY_AFTER)
        wait_s = self._wait_s(now_s, asked_s)
        if now_s + wait_s >= self._deadline_s:
            return GiveUp(Stop.DEADLINE)
        if not policy.budget.withdraw(now_s):
            return GiveUp(Stop.BUDGET)
        return Again(wait_s)

    def _repeats_max(self) -> int:
        repeats_max = self._policy.settings.retries_max
        return repeats_max if self._schedule is None else min(repeats_max, len(self._schedule))

    def _wait_s(self, now_s: float, asked_s: float | None) -> float:
        """The wait before the next repeat; one that was asked for is never shortened."""
        backoff, chance = self._policy.settings.backoff, self._policy.chance
        if asked_s is not None:
            return asked_s + backoff.wait_s(self.repeats, chance)
        if self._schedule is None or self._first_s is None:
            return backoff.wait_s(self.repeats, chance)
        return max(self._first_s + self._schedule[self.repeats] - now_s, 0.0)


def elsewhere(
    choose: Callable[[], Instance | None],
    instances: Sequence[Instance],
    avoid: AbstractSet[str],
    chance: Randomness,
    *,
    choices_max: int = 3,
) -> Instance | None:
    """Chooses an instance that was not tried while there is one.

    The balancer is asked a few times (Envoy's `host_selection_retry_max_attempts`), so that its
    weights still count. If it insists, as one that hashes does, the rest is walked from a random
    place on: at most one step more than there are instances to avoid.

    Args:
        choose: Asks the balancer.
        instances: All that it chooses from, each key once.
        avoid: Keys of the instances that were tried.
        chance: Where the walk begins.
        choices_max: How often the balancer is asked.

    Returns:
        An instance that was not tried; else any; None when there is none at all.
    """
    chosen = choose()
    for _ in range(choices_max - 1):
        if chosen is None or chosen.key not in avoid:
            return chosen
        chosen = choose()
    if chosen is None or chosen.key not in avoid or not instances:
        return chosen
    start = chance.randrange(len(instances))
    for step in range(min(len(avoid) + 1, len(instances))):
        other = instances[(start + step) % len(instances)]
        if other.key not in avoid:
            return other
    return chosen
