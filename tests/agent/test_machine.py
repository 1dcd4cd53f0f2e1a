from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftreg.model import Status
from raftreg_agent.checks.machine import CheckMachine, CheckResult, Damping, Thresholds

PASSING, WARNING, CRITICAL = Status.PASSING, Status.WARNING, Status.CRITICAL
CALM = Damping(suppress_over=1e9, hold_max_s=1e4)


def machine(
    start: Status = CRITICAL,
    *,
    success: int = 0,
    warning: int = 0,
    critical: int = 0,
    ttl_s: float = 0.0,
    damping: Damping | None = None,
) -> CheckMachine:
    """A check since time 0."""
    limits = Thresholds(
        success_before_passing=success,
        failures_before_warning=warning,
        failures_before_critical=critical,
    )
    return CheckMachine(limits, 0.0, status=start, ttl_s=ttl_s, damping=damping)


def see(check: CheckMachine, *statuses: Status, at_s: float = 1.0) -> list[Status]:
    """Feeds results; gives what is shown after each."""
    shown = []
    for status in statuses:
        check.observe(CheckResult(status, "seen"), at_s)
        shown.append(check.status)
    return shown


def test_a_new_check_is_critical_until_its_first_result() -> None:
    """Without a status given, nothing is assumed to be well."""
    check = machine()
    assert check.status is CRITICAL
    assert see(check, PASSING) == [PASSING]


def test_thresholds_need_results_in_a_row() -> None:
    """A single result of the other kind starts the count anew."""
    check = machine(PASSING, critical=3, success=2)
    assert see(check, CRITICAL, CRITICAL, PASSING, CRITICAL, CRITICAL) == [PASSING] * 5
    assert see(check, CRITICAL) == [CRITICAL]
    assert see(check, PASSING, CRITICAL, PASSING, PASSING) == [CRITICAL] * 3 + [PASSING]


def test_warning_comes_before_critical_when_it_is_asked_for() -> None:
    """FailuresBeforeWarning shows a warning on the way to critical; it improves nothing."""
    check = machine(PASSING, warning=2, critical=4)
    assert see(check, *[CRITICAL] * 4) == [PASSING, WARNING, WARNING, CRITICAL]
    assert see(check, CRITICAL) == [CRITICAL]


def test_a_warning_counts_as_success() -> None:
    """As in Consul: warnings bring a check out of critical and break a run of failures."""
    check = machine(CRITICAL, success=2, critical=2)
    assert see(check, WARNING, WARNING) == [CRITICAL, WARNING]
    assert see(check, CRITICAL, WARNING, CRITICAL) == [WARNING] * 3


def test_what_still_waits_is_told_in_the_output() -> None:
    """A person sees why a failing check is still shown as passing."""
    check = machine(PASSING, critical=3)
    see(check, CRITICAL)
    assert check.output == "seen (failure 1 of 3 before critical)"


def test_ttl_expires_once_and_a_word_renews_it() -> None:
    """Past its TTL a check is critical with the text that clients know."""
    check = machine(PASSING, ttl_s=10.0)
    assert not check.expire(9.9)
    check.assert_status(PASSING, "fine", 9.0)
    assert not check.expire(18.9)
    assert check.expire(19.0)
    assert (check.status, check.output) == (CRITICAL, "TTL expired")
    assert not check.expire(30.0)


def test_an_owners_word_is_taken_at_once() -> None:
    """TTL checks have no thresholds and are not damped: what was said is what is shown."""
    check = machine(success=5, critical=5, ttl_s=10.0)
    for at_s in range(50):
        status = CRITICAL if at_s % 2 else PASSING
        check.assert_status(status, "", float(at_s))
        assert check.status is status


def test_deregistration_is_due_after_being_critical_for_at_least_a_minute() -> None:
    """DeregisterCriticalServiceAfter below a minute counts as one; passing starts it anew."""
    check = machine(PASSING)
    see(check, CRITICAL, at_s=100.0)
    assert not check.deregister_due(10.0, 159.0)
    assert check.deregister_due(10.0, 160.0)
    assert not check.deregister_due(0.0, 1e6)
    see(check, PASSING, CRITICAL, at_s=200.0)
    assert not check.deregister_due(10.0, 259.0)


