"""Durations in logarithmic buckets: quantiles within 5 %, and sums that any order of merging gives.

The buckets are DDSketch's (C. Masson, J. Rim, H. Lee, "DDSketch: A Fast and Fully-Mergeable
Quantile Sketch with Relative-Error Guarantees", VLDB 2019): the bounds grow by
gamma = (1 + alpha) / (1 - alpha), and a bucket stands for the value whose relative distance to
both its bounds is alpha. Here the bounds are the same everywhere and for ever, and there is a least
and a greatest value, so that a histogram is at most `BUCKETS` whole numbers whatever is put in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from raftreg.decoding import MsgpackDecoder
from raftreg.errors import InvalidRequest

RELATIVE_ERROR: Final = 0.05
#: Durations up to this share the first bucket: no call over a network is told apart there.
LEAST_S: Final = 10e-6
#: Durations from this on share the last bucket.
GREATEST_S: Final = 3600.0
GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG: Final = 1 / math.log(GAMMA)
BUCKETS: Final = 1 + math.ceil(math.log(GREATEST_S / LEAST_S) * _PER_LOG)
#: Greatest count of a bucket on the wire: what readers of JSON hold exactly.
COUNT_MAX: Final = 2**53 - 1
#: Greatest sum on the wire; with it, sums of many strangers' sums can still be encoded.
_SUM_NS_MAX: Final = 2**63 - 1
_NS_PER_S: Final = 1_000_000_000
_VERSION: Final = 1


def bucket_of(duration_s: float) -> int:
    """The bucket of a duration, from 0 to `BUCKETS` - 1; one below 0 counts as 0.

    Raises:
        ValueError: It is not a number.
    """
    if duration_s <= LEAST_S:
        return 0
    if duration_s >= GREATEST_S:
        return BUCKETS - 1
    return min(math.ceil(math.log(duration_s / LEAST_S) * _PER_LOG), BUCKETS - 1)


def upper_bound_s(bucket: int) -> float:
    """The greatest duration of a bucket, in seconds."""
    return LEAST_S * GAMMA**bucket


def value_s(bucket: int) -> float:
    """The duration that a bucket stands for, in seconds."""
    return 2 * upper_bound_s(bucket) / (GAMMA + 1)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram for people.

    Attributes:
        count: Number of durations.
        sum_s: Their sum, in seconds.
        max_s: The longest of them, in seconds.
        p50_s, p90_s, p99_s: Quantiles, within 5 %.
    """

    count: int
    sum_s: float
    max_s: float
    p50_s: float
    p90_s: float
    p99_s: float


