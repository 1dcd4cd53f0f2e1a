"""One call on its way through the mesh, from its beginning to its end, as a state machine. Pure.

The order of concerns, each a module of its own:

    who may (intentions, rate limit) -> where (route) -> by when (deadline) -> faults on purpose
      -> for each attempt: a target that can be called (failover, breaker) -> a place (bulkhead)
      -> an instance (breakers, balancer) -> SEND
      -> what became of it (breakers, outliers) -> again? (retry) -> else what instead (fallback)

Whoever drives it does what `step` says and comes back by the door that the step names; see `steps`.
What a call holds (a place, an instance, trials of breakers) is given back exactly once, whichever
way it ends. A call goes on under the configuration that it began with.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, assert_never

from raftreg.core.chain import is_http
from raftreg.mesh.adaptive import Sample
from raftreg.mesh.bulkhead import Stage as PlaceStage
from raftreg.mesh.bulkhead import Ticket
from raftreg.mesh.deadline import BadDeadline, deadline_s
from raftreg.mesh.events import (
    AttemptBegan,
    AttemptEnded,
    CallEnded,
    NotRepeated,
    Repeated,
    Result,
)
from raftreg.mesh.fallback import OtherService
from raftreg.mesh.fault import Bandwidth, Blackhole, Injection
from raftreg.mesh.last_good import Answer, LastGood
from raftreg.mesh.nouns import Call, Failure, Outcome, Reason
from raftreg.mesh.retry import Again, GiveUp, Settled, Tries
from raftreg.mesh.retry_on import NOT_BEGUN
from raftreg.mesh.runtime import Generation, Leg, Upstream
from raftreg.mesh.steps import STATUSES, Done, Refusal, Send, Step, Substitute, Wait, WaitFor
from raftreg.mesh.upstream import Lease, TargetState

#: Services that one call may be handed to, one after the other, its own included.
HOPS_MAX: Final = 8
_NO_HEADERS: Final[Mapping[str, str]] = {}
#: Answers by which a peer says that it has too much to do.
_TOO_MUCH: Final = frozenset({429, 503})


class Stage(enum.Enum):
    """Where a call stands."""

    HELD = "held"  #: waits on purpose, before its first attempt
    QUEUED = "queued"  #: waits for a place
    SENT = "sent"  #: is under way on an instance
    PAUSED = "paused"  #: waits before it is repeated
    SERVING = "serving"  #: its answer is being passed on
    OVER = "over"


class Misuse(RuntimeError):
    """A door of a passage was used that its step did not name."""


class Passage:
    """A call on its way. Made by `Mesh.begin`.

    Args:
        upstream: What is called.
        call: The call.
        request_target: Its path and query as they were sent; last good answers are kept by it.
        generation: The configuration that it begins with.
        wake: Is called, at any time while the step is a wait for a place, when there is one or
            none will be; must do no more than note that `resume` is due.
        now_s: Monotonic seconds.

    Attributes:
        step: What is to be done next.
        deadline_s: When it must have ended, in monotonic seconds; may be infinite.
        attempts: Requests that were sent.
    """

    __slots__ = (
        "_around",
        "_bandwidth",
        "_began_s",
        "_call",
        "_generation",
        "_in_hole",
        "_injection",
        "_lease",
        "_leg",
        "_name",
        "_outcome",
        "_place",
        "_sent",
        "_sent_s",
        "_stage",
        "_state",
        "_target",
        "_tried",
        "_tries",
        "_upstream",
        "_wake",
        "attempts",
        "deadline_s",
        "step",
    )

    def __init__(
        self,
        upstream: Upstream,
        call: Call,
        request_target: str,
        generation: Generation,
        wake: Callable[[], None] | None,
        now_s: float,
    ) -> None:
        self._name = upstream.name
        self._upstream = upstream
        self._call = call
        self._target = request_target
        self._generation = generation
        self._around = generation.around
        self._wake = wake
        self._began_s = now_s
        self._stage = Stage.HELD
        self._leg: Leg | None = None
        self._tries: Tries | None = None
        self._tried: set[str] = {upstream.name}
        self._state: TargetState | None = None
        self._place: Ticket | None = None
        self._lease: Lease | None = None
        self._outcome: Outcome | None = None
        self._sent = False
        self._sent_s = now_s
        self._injection: Injection | None = None
        self._in_hole = False
        self._bandwidth: Bandwidth | None = None
        self.attempts = 0
        self.deadline_s = math.inf
        self.step: Step = self._admit(now_s)

    @property
    def stage(self) -> Stage:
        """Where it stands."""
        return self._stage

    @property
    def last_good(self) -> LastGood | None:
        """Where a good answer is to be kept for bad times; None when none is asked for."""
        fallback = self._upstream.fallback
        return fallback.last_good if fallback is not None else None

    # -- doors ---------------------------------------------------------------------------------

    def resume(self, now_s: float) -> Step:
        """The wait of `step` is over, or was woken. Too early is harmless: the wait goes on.

        Raises:
            Misuse: The step is no wait.
        """
        if self._stage is Stage.QUEUED:
            return self._resume_queued(now_s)
        if self._stage not in (Stage.HELD, Stage.PAUSED) or not isinstance(self.step, Wait):
            raise Misuse(f"resume: the call is {self._stage.value}")
        if now_s >= self.step.until_s:
            paused = self._stage is Stage.PAUSED
            self.step = self._attempt(now_s) if paused else self._release(now_s)
        return self.step

    def finished(
        self,
        outcome: Outcome,
        now_s: float,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        replayable: bool = True,
    ) -> Step:
        """The head of the answer is there, or the attempt failed.

        Args:
            outcome: What became of it.
            now_s: Monotonic seconds.
            headers: Of the answer, by name in lower case.
            replayable: Whether the request can be sent again whole.

        Raises:
            Misuse: No request is under way.
        """
        state, lease, tries = self._state, self._lease, self._tries
        if self._stage is not Stage.SENT or state is None or lease is None or tries is None:
            raise Misuse(f"finished: the call is {self._stage.value}")
        state.learn(lease, outcome, now_s)
        self._tell_attempt(state, lease, outcome)
        self._sent = self._sent or outcome.failure not in NOT_BEGUN
        verdict = tries.ended(outcome, now_s, headers=headers, replayable=replayable)
        match verdict:
            case Again():
                self._give_back(outcome, now_s)
                self.step = self._pause(verdict.wait_s, now_s)
            case GiveUp():
                self._around.sink(NotRepeated(self._upstream.name, verdict.why))
                self.step = self._settle(outcome, now_s)
            case Settled():
                self.step = self._settle(outcome, now_s)
            case _:
                assert_never(verdict)
        return self.step

    def close(self, now_s: float, *, broke: bool = False) -> None:
        """The answer was passed on to its end; again is harmless.

        Args:
            now_s: Monotonic seconds.
            broke: The upstream broke it off, or it was not what its head had said.

        Raises:
            Misuse: No answer is being passed on, and the call is not over.
        """
        if self._stage is Stage.OVER:
            return
        state, lease, outcome = self._state, self._lease, self._outcome
        if self._stage is not Stage.SERVING or state is None or lease is None or outcome is None:
            raise Misuse(f"close: the call is {self._stage.value}")
        if broke:
            state.broke(lease, now_s)
        self._give_back(outcome, now_s)
        self._end(Result.ANSWERED, None, outcome.status, now_s)

    def abandon(self, now_s: float) -> None:
        """The caller left; gives back whatever the call holds, and is harmless at any time."""
        if self._stage is Stage.OVER:
            return
        state, lease = self._state, self._lease
        outcome = self._outcome or Outcome(duration_s=max(now_s - self._sent_s, 0.0))
        if self._stage is Stage.SENT and state is not None and lease is not None:
            state.release(lease)
            self._tell_attempt(state, lease, None)
        self._give_back(outcome, now_s, ignored=True)
        if self._tries is not None:
            self._tries.abandoned()
        self._end(Result.ABANDONED, None, outcome.status, now_s)

    # -- the way in ----------------------------------------------------------------------------

    def _admit(self, now_s: float) -> Step:
        """Who may, and what is done to the call on purpose."""
        upstream, call = self._upstream, self._call
        if upstream.config.intentions is not None:
            http = is_http(upstream.config.routes.protocol)
            verdict = upstream.config.intentions.decide(call.source, call if http else None)
            if not verdict.allowed:
                return self._refuse(Reason.DENIED, now_s, detail=verdict.why)
        if upstream.rate_limit is not None:
            wait_s = upstream.rate_limit.take(call, now_s)
            if wait_s > 0.0:
                return self._refuse(Reason.RATE_LIMIT, now_s, retry_after_s=wait_s)
        refused = self._route(now_s)
        if refused is not None:
            return refused
        injection = upstream.faults.inject(call, now_s)
        if injection is None:
            return self._attempt(now_s)
        self._injection = injection
        return self._hold(now_s, injection)

    def _route(self, now_s: float) -> Step | None:
        """Finds the way and the time there is; what refuses the call if something does."""
        upstream, call = self._upstream, self._call
        routed = upstream.config.routes.route(call, self._around.rng)
        if routed is None:
            return self._refuse(Reason.NO_ROUTE, now_s)
        self._leg = leg = upstream.leg(routed)
        try:
            self.deadline_s = min(self.deadline_s, deadline_s(call, leg.timeouts, now_s))
        except BadDeadline as error:
            return self._refuse(Reason.BAD_REQUEST, now_s, detail=error.message)
        self._tries = leg.retry.begin(call, now_s, self.deadline_s)
        return None

    def _hold(self, now_s: float, injection: Injection) -> Step:
        """Waits on purpose: a delay first, then for an answer that never comes."""
        if injection.delay_s > 0.0:
            until_s = min(now_s + injection.delay_s, self.deadline_s)
            return Wait(WaitFor.FAULT, until_s)
        return self._release(now_s)

    def _release(self, now_s: float) -> Step:
        """What comes after a wait on purpose."""
        injection = self._injection
        if injection is None:
            return self._attempt(now_s)
        if injection.blackhole is not None:
            return self._vanish(now_s, injection.blackhole)
        self._injection = None
        if injection.abort is not None:
            return self._refuse(Reason.FAULT, now_s, status=injection.abort.status)
        self._bandwidth = injection.bandwidth
        return self._attempt(now_s)

    def _vanish(self, now_s: float, hole: Blackhole) -> Step:
        """Holds the call until its own time is up; then it is over."""
        if not self._in_hole:
            self._in_hole = True
            limited = not math.isinf(self.deadline_s)
            until_s = self.deadline_s if limited else now_s + hole.hold_s
            if until_s > now_s:
                return Wait(WaitFor.FAULT, until_s)
        return self._refuse(Reason.FAULT, now_s, status=0, detail="blackhole")

    # -- attempts ------------------------------------------------------------------------------

    def _attempt(self, now_s: float) -> Step:
        """Asks for a place at the first target that can be called."""
        if now_s >= self.deadline_s:
            return self._fail(Reason.DEADLINE, now_s)
        states = self._leg.states if self._leg is not None else ()
        for state in states:
            if state.has_instances and state.would_admit(now_s):
                break
        else:
            return self._fail_uncalled(states, now_s)
        self._state = state
        self._place = place = state.bulkhead.enter(now_s, self.deadline_s)
        if place.stage is PlaceStage.ADMITTED:
            return self._send(state, now_s)
        if place.stage is PlaceStage.WAITING:
            self._stage = Stage.QUEUED
            state.wait(place, self._wake)
            return Wait(WaitFor.PLACE, place.until_s)
        return self._fail_crowded(now_s)

    def _resume_queued(self, now_s: float) -> Step:
        state, place = self._state, self._place
        assert state is not None
        assert place is not None
        if place.stage is PlaceStage.WAITING:
            if now_s < place.until_s:
                return self.step
            state.bulkhead.give_up(place)
        if place.stage is not PlaceStage.ADMITTED:
            self.step = self._fail_crowded(now_s)
        elif now_s >= self.deadline_s:
            self._leave(Sample.IGNORED, now_s)
            self.step = self._fail(Reason.DEADLINE, now_s)
        else:
            self.step = self._send(state, now_s)
        return self.step

    def _send(self, state: TargetState, now_s: float) -> Step:
        """Takes an instance: the place is there."""
        leg, tries = self._leg, self._tries
        assert leg is not None
        assert tries is not None
        lease = state.take(self._call, now_s, tries.avoid)
        if lease is None:
            self._leave(Sample.IGNORED, now_s)
            return self._fail_uncalled((state,), now_s)
        self._lease = lease
        self._stage = Stage.SENT
        self._sent_s = now_s
        self.attempts += 1
        key = lease.instance.key
        timeout_s = tries.began(key, now_s)
        self._around.sink(AttemptBegan(self._upstream.name, state.target.id, key, self.attempts))
        return Send(
            lease.instance,
            state.target,
            leg.routed,
            self.attempts,
            timeout_s,
            self.deadline_s,
            self._bandwidth,
        )

    def _pause(self, wait_s: float, now_s: float) -> Step:
        """Waits before the call is repeated."""
        self._around.sink(Repeated(self._upstream.name, wait_s))
        if wait_s <= 0.0:
            return self._attempt(now_s)
        self._stage = Stage.PAUSED
        return Wait(WaitFor.REPEAT, now_s + wait_s)

    # -- ends ----------------------------------------------------------------------------------

    def _settle(self, outcome: Outcome, now_s: float) -> Step:
        """What the last attempt gave is the call's answer, unless there is something better."""
        if outcome.failure is None:
            found = self._instead(Reason.UPSTREAM_FAILED, now_s) if outcome.failed else None
            if found is not None:
                self._give_back(outcome, now_s)
                return self._go(found, Reason.UPSTREAM_FAILED, now_s)
            self._stage = Stage.SERVING
            self._outcome = outcome
            assert self._leg is not None
            return Done(self._leg.routed, self._bandwidth)
        self._give_back(outcome, now_s)
        if now_s >= self.deadline_s:
            return self._fail(Reason.DEADLINE, now_s)
        late = outcome.failure is Failure.TIMEOUT
        return self._fail(
            Reason.UPSTREAM_FAILED,
            now_s,
            status=504 if late else None,
            detail=outcome.failure.value,
        )

    def _fail_uncalled(self, states: Sequence[TargetState], now_s: float) -> Step:
        """No target can be called: breakers are open, or there are no instances."""
        shut = [state.retry_after_s(now_s) for state in states if state.has_instances]
        if shut:
            return self._fail(Reason.CIRCUIT_OPEN, now_s, retry_after_s=min(shut))
        return self._fail(Reason.NO_INSTANCE, now_s)

    def _fail_crowded(self, now_s: float) -> Step:
        """There is no place in the bulkhead, and none in its queue."""
        place, self._place = self._place, None
        if now_s >= self.deadline_s:
            return self._fail(Reason.DEADLINE, now_s)
        overload = place.overload if place is not None else None
        return self._fail(Reason.OVERLOAD, now_s, detail=overload.value if overload else "")

    def _fail(
        self,
        reason: Reason,
        now_s: float,
        *,
        status: int | None = None,
        retry_after_s: float = 0.0,
        detail: str = "",
    ) -> Step:
        """The call, which holds nothing any more, has no answer: what comes instead."""
        found = self._instead(reason, now_s)
        if found is not None:
            return self._go(found, reason, now_s)
        return self._refuse(
            reason, now_s, status=status, retry_after_s=retry_after_s, detail=detail
        )

    def _instead(self, reason: Reason, now_s: float) -> Upstream | Answer | None:
        """Another service or an answer in place of that reason; None when there is none."""
        fallback = self._upstream.fallback
        while fallback is not None and len(self._tried) <= HOPS_MAX:
            found = fallback.decide(
                self._call, self._target, reason, now_s, sent=self._sent, tried=self._tried
            )
            if not isinstance(found, OtherService):
                return found
            self._tried.add(found.service)
            name = f"{found.subset}.{found.service}" if found.subset else found.service
            other = self._generation.upstreams.get(name)
            if other is not None:
                return other
        return None

    def _go(self, found: Upstream | Answer, reason: Reason, now_s: float) -> Step:
        """Takes what there is instead."""
        if isinstance(found, Answer):
            self._end(Result.FELL_BACK, reason, found.status, now_s)
            return Substitute(found, reason)
        if self._tries is not None:
            self._tries.abandoned()
        self._upstream = found
        return self._route(now_s) or self._attempt(now_s)

    def _refuse(
        self,
        reason: Reason,
        now_s: float,
        *,
        status: int | None = None,
        retry_after_s: float = 0.0,
        detail: str = "",
    ) -> Step:
        code = STATUSES[reason] if status is None else status
        if self._tries is not None:
            self._tries.abandoned()
        self._end(Result.REFUSED, reason, code, now_s)
        return Refusal(reason, code, retry_after_s, detail)

    def _end(self, result: Result, reason: Reason | None, status: int, now_s: float) -> None:
        """The call is over: told once."""
        self._stage = Stage.OVER
        self._generation.calls -= 1
        self._around.sink(
            CallEnded(
                self._name,
                self._leg.routed.route if self._leg is not None else "",
                self._call.source,
                result,
                reason,
                status,
                self.attempts,
                now_s - self._began_s,
            )
        )

    # -- what a call holds ---------------------------------------------------------------------

    def _tell_attempt(self, state: TargetState, lease: Lease, outcome: Outcome | None) -> None:
        self._around.sink(
            AttemptEnded(self._upstream.name, state.target.id, lease.instance.key, outcome)
        )

    def _give_back(self, outcome: Outcome, now_s: float, *, ignored: bool = False) -> None:
        """Gives back instance and place, as far as they are held."""
        lease, self._lease = self._lease, None
        if lease is not None and self._state is not None:
            self._state.give_back(lease, outcome, now_s)
        self._leave(Sample.IGNORED if ignored else _sample(outcome), now_s)

    def _leave(self, sample: Sample, now_s: float) -> None:
        place, self._place = self._place, None
        if place is not None and self._state is not None:
            self._state.leave(place, sample, now_s)


def _sample(outcome: Outcome) -> Sample:
    """What a call tells about the capacity of its peer."""
    if outcome.failure is Failure.TIMEOUT or outcome.status in _TOO_MUCH:
        return Sample.DROPPED
    return Sample.IGNORED if outcome.failed else Sample.MEASURED
