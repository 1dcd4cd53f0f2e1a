"""What a generator is told to do, and what it tells afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Job(msgspec.Struct, frozen=True, kw_only=True, tag="http"):
    """HTTP requests, closed loop: each connection sends the next one when its answer is whole.

    Attributes:
        kind: What is sent: see `bench.generator.requests.messages_of`; the kinds that begin with
            "fill" send each request once and end when all are answered.
        address: host:port.
        connections: Requests outstanding at once.
        seconds: Length of the measurement.
        warmup_s: Load before it, which is not counted.
        salt: Makes registrations differ from those of a run before.
        keys: How many keys "fill" writes, and gets read.
        value_bytes: Length of written values.
        path: Target of the requests of kind "path".
        instances: How many instances "fill-service" and "fill-catalog" register.
    """

    kind: str
    address: str
    connections: int
    seconds: float = 3.0
    warmup_s: float = 0.5
    salt: str = ""
    keys: int = 10_000
    value_bytes: int = 200
    path: str = ""
    instances: int = 0


class DnsJob(msgspec.Struct, frozen=True, kw_only=True, tag="dns"):
    """DNS queries over UDP, closed loop: each socket has one query outstanding.

    Attributes:
        address: host:port.
        name: What is asked for.
        rdtype: "A" or "SRV".
        sockets: Queries outstanding at once.
        seconds, warmup_s: As in `Job`.
    """

    address: str
    name: str
    rdtype: str
    sockets: int = 32
    seconds: float = 3.0
    warmup_s: float = 0.5


class WatchJob(msgspec.Struct, frozen=True, kw_only=True, tag="watch"):
    """Blocking queries of one service, and changes of it.

    Attributes:
        address: host:port where the watchers are.
        path: What they watch, with a query string.
        change_address: host:port that takes the changes.
        watchers: Connections, each with one blocking query.
        rounds: Changes.
        settle_s: Time between the last watcher's query and the change.
    """

    address: str
    path: str
    change_address: str
    watchers: int = 1000
    rounds: int = 10
    settle_s: float = 0.5


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What came of requests or queries.

    Attributes:
        answers: Good answers within the measurement: status 200, or a DNS answer with records.
        per_s: The same by second.
        failures: Other answers by status; "closed" counts connections that the server closed,
            "lost" queries that were not answered in a second.
        p50_ms, p99_ms, max_ms: Latency of the good answers.
        seconds: Length of the measurement.
        answers_total: All answers, those of the warm-up included.
        generator_cpu_s: Processor time of the generator itself.
    """

    answers: int
    per_s: float
    failures: dict[str, int]
    p50_ms: float
    p99_ms: float
    max_ms: float
    seconds: float
    answers_total: int = 0
    generator_cpu_s: float = 0.0


class WatchTally(msgspec.Struct, frozen=True, kw_only=True):
    """When watchers were told, counted from the moment the change was sent.

    Attributes:
        median_ms, last_ms: Of each round: the median watcher, the last one.
        early: Answers that came without the change, which is legal; the watchers asked again.
        generator_cpu_s: Processor time of the generator itself.
    """

    median_ms: list[float]
    last_ms: list[float]
    early: int = 0
    generator_cpu_s: float = 0.0


AnyJob = Job | DnsJob | WatchJob


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies; the nearest rank, 0.0 of nothing.

    Args:
        ordered: Values in ascending order.
        share: 0.5 for the median, 0.99 for the 99th percentile; 1.0 is the largest value.
    """
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int((len(ordered) - 1) * share + 0.5))]


def tally_of(
    latencies_s: Sequence[float],
    failures: dict[str, int],
    seconds: float,
    answers_total: int,
    generator_cpu_s: float,
) -> Tally:
    """Sums up a measurement."""
    ordered = sorted(latencies_s)
    return Tally(
        answers=len(ordered),
        per_s=len(ordered) / seconds,
        failures=failures,
        p50_ms=percentile(ordered, 0.5) * 1000,
        p99_ms=percentile(ordered, 0.99) * 1000,
        max_ms=percentile(ordered, 1.0) * 1000,
        seconds=seconds,
        answers_total=answers_total,
        generator_cpu_s=generator_cpu_s,
    )
