"""A concurrency limit that finds itself: Netflix's Gradient2.

When calls take longer than they did over the long run, they queue somewhere, and the limit shrinks;
while they do not, it grows by a few. Formula (Netflix concurrency-limits, `Gradient2Limit`;
E. Landau et al., "Performance Under Load", 2018), once for each window of samples:

    gradient  = max(0.5, min(1, tolerance * long_s / short_s))
    limit     = (1 - smoothing) * limit + smoothing * (limit * gradient + queue)

where short_s is the mean duration in the window and long_s an exponential mean of those. Two rules
keep it sane: it does not grow while less than half of it is used, and the long mean is led back by
a tenth a window while it is more than twice the short one (after a long overload).

One thing is ours: a window in which the peer dropped calls (it said that it is overloaded, or a
call ran into its timeout) multiplies the limit by `drop_factor` at most, as AIMD does; Gradient2
itself looks at durations alone, and a peer that refuses fast would look healthy to it.

Its weakness is known: what is usual is learned from what it sees. Begun high in front of a peer
that is overloaded already, it takes the queue for the normal state: `limit_initial` should be low.
"""

from __future__ import annotations

import enum

import msgspec

from raftreg.mesh.checked import within

_GRADIENT_MIN = 0.5
_WARMUP_WINDOWS = 10  # Plain mean of the first ones: an exponential one would stick to the first.
_LONG_DECAY = 0.9


class Sample(enum.Enum):
    """What a call tells about the capacity of its peer."""

    MEASURED = "measured"  #: it took the time it took
    DROPPED = "dropped"  #: refused as too much, or out of time
    IGNORED = "ignored"  #: nothing: not sent, failed fast, or the caller left


class AdaptiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a limit finds itself.

    Attributes:
        limit_initial: Calls at one time to begin with.
        limit_min: It never falls below this.
        limit_max: It never rises above this.
        queue: Calls by which it may grow a window while durations hold (before smoothing).
        smoothing: Share of the new estimate that is taken over, 0 (exclusive) to 1.
        tolerance: Durations may rise by this factor over the long run before it shrinks.
        window_s: Shortest time that one estimate is made of.
        window_samples_min: Fewest durations that one estimate is made of.
        long_windows: Windows that the long mean remembers.
        drop_factor: A window with drops multiplies the limit by this at most, 0.1 to 1.

    Raises:
        MeshConfigError: A value is out of bounds.
    """

    limit_initial: int = 20
    limit_min: int = 5
    limit_max: int = 200
    queue: int = 4
    smoothing: float = 0.2
    tolerance: float = 1.5
    window_s: float = 1.0
    window_samples_min: int = 10
    long_windows: int = 600
    drop_factor: float = 0.9

    def __post_init__(self) -> None:
        """Checks each value, and the three limits against each other."""
        within("limit_min", self.limit_min, 1, 100_000)
        within("limit_max", self.limit_max, self.limit_min, 100_000)
        within("limit_initial", self.limit_initial, self.limit_min, self.limit_max)
        within("queue", self.queue, 1, 10_000)
        within("smoothing", self.smoothing, 0.001, 1)
        within("tolerance", self.tolerance, 1, 100)
        within("window_s", self.window_s, 0.001, 600)
        within("window_samples_min", self.window_samples_min, 1, 100_000)
        within("long_windows", self.long_windows, 1, 1_000_000)
        within("drop_factor", self.drop_factor, 0.1, 1)


class AdaptiveLimit:
    """A limit, and what it has seen.

    Args:
        settings: How it finds itself.
    """

    __slots__ = (
        "_dropped",
        "_estimate",
        "_in_flight_max",
        "_long_s",
        "_samples",
        "_sum_s",
        "_window_began_s",
        "_windows",
        "limit",
        "settings",
    )

    def __init__(self, settings: AdaptiveSettings) -> None:
        self.settings = settings
        self.limit = settings.limit_initial
        self._estimate = float(settings.limit_initial)
        self._long_s = 0.0
        self._windows = 0
        self._window_began_s: float | None = None
        self._samples = self._dropped = self._in_flight_max = 0
        self._sum_s = 0.0

    @property
    def long_s(self) -> float:
        """What calls took over the long run, in seconds; 0 before the first window."""
        return self._long_s

    def observe(self, sample: Sample, duration_s: float, in_flight: int, now_s: float) -> None:
        """Takes the end of a call.

        Args:
            sample: What it tells.
            duration_s: How long it took; looked at only when `MEASURED`.
            in_flight: Calls that were under way as it ended, itself among them.
            now_s: Monotonic seconds.
        """
        if self._window_began_s is None:
            self._window_began_s = now_s
        self._in_flight_max = max(self._in_flight_max, in_flight)
        if sample is Sample.MEASURED:
            self._samples += 1
            self._sum_s += duration_s
        elif sample is Sample.DROPPED:
            self._dropped += 1
        if now_s - self._window_began_s >= self.settings.window_s and (
            self._samples + self._dropped >= self.settings.window_samples_min
        ):
            self._estimate_anew()
            self._window_began_s = now_s
            self._samples = self._dropped = self._in_flight_max = 0
            self._sum_s = 0.0

    def _estimate_anew(self) -> None:
        settings, old = self.settings, self._estimate
        new = old
        gradient = self._gradient() if self._samples else 1.0
        # Whoever asks for little learns nothing of how much there would be.
        if self._in_flight_max >= old / 2 and self._samples:
            wanted = old * gradient + settings.queue
            new = old * (1 - settings.smoothing) + wanted * settings.smoothing
        if self._dropped:
            new = min(new, old * settings.drop_factor)
        self._estimate = max(settings.limit_min, min(settings.limit_max, new))
        self.limit = int(self._estimate)

    def _gradient(self) -> float:
        """How much longer the window's calls took than those of the long run, as a factor."""
        short_s = self._sum_s / self._samples
        self._windows += 1
        warm = self._windows > _WARMUP_WINDOWS
        weight = 2 / (self.settings.long_windows + 1) if warm else 1 / self._windows
        self._long_s += (short_s - self._long_s) * weight
        if self._long_s > 2 * short_s:
            self._long_s *= _LONG_DECAY
        if short_s <= 0.0:
            return 1.0
        return max(_GRADIENT_MIN, min(1.0, self.settings.tolerance * self._long_s / short_s))
