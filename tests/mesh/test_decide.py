"""The whole decision for a call: in one order, holding nothing when it is over."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raftreg.core.chain import compile_chain
from raftreg.core.config_table import ConfigTable
from raftreg.core.intentions import Intention
from raftreg.mesh.breaker import BreakerSettings
from raftreg.mesh.bulkhead import BulkheadSettings
from raftreg.mesh.deadline import TimeoutSettings
from raftreg.mesh.decide import (
    Done,
    Mesh,
    MeshTable,
    Moment,
    Passage,
    Refusal,
    Send,
    Substitute,
    UnknownUpstream,
    UpstreamConfig,
    Wait,
    WaitFor,
)
from raftreg.mesh.events import (
    AttemptBegan,
    AttemptEnded,
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
from raftreg.mesh.nouns import Call, Failure, Instance, MeshConfigError, Outcome, Reason
from raftreg.mesh.outlier import OutlierSettings
from raftreg.mesh.passage import Misuse, Stage
from raftreg.mesh.rate_limit import Rate, RateLimitSettings
from raftreg.mesh.retry import RetrySettings, Stop
from raftreg.mesh.retry_on import Condition
from raftreg.mesh.route import RoutingTable, compile_routes, direct_routes
from raftreg.mesh.settings import ServiceSettings
from raftreg.mesh.steps import STATUSES
from raftreg.model import ConfigEntry

GET = Call(method="GET", path="/x", source="web")
OK = Outcome(status=200, duration_s=0.01)
BAD = Outcome(status=503, duration_s=0.01)
RESET = Outcome(failure=Failure.RESET, duration_s=0.01)
PLAIN = ServiceSettings(breaker=None, outlier=None, learn=None)


def instances(*keys: str) -> list[Instance]:
    """Instances by key."""
    return [Instance(key=key, address="127.0.0.1", port=at + 1) for at, key in enumerate(keys)]


def failing_over() -> RoutingTable:
    """Routes of "api" that lead to "spare" when it has no healthy instance."""
    entries = [
        ConfigEntry(kind="service-defaults", name=name, body={"Protocol": "http"})
        for name in ("api", "spare")
    ]
    failover = {"*": {"Service": "spare"}}
    entries.append(ConfigEntry(kind="service-resolver", name="api", body={"Failover": failover}))
    chain = compile_chain(ConfigTable(entries), "api", datacenter="dc1", trust_domain="t.consul")
    return compile_routes(chain)


class Rig:
    """A mesh with one upstream "api", and what it has told."""

    def __init__(
        self,
        settings: ServiceSettings = PLAIN,
        *,
        keys: tuple[str, ...] = ("a", "b"),
        intentions: Intentions | None = None,
        **others: ServiceSettings,
    ) -> None:
        self.events: list[Event] = []
        self.table = MeshTable(
            upstreams={
                "api": UpstreamConfig(routes=direct_routes("api"), intentions=intentions),
                **{name: UpstreamConfig(routes=direct_routes(name)) for name in others},
            },
            settings={"api": settings, **others},
        )
        self.mesh = Mesh(
            random.Random(3),
            self.events.append,
            table=self.table,
            moment=Moment(0.0, 1e9),
        )
        self.mesh.update("api", instances(*keys), 0.0)
        for name in others:
            self.mesh.update(name, instances(f"{name}-1"), 0.0)

    def begin(self, call: Call = GET, now_s: float = 1.0, **options: Any) -> Passage:
        """A call to "api"."""
        return self.mesh.begin("api", call, now_s, **options)

    def done(self, outcome: Outcome, now_s: float = 1.0) -> Passage:
        """A call that is answered like this, without a repeat."""
        passage = self.begin(now_s=now_s)
        assert isinstance(passage.finished(outcome, now_s), Done)
        passage.close(now_s)
        return passage

    def told(self, kind: type[Event]) -> list[Any]:
        """Events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def at_rest(self) -> None:
        """Nothing is held, and what began has ended."""
        assert self.mesh.calls == 0
        for state in self.mesh.targets():
            assert state.in_flight == 0
            assert state.bulkhead.in_flight == 0
            assert state.bulkhead.waiting == 0
        assert len(self.told(AttemptBegan)) == len(self.told(AttemptEnded))


def refusal(passage: Passage) -> Refusal:
    """The refusal that a call ended with."""
    assert isinstance(passage.step, Refusal)
    assert passage.stage is Stage.OVER
    return passage.step


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


