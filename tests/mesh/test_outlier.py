"""Outlier ejection: who is left out, for how long, and that someone always stays."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from raftreg.mesh.nouns import Failure, MeshConfigError, Outcome
from raftreg.mesh.outlier import Cause, Ejection, OutlierDetector, OutlierSettings

OK = Outcome(status=200)
KEYS = tuple("abcdefghij")


def status(code: int) -> Outcome:
    """An answer of this status."""
    return Outcome(status=code)


def detector(keys: Sequence[str] = KEYS, **fields: float) -> OutlierDetector:
    """A detector of these instances, from time 0 on."""
    made = OutlierDetector(OutlierSettings(**fields), 0.0)  # type: ignore[arg-type]
    made.update(keys)
    return made


def feed(made: OutlierDetector, key: str, outcomes: Sequence[Outcome]) -> list[Ejection]:
    """Records outcomes at time 0; the ejections."""
    return [each for one in outcomes if (each := made.record(key, one, 0.0)) is not None]


def rates(made: OutlierDetector, failures: Sequence[int], calls: int = 100) -> None:
    """Gives each instance this many failures, spread so that few come in a row."""
    for key, failed in zip(KEYS, failures, strict=False):
        feed(made, key, [status(500)] * failed + [OK] * (calls - failed))


@pytest.mark.parametrize(
    ("outcomes", "cause"),
    [
        ([status(500)] * 4, None),
        ([status(500)] * 4 + [OK] + [status(500)] * 4, None),
        ([status(404)] * 20, None),
        ([status(500)] * 5, Cause.CONSECUTIVE_5XX),
        ([Outcome(failure=failure) for failure in Failure] + [status(503)], Cause.CONSECUTIVE_5XX),
    ],
    ids=["too few", "not in a row", "not the server's fault", "in a row", "of any kind"],
)
def test_failures_in_a_row_eject(outcomes: list[Outcome], cause: Cause | None) -> None:
    """Five failures in a row eject; an answer in between, whatever it says, begins anew."""
    made = detector()
    ejections = feed(made, "a", outcomes)
    assert [each.cause for each in ejections] == ([] if cause is None else [cause])
    assert made.ejected == (frozenset() if cause is None else {"a"})


def test_gateway_failures_are_counted_by_themselves() -> None:
    """No answer, 502, 503 and 504 count; a 500 in between begins anew."""
    made = detector(consecutive_5xx=0, consecutive_gateway=3)
    assert not feed(made, "a", [status(502), status(504), status(500), status(503), status(502)])
    (ejection,) = feed(made, "a", [Outcome(failure=Failure.CONNECT)])
    assert ejection.cause is Cause.CONSECUTIVE_GATEWAY


def test_an_ejection_lasts_longer_each_time_and_is_forgiven() -> None:
    """Base * times up to the most; an interval in use takes one time off."""
    made = detector(base_ejection_s=30.0, max_ejection_s=70.0, interval_s=1000.0)
    lasted_s, now_s = [], 0.0
    for _ in range(4):
        (ejection,) = [each for _ in range(5) if (each := made.record("a", status(500), now_s))]
        lasted_s.append(ejection.until_s - now_s)
        assert made.sweep(ejection.until_s - 0.001).returned == []
        assert made.due_s() == ejection.until_s
        assert made.sweep(ejection.until_s).returned == ["a"]
        assert not made.ejected
        now_s = ejection.until_s
    assert lasted_s == [30.0, 60.0, 70.0, 70.0]
    made.sweep(1000.0)  # of this interval it was out for a part
    made.sweep(2000.0)
    made.sweep(3000.0)
    (ejection,) = [each for _ in range(5) if (each := made.record("a", status(500), 3000.0))]
    assert ejection.times == 2


def test_failures_before_its_return_do_not_count_after_it() -> None:
    """Calls that were under way while it was out do not eject it again."""
    made = detector()
    (ejection,) = feed(made, "a", [status(500)] * 50)
    made.sweep(ejection.until_s)
    assert not feed(made, "a", [status(500)] * 4)
    assert feed(made, "a", [status(500)])


def test_one_whose_success_rate_stands_out_is_ejected() -> None:
    """Nine at 100 % and one at 90 %: mean 99 %, deviation 3 %, bound 93.3 %."""
    made = detector(consecutive_5xx=0)
    rates(made, [0] * 9 + [10])
    assert made.sweep(9.9).ejected == ()
    (ejection,) = made.sweep(10.0).ejected
    assert ejection == Ejection("j", Cause.SUCCESS_RATE, 40.0, 1)


@pytest.mark.parametrize(
    ("failures", "calls"),
    [([50] * 10, 100), ([0] * 9 + [50], 99), ([0] * 3 + [90], 100), ([1, 2] * 5, 100)],
    ids=["all alike", "too few calls", "too few instances", "within the deviation"],
)
def test_what_does_not_stand_out_stays(failures: list[int], calls: int) -> None:
    """A service that fails as a whole has no outliers; nor do few numbers tell one."""
    made = detector(consecutive_5xx=0)
    rates(made, failures, calls)
    assert made.sweep(10.0).ejected == []


def test_rates_are_those_of_one_interval() -> None:
    """What failed before the last sweep is not counted again."""
    made = detector(consecutive_5xx=0, success_rate_calls=10, max_ejected=0.5)
    rates(made, [0] * 9 + [10], 10)
    made.sweep(10.0)
    rates(made, [0] * 10, 10)
    assert made.sweep(20.0).ejected == []


def test_a_share_of_failures_ejects_the_worst_first() -> None:
    """Without a deviation too; as only some may be out, the worst of them are."""
    made = detector(consecutive_5xx=0, failure_share=0.5, success_rate_factor=0.0, max_ejected=0.2)
    rates(made, [60, 80, 90, 49])
    ejected = made.sweep(10.0).ejected
    assert ejected == []  # four instances with calls are too few
    rates(made, [60, 80, 90, 49, 0])
    ejected = made.sweep(20.0).ejected
    assert [(each.key, each.cause) for each in ejected] == [
        ("c", Cause.FAILURE_SHARE),
        ("b", Cause.FAILURE_SHARE),
    ]


@pytest.mark.parametrize(
    ("count", "share", "out"),
    [(10, 0.1, 1), (100, 0.29, 29), (5, 0.1, 1), (2, 1.0, 1), (1, 1.0, 0), (10, 0.0, 0)],
)
def test_only_some_are_out_at_a_time(count: int, share: float, out: int) -> None:
    """The share that is allowed, one at least, never the last, none when it is turned off."""
    keys = [f"k{number}" for number in range(count)]
    made = detector(keys, max_ejected=share)
    for key in keys:
        feed(made, key, [status(500)] * 10)
    assert len(made.ejected) == out


def test_fewer_instances_let_some_return_early() -> None:
    """Of two out of ten, one returns when only three instances are left: the one due first."""
    made = detector(max_ejected=0.4)
    for key, now_s in (("a", 0.0), ("b", 1.0)):
        for _ in range(5):
            made.record(key, status(500), now_s)
    assert made.update("abc") == ["a"]
    assert made.ejected == {"b"}
    assert made.update("b") == ["b"]
    assert made.update("") == []


def test_one_that_left_is_forgotten() -> None:
    """An instance that comes back under its old key begins anew."""
    made = detector()
    feed(made, "a", [status(500)] * 5)
    made.update(KEYS[1:])
    assert made.record("a", status(500), 0.0) is None
    made.update(KEYS)
    assert not made.ejected
    assert made.sweep(1000.0).returned == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("consecutive_5xx", -1),
        ("interval_s", 0.0),
        ("base_ejection_s", float("nan")),
        ("max_ejection_s", 29.0),
        ("max_ejected", 1.5),
        ("success_rate_instances", 1),
        ("failure_share", -0.1),
    ],
)
def test_settings_that_make_no_sense_are_refused(field: str, value: float) -> None:
    """The error names the field."""
    with pytest.raises(MeshConfigError, match=rf"^{field}: "):
        OutlierSettings(**{field: value})  # type: ignore[arg-type]


@given(failures=st.lists(st.integers(0, 100), min_size=5, max_size=10))
def test_the_best_is_never_ejected_by_its_rate(failures: list[int]) -> None:
    """The bound lies below the mean, so whoever has the fewest failures stays."""
    made = detector(consecutive_5xx=0, success_rate_factor=0.5, max_ejected=1.0)
    rates(made, failures)
    ejected = {each.key for each in made.sweep(10.0).ejected}
    assert not any(KEYS[place] in ejected for place in range(10) if place < len(failures)
                   and failures[place] == min(failures))  # fmt: skip


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, some instance is in use, and all return."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.out: dict[str, float] = {}
        self.keys: set[str] = set()

    @initialize(share=st.floats(0.0, 1.0))
    def begin(self, share: float) -> None:
        """A detector that ejects for little."""
        self.settings = OutlierSettings(
            consecutive_5xx=2, max_ejected=share, success_rate_calls=2, success_rate_instances=2
        )
        self.made = OutlierDetector(self.settings, 0.0)

    @rule(keys=st.sets(st.sampled_from(KEYS)))
    def replace(self, keys: set[str]) -> None:
        """Other instances."""
        early = self.made.update(keys)
        self.keys = keys
        self.out = {key: end for key, end in self.out.items() if key in keys and key not in early}

    @rule(key=st.sampled_from(KEYS), outcome=st.sampled_from([OK, status(500), status(503)]))
    def call(self, key: str, outcome: Outcome) -> None:
        """A call ended, maybe at an instance that is gone."""
        self.ejected(self.made.record(key, outcome, self.now_s))

    @rule(later_s=st.floats(0.0, 100.0))
    def sweep(self, later_s: float) -> None:
        """Time passes."""
        self.now_s += later_s
        due_s = self.made.due_s()
        swept = self.made.sweep(self.now_s)
        if self.now_s < due_s:
            assert not swept.ejected
            assert not swept.returned
        assert set(swept.returned) == {k for k, end in self.out.items() if end <= self.now_s}
        for key in swept.returned:
            del self.out[key]
        for each in swept.ejected:
            self.ejected(each)

    def ejected(self, ejection: Ejection | None) -> None:
        """Notes an ejection, whose length is within bounds."""
        if ejection is None:
            return
        assert ejection.key in self.keys - self.out.keys()
        lasts_s = ejection.until_s - self.now_s
        assert self.settings.base_ejection_s - 0.001 <= lasts_s <= 300.001
        self.out[ejection.key] = ejection.until_s

    @invariant()
    def someone_is_in_use(self) -> None:
        """The detector says who is out as its events did, and never that all are."""
        assert self.made.ejected == self.out.keys()
        allowed = max(1.0, len(self.keys) * self.settings.max_ejected + 1e-6)
        assert len(self.out) <= (allowed if self.settings.max_ejected else 0)
        assert not self.keys or len(self.out) < len(self.keys)


TestAnyOrder = AnyOrder.TestCase
