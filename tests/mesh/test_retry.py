"""Repeats of failed calls: by condition, only where safe, within deadline, tries and budget."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core.entry_rules import RETRY_CONDITIONS
from raftreg.mesh.backoff import BackoffSettings
from raftreg.mesh.budget import BudgetSettings, RetryBudget
from raftreg.mesh.nouns import Call, Failure, Instance, MeshConfigError, Outcome
from raftreg.mesh.retry import (
    Again,
    GiveUp,
    RetryPolicy,
    RetrySettings,
    Settled,
    Stop,
    Tries,
    elsewhere,
)
from raftreg.mesh.retry_on import Condition, Repeatable

GET = Call(method="GET")
POST = Call(method="POST")
OK = Outcome(status=200)
BAD_GATEWAY = Outcome(status=502)
RESET = Outcome(failure=Failure.RESET)
REFUSED = Outcome(failure=Failure.CONNECT)
PLENTY = BudgetSettings(per_second_min=1000)


class Script:
    """A learner that says what it is told to, and writes down what it is told."""

    def __init__(self, delays_s: tuple[float, ...] | None) -> None:
        self.delays_s = delays_s
        self.seen: list[tuple[float | None, float | None]] = []

    def schedule(self, chance: object) -> tuple[float, ...] | None:
        """Gives the delays."""
        return self.delays_s

    def observe(self, failed_s: float | None, succeeded_s: float | None) -> None:
        """Writes it down."""
        self.seen.append((failed_s, succeeded_s))


def policy(
    settings: RetrySettings | None = None,
    budget: BudgetSettings = PLENTY,
    learner: Script | None = None,
) -> RetryPolicy:
    """A policy with these parts."""
    return RetryPolicy(settings or RetrySettings(), RetryBudget(budget), Random(1), learner)


def begun(found: RetryPolicy, call: Call = GET, deadline_s: float = math.inf) -> Tries:
    """A call at 100 s, its first attempt begun."""
    tries = found.begin(call, 100.0, deadline_s)
    tries.began("a", 100.0)
    return tries


def test_the_conditions_are_those_of_config_entries() -> None:
    """Whatever `RetryOn` may say has a meaning here, and nothing else has."""
    assert {condition.value for condition in Condition} == RETRY_CONDITIONS


@pytest.mark.parametrize(
    ("condition", "outcome", "headers", "wanted"),
    [
        ("5xx", Outcome(status=500), {}, True),
        ("5xx", Outcome(status=599), {}, True),
        ("5xx", Outcome(status=499), {}, False),
        ("5xx", Outcome(failure=Failure.TIMEOUT), {}, True),
        ("gateway-error", Outcome(status=500), {}, False),
        ("gateway-error", Outcome(status=503), {}, True),
        ("gateway-error", RESET, {}, True),
        ("reset", RESET, {}, True),
        ("reset", BAD_GATEWAY, {}, False),
        ("reset", Outcome(failure=Failure.TIMEOUT), {}, True),
        ("reset-before-request", RESET, {}, False),
        ("reset-before-request", REFUSED, {}, True),
        ("connect-failure", REFUSED, {}, True),
        ("connect-failure", RESET, {}, False),
        ("refused-stream", Outcome(failure=Failure.REFUSED_STREAM), {}, True),
        ("refused-stream", REFUSED, {}, False),
        ("retriable-4xx", Outcome(status=409), {}, True),
        ("retriable-4xx", Outcome(status=404), {}, False),
        ("envoy-ratelimited", Outcome(status=429), {"x-envoy-ratelimited": "true"}, True),
        ("envoy-ratelimited", Outcome(status=429), {}, False),
        ("cancelled", OK, {"grpc-status": "1"}, True),
        ("deadline-exceeded", OK, {"grpc-status": "4"}, True),
        ("resource-exhausted", OK, {"grpc-status": "8"}, True),
        ("internal", OK, {"grpc-status": "13"}, True),
        ("unavailable", OK, {"grpc-status": "14"}, True),
        ("unavailable", OK, {"grpc-status": "0"}, False),
        ("unavailable", OK, {}, False),
        ("5xx", OK, {}, False),
    ],
)
def test_conditions(
    condition: str, outcome: Outcome, headers: dict[str, str], wanted: bool
) -> None:
    """Each condition holds for what Envoy's page says, and for nothing else."""
    assert Repeatable({Condition(condition)}).wanted(outcome, headers) is wanted


