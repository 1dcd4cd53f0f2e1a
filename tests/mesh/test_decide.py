"""The whole decision for a call: in one order, holding nothing when it is over."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from raftreg.core.intentions import Intention
from raftreg.mesh.breaker import BreakerSettings
from raftreg.mesh.bulkhead import BulkheadSettings
from raftreg.mesh.deadline import TimeoutSettings
from raftreg.mesh.decide import (
    Done,
    Mesh,
    MeshTable,
    Moment,
    Refusal,
    Send,
    Substitute,
    UnknownUpstream,
    UpstreamConfig,
    Wait,
    WaitFor,
)
from raftreg.mesh.events import (
    BreakerChanged,
    CallEnded,
    Ejected,
    Event,
    NotRepeated,
    Repeated,
    Result,
)
from raftreg.mesh.fallback import FallbackSettings, FixedAnswer, OtherService
from raftreg.mesh.fault import Abort, Bandwidth, Blackhole, Delay, FaultRule
from raftreg.mesh.intention import Intentions
from raftreg.mesh.last_good import Answer
from raftreg.mesh.nouns import Call, Failure, MeshConfigError, Outcome, Reason
from raftreg.mesh.outlier import OutlierSettings
from raftreg.mesh.passage import Misuse
from raftreg.mesh.rate_limit import Rate, RateLimitSettings
from raftreg.mesh.retry import RetrySettings, Stop
from raftreg.mesh.settings import ServiceSettings
from tests.mesh.decide_rig import (
    BAD,
    GET,
    OK,
    PLAIN,
    RESET,
    Rig,
    failing_over,
    instances,
    refusal,
)


def test_good_call() -> None:
    """A call that goes well is sent once, passed on, and gives back all it held."""
    rig = Rig()
    passage = rig.begin()
    assert isinstance(passage.step, Send)
    assert passage.step.instance.key in {"a", "b"}
    assert passage.step.timeout_s == 15.0
    assert rig.mesh.calls == 1
    assert isinstance(passage.finished(OK, 1.1), Done)
    assert rig.mesh.calls == 1
    passage.close(1.2)
    passage.close(1.3)
    rig.at_rest()
    (ended,) = rig.told(CallEnded)
    assert (ended.result, ended.status, ended.attempts, ended.source) == (
        Result.ANSWERED,
        200,
        1,
        "web",
    )


def test_repeat_goes_elsewhere() -> None:
    """A failed attempt is repeated after its wait, on another instance, within the same call."""
    rig = Rig()
    passage = rig.begin()
    assert isinstance(passage.step, Send)
    first = passage.step.instance.key
    step = passage.finished(BAD, 1.0)
    assert isinstance(step, Wait)
    assert step.what is WaitFor.REPEAT
    assert next(iter(rig.mesh.targets())).bulkhead.in_flight == 0
    assert passage.resume(step.until_s - 0.001) is step
    again = passage.resume(step.until_s)
    assert isinstance(again, Send)
    assert (again.number, again.instance.key != first) == (2, True)
    passage.finished(OK, 2.0)
    passage.close(2.0)
    rig.at_rest()
    assert len(rig.told(Repeated)) == 1


def test_unsafe_call_is_not_repeated() -> None:
    """A POST that may have taken effect gets the answer of its one attempt."""
    rig = Rig()
    passage = rig.begin(Call(method="POST", path="/"))
    assert isinstance(passage.finished(BAD, 1.0), Done)
    passage.close(1.0)
    lost = rig.begin(Call(method="POST", path="/"))
    lost.finished(RESET, 1.0)
    assert refusal(lost) == Refusal(Reason.UPSTREAM_FAILED, 502, 0.0, "reset")
    assert [event.why for event in rig.told(NotRepeated)] == [Stop.UNSAFE] * 2
    late = rig.begin(Call(method="POST", path="/"))
    late.finished(Outcome(failure=Failure.TIMEOUT), 1.0)
    assert refusal(late).status == 504
    rig.at_rest()


def test_nothing_to_call() -> None:
    """Without instances the call is refused at once, and an unknown upstream is told apart."""
    rig = Rig(keys=())
    assert refusal(rig.begin()) == Refusal(Reason.NO_INSTANCE, 503)
    with pytest.raises(UnknownUpstream):
        rig.mesh.begin("nobody", GET, 0.0)
    rig.at_rest()


def test_breaker_opens_and_recovers() -> None:
    """After failures in a row calls fail at once, told for how long; later one is let through."""
    breaker = BreakerSettings(consecutive_failures_max=2, open_s=5.0, open_jitter=0.0)
    rig = Rig(msgspec.structs.replace(PLAIN, breaker=breaker, retry=RetrySettings(retries_max=0)))
    for _ in range(2):
        rig.done(BAD)
    assert refusal(rig.begin(now_s=2.0)) == Refusal(Reason.CIRCUIT_OPEN, 503, 4.0)
    assert len(rig.told(BreakerChanged)) == 1
    rig.done(OK, now_s=6.5)
    rig.at_rest()


def test_instance_breaker_spares_the_others() -> None:
    """An instance that fails is passed over, while the others go on."""
    breaker = BreakerSettings(consecutive_failures_max=1, open_s=5.0, open_jitter=0.0)
    rig = Rig(
        msgspec.structs.replace(
            PLAIN, instance_breaker=breaker, retry=RetrySettings(retries_max=0)
        ),
        keys=("a", "b", "c"),
    )
    passage = rig.begin()
    assert isinstance(passage.step, Send)
    failed = passage.step.instance.key
    passage.finished(BAD, 1.0)
    passage.close(1.0)
    used: Counter[str] = Counter()
    for _ in range(30):
        passage = rig.begin(now_s=2.0)
        assert isinstance(passage.step, Send)
        used[passage.step.instance.key] += 1
        passage.finished(OK, 2.0)
        passage.close(2.0)
    assert failed not in used
    assert len(used) == 2
    rig.mesh.sweep(6.5)
    for _ in range(30):
        passage = rig.begin(now_s=6.5)
        assert isinstance(passage.step, Send)
        used[passage.step.instance.key] += 1
        passage.finished(OK, 6.5)
        passage.close(6.5)
    assert failed in used
    rig.at_rest()


def test_all_instances_shut() -> None:
    """When every instance's breaker is open the call is refused, not hung."""
    breaker = BreakerSettings(consecutive_failures_max=1, open_s=50.0, open_jitter=0.0)
    rig = Rig(
        msgspec.structs.replace(PLAIN, instance_breaker=breaker, retry=RetrySettings(retries_max=0))
    )
    reasons = set()
    for _ in range(20):
        passage = rig.begin()
        if isinstance(passage.step, Send):
            passage.finished(BAD, 1.0)
            passage.close(1.0)
        else:
            reasons.add(refusal(passage).reason)
    assert reasons <= {Reason.CIRCUIT_OPEN, Reason.NO_INSTANCE}
    assert reasons
    rig.at_rest()


