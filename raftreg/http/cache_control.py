"""How old an answer from an agent's view may be: `?cached`, `?max_age` and `Cache-Control`. Pure.

https://developer.hashicorp.com/consul/api-docs/features/caching: `max-age=N` (0 counts as
`must-revalidate`), `must-revalidate` and `stale-if-error=N`, of which the last one counts when no
server can be asked. Consul passes over other directives, and so does this.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from raftreg.errors import InvalidRequest

_DIGITS_MAX = 10


class CacheControl(msgspec.Struct, frozen=True):
    """What a client's header says.

    Attributes:
        max_age_s: Greatest age in seconds that it takes, None for any.
        stale_if_error_s: Greatest age that it takes when no server can be asked; None: as else.
    """

    max_age_s: float | None = None
    stale_if_error_s: float | None = None

    def takes(self, age_s: float) -> bool:
        """Tells whether an answer of this age will do."""
        return self.max_age_s is None or age_s <= self.max_age_s

    def takes_if_error(self, age_s: float) -> bool:
        """Tells whether it will do since nothing newer can be had."""
        return self.stale_if_error_s is not None and age_s <= self.stale_if_error_s


NO_CONTROL = CacheControl()


@lru_cache(maxsize=256)
def read_cache_control(text: str) -> CacheControl:
    """Reads the header.

    Raises:
        InvalidRequest: A number in it is none.
    """
    max_age_s = stale_if_error_s = None
    must_revalidate = False
    for part in text.lower().split(","):
        name, _, value = part.strip().partition("=")
        if name == "must-revalidate":
            must_revalidate = True
        elif name == "max-age":
            max_age_s = _seconds(value)
        elif name == "stale-if-error":
            stale_if_error_s = _seconds(value)
    # -1: a view is never that new, so the servers are asked.
    if must_revalidate or max_age_s == 0:
        max_age_s = -1.0
    return CacheControl(max_age_s, stale_if_error_s)


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise InvalidRequest("Invalid Cache-Control header.")
    return float(text)
