"""From the `Raftreg` block of an entry to settings.

Names follow one rule, so that there is no second list of them: a field of a settings struct is
called the same in the block in CamelCase, without the `s` of seconds, as durations are written with
their unit there (`slow_call_s` is `SlowCall: "300ms"`); the few others are in `_NAMES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from raftreg.core.durations import parse_duration
from raftreg.core.entries.routing import UpstreamConfig
from raftreg.core.resilience_rules import FALLBACK_KINDS, FAULT_KINDS, WHERE, until_unix_s
from raftreg.errors import InvalidRequest
from raftreg.mesh.adaptive import AdaptiveSettings
from raftreg.mesh.backoff import BackoffSettings
from raftreg.mesh.balance.hash_key import HashPolicy
from raftreg.mesh.balance.least_request import LeastRequestSettings
from raftreg.mesh.balance.locality import Locality
from raftreg.mesh.balance.peak_ewma import PeakEwmaSettings
from raftreg.mesh.balance.policy import Policy, RandomChoiceSettings, RoundRobinSettings
from raftreg.mesh.balance.pool import PoolSettings
from raftreg.mesh.balance.slow_start import SlowStart
from raftreg.mesh.breaker import BreakerSettings
from raftreg.mesh.budget import BudgetSettings
from raftreg.mesh.bulkhead import BulkheadSettings
from raftreg.mesh.deadline import TimeoutSettings
from raftreg.mesh.fallback import FallbackSettings, FixedAnswer, OtherService
from raftreg.mesh.fallback import Step as FallbackStep
from raftreg.mesh.fault import Abort, Bandwidth, Blackhole, Delay, Fault, FaultRule
from raftreg.mesh.last_good import Answer, LastGoodSettings
from raftreg.mesh.learned import LearnSettings
from raftreg.mesh.nouns import MeshConfigError
from raftreg.mesh.outlier import OutlierSettings
from raftreg.mesh.rate_limit import Rate, RateLimitSettings
from raftreg.mesh.retry import RetrySettings
from raftreg.mesh.settings import DEFAULTS, ServiceSettings

S = TypeVar("S", bound=msgspec.Struct)
Block = Mapping[str, Any]

#: Names that the rule would make wrongly.
_NAMES: Final[Mapping[tuple[type, str], str]] = {
    (BreakerSettings, "window"): "WindowKind",
    (Rate, "per_s"): "PerSecond",
    (Bandwidth, "bytes_per_s"): "BytesPerSecond",
    (LearnSettings, "wait_cost_per_s"): "WaitCostPerSecond",
}
_FAULTS: Final[Mapping[str, type[Fault]]] = {
    "Abort": Abort,
    "Delay": Delay,
    "Bandwidth": Bandwidth,
    "Blackhole": Blackhole,
}


def service_settings(*blocks: Block | None) -> ServiceSettings:
    """Settings of a service.

    Args:
        blocks: From the most general to the most special one (proxy-defaults, service-defaults);
            each group of a later one replaces the same group of those before.

    Raises:
        MeshConfigError: A block contradicts itself; the text names the field.
    """
    block: dict[str, Any] = {}
    for each in blocks:
        block |= each or {}
    try:
        return _settings(block)
    except (AttributeError, TypeError) as error:  # not even of the right shape
        raise MeshConfigError(f"{WHERE}: {error}") from error


def with_upstream_config(settings: ServiceSettings, config: UpstreamConfig) -> ServiceSettings:
    """Settings with what the calling service's defaults say of this upstream (Consul's fields).

    https://developer.hashicorp.com/consul/docs/reference/config-entry/service-defaults#upstreamconfig

    Args:
        settings: Of the upstream.
        config: Of the caller, for it or for all upstreams.

    Raises:
        MeshConfigError: A number is out of bounds.
    """
    limits = config.get("Limits", {})
    bulkhead = _changed(
        settings.bulkhead,
        "UpstreamConfig.Limits",
        concurrent_max=limits.get("MaxConcurrentRequests"),
        queue_max=limits.get("MaxPendingRequests"),
    )
    check = config.get("PassiveHealthCheck")
    if not check:
        return msgspec.structs.replace(settings, bulkhead=bulkhead)
    where = "UpstreamConfig.PassiveHealthCheck"
    ejected = check.get("MaxEjectionPercent")
    outlier = _changed(
        settings.outlier or OutlierSettings(),
        where,
        consecutive_5xx=None
        if check.get("EnforcingConsecutive5xx") == 0
        else check.get("MaxFailures"),
        interval_s=_span(check.get("Interval"), f"{where}.Interval"),
        base_ejection_s=_span(check.get("BaseEjectionTime"), f"{where}.BaseEjectionTime"),
        max_ejected=ejected / 100 if ejected else None,
    )
    if check.get("EnforcingConsecutive5xx") == 0:  # in percent: of none of the failures in a row
        outlier = msgspec.structs.replace(outlier, consecutive_5xx=0)
    return msgspec.structs.replace(settings, bulkhead=bulkhead, outlier=outlier)


def json_name(struct: type, field: str) -> str:
    """How a field of a settings struct is called in a block."""
    found = _NAMES.get((struct, field))
    if found is not None:
        return found
    parts = [part for part in field.split("_") if part != "s"]
    return "".join(part[:1].upper() + part[1:] for part in parts)


def _settings(block: Block) -> ServiceSettings:
    return ServiceSettings(
        timeouts=_group(TimeoutSettings, block, "Timeouts") or DEFAULTS.timeouts,
        pool=_pool(block.get("Balance", {})),
        near_first=block.get("Balance", {}).get("NearFirst", False),
        breaker=_group(BreakerSettings, block, "Breaker", DEFAULTS.breaker),
        instance_breaker=_group(BreakerSettings, block, "InstanceBreaker"),
        outlier=_group(OutlierSettings, block, "Outlier", DEFAULTS.outlier),
        bulkhead=_group(BulkheadSettings, block, "Bulkhead") or DEFAULTS.bulkhead,
        retry=_group(RetrySettings, block, "Retry") or DEFAULTS.retry,
        budget=_group(BudgetSettings, block, "Budget") or DEFAULTS.budget,
        learn=_group(LearnSettings, block, "Learn", DEFAULTS.learn),
        rate_limit=_rate_limit(block),
        fallback=_fallback(block),
        faults=tuple(
            _fault(each, f"{WHERE}.Faults[{at}]") for at, each in enumerate(block.get("Faults", ()))
        ),
        sticky=tuple(
            _read(HashPolicy, each, f"{WHERE}.Sticky[{at}]")
            for at, each in enumerate(block.get("Sticky", ()))
        ),
    )


# -- one struct ------------------------------------------------------------------------------------


def _group(struct: type[S], block: Block, name: str, default: S | None = None) -> S | None:
    """A group of the block; None where `Enabled` is false."""
    found = block.get(name)
    if found is None:
        return default
    return _read(struct, found, f"{WHERE}.{name}") if found.get("Enabled", True) else None


def _read(struct: type[S], block: Block, where: str, **made: Any) -> S:
    """Reads a struct.

    Args:
        struct: Its type.
        block: Its fields by their names in blocks; those that it does not have are not looked at.
        where: Place of the block.
        made: Fields that are made already.
    """
    values = dict(made)
    for field in msgspec.structs.fields(struct):
        name = json_name(struct, field.name)
        if field.name not in made and name in block:
            values[field.name] = _value(field, block[name], f"{where}.{name}")
    try:
        return struct(**values)
    except MeshConfigError as error:
        raise MeshConfigError(f"{where}.{_named(struct, error.message)}") from error
    except TypeError as error:
        raise MeshConfigError(f"{where}: a required field is missing ({error})") from error


def _named(struct: type, message: str) -> str:
    """The text of an error with its field as blocks call it."""
    field, colon, rest = message.partition(":")
    return f"{json_name(struct, field)}{colon}{rest}" if field.isidentifier() else message


def _value(field: msgspec.structs.FieldInfo, value: Any, where: str) -> Any:
    nested = _NESTED.get(field.name) if isinstance(value, Mapping) else None
    if nested is not None:
        return _read(nested, value, where)
    if "s" in field.name.split("_") and isinstance(value, str):
        return _span(value, where)
    try:
        return msgspec.convert(value, field.type)
    except msgspec.ValidationError as error:
        raise MeshConfigError(f"{where}: {error}") from error


#: Fields that are structs of their own.
_NESTED: Final[Mapping[str, type[msgspec.Struct]]] = {
    "adaptive": AdaptiveSettings,
    "backoff": BackoffSettings,
    "rate": Rate,
}


def _span(text: str | None, where: str) -> float | None:
    """Seconds of a duration; None for none."""
    if not text:
        return None
    try:
        return parse_duration(text)
    except InvalidRequest as error:
        raise MeshConfigError(f"{where}: {error.message}") from error


def _changed(settings: S, where: str, **values: Any) -> S:
    """Settings with those values that are given and not 0, which Consul takes for not given."""
    given = {name: value for name, value in values.items() if value}
    try:
        return msgspec.structs.replace(settings, **given)
    except MeshConfigError as error:
        raise MeshConfigError(f"{where}: {error.message}") from error


# -- groups of their own shape ---------------------------------------------------------------------


def _pool(block: Block) -> PoolSettings:
    where = f"{WHERE}.Balance"
    slow_start = block.get("SlowStart")
    return PoolSettings(
        policy=_policy(block, where),
        slow_start=None
        if slow_start is None
        else _read(SlowStart, slow_start, f"{where}.SlowStart"),
        locality=_read(Locality, block, where, zones=()),
        panic_threshold=block.get("PanicThreshold", DEFAULTS.pool.panic_threshold),
    )


def _policy(block: Block, where: str) -> Policy:
    match block.get("Policy", "least_request"):
        case "round_robin":
            return RoundRobinSettings()
        case "random":
            return RandomChoiceSettings()
        case "peak_ewma":
            return _read(PeakEwmaSettings, block.get("PeakEwma", {}), f"{where}.PeakEwma")
        case "least_request":
            return LeastRequestSettings()
        case other:
            raise MeshConfigError(f"{where}.Policy: {other!r} is none")


def _rate_limit(block: Block) -> RateLimitSettings | None:
    group = block.get("RateLimit")
    if group is None:
        return None
    where = f"{WHERE}.RateLimit"
    rates = {
        name: _read(Rate, rate, f"{where}.Rates[{name!r}]")
        for name, rate in group.get("Rates", {}).items()
    }
    return _read(RateLimitSettings, group, where, rates=rates)


def _fallback(block: Block) -> FallbackSettings | None:
    group = block.get("Fallback")
    if group is None:
        return None
    where = f"{WHERE}.Fallback"
    steps = tuple(
        _fallback_step(each, f"{where}.Steps[{at}]")
        for at, each in enumerate(group.get("Steps", ()))
    )
    return _read(FallbackSettings, group, where, steps=steps)


def _fallback_step(step: Block, where: str) -> FallbackStep:
    kind = _only(step, FALLBACK_KINDS, where)
    found, place = step[kind], f"{where}.{kind}"
    match kind:
        case "Service":
            return _read(OtherService, found, place)
        case "LastGood":
            return _read(LastGoodSettings, found, place)
        case _:
            answer = Answer(
                status=found.get("Status", 200),
                headers=tuple(found.get("Headers", {}).items()),
                body=found.get("Body", "").encode(),
            )
            return _read(FixedAnswer, {}, place, answer=answer)


def _fault(block: Block, where: str) -> FaultRule:
    kind = _only(block, FAULT_KINDS, where)
    fault: Fault = _read(_FAULTS[kind], block[kind], f"{where}.{kind}")
    try:
        until_s = until_unix_s(block.get("Until", ""))
    except (ValueError, OverflowError) as error:
        raise MeshConfigError(f"{where}.Until: {error}") from error
    return _read(FaultRule, block, where, fault=fault, until_unix_s=until_s)


def _only(item: Block, kinds: Sequence[str], where: str) -> str:
    found = [kind for kind in kinds if kind in item]
    if len(found) != 1:
        raise MeshConfigError(f"{where}: exactly one of {', '.join(kinds)} is required")
    return found[0]
