"""Least request and peak EWMA."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.balance.least_request import LeastRequest, LeastRequestSettings
from raftreg.mesh.balance.peak_ewma import LatencyLoad, PeakEwma, PeakEwmaSettings
from raftreg.mesh.nouns import Failure, Instance, Outcome
from tests.mesh.balance.instances import CALL, FINE, choices, chosen, instance, seeded, weighted


def least_request(choices: int = 2) -> LeastRequest:
    """A balancer with a fixed seed."""
    return LeastRequest(LeastRequestSettings(choices=choices), None, seeded())


def peak_ewma(*instances: Instance, decay_s: float = 10.0) -> PeakEwma:
    """A balancer with these instances and a fixed seed."""
    balancer = PeakEwma(PeakEwmaSettings(decay_s=decay_s), None, seeded())
    balancer.update(instances, 0.0)
    return balancer


def pending(balancer: LeastRequest | PeakEwma) -> dict[str, int]:
    """Calls in flight by instance."""
    return {entry.instance.key: entry.pending for entry in balancer._loads.entries}


def test_the_less_loaded_of_two_is_chosen() -> None:
    """With two instances both are always compared: calls that stay open alternate."""
    balancer = least_request()
    balancer.update(weighted(1, 1), 0.0)
    for _ in range(100):
        choice = balancer.choose(CALL, 0.0)
        assert choice is not None
        balancer.began(choice, 0.0)
        assert abs(pending(balancer)["i0"] - pending(balancer)["i1"]) <= 1


def test_open_calls_follow_the_weights() -> None:
    """Of 400 calls that stay open, an instance of weight 3 has three times those of weight 1."""
    balancer = least_request()
    balancer.update(weighted(3, 1), 0.0)
    for _ in range(400):
        choice = balancer.choose(CALL, 0.0)
        assert choice is not None
        balancer.began(choice, 0.0)
    assert abs(pending(balancer)["i0"] - 300) <= 3


def test_two_choices_keep_the_longest_queue_short() -> None:
    """Of 1000 open calls, none of 100 instances has more than 14; by chance some have 18."""
    balancer = least_request()
    balancer.update(weighted(*[1] * 100), 0.0)
    for _ in range(1000):
        choice = balancer.choose(CALL, 0.0)
        assert choice is not None
        balancer.began(choice, 0.0)
    assert max(pending(balancer).values()) <= 14


def test_more_choices_find_the_idle_one() -> None:
    """The only idle instance of four is found more often when more are compared."""
    found = {}
    for count in (2, 10):
        balancer = least_request(count)
        balancer.update(weighted(1, 1, 1, 1), 0.0)
        for each in weighted(1, 1, 1):
            balancer.began(each, 0.0)
        found[count] = chosen(balancer, 1000)["i3"]
    assert found[2] < 600
    assert found[10] > 900


@given(
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["in", "out", "+", "-"]))),
    seed=st.integers(0, 100),
)
def test_loads_count_calls_in_flight(steps: list[tuple[str, str]], seed: int) -> None:
    """The load of an instance is what began and has not ended, though it left in between."""
    balancer = LeastRequest(LeastRequestSettings(), None, random.Random(seed))
    present: dict[str, Instance] = {}
    running = dict.fromkeys("abc", 0)
    for key, step in steps:
        if step == "in":
            present[key] = instance(key)
        elif step == "out":
            present.pop(key, None)
        elif step == "+":
            balancer.began(instance(key), 0.0)
            running[key] += 1
        elif running[key]:
            balancer.ended(instance(key), FINE, 0.0)
            running[key] -= 1
        balancer.update(list(present.values()), 0.0)
        assert pending(balancer) == {key: running[key] for key in present}
    departed = balancer._loads._departed
    assert {key: load.pending for key, load in departed.items()} == {
        key: count for key, count in running.items() if count and key not in present
    }


def simulate(balancer: PeakEwma, took_s: dict[str, float], count: int) -> dict[str, int]:
    """Calls that begin every 10 ms and take as long as their instance does; calls by instance."""
    ends: list[tuple[float, Instance]] = []
    had = dict.fromkeys(took_s, 0)
    for number in range(count):
        now_s = number * 0.01
        for end_s, each in [pair for pair in ends if pair[0] <= now_s]:
            ends.remove((end_s, each))
            balancer.ended(each, Outcome(status=200, duration_s=took_s[each.key]), end_s)
        choice = balancer.choose(CALL, now_s)
        assert choice is not None
        balancer.began(choice, now_s)
        had[choice.key] += 1
        ends.append((now_s + took_s[choice.key], choice))
    return had


def test_the_faster_is_preferred() -> None:
    """An instance that is five times as slow gets less than a third of what the fast one gets."""
    balancer = peak_ewma(instance("fast"), instance("slow"))
    had = simulate(balancer, {"fast": 0.02, "slow": 0.1}, 2000)
    assert 0 < had["slow"] * 3 < had["fast"]


@given(fast_s=st.floats(0.001, 1.0), factor=st.floats(1.5, 100.0), seed=st.integers(0, 1000))
def test_of_two_idle_ones_the_faster_is_chosen(fast_s: float, factor: float, seed: int) -> None:
    """With one measurement each and no call open, the faster is chosen each time."""
    balancer = PeakEwma(PeakEwmaSettings(), None, random.Random(seed))
    slow, fast = instance("slow"), instance("fast")
    balancer.update([slow, fast], 0.0)
    for each, took_s in ((slow, fast_s * factor), (fast, fast_s)):
        balancer.began(each, 0.0)
        balancer.ended(each, Outcome(status=200, duration_s=took_s), 1.0)
    for _ in range(5):
        assert balancer.choose(CALL, 1.0) is fast


def test_one_that_was_slow_is_tried_again() -> None:
    """What was measured fades: an instance with one slow call gets another after some time."""
    slow, fast = instance("slow"), instance("fast")
    balancer = peak_ewma(slow, fast)
    for each, took_s in ((slow, 1.0), (fast, 0.01)):
        balancer.began(each, 0.0)
        balancer.ended(each, Outcome(status=200, duration_s=took_s), 0.0)
    waited_s = 0.0
    while balancer.choose(CALL, waited_s) is fast:
        balancer.began(fast, waited_s)
        balancer.ended(fast, Outcome(status=200, duration_s=0.01), waited_s)
        waited_s += 1.0
    # The first t with 1 s * exp(-t / 10 s) < 10 ms * exp(-1 s / 10 s).
    assert waited_s == 48.0


def test_an_unproven_instance_gets_one_call_until_it_answers() -> None:
    """A new instance is tried at once, and gets no second call while the first is open."""
    old, new = instance("old"), instance("new")
    balancer = peak_ewma(old, new)
    balancer.began(old, 0.0)
    balancer.ended(old, FINE, 0.0)
    assert balancer.choose(CALL, 0.0) is new
    balancer.began(new, 0.0)
    assert choices(balancer, 20, 0.0) == {"old"}


@pytest.mark.parametrize(
    "outcome", [Outcome(status=503, duration_s=0.001), Outcome(failure=Failure.CONNECT)]
)
def test_failing_fast_is_not_fast(outcome: Outcome) -> None:
    """An instance that refuses at once does not draw the calls."""
    broken, sound = instance("broken"), instance("sound")
    balancer = peak_ewma(broken, sound)
    for each, result in ((broken, outcome), (sound, Outcome(status=200, duration_s=0.2))):
        balancer.began(each, 0.0)
        balancer.ended(each, result, 1.0)
    assert choices(balancer, 20, 1.0) == {"sound"}


@given(
    durations=st.lists(
        st.tuples(st.floats(0.0, 10.0), st.floats(-1.0, 100.0)), min_size=1, max_size=20
    )
)
def test_latency_peaks_at_once_and_lies_within_what_was_measured(
    durations: list[tuple[float, float]],
) -> None:
    """The average is never below the last measurement nor above the largest; clocks may jump."""
    load, now_s = LatencyLoad(instance("a")), 0.0
    largest = 0.0
    for took_s, later_s in durations:
        now_s += later_s
        load.observe(took_s, now_s, 10.0)
        largest = max(largest, took_s, 1e-9)
        assert took_s <= load.latency_s <= largest * (1.0 + 1e-9)


def test_what_was_measured_stays_while_the_key_does() -> None:
    """A change of the set keeps latencies of those that stay, and forgets those that went."""
    slow, fast = instance("slow"), instance("fast")
    balancer = peak_ewma(slow, fast)
    for each, took_s in ((slow, 1.0), (fast, 0.01)):
        balancer.began(each, 0.0)
        balancer.ended(each, Outcome(status=200, duration_s=took_s), 0.0)
    balancer.update([slow, fast], 0.0)
    assert choices(balancer, 20, 0.0) == {"fast"}
    balancer.update([fast], 0.0)
    balancer.update([slow, fast], 0.0)
    assert balancer.choose(CALL, 0.0) is slow


@given(weight=st.integers(1, 65_535))
def test_loads_do_not_depend_on_the_unit_of_weight(weight: int) -> None:
    """Two equal instances share open calls evenly, whatever number their weight is."""
    balancer = peak_ewma(*weighted(weight, weight))
    for each in weighted(weight, weight):
        balancer.began(each, 0.0)
        balancer.ended(each, FINE, 0.0)
    for _ in range(20):
        choice = balancer.choose(CALL, 0.0)
        assert choice is not None
        balancer.began(choice, 0.0)
    assert pending(balancer) == {"i0": 10, "i1": 10}
