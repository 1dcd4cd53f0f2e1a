"""The bulkhead: bounds that hold whatever happens, and who is served first."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raftreg.mesh.adaptive import AdaptiveSettings, Sample
from raftreg.mesh.bulkhead import Bulkhead, BulkheadSettings, Overload, Stage, Ticket
from raftreg.mesh.nouns import MeshConfigError


def test_who_finds_no_room_waits_and_who_finds_no_queue_is_refused() -> None:
    """Places first, then the queue, then a refusal with its reason."""
    bulkhead = Bulkhead(BulkheadSettings(concurrent_max=1, queue_max=1, wait_s_max=2.0))
    first, second, third = (bulkhead.enter(10.0) for _ in range(3))
    assert [t.stage for t in (first, second, third)] == [
        Stage.ADMITTED,
        Stage.WAITING,
        Stage.REFUSED,
    ]
    assert third.overload is Overload.QUEUE_FULL
    assert second.until_s == 12.0
    assert bulkhead.leave(third, Sample.IGNORED, 10.5) == []
    assert bulkhead.leave(first, Sample.MEASURED, 11.0) == [second]
    assert second.stage is Stage.ADMITTED
    assert bulkhead.leave(first, Sample.MEASURED, 11.0) == []  # again is harmless
    assert bulkhead.in_flight == 1


def test_nobody_waits_longer_than_allowed_or_than_its_deadline() -> None:
    """A ticket's time is the shorter of both; who is called after it is refused, not admitted."""
    bulkhead = Bulkhead(BulkheadSettings(concurrent_max=1, queue_max=8, wait_s_max=2.0))
    holder = bulkhead.enter(10.0)
    hurried = bulkhead.enter(10.0, deadline_s=10.5)
    patient = bulkhead.enter(10.0, deadline_s=99.0)
    too_late = bulkhead.enter(10.0, deadline_s=10.0)
    assert (hurried.until_s, patient.until_s) == (10.5, 12.0)
    assert too_late.overload is Overload.WAITED_TOO_LONG
    assert bulkhead.leave(holder, Sample.MEASURED, 11.0) == [hurried, patient]
    assert hurried.overload is Overload.WAITED_TOO_LONG
    assert patient.stage is Stage.ADMITTED
    assert not bulkhead.give_up(patient)  # it was called just before its own timer


def test_without_a_queue_the_refusal_comes_at_once() -> None:
    """queue_max 0 means that nobody waits."""
    bulkhead = Bulkhead(BulkheadSettings(concurrent_max=1, queue_max=0))
    bulkhead.enter(0.0)
    assert bulkhead.enter(0.0).overload is Overload.QUEUE_FULL


@pytest.mark.parametrize(
    ("lifo_above", "order"), [(0, [0, 1, 2, 3]), (1, [3, 2, 1, 0]), (2, [3, 2, 0, 1])]
)
def test_the_newest_goes_first_only_under_overload(lifo_above: int, order: list[int]) -> None:
    """First come, first served, until more wait than `lifo_above`."""
    bulkhead = Bulkhead(BulkheadSettings(concurrent_max=1, queue_max=9, lifo_above=lifo_above))
    holder = bulkhead.enter(0.0)
    waiting = [bulkhead.enter(0.0) for _ in range(4)]
    served: list[int] = []
    while bulkhead.in_flight:
        called = bulkhead.leave(holder, Sample.MEASURED, 0.1)
        served.extend(waiting.index(ticket) for ticket in called)
        holder = called[0] if called else holder
    assert served == order


