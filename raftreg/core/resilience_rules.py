"""What a `Raftreg` block must keep to beyond its types: bounds of durations, fields that belong
together. Pure.

Whatever passes here can be carried out by `raftreg.mesh`, whose settings have the same bounds; a
test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints, is_typeddict

from raftreg.core.durations import parse_duration
from raftreg.core.entries.resilience import LEAST_S, MOST_S, Resilience
from raftreg.errors import InvalidRequest

WHERE: Final = "Raftreg"
FAULT_KINDS: Final = ("Abort", "Delay", "Bandwidth", "Blackhole")
FALLBACK_KINDS: Final = ("Service", "Answer", "LastGood")
UNTIL_UNIX_S_MAX: Final = 1e11
_UNNAMED: Final = frozenset({"source-ip", "source"})

#: Groups and fields of which the first must not exceed the second, with what they are if not given.
_ORDERED: Final[Sequence[tuple[tuple[str, ...], str, Any, str, Any]]] = (
    (("Breaker",), "Open", "5s", "OpenMax", "1m"),
    (("InstanceBreaker",), "Open", "5s", "OpenMax", "1m"),
    (("Outlier",), "BaseEjection", "30s", "MaxEjection", "5m"),
    (("Retry", "Backoff"), "Base", "25ms", "Max", "250ms"),
    (("Bulkhead",), "LifoAbove", 0, "QueueMax", 128),
    (("Bulkhead", "Adaptive"), "LimitMin", 5, "LimitInitial", 20),
    (("Bulkhead", "Adaptive"), "LimitInitial", 20, "LimitMax", 200),
)


def resilience_refusal(block: Resilience) -> str | None:
    """Tells what is wrong with a block that fits its type; None when nothing is."""
    return next(_faults_of(block), None)


def until_unix_s(text: str) -> float:
    """Reads the end of a fault.

    Args:
        text: A moment as RFC 3339 has it, with its offset.

    Returns:
        Seconds since the Unix epoch.

    Raises:
        ValueError: It is none.
    """
    moment = datetime.fromisoformat(text)
    seconds = moment.timestamp()
    if moment.tzinfo is None or not 0 <= seconds <= UNTIL_UNIX_S_MAX:
        raise ValueError("no offset, or out of range")
    return seconds


def _faults_of(block: Resilience) -> Iterator[str]:
    yield from _durations(Resilience, block, WHERE)
    yield from _ordered(block)
    for group in ("Breaker", "InstanceBreaker"):
        yield from _breaker(_group(block, (group,)), f"{WHERE}.{group}")
    if "RateLimit" in block:
        yield from _rate_limit(block["RateLimit"], f"{WHERE}.RateLimit")
    yield from _fallback(_group(block, ("Fallback",)).get("Steps", ()))
    for at, fault in enumerate(block.get("Faults", ())):
        yield from _fault(fault, f"{WHERE}.Faults[{at}]")
    for at, part in enumerate(block.get("Sticky", ())):
        named = part.get("Field") not in _UNNAMED
        if "Field" not in part or named != bool(part.get("Name")):
            yield f"{WHERE}.Sticky[{at}].Name must be given for a header, cookie or parameter only"


# -- durations -------------------------------------------------------------------------------------


def _durations(shape: Any, value: Any, where: str) -> Iterator[str]:
    """Durations out of their bounds, wherever they stand."""
    if get_origin(shape) is Annotated:
        inner, *notes = get_args(shape)
        yield from _spans(value, notes, where)
        yield from _durations(inner, value, where)
    elif is_typeddict(shape):
        for name, hint in get_type_hints(shape, include_extras=True).items():
            if name in value:
                yield from _durations(hint, value[name], f"{where}.{name}")
    elif get_origin(shape) is list:
        for at, item in enumerate(value):
            yield from _durations(get_args(shape)[0], item, f"{where}[{at}]")


def _spans(value: Any, notes: Sequence[Any], where: str) -> Iterator[str]:
    for note in notes:
        extra = getattr(note, "extra", None) or {}
        if LEAST_S in extra:
            yield from _duration(value, extra[LEAST_S], extra[MOST_S], where)


def _duration(value: str, least_s: float, most_s: float, where: str) -> Iterator[str]:
    try:
        seconds = parse_duration(value)
    except InvalidRequest as error:
        yield f"{where}: {error.message}"
        return
    if not least_s <= seconds <= most_s:
        yield f"{where} must be from {least_s:g} s to {most_s:g} s, not {value}"


# -- fields that belong together -------------------------------------------------------------------


def _group(block: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    found: Any = block
    for name in path:
        found = found.get(name, {})
    group: Mapping[str, Any] = found
    return group


def _number(value: Any) -> float:
    return parse_duration(value) if isinstance(value, str) else value


def _ordered(block: Mapping[str, Any]) -> Iterator[str]:
    for path, low, low_default, high, high_default in _ORDERED:
        group = _group(block, path)
        if not group:
            continue
        least, most = group.get(low, low_default), group.get(high, high_default)
        if _number(least) > _number(most):
            place = ".".join((WHERE, *path))
            yield f"{place}.{low} ({least}) must not exceed {place}.{high} ({most})"


def _breaker(group: Mapping[str, Any], where: str) -> Iterator[str]:
    slow_call = group.get("SlowCall", "0s")
    if group.get("SlowRateMax") and parse_duration(slow_call) == 0:
        yield f"{where}.SlowCall must be set where SlowRateMax is"
    volume, calls = group.get("VolumeMin", 20), group.get("WindowCalls", 100)
    if group.get("WindowKind") == "count" and volume > calls:
        yield f"{where}.VolumeMin ({volume}) must not exceed {where}.WindowCalls ({calls})"


def _rate_limit(group: Mapping[str, Any], where: str) -> Iterator[str]:
    if "PerSecond" not in group.get("Rate", {}):
        yield f"{where}.Rate.PerSecond is required"
    for name, rate in group.get("Rates", {}).items():
        if "PerSecond" not in rate:
            yield f"{where}.Rates[{name!r}].PerSecond is required"
    if group.get("By") == "header" and not group.get("Header"):
        yield f"{where}.Header is required where By is 'header'"


def _fallback(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if sum("LastGood" in step for step in steps) > 1:
        yield f"{WHERE}.Fallback.Steps: LastGood can be there once only"
    for at, step in enumerate(steps):
        where = f"{WHERE}.Fallback.Steps[{at}]"
        yield from _one_of(step, FALLBACK_KINDS, where)
        if "Service" in step and not step["Service"].get("Service"):
            yield f"{where}.Service.Service is required"
        for name, value in step.get("Answer", {}).get("Headers", {}).items():
            if any(char in value for char in "\r\n\0"):
                yield f"{where}.Answer.Headers[{name!r}] holds what no header line may"
        kept = step.get("LastGood", {})
        if kept.get("BodyBytesMax", 262_144) > kept.get("TotalBytesMax", 16_777_216):
            yield f"{where}.LastGood.BodyBytesMax must not exceed TotalBytesMax"


def _fault(fault: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from _one_of(fault, FAULT_KINDS, where)
    try:
        until_unix_s(fault.get("Until", ""))
    except (ValueError, OverflowError):
        yield f"{where}.Until must be a moment such as 2030-01-31T12:00:00Z"
    if 0 < fault.get("Abort", {}).get("Status", 503) < 200:
        yield f"{where}.Abort.Status must be 0, or from 200 to 599"
    for kind, field in (("Delay", "Delay"), ("Bandwidth", "BytesPerSecond")):
        if kind in fault and field not in fault[kind]:
            yield f"{where}.{kind}.{field} is required"


def _one_of(item: Mapping[str, Any], kinds: Sequence[str], where: str) -> Iterator[str]:
    if sum(kind in item for kind in kinds) != 1:
        yield f"{where}: exactly one of {', '.join(kinds)} is required"