def test_outlier_is_ejected() -> None:
    """An instance that fails while others do not is left out."""
    outlier = OutlierSettings(consecutive_5xx=2, max_ejected=0.5, success_rate_factor=0.0)
    rig = Rig(
        msgspec.structs.replace(PLAIN, outlier=outlier, retry=RetrySettings(retries_max=0)),
        keys=("a", "b", "c", "d"),
    )
    for _ in range(40):
        passage = rig.begin()
        assert isinstance(passage.step, Send)
        passage.finished(BAD if passage.step.instance.key == "a" else OK, 1.0)
        passage.close(1.0)
    assert [event.ejection.key for event in rig.told(Ejected)] == ["a"]
    rig.at_rest()


def test_broken_answer_counts() -> None:
    """An instance whose answers break off is a failing one, though their heads were good."""
    outlier = OutlierSettings(consecutive_5xx=1, max_ejected=0.5, success_rate_factor=0.0)
    breaker = BreakerSettings(consecutive_failures_max=1)
    rig = Rig(msgspec.structs.replace(PLAIN, outlier=outlier, breaker=breaker))
    passage = rig.begin()
    passage.finished(OK, 1.0)
    passage.close(1.0, broke=True)
    assert len(rig.told(Ejected)) == 1
    assert len(rig.told(BreakerChanged)) == 1
    rig.at_rest()


@pytest.mark.parametrize("gone", [True, False])
def test_failover(*, gone: bool) -> None:
    """Without healthy instances, or with an open breaker, calls go to the failover target."""
    events: list[Event] = []
    breaker = BreakerSettings(consecutive_failures_max=1)
    table = MeshTable(
        upstreams={"api": UpstreamConfig(routes=failing_over())},
        settings={
            "api": ServiceSettings(breaker=breaker, retry=RetrySettings(retries_max=0)),
        },
    )
    mesh = Mesh(random.Random(1), events.append, table=table, moment=Moment(0.0, 1e9))
    mesh.update("spare.default.default.dc1", instances("s"), 0.0)
    if not gone:
        mesh.update("api.default.default.dc1", instances("a"), 0.0)
        passage = mesh.begin("api", GET, 1.0)
        assert isinstance(passage.step, Send)
        assert passage.step.instance.key == "a"
        passage.finished(BAD, 1.0)
        passage.close(1.0)
    passage = mesh.begin("api", GET, 1.0)
    assert isinstance(passage.step, Send)
    assert passage.step.instance.key == "s"
    passage.abandon(1.0)
    assert mesh.calls == 0


