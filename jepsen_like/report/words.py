"""Numbers and values as people read them."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

VALUE_CHARS_MAX: Final = 240
_MS: Final = 1_000_000
_S: Final = 1_000_000_000


def duration(ns: float) -> str:
    """A stretch of time: "850 µs", "3.2 ms", "4.1 s", "12 min 5 s"."""
    if ns < _MS:
        return f"{ns / 1000:.0f} µs"
    if ns < _S:
        return f"{_digits(ns / _MS)} ms"
    if ns < 120 * _S:
        return f"{_digits(ns / _S)} s"
    minutes, seconds = divmod(round(ns / _S), 60)
    return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"


def moment(ns: float) -> str:
    """A time since the run began, in seconds with milliseconds."""
    return f"{ns / _S:,.3f} s"


def number(value: float) -> str:
    """A count with separators."""
    return f"{value:,.0f}"


def counted(count: int, noun: str) -> str:
    """A number with its noun: "1 fault", "2 faults", "3 anomalies"."""
    if count == 1:
        return f"1 {noun}"
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {plural}"


def value(thing: Any, chars_max: int = VALUE_CHARS_MAX) -> str:
    """A value of the history as JSON, cut to a length; a string stays as it is."""
    if isinstance(thing, str):
        text = thing
    else:
        try:
            text = msgspec.json.encode(thing).decode("utf-8", "replace")
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            text = repr(thing)
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def facts(thing: Any) -> str:
    """A dict of facts as "name value, name value"; anything else as JSON."""
    if isinstance(thing, dict):
        return ", ".join(f"{name} {value(one, 120)}" for name, one in list(thing.items())[:24])
    return "" if thing is None else value(thing)


def steps(span: float, about: int) -> float:
    """The round step (1, 2 or 5 times a power of ten) that cuts a span in about so many parts."""
    if span <= 0:
        return 1.0
    raw = span / about
    power = float(10 ** math.floor(math.log10(raw)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


def _digits(amount: float) -> str:
    """Three digits."""
    if amount >= 99.5:
        return f"{amount:.0f}"
    return f"{amount:.1f}" if amount >= 9.95 else f"{amount:.2f}"
