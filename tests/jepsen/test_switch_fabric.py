"""The rules between hosts, pure: what becomes of each packet."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.ground.api import PairCount, Rule
from jepsen_like.ground.fabric import (
    BACKLOG_BYTES_MAX,
    BURST_BYTES,
    WAITING_MAX,
    BadRule,
    Fabric,
)

A_TO_B = ("a", "b")
FAR_S = 1e6


class Bench:
    """A fabric of three hosts, and what came out of it."""

    def __init__(self, rule: Rule | None = None, *, seed: int = 1, now: float = 100.0) -> None:
        self.fabric = Fabric(["a", "b", "c"], Random(seed))
        self.now = now
        self.out: list[tuple[float, bytes]] = []
        self.sent = 0
        if rule is not None:
            self.set(rule)

    @property
    def count(self) -> PairCount:
        """Counters of the lane under test."""
        return self.fabric.counts()[A_TO_B]

    def set(self, rule: Rule) -> None:
        """Gives the lane a rule, now."""
        self.fabric.set_rules({A_TO_B: rule}, self.now)

    def send(self, packet: bytes) -> None:
        """Sends a packet now."""
        self.sent += 1
        if self.fabric.admit(self.fabric.lanes[A_TO_B], packet, self.now):
            self.out.append((self.now, packet))

    def to(self, now: float) -> None:
        """Moves time on; each packet comes out at its own instant."""
        while (at := self.fabric.next_at()) is not None and at <= now:
            self.now = max(self.now, at)
            self.out += [(self.now, packet) for _, packet in self.fabric.due(self.now)]
        self.now = now

    @property
    def packets(self) -> list[bytes]:
        """What came out, in order."""
        return [packet for _, packet in self.out]


rules = st.builds(
    Rule,
    drop=st.booleans(),
    flap_s=st.sampled_from([0.0, 0.5]),
    loss=st.sampled_from([0.0, 0.3, 1.0]),
    delay_s=st.sampled_from([0.0, 0.1]),
    jitter_s=st.sampled_from([0.0, 0.2]),
    duplicate=st.sampled_from([0.0, 0.5, 1.0]),
    rate_bytes_per_s=st.sampled_from([0, 1000, 100_000]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(20, 9000)),
        st.tuples(st.just("rule"), rules),
        st.tuples(st.just("wait"), st.floats(0, 1)),
    ),
    max_size=80,
)


def test_what_no_rule_names_passes_at_once() -> None:
    """Lanes without a rule are wires, also while others are cut."""
    bench = Bench()
    bench.fabric.set_rules({("b", "a"): Rule(drop=True)}, bench.now)
    for number in range(10):
        bench.send(bytes([number]))
    assert bench.packets == [bytes([number]) for number in range(10)]
    assert bench.count == PairCount(passed=10)


def test_nothing_passes_a_cut_and_all_of_it_is_counted() -> None:
    """A cut is whole, in one direction only, and proved by its counter."""
    bench = Bench(Rule(drop=True))
    for _ in range(10):
        bench.send(b"x")
    back = bench.fabric.lanes["b", "a"]
    assert bench.fabric.admit(back, b"y", bench.now)
    bench.to(FAR_S)
    assert bench.out == []
    assert bench.count == PairCount(dropped=10)


def test_a_flapping_cut_begins_closed_and_opens_every_other_period() -> None:
    """`flap_s` cuts in the periods 0, 2, 4 … since the rule was set."""
    bench = Bench(Rule(drop=True, flap_s=1.0), now=7.25)
    for number in range(6):
        bench.to(7.75 + number)
        bench.send(bytes([number]))
    assert bench.packets == [b"\x01", b"\x03", b"\x05"]


@given(steps=steps, seed=st.integers(0, 99))
def test_every_packet_is_delivered_or_counted_as_lost(
    steps: list[tuple[str, object]], seed: int
) -> None:
    """Whatever the rules and their changes: sent + duplicated = passed + dropped."""
    bench = Bench(seed=seed)
    for what, argument in steps:
        match what, argument:
            case "send", int(size):
                bench.send(bytes(size))
            case "rule", Rule() as rule:
                bench.set(rule)
            case "wait", float(time_s):
                bench.to(bench.now + time_s)
            case _:
                raise AssertionError(what)
    bench.to(FAR_S)
    count = bench.count
    assert bench.sent + count.duplicated == count.passed + count.dropped
    assert len(bench.out) == count.passed
    assert bench.fabric.next_at() is None


@given(
    gaps=st.lists(st.floats(0, 0.05), min_size=1, max_size=40),
    delay_s=st.floats(0.001, 0.5),
    jitter_s=st.floats(0, 0.5),
)
def test_a_delayed_packet_comes_once_and_in_its_window(
    gaps: list[float], delay_s: float, jitter_s: float
) -> None:
    """Each waits at least `delay_s`, and at most `jitter_s` longer."""
    bench = Bench(Rule(delay_s=delay_s, jitter_s=jitter_s), now=0.0)
    sent: dict[bytes, float] = {}
    for number, gap_s in enumerate(gaps):
        bench.to(bench.now + gap_s)
        packet = number.to_bytes(2, "big")
        sent[packet] = bench.now
        bench.send(packet)
    bench.to(FAR_S)
    assert sorted(bench.packets) == sorted(sent)
    for at, packet in bench.out:
        assert delay_s - 1e-9 <= at - sent[packet] <= delay_s + jitter_s + 1e-9
    assert bench.count.delayed == len(gaps)


def test_equal_delays_keep_the_order_and_unequal_ones_do_not() -> None:
    """Only jitter reorders, and what was overtaken is counted."""
    packets = [bytes([number]) for number in range(50)]
    calm, rough = Bench(Rule(delay_s=0.1)), Bench(Rule(delay_s=0.1, jitter_s=0.1))
    for bench in (calm, rough):
        for packet in packets:
            bench.to(bench.now + 0.001)
            bench.send(packet)
        bench.to(FAR_S)
    assert calm.packets == packets
    assert calm.count.reordered == 0
    assert rough.packets != packets
    highest, overtaken = -1, 0
    for packet in rough.packets:
        overtaken += packet[0] < highest
        highest = max(highest, packet[0])
    assert rough.count.reordered == overtaken > 0


@given(
    sizes=st.lists(st.integers(20, 9000), min_size=1, max_size=60),
    rate=st.integers(1000, 1_000_000),
    gap_s=st.floats(0, 0.1),
)
def test_a_narrow_lane_never_carries_more_than_its_rate(
    sizes: list[int], rate: int, gap_s: float
) -> None:
    """From any packet to any later one: no more bytes than burst + rate x time; order is kept."""
    bench = Bench(Rule(rate_bytes_per_s=rate), now=0.0)
    for number, size in enumerate(sizes):
        bench.to(bench.now + gap_s)
        bench.send(bytes([number]) * size)
    bench.to(FAR_S)
    order = [packet[0] for packet in bench.packets]
    assert order == sorted(order)
    for first, (begin_s, _) in enumerate(bench.out):
        carried = 0
        # The first one's own bytes were sent before the interval.
        for at, packet in bench.out[first + 1 :]:
            carried += len(packet)
            assert carried <= BURST_BYTES + rate * (at - begin_s) + 1e-3


def test_a_narrow_lane_loses_what_its_queue_does_not_hold() -> None:
    """The backlog is bounded; the rest is dropped, not kept."""
    bench = Bench(Rule(rate_bytes_per_s=1000))
    for _ in range(1000):
        bench.send(bytes(1000))
    held = bench.sent - bench.count.dropped
    assert held * 1000 <= BACKLOG_BYTES_MAX + BURST_BYTES
    assert bench.count.throttled >= held - BURST_BYTES // 1000 - 1 > 0


def test_the_number_of_waiting_packets_is_bounded() -> None:
    """A long delay under heavy traffic loses packets; it does not fill the memory."""
    bench = Bench(Rule(delay_s=50.0))
    for _ in range(WAITING_MAX + 100):
        bench.send(b"x")
    assert bench.count.dropped == 100
    bench.to(FAR_S)
    assert bench.count.passed == WAITING_MAX


def test_a_cut_takes_what_is_on_its_way() -> None:
    """A packet that waits in a lane is lost when the lane is cut before it is due."""
    bench = Bench(Rule(delay_s=1.0))
    bench.send(b"x")
    bench.set(Rule(drop=True))
    bench.to(FAR_S)
    assert bench.out == []
    assert bench.count == PairCount(dropped=1, delayed=1)


def test_losses_and_duplicates_come_at_their_share() -> None:
    """A share of 0.3 is 0.3 of many packets, give or take five standard deviations."""
    lossy, double = Bench(Rule(loss=0.3)), Bench(Rule(duplicate=0.3))
    for bench in (lossy, double):
        for _ in range(10_000):
            bench.send(b"x")
        bench.to(FAR_S)
    assert 2770 < lossy.count.dropped < 3230
    assert 2770 < double.count.duplicated < 3230
    assert double.count.passed == 10_000 + double.count.duplicated


def test_a_seed_decides_the_fate_of_every_packet() -> None:
    """The same seed loses and delays the same packets, another one others."""

    def fate(seed: int) -> list[tuple[float, bytes]]:
        bench = Bench(Rule(loss=0.3, jitter_s=0.5, duplicate=0.3), seed=seed)
        for number in range(100):
            bench.send(bytes([number]))
        bench.to(FAR_S)
        return bench.out

    assert fate(7) == fate(7) != fate(8)


@pytest.mark.parametrize(
    ("pair", "rule", "says"),
    [
        (("a", "x"), Rule(), "'x'"),
        (("a", "a"), Rule(), "from 'a' to 'a'"),
        (A_TO_B, Rule(loss=1.5), "a to b: loss"),
        (A_TO_B, Rule(duplicate=float("nan")), "a to b: loss and duplicate"),
        (A_TO_B, Rule(delay_s=-1.0), "a to b: times"),
        (A_TO_B, Rule(jitter_s=1e9), "a to b: times"),
        (A_TO_B, Rule(rate_bytes_per_s=-1), "a to b: a rate"),
    ],
)
def test_a_bad_rule_is_refused_and_changes_nothing(
    pair: tuple[str, str], rule: Rule, says: str
) -> None:
    """The text says which lane and why; the rules before stay."""
    bench = Bench(Rule(drop=True))
    with pytest.raises(BadRule, match=says):
        bench.fabric.set_rules({("a", "c"): Rule(), pair: rule}, bench.now)
    bench.send(b"x")
    assert bench.count.dropped == 1