def test_bulkhead_queues_and_wakes() -> None:
    """Who finds no place waits and is woken by the next that leaves; who finds no queue goes."""
    bulkhead = BulkheadSettings(concurrent_max=1, queue_max=1, wait_s_max=2.0)
    rig = Rig(msgspec.structs.replace(PLAIN, bulkhead=bulkhead))
    woken: list[str] = []
    first = rig.begin()
    second = rig.begin(wake=lambda: woken.append("second"))
    assert second.step == Wait(WaitFor.PLACE, 3.0)
    assert refusal(rig.begin()) == Refusal(Reason.OVERLOAD, 503, 0.0, "queue-full")
    assert second.resume(1.5) == Wait(WaitFor.PLACE, 3.0)
    first.finished(OK, 2.0)
    assert woken == []
    first.close(2.0)
    assert woken == ["second"]
    assert isinstance(second.resume(2.0), Send)
    third = rig.begin(now_s=2.0)
    assert isinstance(third.resume(4.0), Refusal)
    assert refusal(third).detail == "waited-too-long"
    second.abandon(5.0)
    rig.at_rest()


def test_place_that_comes_too_late() -> None:
    """A place that comes after the deadline is given back at once."""
    rig = Rig(
        msgspec.structs.replace(
            PLAIN,
            bulkhead=BulkheadSettings(concurrent_max=1, wait_s_max=60.0),
            timeouts=TimeoutSettings(request_s=2.0),
        )
    )
    first, second = rig.begin(), rig.begin()
    first.finished(OK, 2.5)
    first.close(2.5)
    second.resume(3.5)
    assert refusal(second).reason is Reason.DEADLINE
    rig.at_rest()


def test_deadline_bounds_all_attempts() -> None:
    """A call whose time is up is not repeated, and a caller's header shortens it."""
    rig = Rig(msgspec.structs.replace(PLAIN, timeouts=TimeoutSettings(request_s=10.0)))
    passage = rig.begin(
        Call(method="GET", path="/", headers={"x-raftreg-deadline": "500"}), now_s=1.0
    )
    assert isinstance(passage.step, Send)
    assert passage.step.timeout_s == 0.5
    passage.finished(Outcome(failure=Failure.TIMEOUT, duration_s=0.5), 1.5)
    assert refusal(passage).reason is Reason.DEADLINE
    bad = rig.begin(Call(headers={"x-raftreg-deadline": "soon"}))
    assert refusal(bad).reason is Reason.BAD_REQUEST
    rig.at_rest()


def fault(fault: Any, **fields: Any) -> ServiceSettings:
    """Settings with one fault for an hour."""
    rules = (FaultRule(fault=fault, until_unix_s=1e9 + 3600, **fields),)
    return msgspec.structs.replace(PLAIN, faults=rules)


def test_faults() -> None:
    """An abort answers, a delay holds the call, a black hole until its time, all with an end."""
    rig = Rig(fault(Abort(status=418)))
    assert refusal(rig.begin()) == Refusal(Reason.FAULT, 418)
    assert isinstance(rig.begin(now_s=4000.0).step, Send)
    rig = Rig(fault(Delay(delay_s=2.0)))
    passage = rig.begin()
    assert passage.step == Wait(WaitFor.FAULT, 3.0)
    assert isinstance(passage.resume(3.0), Send)
    passage.abandon(3.0)
    rig.at_rest()
    rig = Rig(fault(Blackhole()))
    passage = rig.begin()
    assert passage.step == Wait(WaitFor.FAULT, 16.0)
    assert passage.resume(16.0) == Refusal(Reason.FAULT, 0, 0.0, "blackhole")
    rig.at_rest()
    rig = Rig(fault(Bandwidth(bytes_per_s=10.0)))
    passage = rig.begin()
    assert isinstance(passage.step, Send)
    assert passage.step.bandwidth == Bandwidth(bytes_per_s=10.0)
    passage.abandon(1.0)
    rig.at_rest()


def test_rate_limit() -> None:
    """A source that asks for more than its share is refused, and told when to come again."""
    limit = RateLimitSettings(rate=Rate(per_s=2.0, burst=1))
    rig = Rig(msgspec.structs.replace(PLAIN, rate_limit=limit))
    rig.done(OK)
    assert refusal(rig.begin()) == Refusal(Reason.RATE_LIMIT, 429, 0.5)
    rig.at_rest()