def test_codes_and_headers_of_ones_own() -> None:
    """Status codes and headers that are named count besides the conditions."""
    found = Repeatable(set(), status_codes=frozenset({429}), headers=("x-try-again",))
    assert found.wanted(Outcome(status=429), {})
    assert found.wanted(Outcome(status=200), {"x-try-again": ""})
    assert not found.wanted(Outcome(status=503), {})
    assert not found.wanted(RESET, {"x-try-again": "1"})


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_idempotent_methods_are_repeated(method: str) -> None:
    """What may be done twice is repeated after any failure."""
    assert isinstance(begun(policy(), Call(method=method)).ended(RESET, 100.1), Again)


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "BREW", "get", ""])
def test_other_methods_are_not(method: str) -> None:
    """What may take effect twice is repeated only when it certainly was not begun, or when told."""
    call = Call(method=method)
    told = policy(RetrySettings(unsafe_methods=True))
    assert begun(policy(), call).ended(RESET, 100.1) == GiveUp(Stop.UNSAFE)
    assert begun(policy(), call).ended(BAD_GATEWAY, 100.1) == GiveUp(Stop.UNSAFE)
    assert isinstance(begun(policy(), call).ended(REFUSED, 100.1), Again)
    stream = Outcome(failure=Failure.REFUSED_STREAM)
    assert isinstance(begun(policy(), call).ended(stream, 100.1), Again)
    assert isinstance(begun(told, call).ended(RESET, 100.1), Again)


def test_a_body_that_is_gone_is_not_repeated() -> None:
    """What can't be sent again whole is not sent again."""
    assert begun(policy()).ended(RESET, 100.1, replayable=False) == GiveUp(Stop.BODY_GONE)


def test_the_number_of_tries() -> None:
    """Two repeats are three attempts, no more."""
    tries = begun(policy(RetrySettings(retries_max=2)))
    verdicts = [tries.ended(BAD_GATEWAY, 100.1 + at) for at in range(3)]
    assert [type(verdict) for verdict in verdicts] == [Again, Again, GiveUp]
    assert verdicts[-1] == GiveUp(Stop.TRIES)
    assert tries.repeats == 2


def test_an_attempt_has_its_own_time() -> None:
    """An attempt gets its own timeout, what is left of the call's, or all the time there is."""
    limited = policy(RetrySettings(per_try_timeout_s=1.0))
    assert limited.begin(GET, 0.0, 10.0).began("a", 0.0) == 1.0
    assert limited.begin(GET, 0.0, 10.0).began("a", 9.5) == 0.5
    assert limited.begin(GET, 0.0, 10.0).began("a", 11.0) == 0.0
    assert policy().begin(GET, 0.0).began("a", 0.0) == math.inf


def test_the_deadline_ends_it() -> None:
    """A repeat that could begin only after the deadline is not waited for."""
    learner = Script((0.5,))
    assert begun(policy(learner=learner), deadline_s=100.4).ended(RESET, 100.0) == GiveUp(
        Stop.DEADLINE
    )
    assert begun(policy(learner=learner), deadline_s=100.6).ended(RESET, 100.0) == Again(0.5)


def test_retry_after_is_honoured_up_to_its_bound() -> None:
    """No repeat comes earlier than the server asks; if that is too long, there is none."""
    settings = RetrySettings(backoff=BackoffSettings(retry_after_max_s=2.0))
    busy = Outcome(status=503)
    verdict = begun(policy(settings)).ended(busy, 100.0, headers={"retry-after": "2"})
    assert isinstance(verdict, Again)
    assert 2.0 <= verdict.wait_s <= 2.025
    verdict = begun(policy(settings)).ended(busy, 100.0, headers={"retry-after": "3"})
    assert verdict == GiveUp(Stop.RETRY_AFTER)


def test_the_budget_is_asked_last() -> None:
    """A repeat that is not made for another reason costs nothing; an empty budget forbids it."""
    found = policy(budget=BudgetSettings(ratio=0.0, per_second_min=0.1, window_s=10.0))
    assert begun(found, POST).ended(RESET, 100.0) == GiveUp(Stop.UNSAFE)
    assert begun(found, deadline_s=100.0).ended(RESET, 100.0) == GiveUp(Stop.DEADLINE)
    assert isinstance(begun(found).ended(RESET, 100.0), Again)
    assert begun(found).ended(RESET, 100.0) == GiveUp(Stop.BUDGET)


def test_an_answer_that_nothing_repeats_settles_the_call() -> None:
    """What meets no condition is the answer, be it good or bad."""
    assert begun(policy()).ended(OK, 100.0) == Settled()
    assert begun(policy()).ended(Outcome(status=404), 100.0) == Settled()
    assert begun(policy()).ended(Outcome(status=500), 100.0) == Settled()