def test_a_limit_that_finds_itself_calls_several_or_none() -> None:
    """When the limit grows, one that leaves calls two; drops shrink it below what is under way."""
    adaptive = AdaptiveSettings(
        limit_initial=4,
        limit_min=1,
        limit_max=8,
        window_s=1.0,
        window_samples_min=1,
        smoothing=1.0,
        queue=2,
        drop_factor=0.5,
    )
    bulkhead = Bulkhead(BulkheadSettings(queue_max=9, wait_s_max=9.0, adaptive=adaptive))
    tickets = [bulkhead.enter(0.0) for _ in range(9)]
    assert (bulkhead.in_flight, bulkhead.waiting) == (4, 5)
    assert bulkhead.leave(tickets[0], Sample.MEASURED, 0.5) == [tickets[4]]
    assert bulkhead.leave(tickets[1], Sample.MEASURED, 1.5) == tickets[5:8]
    assert (bulkhead.limit, bulkhead.in_flight) == (6, 6)
    assert bulkhead.leave(tickets[2], Sample.DROPPED, 3.0) == []
    assert (bulkhead.limit, bulkhead.in_flight) == (3, 5)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"concurrent_max": 0}, "concurrent_max"),
        ({"queue_max": -1}, "queue_max"),
        ({"queue_max": 5, "lifo_above": 6}, "lifo_above"),
        ({"wait_s_max": math.inf}, "wait_s_max"),
    ],
)
def test_bad_settings_are_refused_by_field(fields: dict[str, float], named: str) -> None:
    """What is out of bounds is refused naming the field."""
    with pytest.raises(MeshConfigError, match=named):
        BulkheadSettings(**fields)  # type: ignore[arg-type]  # one table for whole and broken ones


class BulkheadBounds(RuleBasedStateMachine):
    """Calls come, give up and leave in any order; bounds hold, and no place is ever lost."""

    @initialize(
        places=st.integers(1, 4),
        queue=st.integers(0, 5),
        lifo=st.booleans(),
        adaptive=st.booleans(),
    )
    def begin(self, places: int, queue: int, lifo: bool, adaptive: bool) -> None:
        """Makes a bulkhead of any size."""
        found = AdaptiveSettings(
            limit_initial=places, limit_min=1, limit_max=6, window_s=0.5, window_samples_min=1
        )
        self.bulkhead = Bulkhead(
            BulkheadSettings(
                concurrent_max=places,
                queue_max=queue,
                wait_s_max=3.0,
                lifo_above=queue // 2 if lifo else 0,
                adaptive=found if adaptive else None,
            )
        )
        self.live: list[Ticket] = []
        self.now_s = 0.0

    @rule(gap_s=st.sampled_from([0.1, 1.0, 4.0]))
    def wait(self, gap_s: float) -> None:
        """Lets time pass."""
        self.now_s += gap_s

    @rule(budget_s=st.sampled_from([0.0, 1.0, math.inf]))
    def enter(self, budget_s: float) -> None:
        """A call asks; it is refused only when there is neither a place nor room to wait."""
        free = self.bulkhead.in_flight < self.bulkhead.limit
        ticket = self.bulkhead.enter(self.now_s, self.now_s + budget_s)
        assert free is (ticket.stage is Stage.ADMITTED)
        assert (ticket.overload is not None) is (ticket.stage is Stage.REFUSED)
        if ticket.stage is not Stage.REFUSED:
            self.live.append(ticket)

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 99), sample=st.sampled_from(Sample))
    def leave(self, index: int, sample: Sample) -> None:
        """Any call ends, or its caller goes away while it waits."""
        ticket = self.live.pop(index % len(self.live))
        for called in self.bulkhead.leave(ticket, sample, self.now_s):
            assert called in self.live
            assert (called.stage is Stage.ADMITTED) is (called.until_s > self.now_s)
            if called.stage is Stage.REFUSED:
                self.live.remove(called)

    @rule()
    def time_out(self) -> None:
        """Those whose time is up give up, as their own timers tell them."""
        for ticket in list(self.live):
            if ticket.stage is Stage.WAITING and ticket.until_s <= self.now_s:
                assert self.bulkhead.give_up(ticket)
                self.live.remove(ticket)

    @invariant()
    def bounds_hold(self) -> None:
        """Counts are those of the live tickets, within bounds, and nobody waits beside a place."""
        if not hasattr(self, "bulkhead"):
            return
        bulkhead = self.bulkhead
        stages = [ticket.stage for ticket in self.live]
        assert bulkhead.in_flight == stages.count(Stage.ADMITTED)
        assert bulkhead.waiting == stages.count(Stage.WAITING)
        assert bulkhead.waiting <= bulkhead.settings.queue_max
        assert not bulkhead.waiting or bulkhead.in_flight >= bulkhead.limit

    def teardown(self) -> None:
        """When all have left, nothing is under way and nothing waits."""
        for ticket in list(getattr(self, "live", [])):
            self.bulkhead.leave(ticket, Sample.IGNORED, self.now_s)
        if hasattr(self, "bulkhead"):
            assert (self.bulkhead.in_flight, self.bulkhead.waiting) == (0, 0)


TestBounds = BulkheadBounds.TestCase
TestBounds.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