class Histogram:
    """Counts of durations by bucket.

    Sum and maximum are whole nanoseconds: merging is then exact, so that it is associative and
    commutative, which sums of floats are not.
    """

    __slots__ = ("count", "counts", "max_ns", "sum_ns")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0
        self.sum_ns = 0
        self.max_ns = 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return self._parts() == other._parts()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Histogram(count={self.count}, p50_s={self.quantile_s(0.5):.4g})"

    def _parts(self) -> tuple[int, int, dict[int, int]]:
        return self.sum_ns, self.max_ns, self.counts

    def observe(self, duration_s: float) -> None:
        """Counts a duration in seconds; one below 0 counts as 0, one over an hour as an hour.

        Raises:
            ValueError: It is not a number.
        """
        bucket = bucket_of(duration_s)
        if not 0.0 <= duration_s <= GREATEST_S:
            duration_s = 0.0 if duration_s < 0.0 else GREATEST_S
        duration_ns = int(duration_s * _NS_PER_S + 0.5)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.count += 1
        self.sum_ns += duration_ns
        self.max_ns = max(self.max_ns, duration_ns)

    def merge(self, other: Histogram) -> None:
        """Adds what another one has counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.count += other.count
        self.sum_ns += other.sum_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def quantile_s(self, share: float) -> float:
        """The duration that this share of all did not exceed, within 5 %; 0 when there is none.

        Args:
            share: From 0 to 1; the rank is floor(share * (count - 1)), as in the paper.
        """
        rank = math.floor(share * (self.count - 1))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen > rank:
                # The bucket may reach past the longest of all, which is known exactly.
                return min(value_s(bucket), self.max_s)
        return 0.0

    def count_at_most(self, bound_s: float) -> int:
        """How many are in buckets that end by this bound: what a `le` bucket of Prometheus counts.

        A duration that is within a bucket's width below the bound may be missing from it.
        """
        # The bound of a bucket itself must find that bucket, whatever its last digit.
        last = bucket_of(bound_s * (1 + 1e-9))
        if upper_bound_s(last) > bound_s * (1 + 1e-9):
            last -= 1
        return sum(count for bucket, count in self.counts.items() if bucket <= last)

    @property
    def sum_s(self) -> float:
        """Sum of all durations, in seconds."""
        return self.sum_ns / _NS_PER_S

    @property
    def max_s(self) -> float:
        """The longest duration, in seconds; 0 when there is none."""
        return self.max_ns / _NS_PER_S

    def shown(self) -> Summary:
        """Gives its count, sum, maximum and quantiles."""
        return Summary(
            count=self.count,
            sum_s=self.sum_s,
            max_s=self.max_s,
            p50_s=self.quantile_s(0.5),
            p90_s=self.quantile_s(0.9),
            p99_s=self.quantile_s(0.99),
        )

    def plain(self) -> PlainHistogram:
        """Its form for the wire; a count or a sum beyond its bound is told as that bound."""
        steps: list[int] = []
        before = total = 0
        for bucket in sorted(self.counts):
            count = min(self.counts[bucket], COUNT_MAX)
            steps += (bucket - before, count)
            before = bucket
            total += count
        sum_ns = min(self.sum_ns, _SUM_NS_MAX, self.max_ns * total)
        return PlainHistogram(
            version=_VERSION, sum_ns=sum_ns, max_ns=self.max_ns, steps=tuple(steps)
        )

    def encode(self) -> bytes:
        """Its form for the wire, as msgpack."""
        return msgspec.msgpack.encode(self.plain())


class PlainHistogram(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A histogram on the wire.

    Attributes:
        version: 1.
        sum_ns, max_ns: Sum and maximum, in nanoseconds.
        steps: Bucket and count in turn; a bucket as the step from the one before.
    """

    version: int
    sum_ns: int
    max_ns: int
    steps: tuple[int, ...]


_DECODER: Final[MsgpackDecoder[PlainHistogram]] = MsgpackDecoder(PlainHistogram)


def decode(data: bytes) -> Histogram:
    """Reads what `Histogram.encode` wrote.

    Raises:
        InvalidRequest: It is no histogram; the text says why.
    """
    try:
        plain = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"histogram: {error}") from error
    return from_plain(plain)


def from_plain(plain: PlainHistogram) -> Histogram:
    """Reads a histogram from its form for the wire.

    Raises:
        InvalidRequest: A bucket, a count or a sum is out of bounds.
    """
    if plain.version != _VERSION:
        raise InvalidRequest(f"histogram: version {plain.version} is not known")
    if len(plain.steps) % 2 or len(plain.steps) > 2 * BUCKETS:
        raise InvalidRequest(f"histogram: {len(plain.steps)} steps")
    found = Histogram()
    bucket = 0
    for step, count in zip(plain.steps[::2], plain.steps[1::2], strict=True):
        bucket += step
        fresh = step > 0 or not found.counts
        if not (fresh and 0 <= bucket < BUCKETS and 0 < count <= COUNT_MAX):
            raise InvalidRequest(f"histogram: bucket {bucket} with count {count}")
        found.counts[bucket] = count
    found.count = sum(found.counts.values())
    found.sum_ns, found.max_ns = _sums(plain, found.count)
    return found


def _sums(plain: PlainHistogram, count: int) -> tuple[int, int]:
    most_ns = round(GREATEST_S * _NS_PER_S)
    highest_ns = most_ns if count else 0
    if not 0 <= plain.max_ns <= highest_ns:
        raise InvalidRequest(f"histogram: maximum {plain.max_ns} ns")
    if not plain.max_ns <= plain.sum_ns <= plain.max_ns * count:
        raise InvalidRequest(f"histogram: sum {plain.sum_ns} ns of {count} durations")
    return plain.sum_ns, plain.max_ns


def merged(parts: Iterable[Histogram]) -> Histogram:
    """The sum of histograms; they stay as they are."""
    total = Histogram()
    for part in parts:
        total.merge(part)
    return total
