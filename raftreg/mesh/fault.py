"""Faults on purpose: some calls are aborted, delayed, slowed down or lost, until a given time.

Every rule has an end and no rule can outlive `FAULT_S_MAX`, so that none is forgotten. The kinds
follow Envoy's fault filter (abort, delay and response rate limit by percentage and header:
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/fault_filter); the black
hole, where an answer never comes, is ours. Of each kind the first rule that acts counts, so that a
call may be delayed by one rule and aborted by another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

import msgspec

from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Call, MeshConfigError, Randomness

#: Longest time that a rule may act, from when it is first known.
FAULT_S_MAX = 7 * 86_400.0
RULES_MAX = 64


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag="abort"):
    """The mesh answers in place of the upstream.

    Attributes:
        status: HTTP status of the answer; 0: the connection is reset instead.
    """

    status: int = 503

    def __post_init__(self) -> None:
        """Checks the status."""
        if self.status:
            within("status", self.status, 200, 599)


class Delay(msgspec.Struct, frozen=True, kw_only=True, tag="delay"):
    """The call waits before it goes on.

    Attributes:
        delay_s: For at least so long.
        spread_s: And for up to so much longer, drawn evenly.
    """

    delay_s: float
    spread_s: float = 0.0

    def __post_init__(self) -> None:
        """Checks both times."""
        within("delay_s", self.delay_s, 0, 600)
        within("spread_s", self.spread_s, 0, 600)


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True, tag="bandwidth"):
    """The body of the answer trickles.

    Attributes:
        bytes_per_s: So many bytes a second.
    """

    bytes_per_s: float

    def __post_init__(self) -> None:
        """Checks the rate."""
        within("bytes_per_s", self.bytes_per_s, 1, 1e12)


class Blackhole(msgspec.Struct, frozen=True, kw_only=True, tag="blackhole"):
    """Nothing is sent and nothing is answered, until the call's own time is up.

    Attributes:
        hold_s: A call without a deadline is let go after so long, by a reset.
    """

    hold_s: float = 60.0

    def __post_init__(self) -> None:
        """Checks the time."""
        within("hold_s", self.hold_s, 0, 3600)


Fault = Abort | Delay | Bandwidth | Blackhole


class FaultRule(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls get which fault, and until when.

    Attributes:
        fault: What happens to them.
        until_unix_s: When it ends, in seconds since the Unix epoch.
        percent: Share of the calls that match, 0 to 100.
        headers: Values that the call must have, by name in lower case; "" any value.
        sources: Services that it must come from; empty: any.
        methods: Methods in upper case; empty: any.
        path_prefix: What its path must begin with.
        name: What it is told under in metrics.

    Raises:
        MeshConfigError: A value is out of bounds.
    """

    fault: Fault
    until_unix_s: float
    percent: float = 100.0
    headers: Mapping[str, str] = {}
    sources: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    path_prefix: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        """Checks each value."""
        within("percent", self.percent, 0, 100)
        within("until_unix_s", self.until_unix_s, 0, 1e11)
        for name in self.headers:
            if name != name.lower():
                raise MeshConfigError(f"headers: names must be in lower case, not {name!r}")

    def matches(self, call: Call) -> bool:
        """Whether a call is one of those that it is for."""
        return (
            (not self.sources or call.source in self.sources)
            and (not self.methods or call.method in self.methods)
            and call.path.startswith(self.path_prefix)
            and all(_has(call, name, value) for name, value in self.headers.items())
        )


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to one call, in this order.

    Attributes:
        delay_s: It waits so long first.
        blackhole: Then it is never answered; nothing of the below happens.
        abort: Or the mesh answers.
        bandwidth: Or it goes on, and the body of its answer trickles.
        rules: Names of the rules that acted.
    """

    delay_s: float = 0.0
    blackhole: Blackhole | None = None
    abort: Abort | None = None
    bandwidth: Bandwidth | None = None
    rules: tuple[str, ...] = ()


class Faults:
    """The rules of one upstream that have not ended.

    Args:
        rules: In the order in which they are asked.
        rng: What percentages and spreads are drawn from.
        now_s: Monotonic seconds now.
        unix_s: The same moment in seconds since the Unix epoch; the ends are counted from it once,
            so that a clock which is set later moves none of them.

    Raises:
        MeshConfigError: There are too many rules, or one would act for longer than `FAULT_S_MAX`.
    """

    __slots__ = ("_next_end_s", "_rng", "_rules")

    def __init__(
        self, rules: Sequence[FaultRule], rng: Randomness, now_s: float, unix_s: float
    ) -> None:
        within("faults", len(rules), 0, RULES_MAX)
        self._rng = rng
        self._rules: list[tuple[float, FaultRule]] = []
        for at, rule in enumerate(rules):
            left_s = rule.until_unix_s - unix_s
            if left_s > FAULT_S_MAX:
                raise MeshConfigError(
                    f"faults[{at}].until_unix_s: must be within {FAULT_S_MAX / 86_400:g} days"
                )
            self._rules.append((now_s + left_s, rule))
        self._next_end_s = now_s
        self._drop_ended(now_s)

    def active(self, now_s: float) -> tuple[FaultRule, ...]:
        """The rules that act now."""
        if now_s >= self._next_end_s:
            self._drop_ended(now_s)
        return tuple(rule for _, rule in self._rules)

    def inject(self, call: Call, now_s: float) -> Injection | None:
        """What is done to a call; None: nothing, which costs a comparison where no rule is."""
        if not self._rules:
            return None
        if now_s >= self._next_end_s:
            self._drop_ended(now_s)
        delay_s = 0.0
        acting: dict[type[Fault], Fault] = {}
        names: list[str] = []
        for _, rule in self._rules:
            fault = rule.fault
            if type(fault) in acting or not rule.matches(call) or not self._drawn(rule.percent):
                continue
            acting[type(fault)] = fault
            names.append(rule.name)
            if isinstance(fault, Delay):
                delay_s = fault.delay_s + fault.spread_s * self._rng.random()
        return _joined(acting, delay_s, tuple(names)) if acting else None

    def _drawn(self, percent: float) -> bool:
        """Whether a call is one of so many in a hundred."""
        return percent >= 100.0 or self._rng.random() * 100.0 < percent

    def _drop_ended(self, now_s: float) -> None:
        self._rules = [(end_s, rule) for end_s, rule in self._rules if now_s < end_s]
        self._next_end_s = min((end_s for end_s, _ in self._rules), default=0.0)


def _joined(
    acting: Mapping[type[Fault], Fault], delay_s: float, names: tuple[str, ...]
) -> Injection:
    """One of each kind at most, as what is done to the call."""
    abort: Abort | None = None
    bandwidth: Bandwidth | None = None
    blackhole: Blackhole | None = None
    for fault in acting.values():
        match fault:
            case Abort():
                abort = fault
            case Bandwidth():
                bandwidth = fault
            case Blackhole():
                blackhole = fault
            case Delay():
                pass  # its time is drawn already
            case _:
                assert_never(fault)
    return Injection(
        delay_s=delay_s, blackhole=blackhole, abort=abort, bandwidth=bandwidth, rules=names
    )


def _has(call: Call, name: str, value: str) -> bool:
    found = call.headers.get(name)
    return found is not None and (not value or found == value)


class Pacer:
    """Paces the bytes of one answer to a bandwidth.

    Args:
        bandwidth: Bytes a second.
        now_s: When the answer begins, in monotonic seconds.
    """

    __slots__ = ("_byte_s", "_free_s")

    def __init__(self, bandwidth: Bandwidth, now_s: float) -> None:
        self._byte_s = 1.0 / bandwidth.bytes_per_s
        self._free_s = now_s

    def wait_s(self, size_bytes: int, now_s: float) -> float:
        """Seconds to wait before a piece of so many bytes may be sent; it counts as sent then."""
        self._free_s = max(self._free_s, now_s) + size_bytes * self._byte_s
        return self._free_s - now_s
