"""What happens to a packet between two hosts: the rules, pure; time and randomness are arguments.

A lane leads from one host to another. A packet on it meets its rule in this order: cut, loss,
duplication, bandwidth, delay. What must wait lies in one heap, ordered by the instant at which it
is due; so unequal delays reorder packets, as on a real path. Every queue has a limit; what does not
fit is lost, as at a real router.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Final

import msgspec

from jepsen_like.ground.api import PairCount, Rule

WAITING_MAX: Final = 20_000  #: packets that wait in all lanes together
BACKLOG_BYTES_MAX: Final = 32 << 10  #: of one lane before its bandwidth limit
BURST_BYTES: Final = 1500  #: that a lane with a limit passes at once after a rest
DELAY_S_MAX: Final = 60.0


class BadRule(ValueError):
    """A rule names no host, or asks for what can't be; the text says which and why."""


class Lane:
    """One direction between two hosts: its rule, its counters, its bandwidth.

    Args:
        source: Name of the sender.
        target: Name of the receiver.
        port: Whatever the caller finds the receiver by.
    """

    __slots__ = (
        "counts",
        "free_at",
        "newest",
        "passed",
        "port",
        "rule",
        "sent",
        "since",
        "source",
        "target",
    )

    def __init__(self, source: str, target: str, port: int) -> None:
        self.source = source
        self.target = target
        self.port = port
        self.rule: Rule | None = None
        self.since = 0.0  #: when the rule began
        self.free_at = 0.0  #: when the bandwidth is free again
        self.sent = 0  #: number of the packet sent last
        self.newest = 0  #: highest number that was delivered
        self.passed = 0
        self.counts = {"dropped": 0, "delayed": 0, "reordered": 0, "duplicated": 0, "throttled": 0}

    def count(self) -> PairCount:
        """The counters so far."""
        return PairCount(passed=self.passed, **self.counts)


_Waiting = tuple[float, int, int, Lane, bytes]


class Fabric:
    """All lanes between some hosts.

    Args:
        hosts: Names; the position of a name is its port.
        rng: Decides losses, duplicates and jitter.
    """

    def __init__(self, hosts: Sequence[str], rng: Random) -> None:
        self._rng = rng
        self._heap: list[_Waiting] = []
        self._pushed = 0
        self.lanes: dict[tuple[str, str], Lane] = {
            (source, target): Lane(source, target, port)
            for source in hosts
            for port, target in enumerate(hosts)
            if source != target
        }

    def set_rules(self, rules: Mapping[tuple[str, str], Rule], now: float) -> None:
        """Replaces all rules. What waits already keeps its instant, unless its lane is cut.

        Raises:
            BadRule: Nothing was changed.
        """
        for pair, rule in rules.items():
            if pair not in self.lanes:
                raise BadRule(f"no way from {pair[0]!r} to {pair[1]!r}")
            _check(pair, rule)
        for pair, lane in self.lanes.items():
            lane.rule = rules.get(pair)
            lane.since = now
            lane.free_at = now

    def counts(self) -> dict[tuple[str, str], PairCount]:
        """All counters, by (source, target)."""
        return {pair: lane.count() for pair, lane in self.lanes.items()}

    def admit(self, lane: Lane, packet: bytes, now: float) -> bool:
        """Takes a packet in.

        Returns:
            Whether to deliver it at once. If not it is lost, or will be among what is `due`.
        """
        lane.sent += 1
        rule = lane.rule
        if rule is None:
            _deliver(lane, lane.sent)
            return True
        if _is_cut(rule, now - lane.since) or (rule.loss and self._rng.random() < rule.loss):
            lane.counts["dropped"] += 1
            return False
        if rule.duplicate and self._rng.random() < rule.duplicate:
            lane.counts["duplicated"] += 1
            self._wait(lane, packet, now, now + self._delay_s(rule))
        at = self._transmit(lane, rule, len(packet), now)
        if at is None:
            lane.counts["dropped"] += 1
            return False
        at += self._delay_s(rule)
        if at <= now:
            _deliver(lane, lane.sent)
            return True
        self._wait(lane, packet, now, at)
        return False

    def due(self, now: float) -> Iterable[tuple[Lane, bytes]]:
        """What is to be delivered by now, earliest first."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, number, lane, packet = heapq.heappop(heap)
            if lane.rule is not None and _is_cut(lane.rule, now - lane.since):
                lane.counts["dropped"] += 1
            else:
                _deliver(lane, number)
                yield lane, packet

    def next_at(self) -> float | None:
        """When the next packet is due; None when none waits."""
        return self._heap[0][0] if self._heap else None

    def _transmit(self, lane: Lane, rule: Rule, size: int, now: float) -> float | None:
        """When the last byte is sent: a token bucket, kept as the instant at which it is full."""
        if not rule.rate_bytes_per_s:
            return now
        free_at = max(lane.free_at, now - BURST_BYTES / rule.rate_bytes_per_s)
        free_at += size / rule.rate_bytes_per_s
        if (free_at - now) * rule.rate_bytes_per_s > BACKLOG_BYTES_MAX:
            return None
        lane.free_at = free_at
        if free_at > now:
            lane.counts["throttled"] += 1
        return max(free_at, now)

    def _delay_s(self, rule: Rule) -> float:
        return rule.delay_s + (self._rng.uniform(0.0, rule.jitter_s) if rule.jitter_s else 0.0)

    def _wait(self, lane: Lane, packet: bytes, now: float, at: float) -> None:
        if len(self._heap) >= WAITING_MAX:
            lane.counts["dropped"] += 1
            return
        if at > now:
            lane.counts["delayed"] += 1
        self._pushed += 1
        heapq.heappush(self._heap, (at, self._pushed, lane.sent, lane, packet))


def _deliver(lane: Lane, number: int) -> None:
    lane.passed += 1
    if number < lane.newest:
        lane.counts["reordered"] += 1
    else:
        lane.newest = number


def _is_cut(rule: Rule, age_s: float) -> bool:
    """Whether nothing passes; with `flap_s` every other period, beginning with a cut one."""
    return rule.drop and (not rule.flap_s or int(age_s / rule.flap_s) % 2 == 0)


def _check(pair: tuple[str, str], rule: Rule) -> None:
    shares = (rule.loss, rule.duplicate)
    times = (rule.delay_s, rule.jitter_s, rule.flap_s)
    where = f"{pair[0]} to {pair[1]}"
    if not all(0.0 <= share <= 1.0 for share in shares):
        raise BadRule(f"{where}: loss and duplicate are shares from 0 to 1, not {shares}")
    if not all(0.0 <= time_s <= DELAY_S_MAX for time_s in times):
        raise BadRule(f"{where}: times are from 0 to {DELAY_S_MAX:g} s, not {times}")
    if rule.rate_bytes_per_s < 0:
        raise BadRule(f"{where}: a rate of {rule.rate_bytes_per_s} bytes a second")


class SetRules(msgspec.Struct, tag="rules", tag_field="op", frozen=True):
    """Replaces all rules: (source, target, rule) each."""

    rules: list[tuple[str, str, Rule]]


class AskCounts(msgspec.Struct, tag="counts", tag_field="op", frozen=True):
    """Asks for all counters."""


class Answer(msgspec.Struct, frozen=True):
    """What the switch answers to each request.

    Attributes:
        error: What was wrong with the request; empty when it was done.
        counts: (source, target, counters) each, when they were asked for.
        strays: Packets so far that were for none of the hosts, or that a device did not take.
    """

    error: str = ""
    counts: list[tuple[str, str, PairCount]] = []
    strays: int = 0


Request = SetRules | AskCounts
