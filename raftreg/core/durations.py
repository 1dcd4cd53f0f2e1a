"""Durations as Go writes and reads them, since that is what clients of Consul's API do. Pure.

They follow `time.ParseDuration` and `Duration.String` (https://pkg.go.dev/time).
"""

from __future__ import annotations

import re

from raftreg.errors import InvalidRequest

DURATION_MAX_S = 292.0 * 365 * 24 * 3600  #: what Go's 64-bit nanoseconds hold

_UNIT_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,  # U+00B5
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_TEXT_CHARS_MAX = 64


def parse_duration(value: object) -> float:
    """Reads a duration.

    Args:
        value: Text such as `10s`, `1m30s`, `10.0s`, `-5s`, `0`, or a number of nanoseconds.

    Returns:
        Seconds.

    Raises:
        InvalidRequest: It is neither, or is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidRequest(f"time: invalid duration {value!r}")
    seconds = _parse_text(value) if isinstance(value, str) else value * 1e-9
    if not -DURATION_MAX_S <= seconds <= DURATION_MAX_S:
        raise InvalidRequest(f"time: invalid duration {str(value)[:_TEXT_CHARS_MAX]!r}")
    return seconds


def _parse_text(text: str) -> float:
    """Sums the parts of a duration text, as Go does."""
    body, sign = text, 1.0
    if body[:1] in {"+", "-"}:
        sign = -1.0 if body[0] == "-" else 1.0
        body = body[1:]
    if body == "0":
        return 0.0
    if not body or len(body) > _TEXT_CHARS_MAX:
        raise InvalidRequest(f'time: invalid duration "{text[:_TEXT_CHARS_MAX]}"')
    total, at = 0.0, 0
    while at < len(body):
        part = _PART.match(body, at)
        if part is None:
            why = "missing unit in" if re.fullmatch(r"[0-9.]+", body[at:]) else "invalid"
            raise InvalidRequest(f'time: {why} duration "{text}"')
        total += float(part[1]) * _UNIT_S[part[2]]
        at = part.end()
    return sign * total


def format_duration(seconds: float) -> str:
    """Writes seconds as Go's `Duration.String` does: `1h0m0s`, `1m30s`, `1.5s`, `250ms`, `0s`."""
    nanos = round(seconds * 1e9)
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    if nanos == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanos < size * 1000:
            return f"{sign}{_decimal(nanos, size)}{unit}"
    minutes, rest = divmod(nanos, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 1_000_000_000)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else sign + text


def _decimal(value: int, size: int) -> str:
    """Writes value / size exactly, without trailing zeros."""
    whole, rest = divmod(value, size)
    if rest == 0:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(size)) - 1).rstrip('0')}"