def test_wish_04_flap_damping_holds_a_flapping_check_critical() -> None:
    """The fifth fall within a minute holds the check; one outage, or four, hold nothing."""
    check = machine(PASSING)
    for at_s in range(4):
        assert see(check, CRITICAL, PASSING, at_s=float(at_s)) == [CRITICAL, PASSING]
    assert see(check, CRITICAL, PASSING, at_s=4.0) == [CRITICAL, CRITICAL]
    assert "flapping: held critical" in check.output


def test_wish_04_flap_damping_lets_go_when_the_check_is_calm() -> None:
    """Passing is shown again once the penalty has decayed, and within the longest hold."""
    damping = Damping()
    check = machine(PASSING, damping=damping)
    for _ in range(100):
        see(check, CRITICAL, PASSING, at_s=10.0)
    assert check.status is CRITICAL
    assert see(check, PASSING, at_s=10.0 + damping.hold_max_s - 1.0) == [CRITICAL]
    assert see(check, PASSING, at_s=10.0 + damping.hold_max_s) == [PASSING]
    assert check.output == "seen"


def test_wish_04_flap_damping_counts_falls_that_it_hides() -> None:
    """A check that goes on flapping while it is held stays held."""
    check = machine(PASSING)
    shown = [see(check, CRITICAL, PASSING, at_s=float(at_s))[1] for at_s in range(0, 3600, 10)]
    first_held = shown.index(CRITICAL)
    assert set(shown[first_held:]) == {CRITICAL}


def test_wish_05_registering_again_keeps_health_and_counts() -> None:
    """A new definition changes the rules, not what is known of the check."""
    check = machine(PASSING, critical=3)
    see(check, CRITICAL, CRITICAL)
    check.reconfigure(Thresholds(failures_before_critical=4), 0.0, 5.0)
    assert check.status is PASSING
    assert see(check, CRITICAL, CRITICAL) == [PASSING, CRITICAL]


statuses = st.lists(st.sampled_from(list(Status)), max_size=60)
limits = st.integers(0, 4)


@given(statuses, limits, limits, limits, st.sampled_from(list(Status)))
def test_thresholds_agree_with_a_plain_model(
    seen: list[Status], success: int, warning: int, critical: int, start: Status
) -> None:
    """Whatever comes: a change to the better follows enough good results in a row, and a change
    to the worse enough bad ones.
    """
    check = machine(start, success=success, warning=warning, critical=critical, damping=CALM)
    for position, status in enumerate(seen):
        before = check.status
        (after,) = see(check, status)
        run = _run_of(seen[: position + 1], failing=status is CRITICAL)
        if after is before:
            continue
        if after is CRITICAL:
            assert run >= max(1, critical)
        elif status is CRITICAL:
            assert after is WARNING
            assert run >= warning > 0
        else:
            assert after is status
            assert run >= max(1, success)


def _run_of(seen: list[Status], *, failing: bool) -> int:
    count = 0
    for status in reversed(seen):
        if (status is CRITICAL) is not failing:
            break
        count += 1
    return count


@given(st.lists(st.tuples(st.sampled_from(list(Status)), st.floats(0, 120)), max_size=80))
def test_wish_04_flap_damping_never_hides_bad_news(steps: list[tuple[Status, float]]) -> None:
    """What is shown is never better than what was seen, and never held beyond the longest hold."""
    order = [PASSING, WARNING, CRITICAL]
    damping = Damping()
    check = machine(PASSING, damping=damping)
    now_s, last_fall_s, before = 0.0, 0.0, PASSING
    for status, wait_s in steps:
        now_s += wait_s
        if order.index(status) > order.index(before):
            last_fall_s = now_s
        before = status
        (shown,) = see(check, status, at_s=now_s)
        assert order.index(shown) >= order.index(status)
        if now_s - last_fall_s > damping.hold_max_s:
            assert shown is status