def test_a_schedule_counts_from_the_first_failure() -> None:
    """Learned delays are since the failure: time that a repeat took is not waited again."""
    learner = Script((0.25, 1.0))
    tries = begun(policy(RetrySettings(retries_max=5), learner=learner))
    assert tries.ended(RESET, 100.5) == Again(0.25)
    tries.began("b", 100.75)
    assert tries.ended(RESET, 101.0) == Again(0.5)
    tries.began("c", 101.5)
    assert tries.ended(RESET, 101.75) == GiveUp(Stop.TRIES)
    assert learner.seen == [(1.0, None)]


def test_the_learner_is_told_what_was_seen() -> None:
    """The last repeat that failed and the first that succeeded, once a call that failed."""
    learner = Script((0.25, 1.0))
    tries = begun(policy(learner=learner))
    tries.ended(RESET, 100.0)
    tries.began("b", 100.25)
    tries.ended(RESET, 100.5)
    tries.began("c", 101.0)
    assert tries.ended(OK, 101.5) == Settled()
    tries.abandoned()
    assert learner.seen == [(0.25, 1.0)]
    begun(policy(learner=learner)).ended(OK, 100.0)
    assert len(learner.seen) == 1


def test_a_failure_of_another_kind_is_no_recovery() -> None:
    """A repeat that fails in a way that is not repeated has not recovered."""
    learner = Script((0.2,))
    tries = begun(policy(learner=learner))
    tries.ended(RESET, 100.0)
    tries.began("b", 100.2)
    assert tries.ended(Outcome(status=500), 100.3) == Settled()
    assert learner.seen == [(None, None)]


def test_no_delays_is_no_repeat() -> None:
    """When no repeat is worth its load there is none."""
    assert begun(policy(learner=Script(()))).ended(RESET, 100.0) == GiveUp(Stop.TRIES)


def test_instances_that_were_tried_are_remembered() -> None:
    """Each instance that had the call is to be avoided."""
    tries = begun(policy())
    tries.ended(RESET, 100.0)
    tries.began("b", 100.2)
    assert tries.avoid == {"a", "b"}


@given(
    st.integers(0, 12),
    st.sets(st.integers(0, 12).map(str)),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_never_the_same_twice_while_there_is_another(
    count: int, avoid: set[str], seed: int, stubborn: bool
) -> None:
    """Also when the balancer insists on one; when all were tried, any; without any, none."""
    instances = [Instance(key=str(at), address="127.0.0.1", port=1) for at in range(count)]
    rng = Random(seed)

    def choose() -> Instance | None:
        return instances[0 if stubborn else rng.randrange(count)] if instances else None

    found = elsewhere(choose, instances, avoid, rng)
    if not instances:
        assert found is None
        return
    assert found is not None
    untried = {instance.key for instance in instances} - avoid
    assert not untried or found.key in untried


outcomes = st.sampled_from(
    [OK, RESET, BAD_GATEWAY, REFUSED, Outcome(status=500), Outcome(failure=Failure.TIMEOUT)]
)


@given(
    st.lists(st.tuples(outcomes, st.floats(0, 2)), min_size=20, max_size=20),
    st.sampled_from([GET, POST]),
    st.integers(0, 10),
    st.floats(0, 5),
    st.none() | st.lists(st.floats(0, 3), max_size=4).map(lambda delays: tuple(sorted(delays))),
)
def test_every_call_ends(
    script: list[tuple[Outcome, float]],
    call: Call,
    retries_max: int,
    left_s: float,
    delays_s: tuple[float, ...] | None,
) -> None:
    """A call has no more attempts than allowed, and none begins after its deadline."""
    learner = Script(delays_s)
    tries = policy(RetrySettings(retries_max=retries_max), learner=learner).begin(call, 0.0, left_s)
    now_s = 0.0
    for attempt, (outcome, took_s) in enumerate(script):
        tries.began(str(attempt), now_s)
        now_s += took_s
        verdict = tries.ended(outcome, now_s)
        if not isinstance(verdict, Again):
            break
        assert verdict.wait_s >= 0
        now_s += verdict.wait_s
        assert now_s < left_s
    assert not isinstance(verdict, Again)
    assert tries.repeats <= retries_max
    assert len(learner.seen) <= 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retries_max", 11),
        ("retries_max", -1),
        ("per_try_timeout_s", 0.0),
        ("per_try_timeout_s", math.nan),
        ("status_codes", frozenset({99})),
        ("status_codes", frozenset(range(100, 200))),
        ("headers", ("X-Upper",)),
        ("headers", ("",)),
    ],
)
def test_bad_settings_are_refused(field: str, value: object) -> None:
    """A field out of its bounds is named."""
    with pytest.raises(MeshConfigError, match=field):
        RetrySettings(**{field: value})  # type: ignore[arg-type]
