"""The `Raftreg` block of service-defaults and proxy-defaults: what Consul's entries don't know.

How calls to a service are balanced, limited, repeated, broken off and replaced. What the fields do
is told where they are carried out, in `raftreg.mesh`; here are their types and bounds.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypedDict

from msgspec import Meta as Limits

from raftreg.core.entries.common import DURATION, Method, Name, Percent

#: Bounds of a duration, in seconds, beside the mark that it is one.
LEAST_S: Final = "least_s"
MOST_S: Final = "most_s"
_DAY_S: Final = 86_400.0


def _lasting(least_s: float, most_s: float) -> Limits:
    return Limits(
        description=f"a duration from {least_s:g} s to {most_s:g} s, in the form of Go",
        examples=["10s"],
        extra={DURATION: True, LEAST_S: least_s, MOST_S: most_s},
        max_length=64,
    )


Share = Annotated[float, Limits(ge=0, le=1)]
Million = Annotated[int, Limits(ge=0, le=1_000_000)]
Positive = Annotated[int, Limits(ge=1, le=1_000_000)]
Sized = Annotated[int, Limits(ge=1, le=100_000)]
Queue = Annotated[int, Limits(ge=0, le=100_000)]
Hour = Annotated[str, _lasting(0, 3600)]
BriefHour = Annotated[str, _lasting(0.001, 3600)]
Day = Annotated[str, _lasting(0, _DAY_S)]
BriefDay = Annotated[str, _lasting(0.001, _DAY_S)]
LowerName = Annotated[str, Limits(min_length=1, max_length=256, pattern="^[^A-Z\r\n\x00]+$")]


class TimeoutsBlock(TypedDict, total=False):
    """How long calls may take."""

    Request: Day
    PerTry: Day
    Idle: Day
    HeedCaller: bool
    Hop: Annotated[str, _lasting(0, 60)]


class SlowStartBlock(TypedDict, total=False):
    """How the share of a new instance grows."""

    Window: BriefDay
    Aggression: Annotated[float, Limits(ge=0.01, le=100)]
    MinWeight: Annotated[float, Limits(ge=0.001, le=1)]


class PeakEwmaBlock(TypedDict, total=False):
    """Settings of the policy peak_ewma."""

    Decay: BriefDay
    FailureCost: Hour


class BalanceBlock(TypedDict, total=False):
    """How an instance is chosen; a policy of the service-resolver goes before one from here."""

    Policy: Literal["round_robin", "random", "least_request", "peak_ewma"]
    PeakEwma: PeakEwmaBlock
    SlowStart: SlowStartBlock
    NearFirst: bool
    Overprovisioning: Annotated[float, Limits(ge=1, le=100)]
    PanicThreshold: Share


class BreakerBlock(TypedDict, total=False):
    """When a circuit breaker trips, and how it recovers; thresholds of 0 are off."""

    Enabled: bool
    ConsecutiveFailuresMax: Million
    ErrorRateMax: Share
    SlowRateMax: Share
    SlowCall: Hour
    VolumeMin: Positive
    WindowKind: Literal["time", "count"]
    Window: Annotated[str, _lasting(0.1, 3600)]
    WindowBuckets: Annotated[int, Limits(ge=1, le=360)]
    WindowCalls: Sized
    Open: BriefHour
    OpenFactor: Annotated[float, Limits(ge=1, le=100)]
    OpenMax: BriefDay
    OpenJitter: Share
    Health: Day
    TrialsMax: Annotated[int, Limits(ge=1, le=1000)]
    TrialSuccessesMin: Annotated[int, Limits(ge=1, le=1000)]
    TrialPatience: BriefHour


class OutlierBlock(TypedDict, total=False):
    """When an instance is left out, and for how long."""

    Enabled: bool
    Consecutive5xx: Million
    ConsecutiveGateway: Million
    Interval: BriefDay
    BaseEjection: BriefDay
    MaxEjection: BriefDay
    MaxEjected: Share
    SuccessRateFactor: Annotated[float, Limits(ge=0, le=100)]
    SuccessRateInstances: Annotated[int, Limits(ge=2, le=1_000_000)]
    SuccessRateCalls: Positive
    FailureShare: Share
    FailureShareInstances: Positive
    FailureShareCalls: Positive


class AdaptiveBlock(TypedDict, total=False):
    """How a limit of calls finds itself."""

    LimitInitial: Sized
    LimitMin: Sized
    LimitMax: Sized
    Queue: Annotated[int, Limits(ge=1, le=10_000)]
    Smoothing: Annotated[float, Limits(ge=0.001, le=1)]
    Tolerance: Annotated[float, Limits(ge=1, le=100)]
    Window: Annotated[str, _lasting(0.001, 600)]
    WindowSamplesMin: Sized
    LongWindows: Positive
    DropFactor: Annotated[float, Limits(ge=0.1, le=1)]


class BulkheadBlock(TypedDict, total=False):
    """How many calls may be under way, and how many wait."""

    ConcurrentMax: Sized
    QueueMax: Queue
    WaitMax: Hour
    LifoAbove: Queue
    Adaptive: AdaptiveBlock


class BackoffBlock(TypedDict, total=False):
    """Waits before repeats as long as none were learned."""

    Base: Hour
    Max: Hour
    Factor: Annotated[float, Limits(ge=1, le=10)]
    RetryAfterMax: Hour


Condition = Literal[
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream",
    "retriable-4xx", "envoy-ratelimited", "cancelled", "deadline-exceeded", "resource-exhausted",
    "internal", "unavailable",
]  # fmt: skip


class RetryBlock(TypedDict, total=False):
    """When calls are repeated."""

    Conditions: list[Condition]
    RetriesMax: Annotated[int, Limits(ge=0, le=10)]
    PerTryTimeout: BriefDay
    StatusCodes: Annotated[list[Annotated[int, Limits(ge=100, le=599)]], Limits(max_length=64)]
    Headers: Annotated[list[LowerName], Limits(max_length=64)]
    UnsafeMethods: bool
    Backoff: BackoffBlock


class BudgetBlock(TypedDict, total=False):
    """How many repeats there may be."""

    Ratio: Annotated[float, Limits(ge=0, le=10)]
    PerSecondMin: Annotated[float, Limits(ge=0, le=1_000_000)]
    Window: Annotated[str, _lasting(1, 60)]


class LearnBlock(TypedDict, total=False):
    """How waits before repeats are learned."""

    Enabled: bool
    RetriesMax: Annotated[int, Limits(ge=1, le=10)]
    Horizon: Annotated[str, _lasting(0.001, 60)]
    TryCost: Share
    WaitCostPerSecond: Annotated[float, Limits(ge=0, le=1000)]
    FailuresMin: Annotated[float, Limits(ge=1, le=1_000_000)]
    HalfLife: Annotated[str, _lasting(1, 7 * _DAY_S)]
    Window: Annotated[str, _lasting(0.1, 3600)]
    ExploreShare: Annotated[float, Limits(ge=0, le=0.5)]
    Jitter: Share


class RateBlock(TypedDict, total=False):
    """How many calls one source may make."""

    PerSecond: Annotated[float, Limits(ge=0.0001, le=10_000_000)]
    Burst: Annotated[int, Limits(ge=1, le=10_000_000)]


class RateLimitBlock(TypedDict, total=False):
    """How many calls each source may make."""

    Rate: RateBlock
    By: Literal["source", "address", "header"]
    Header: LowerName
    Rates: Annotated[dict[str, RateBlock], Limits(max_length=1024)]
    SourcesMax: Positive


class FallbackService(TypedDict, total=False):
    """Another service is called."""

    Service: Name
    Subset: str
    EvenIfSent: bool


class FallbackAnswer(TypedDict, total=False):
    """A fixed answer is given."""

    Status: Annotated[int, Limits(ge=200, le=599)]
    Headers: Annotated[dict[LowerName, str], Limits(max_length=64)]
    Body: Annotated[str, Limits(max_length=65_536)]


class FallbackLastGood(TypedDict, total=False):
    """The last good answer is given."""

    AgeMax: Annotated[str, _lasting(0.001, 30 * _DAY_S)]
    BodyBytesMax: Annotated[int, Limits(ge=0, le=67_108_864)]
    TotalBytesMax: Annotated[int, Limits(ge=0, le=4_294_967_296)]
    EntriesMax: Positive
    VaryBy: Annotated[list[LowerName], Limits(max_length=16)]


class FallbackStep(TypedDict, total=False):
    """What is tried: exactly one of these."""

    Service: FallbackService
    Answer: FallbackAnswer
    LastGood: FallbackLastGood


class FallbackBlock(TypedDict, total=False):
    """What a caller gets instead of a failure."""

    Steps: Annotated[list[FallbackStep], Limits(max_length=8)]
    Reasons: list[
        Literal[
            "no-healthy-instance",
            "circuit-open",
            "overload",
            "upstream-failed",
            "deadline-exceeded",
        ]
    ]


class FaultAbort(TypedDict, total=False):
    """The call is answered at once; status 0 resets the connection."""

    Status: Annotated[int, Limits(ge=0, le=599)]


class FaultDelay(TypedDict, total=False):
    """The call waits first."""

    Delay: Annotated[str, _lasting(0, 600)]
    Spread: Annotated[str, _lasting(0, 600)]


class FaultBandwidth(TypedDict, total=False):
    """The answer trickles."""

    BytesPerSecond: Annotated[float, Limits(ge=1, le=1e12)]


class FaultBlackhole(TypedDict, total=False):
    """The call is never answered."""

    Hold: Hour


class FaultBlock(TypedDict, total=False):
    """A fault on purpose: exactly one of Abort, Delay, Bandwidth and Blackhole, with an end."""

    Name: str
    Until: Annotated[str, Limits(max_length=64, description="RFC 3339, with its offset")]
    Percent: Percent
    Headers: Annotated[dict[LowerName, str], Limits(max_length=64)]
    Sources: Annotated[list[Name], Limits(max_length=256)]
    Methods: list[Method]
    PathPrefix: str
    Abort: FaultAbort
    Delay: FaultDelay
    Bandwidth: FaultBandwidth
    Blackhole: FaultBlackhole


class StickyBlock(TypedDict, total=False):
    """What of a call keeps it on one leg of a split."""

    Field: Literal["header", "cookie", "query_parameter", "source-ip", "source"]
    Name: str
    Terminal: bool


class Resilience(TypedDict, total=False):
    """How calls to a service are treated; what is left out is as proxy-defaults say."""

    Timeouts: TimeoutsBlock
    Balance: BalanceBlock
    Breaker: BreakerBlock
    InstanceBreaker: BreakerBlock
    Outlier: OutlierBlock
    Bulkhead: BulkheadBlock
    Retry: RetryBlock
    Budget: BudgetBlock
    Learn: LearnBlock
    RateLimit: RateLimitBlock
    Fallback: FallbackBlock
    Faults: Annotated[list[FaultBlock], Limits(max_length=64)]
    Sticky: Annotated[list[StickyBlock], Limits(max_length=16)]