def test_intentions_come_first() -> None:
    """Who is not allowed is refused before anything is spent on the call."""
    rules = Intentions(
        [Intention(source="web", destination="api", action="allow", precedence=9)],
        default_allow=False,
    )
    rig = Rig(intentions=rules)
    rig.done(OK)
    stranger = rig.begin(msgspec.structs.replace(GET, source="bad"))
    assert refusal(stranger) == Refusal(Reason.DENIED, 403, 0.0, "default policy")
    rig.at_rest()


def test_fallback_answer() -> None:
    """A fixed answer stands in for a failure, and for a bad answer, but not for a good one."""
    fixed = Answer(status=200, body=b"sorry")
    rig = Rig(
        msgspec.structs.replace(
            PLAIN,
            retry=RetrySettings(retries_max=0),
            fallback=FallbackSettings(steps=(FixedAnswer(answer=fixed),)),
        )
    )
    rig.done(OK)
    for outcome in (BAD, RESET):
        passage = rig.begin()
        step = passage.finished(outcome, 1.0)
        assert isinstance(step, Substitute)
        assert (step.answer.body, step.reason) == (b"sorry", Reason.UPSTREAM_FAILED)
    assert [event.result for event in rig.told(CallEnded)] == [
        Result.ANSWERED,
        Result.FELL_BACK,
        Result.FELL_BACK,
    ]
    rig.at_rest()


def test_fallback_service() -> None:
    """Another service is called instead; services that point at each other end."""
    to = {
        name: msgspec.structs.replace(
            PLAIN,
            retry=RetrySettings(retries_max=0),
            fallback=FallbackSettings(steps=(OtherService(service=other),)),
        )
        for name, other in (("api", "spare"), ("spare", "api"))
    }
    rig = Rig(to["api"], spare=to["spare"])
    passage = rig.begin()
    step = passage.finished(RESET, 1.0)
    assert isinstance(step, Send)
    assert step.instance.key == "spare-1"
    passage.finished(RESET, 1.0)
    assert refusal(passage).reason is Reason.UPSTREAM_FAILED
    assert [event.upstream for event in rig.told(CallEnded)] == ["api"]
    rig.at_rest()


def test_wrong_doors() -> None:
    """A door that the step does not name is refused, and changes nothing."""
    rig = Rig()
    passage = rig.begin()
    with pytest.raises(Misuse):
        passage.resume(1.0)
    with pytest.raises(Misuse):
        passage.close(1.0)
    passage.finished(OK, 1.0)
    with pytest.raises(Misuse):
        passage.finished(OK, 1.0)
    passage.close(1.0)
    with pytest.raises(Misuse):
        passage.finished(OK, 1.0)
    rig.at_rest()


def test_configuration_is_swapped_whole() -> None:
    """What did not change keeps what it learned, running calls finish, a bad one changes naught."""
    breaker = BreakerSettings(consecutive_failures_max=1, open_s=50.0)
    settings = msgspec.structs.replace(PLAIN, breaker=breaker, retry=RetrySettings(retries_max=0))
    rig = Rig(settings, spare=PLAIN)
    running = rig.mesh.begin("spare", GET, 1.0)
    rig.done(BAD)
    rig.mesh.configure(msgspec.structs.replace(rig.table, revision=2), Moment(2.0, 1e9 + 2))
    assert rig.mesh.revision == 2
    assert refusal(rig.begin(now_s=2.0)).reason is Reason.CIRCUIT_OPEN
    reset = msgspec.structs.replace(
        rig.table, settings={"api": msgspec.structs.replace(settings, breaker=None)}, revision=3
    )
    rig.mesh.configure(reset, Moment(3.0, 1e9 + 3))
    rig.done(OK, now_s=3.0)
    forgotten = FaultRule(fault=Abort(), until_unix_s=9e9)
    bad = msgspec.structs.replace(
        rig.table,
        settings={"api": msgspec.structs.replace(PLAIN, faults=(forgotten,))},
        revision=4,
    )
    with pytest.raises(MeshConfigError, match="until_unix_s"):
        rig.mesh.configure(bad, Moment(4.0, 1e9 + 4))
    assert rig.mesh.revision == 3
    rig.mesh.configure(MeshTable(revision=5), Moment(5.0, 1e9 + 5))
    assert rig.mesh.calls == 1
    assert isinstance(running.finished(OK, 5.0), Done)
    running.close(5.0)
    rig.at_rest()


def test_tcp_call() -> None:
    """A call without a method is repeated when no connection was made, and else not."""
    rig = Rig()
    plain = Call()
    passage = rig.begin(plain)
    assert isinstance(passage.finished(Outcome(failure=Failure.CONNECT), 1.0), Wait)
    passage.abandon(1.0)
    passage = rig.begin(plain)
    passage.finished(Outcome(), 1.0)
    passage.close(1.0)
    rig.at_rest()
