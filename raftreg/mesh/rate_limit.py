"""So many calls a second from each source: a token bucket each, in a bounded table.

A bucket holds `burst` tokens and gains `rate` a second; a call takes one. It is kept as one number,
the time at which it is full again, which is the generic cell rate algorithm in its virtual
scheduling form (ITU-T I.371, 2004, Annex A; equal to the continuous-state leaky bucket).

The table forgets only buckets that are full, which is the same as no bucket. When none is, further
sources share one bucket: nobody gains by inventing names, and no source gets more than its share.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Call, MeshConfigError

_KEY_CHARACTERS_MAX = 256
_ROUNDING_S = 1e-6  # No wait: sums of this many terms are not more exact. It does not add up.
_SWEPT_A_SOURCE = 2  # More than one, so that a table that was full once does not stay so.


class By(enum.Enum):
    """What tells sources apart."""

    SOURCE = "source"  #: the service that calls
    ADDRESS = "address"  #: its IP address
    HEADER = "header"  #: the value of a header


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """What one source may do.

    Attributes:
        per_s: Calls a second over the long run.
        burst: Calls at once after a rest.

    Raises:
        MeshConfigError: A value is out of bounds.
    """

    per_s: float
    burst: int = 1

    def __post_init__(self) -> None:
        """Checks each value."""
        within("per_s", self.per_s, 0.0001, 10_000_000)
        within("burst", self.burst, 1, 10_000_000)


class RateLimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls are taken from whom.

    Attributes:
        rate: For each source that is not named below.
        by: What tells sources apart.
        header: Name of the header, in lower case, when they are told apart by one.
        rates: For sources by name.
        sources_max: Sources that have a bucket of their own; those named always have one.

    Raises:
        MeshConfigError: A value is out of bounds, or the header is missing.
    """

    rate: Rate
    by: By = By.SOURCE
    header: str = ""
    rates: Mapping[str, Rate] = {}
    sources_max: int = 10_000

    def __post_init__(self) -> None:
        """Checks each value."""
        within("sources_max", self.sources_max, 1, 1_000_000)
        within("rates", len(self.rates), 0, 10_000)
        if self.by is By.HEADER and not self.header:
            raise MeshConfigError("header: must name a header when sources are told apart by one")
        if self.header != self.header.lower():
            raise MeshConfigError(f"header: must be in lower case, not {self.header!r}")


class RateLimit:
    """The buckets of all sources.

    Args:
        settings: How many calls are taken from whom.
    """

    __slots__ = ("_full_s", "_shared_full_s", "settings")

    def __init__(self, settings: RateLimitSettings) -> None:
        self.settings = settings
        #: When the bucket of a source is full again, in the order in which they are swept.
        self._full_s: OrderedDict[str, float] = OrderedDict()
        self._shared_full_s = 0.0

    def __len__(self) -> int:
        return len(self._full_s)

    def take(self, call: Call, now_s: float) -> float:
        """Takes a token for a call.

        Returns:
            0.0 when it may go on; otherwise the seconds until one like it could.
        """
        key = self._key(call)
        rate = self.settings.rates.get(key, self.settings.rate)
        full_s = self._full_s.get(key)
        if full_s is None:
            self._sweep(now_s)
            if len(self._full_s) >= self.settings.sources_max and key not in self.settings.rates:
                wait_s, self._shared_full_s = _drawn(rate, self._shared_full_s, now_s)
                return wait_s
            full_s = now_s
        wait_s, self._full_s[key] = _drawn(rate, full_s, now_s)
        return wait_s

    def _key(self, call: Call) -> str:
        match self.settings.by:
            case By.SOURCE:
                key = call.source
            case By.ADDRESS:
                key = call.source_address
            case By.HEADER:
                key = call.headers.get(self.settings.header, "")
        return key[:_KEY_CHARACTERS_MAX]

    def _sweep(self, now_s: float) -> None:
        """Looks at the next buckets in turn and forgets those that are full."""
        for _ in range(min(_SWEPT_A_SOURCE, len(self._full_s))):
            key = next(iter(self._full_s))
            if self._full_s[key] <= now_s:
                del self._full_s[key]
            else:
                self._full_s.move_to_end(key)


def _drawn(rate: Rate, full_s: float, now_s: float) -> tuple[float, float]:
    """Takes a token from a bucket that is full at `full_s`: the wait, and when it is full then."""
    token_s = 1.0 / rate.per_s
    filled_s = max(full_s, now_s) + token_s
    wait_s = filled_s - rate.burst * token_s - now_s
    return (0.0, filled_s) if wait_s <= _ROUNDING_S else (wait_s, full_s)