BUSY = ServiceSettings(
    breaker=BreakerSettings(consecutive_failures_max=4, open_s=1.0, trials_max=1),
    instance_breaker=BreakerSettings(consecutive_failures_max=2, open_s=1.0, trials_max=1),
    outlier=OutlierSettings(consecutive_5xx=2, base_ejection_s=1.0, max_ejected=0.5),
    bulkhead=BulkheadSettings(concurrent_max=2, queue_max=2, wait_s_max=1.0),
    retry=RetrySettings(conditions=frozenset({Condition.SERVER_ERROR}), retries_max=2),
    timeouts=TimeoutSettings(request_s=3.0),
    fallback=FallbackSettings(steps=(OtherService(service="spare"),)),
    rate_limit=RateLimitSettings(rate=Rate(per_s=20.0, burst=20)),
    faults=(
        FaultRule(fault=Delay(delay_s=0.5), until_unix_s=1e9 + 86_400, percent=10.0),
        FaultRule(fault=Blackhole(), until_unix_s=1e9 + 86_400, percent=5.0),
        FaultRule(fault=Abort(), until_unix_s=1e9 + 86_400, percent=5.0),
    ),
)
OUTCOMES = st.sampled_from(
    [OK, OK, BAD, RESET, Outcome(status=404), *(Outcome(failure=each) for each in Failure)]
)


class AnyOrder(RuleBasedStateMachine):
    """Calls begin, end, wait and are left in any order, while all else changes too."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(BUSY, keys=("a", "b", "c"), spare=PLAIN)
        faults = FaultRule(fault=Delay(delay_s=0.1), until_unix_s=1e9 + 10, percent=50.0)
        self.tables = [
            self.rig.table,
            msgspec.structs.replace(self.rig.table, settings={"spare": BUSY}),
            msgspec.structs.replace(
                self.rig.table,
                settings={"api": msgspec.structs.replace(BUSY, faults=(faults,))},
            ),
        ]
        self.now_s = 1.0
        self.calls: list[Passage] = []
        self.begun = 0

    def live(self) -> list[Passage]:
        """Calls that are not over."""
        return [each for each in self.calls if each.stage is not Stage.OVER]

    @rule(method=st.sampled_from(["GET", "POST", ""]), source=st.sampled_from("xy"))
    def begin(self, method: str, source: str) -> None:
        """A call begins."""
        self.begun += 1
        call = Call(method=method, source=source)
        self.calls = [*self.live(), self.rig.begin(call, self.now_s)]
        self.check(self.calls[-1])

    @precondition(lambda self: self.live())
    @rule(data=st.data(), outcome=OUTCOMES, broke=st.booleans(), replayable=st.booleans())
    def go_on(
        self, data: st.DataObject, outcome: Outcome, *, broke: bool, replayable: bool
    ) -> None:
        """What a step asks for is done."""
        passage = data.draw(st.sampled_from(self.live()))
        match passage.step:
            case Send():
                passage.finished(outcome, self.now_s, replayable=replayable)
            case Wait():
                passage.resume(self.now_s)
            case Done():
                passage.close(self.now_s, broke=broke)
            case _:
                raise AssertionError(passage.step)
        self.check(passage)

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A caller leaves."""
        passage = data.draw(st.sampled_from(self.live()))
        passage.abandon(self.now_s)
        passage.abandon(self.now_s)
        assert passage.stage is Stage.OVER

    @rule(passed_s=st.sampled_from([0.05, 0.5, 1.5, 5.0]))
    def pass_time(self, passed_s: float) -> None:
        """Time passes."""
        self.now_s += passed_s
        self.rig.mesh.sweep(self.now_s)

    @rule(keys=st.sets(st.sampled_from("abcd")), critical=st.sets(st.sampled_from("ab")))
    def change_instances(self, keys: set[str], critical: set[str]) -> None:
        """Instances come and go."""
        self.rig.mesh.update("api", instances(*sorted(keys)), self.now_s, critical)

    @rule(at=st.integers(0, 2))
    def configure(self, at: int) -> None:
        """The configuration changes."""
        self.rig.mesh.configure(self.tables[at], Moment(self.now_s, 1e9 + self.now_s))

    def check(self, passage: Passage) -> None:
        """A call that is over says why; one that is not has something to do."""
        step = passage.step
        assert (passage.stage is Stage.OVER) == isinstance(step, Refusal | Substitute) or (
            isinstance(step, Done)
        )
        if isinstance(step, Refusal):
            assert step.reason in Reason
            assert step.reason is Reason.FAULT or step.status >= 400
            assert step.reason in STATUSES or step.reason is Reason.FAULT

    @invariant()
    def gauges_agree(self) -> None:
        """As many calls are counted as there are, and no more ended than began."""
        assert self.rig.mesh.calls == len(self.live())
        assert len(self.rig.told(CallEnded)) == self.begun - len(self.live())
        sent = sum(each.stage is Stage.SENT for each in self.live())
        assert len(self.rig.told(AttemptBegan)) - len(self.rig.told(AttemptEnded)) == sent

    def teardown(self) -> None:
        """When all have ended nothing is held."""
        for passage in self.live():
            passage.abandon(self.now_s)
        self.rig.at_rest()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
