"""How long to wait before a repeat when nothing better is known, and when the answer says it.

Exponential with full jitter: a number between 0 and a bound that doubles (M. Brooker, "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015). The defaults are Envoy's: 25 ms, at most ten
times that. `Retry-After` is RFC 9110, section 10.2.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from raftreg.mesh.checked import within
from raftreg.mesh.nouns import MeshConfigError, Randomness

#: A longer number of seconds than this has digits is no number of seconds.
_DIGITS_MAX: Final = 9
_DATE_CHARS_MAX: Final = 64
#: Bounds the power; any bound is reached long before.
_EXPONENT_MAX: Final = 64


class BackoffSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Waits before repeats.

    Attributes:
        base_s: Upper bound of the first wait, in seconds.
        max_s: Upper bound of any wait, in seconds.
        factor: Growth of the bound from one wait to the next.
        retry_after_max_s: Longest `Retry-After` that is waited out, in seconds. A longer one ends
            the call: to come back earlier is what the server asked not to do, and to wait longer
            is not the caller's wish. 0 ends the call at any `Retry-After` but 0.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    base_s: float = 0.025
    max_s: float = 0.25
    factor: float = 2.0
    retry_after_max_s: float = 5.0

    def __post_init__(self) -> None:
        within("base_s", self.base_s, 0.0, 3600.0)
        within("max_s", self.max_s, 0.0, 3600.0)
        within("factor", self.factor, 1.0, 10.0)
        within("retry_after_max_s", self.retry_after_max_s, 0.0, 3600.0)
        if self.max_s < self.base_s:
            raise MeshConfigError(f"max_s: {self.max_s:g} is less than base_s, {self.base_s:g}")

    def bound_s(self, retry: int) -> float:
        """Upper bound of the wait before a repeat, in seconds.

        Args:
            retry: 0 before the first repeat.
        """
        return min(self.max_s, self.base_s * self.factor ** min(retry, _EXPONENT_MAX))

    def wait_s(self, retry: int, chance: Randomness) -> float:
        """Draws the wait before a repeat: anything from 0 to the bound, in seconds.

        Args:
            retry: 0 before the first repeat.
            chance: Source of the jitter.
        """
        return chance.random() * self.bound_s(retry)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long an answer asks to wait, in seconds; None when it does not say so.

    A date is taken as the time from the answer's own `Date`: two clocks that disagree then do no
    harm. Without a `Date` a date says nothing.

    Args:
        headers: Of the answer, by name in lower case.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) <= _DIGITS_MAX else float(10**_DIGITS_MAX)
    then, now = _http_date(text), _http_date(headers.get("date", ""))
    if then is None or now is None:
        return None
    return max((then - now).total_seconds(), 0.0)


def _http_date(text: str) -> datetime | None:
    if not 0 < len(text) <= _DATE_CHARS_MAX:
        return None
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError, IndexError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
