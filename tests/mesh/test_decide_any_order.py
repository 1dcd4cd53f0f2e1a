"""Whatever comes in whatever order, every call ends once, with a reason, and holds nothing."""

from __future__ import annotations

import msgspec
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raftreg.mesh.breaker import BreakerSettings
from raftreg.mesh.bulkhead import BulkheadSettings
from raftreg.mesh.deadline import TimeoutSettings
from raftreg.mesh.decide import (
    Done,
    Moment,
    Passage,
    Refusal,
    Send,
    Substitute,
    Wait,
)
from raftreg.mesh.events import (
    AttemptBegan,
    AttemptEnded,
    CallEnded,
)
from raftreg.mesh.fallback import FallbackSettings, OtherService
from raftreg.mesh.fault import Abort, Blackhole, Delay, FaultRule
from raftreg.mesh.nouns import Call, Failure, Outcome, Reason
from raftreg.mesh.outlier import OutlierSettings
from raftreg.mesh.passage import Stage
from raftreg.mesh.rate_limit import Rate, RateLimitSettings
from raftreg.mesh.retry import RetrySettings
from raftreg.mesh.retry_on import Condition
from raftreg.mesh.settings import ServiceSettings
from raftreg.mesh.steps import STATUSES
from tests.mesh.decide_rig import (
    BAD,
    OK,
    PLAIN,
    RESET,
    Rig,
    instances,
)

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
