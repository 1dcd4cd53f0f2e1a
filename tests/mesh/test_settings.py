"""What entries say of resilience: held to bounds when written, carried out as written."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftreg.core.durations import format_duration
from raftreg.core.entries import resilience
from raftreg.core.entries.resilience import LEAST_S, MOST_S, Resilience
from raftreg.core.entry_rules import entry_refusal
from raftreg.errors import InvalidRequest
from raftreg.http.config_body import config_entry
from raftreg.mesh.adaptive import AdaptiveSettings
from raftreg.mesh.backoff import BackoffSettings
from raftreg.mesh.balance.hash_key import HashField, HashPolicy
from raftreg.mesh.balance.maglev import MaglevSettings
from raftreg.mesh.balance.peak_ewma import PeakEwmaSettings
from raftreg.mesh.balance.policy import Policy, RandomChoiceSettings, RoundRobinSettings
from raftreg.mesh.balance.ring_hash import RingHashSettings
from raftreg.mesh.balance.slow_start import SlowStart
from raftreg.mesh.block import json_name, service_settings, with_upstream_config
from raftreg.mesh.breaker import BreakerSettings, WindowKind
from raftreg.mesh.budget import BudgetSettings
from raftreg.mesh.bulkhead import BulkheadSettings
from raftreg.mesh.deadline import TimeoutSettings
from raftreg.mesh.fallback import FixedAnswer, OtherService
from raftreg.mesh.fault import Delay
from raftreg.mesh.last_good import LastGoodSettings
from raftreg.mesh.learned import LearnSettings
from raftreg.mesh.nouns import MeshConfigError, Reason
from raftreg.mesh.outlier import OutlierSettings
from raftreg.mesh.rate_limit import Rate, RateLimitSettings
from raftreg.mesh.retry import RetrySettings
from raftreg.mesh.retry_on import Condition
from raftreg.mesh.route import RouteRetry
from raftreg.mesh.settings import (
    DEFAULTS,
    ServiceSettings,
    balanced,
    retries_of_route,
    timeouts_of_route,
)


def written(block: dict[str, Any]) -> dict[str, Any]:
    """A block as the registry keeps it."""
    entry = config_entry({"Kind": "service-defaults", "Name": "api", "Raftreg": block})
    refusal = entry_refusal(entry)
    if refusal is not None:
        raise InvalidRequest(refusal)
    kept: dict[str, Any] = entry.body["Raftreg"]
    return kept


def test_nothing_said() -> None:
    """Without a block, and with an empty one, the defaults hold."""
    assert service_settings() == service_settings(None, {}) == DEFAULTS


def test_whole_block() -> None:
    """Each group becomes the settings of its module."""
    found = service_settings(
        written(
            {
                "Timeouts": {"Request": "3s", "PerTry": "1s", "HeedCaller": False},
                "Balance": {
                    "Policy": "peak_ewma",
                    "PeakEwma": {"Decay": "5s"},
                    "SlowStart": {"Window": "30s"},
                    "NearFirst": True,
                    "Overprovisioning": 1.5,
                    "PanicThreshold": 0.2,
                },
                "Breaker": {
                    "ErrorRateMax": 0.3,
                    "SlowRateMax": 0.5,
                    "SlowCall": "300ms",
                    "WindowKind": "count",
                    "Window": "5s",
                    "Open": "2s",
                    "OpenMax": "30s",
                },
                "InstanceBreaker": {"ConsecutiveFailuresMax": 3},
                "Outlier": {"Enabled": False},
                "Bulkhead": {"ConcurrentMax": 10, "WaitMax": "20ms", "Adaptive": {"LimitMin": 2}},
                "Retry": {
                    "Conditions": ["5xx"],
                    "RetriesMax": 4,
                    "StatusCodes": [429],
                    "Backoff": {"Base": "10ms"},
                },
                "Budget": {"Ratio": 0.1, "PerSecondMin": 1},
                "Learn": {"Enabled": False},
                "RateLimit": {
                    "Rate": {"PerSecond": 5, "Burst": 10},
                    "By": "header",
                    "Header": "x-user",
                    "Rates": {"vip": {"PerSecond": 50}},
                },
                "Fallback": {
                    "Reasons": ["overload"],
                    "Steps": [
                        {"Service": {"Service": "spare"}},
                        {"LastGood": {"AgeMax": "1m"}},
                        {"Answer": {"Status": 203, "Headers": {"x-a": "b"}, "Body": "sorry"}},
                    ],
                },
                "Faults": [
                    {
                        "Name": "slow",
                        "Until": "2030-01-01T00:00:00Z",
                        "Percent": 5,
                        "Sources": ["web"],
                        "Delay": {"Delay": "2s"},
                    }
                ],
                "Sticky": [{"Field": "cookie", "Name": "user"}],
            }
        )
    )
    assert found.timeouts == TimeoutSettings(request_s=3.0, per_try_s=1.0, heed_caller=False)
    assert found.pool.policy == PeakEwmaSettings(decay_s=5.0)
    assert found.pool.slow_start == SlowStart(window_s=30.0)
    assert (found.near_first, found.pool.panic_threshold) == (True, 0.2)
    assert found.pool.locality.overprovisioning == 1.5
    assert found.breaker is not None
    assert (found.breaker.window, found.breaker.window_s) == (WindowKind.COUNT, 5.0)
    assert (found.breaker.slow_call_s, found.breaker.open_s_max) == (0.3, 30.0)
    assert found.instance_breaker == BreakerSettings(consecutive_failures_max=3)
    assert found.outlier is None
    assert found.learn is None
    assert found.bulkhead.wait_s_max == 0.02
    assert found.bulkhead.adaptive == AdaptiveSettings(limit_min=2)
    assert found.retry.conditions == frozenset({Condition.SERVER_ERROR})
    assert found.retry.status_codes == frozenset({429})
    assert found.retry.backoff == BackoffSettings(base_s=0.01)
    assert found.rate_limit is not None
    assert found.rate_limit.rates == {"vip": Rate(per_s=50)}
    assert found.fallback is not None
    assert found.fallback.reasons == frozenset({Reason.OVERLOAD})
    service, kept, fixed = found.fallback.steps
    assert service == OtherService(service="spare")
    assert kept == LastGoodSettings(age_s_max=60.0)
    assert isinstance(fixed, FixedAnswer)
    assert (fixed.answer.status, fixed.answer.body) == (203, b"sorry")
    (rule,) = found.faults
    assert (rule.fault, rule.percent) == (Delay(delay_s=2.0), 5.0)
    assert rule.sources == frozenset({"web"})
    assert rule.until_unix_s == 1893456000.0
    assert found.sticky == (HashPolicy(field=HashField.COOKIE, name="user"),)


def test_special_groups_replace_general_ones() -> None:
    """A group of the service replaces that of all proxies whole; other groups stay."""
    general = {"Breaker": {"VolumeMin": 5, "Open": "1s"}, "Budget": {"Ratio": 1.0}}
    found = service_settings(general, {"Breaker": {"Open": "2s"}})
    assert found.breaker == BreakerSettings(open_s=2.0)
    assert found.budget.ratio == 1.0


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"Breaker": {"Open": "100s"}}, r"Raftreg.Breaker.Open \(1m40s\) must not exceed"),
        ({"Breaker": {"Opens": "1s"}}, 'invalid config key "Opens" in Raftreg.Breaker'),
        ({"Breaker": {"ErrorRateMax": 2}}, "Raftreg.Breaker.ErrorRateMax"),
        ({"Breaker": {"SlowRateMax": 0.5}}, "Raftreg.Breaker.SlowCall must be set"),
        ({"Breaker": {"WindowKind": "count", "VolumeMin": 200}}, "Raftreg.Breaker.VolumeMin"),
        ({"Breaker": {"Window": "1ms"}}, "Raftreg.Breaker.Window must be from 0.1 s to 3600 s"),
        ({"Breaker": {"Window": "soon"}}, "Raftreg.Breaker.Window: time: invalid duration"),
        ({"Outlier": {"BaseEjection": "10m"}}, "Raftreg.Outlier.BaseEjection"),
        ({"Retry": {"Conditions": ["sometimes"]}}, r"Raftreg.Retry.Conditions\[0\]|Raftreg.Retry"),
        ({"Retry": {"Backoff": {"Base": "2s"}}}, "Raftreg.Retry.Backoff.Base"),
        ({"Bulkhead": {"LifoAbove": 5, "QueueMax": 2}}, "Raftreg.Bulkhead.LifoAbove"),
        ({"Bulkhead": {"Adaptive": {"LimitMin": 50}}}, "Raftreg.Bulkhead.Adaptive.LimitMin"),
        ({"RateLimit": {}}, "Raftreg.RateLimit.Rate.PerSecond is required"),
        (
            {"RateLimit": {"Rate": {"PerSecond": 1}, "By": "header"}},
            "Raftreg.RateLimit.Header is required",
        ),
        ({"Fallback": {"Steps": [{}]}}, r"Raftreg.Fallback.Steps\[0\]: exactly one of"),
        ({"Fallback": {"Steps": [{"Service": {}}]}}, r"Steps\[0\].Service.Service is required"),
        (
            {"Fallback": {"Steps": [{"Answer": {"Headers": {"a": "b\r\nc"}}}]}},
            r"Steps\[0\].Answer.Headers\['a'\]",
        ),
        ({"Faults": [{"Abort": {}}]}, r"Raftreg.Faults\[0\].Until must be a moment"),
        ({"Faults": [{"Until": "2030-01-01T00:00:00", "Abort": {}}]}, "Until must be a moment"),
        ({"Faults": [{"Until": "2030-01-01T00:00:00Z"}]}, r"Raftreg.Faults\[0\]: exactly one of"),
        (
            {"Faults": [{"Until": "2030-01-01T00:00:00Z", "Abort": {"Status": 100}}]},
            r"Raftreg.Faults\[0\].Abort.Status",
        ),
        (
            {"Faults": [{"Until": "2030-01-01T00:00:00Z", "Delay": {}}]},
            r"Raftreg.Faults\[0\].Delay.Delay is required",
        ),
        ({"Sticky": [{"Field": "header"}]}, r"Raftreg.Sticky\[0\].Name"),
    ],
)
def test_bad_block_is_refused(block: dict[str, Any], says: str) -> None:
    """What contradicts itself is refused when it is written, and the text names the field."""
    with pytest.raises(InvalidRequest, match=says):
        written(block)


def test_settings_name_their_field() -> None:
    """What no rule has seen is refused all the same, by the field's name in the block."""
    with pytest.raises(MeshConfigError, match=r"Raftreg.Breaker.ErrorRateMax: must be from 0 to 1"):
        service_settings({"Breaker": {"ErrorRateMax": 7.0}})
    pieces: list[dict[str, Any]] = [
        {"Breaker": 3},
        {"Faults": 7},
        {"Balance": []},
        {"Retry": {"Backoff": 1}},
    ]
    for garbage in pieces:
        with pytest.raises(MeshConfigError, match="Raftreg"):
            service_settings(garbage)


@pytest.mark.parametrize(
    ("block", "struct"),
    [
        (resilience.TimeoutsBlock, TimeoutSettings),
        (resilience.SlowStartBlock, SlowStart),
        (resilience.PeakEwmaBlock, PeakEwmaSettings),
        (resilience.BreakerBlock, BreakerSettings),
        (resilience.OutlierBlock, OutlierSettings),
        (resilience.AdaptiveBlock, AdaptiveSettings),
        (resilience.BulkheadBlock, BulkheadSettings),
        (resilience.BackoffBlock, BackoffSettings),
        (resilience.RetryBlock, RetrySettings),
        (resilience.BudgetBlock, BudgetSettings),
        (resilience.LearnBlock, LearnSettings),
        (resilience.RateBlock, Rate),
        (resilience.RateLimitBlock, RateLimitSettings),
        (resilience.FallbackService, OtherService),
        (resilience.FallbackLastGood, LastGoodSettings),
        (resilience.StickyBlock, HashPolicy),
    ],
)
def test_names_agree(block: Any, struct: Any) -> None:
    """A block has the fields of its settings, no more and no fewer."""
    wanted = {json_name(struct, field.name) for field in msgspec.structs.fields(struct)}
    assert set(get_type_hints(block)) - {"Enabled"} == wanted


def values(shape: Any) -> st.SearchStrategy[Any]:
    """Anything that a type allows."""
    if is_typeddict(shape):
        fields = {
            name: values(hint) for name, hint in get_type_hints(shape, include_extras=True).items()
        }
        return st.fixed_dictionaries({}, optional=fields)
    origin, arguments = get_origin(shape), get_args(shape)
    if origin is Annotated:
        return bounded(arguments[0], arguments[1:])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is list:
        return st.lists(values(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(st.sampled_from("ab"), values(arguments[1]), max_size=2)
    return {str: st.sampled_from(["", "x"]), bool: st.booleans()}[shape]


def bounded(inner: Any, notes: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """Numbers and durations at their bounds and between them."""
    for note in notes:
        extra = note.extra or {}
        if LEAST_S in extra:
            spans = st.sampled_from([extra[LEAST_S], extra[MOST_S], 1.0])
            return spans.map(format_duration)
        if note.description and "RFC 3339" in note.description:
            return st.just("2030-01-01T00:00:00+01:00")
        if note.ge is not None:
            whole = st.sampled_from([note.ge, note.le, (note.ge + note.le) // 2])
            return whole.map(inner) if inner in (int, float) else whole
    return values(inner)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(values(Resilience))
def test_what_is_accepted_can_be_carried_out(block: dict[str, Any]) -> None:
    """No block that may be written is refused by those who carry it out."""
    try:
        kept = written(block)
    except InvalidRequest:
        return
    assert isinstance(service_settings(kept), ServiceSettings)


GROUPS = get_type_hints(Resilience, include_extras=True)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.one_of([st.fixed_dictionaries({name: values(GROUPS[name])}) for name in GROUPS]))
def test_each_group_alone(block: dict[str, Any]) -> None:
    """The same of each group alone, where fewer are refused for another's sake."""
    try:
        kept = written(block)
    except InvalidRequest:
        return
    assert isinstance(service_settings(kept), ServiceSettings)


def test_route_goes_before_service() -> None:
    """Timeouts and retries of a route replace those of the service."""
    base = ServiceSettings(timeouts=TimeoutSettings(request_s=9.0, per_try_s=0.5))
    assert timeouts_of_route(base, 2.0, 3.0) == TimeoutSettings(
        request_s=2.0, per_try_s=0.5, idle_s=3.0
    )
    assert timeouts_of_route(base, None, None) == base.timeouts
    assert retries_of_route(base, None).per_try_timeout_s == 0.5
    found = retries_of_route(
        base, RouteRetry(retries_max=99, conditions=("reset",), statuses=(409,))
    )
    assert (found.retries_max, found.conditions) == (10, frozenset({Condition.RESET}))
    assert found.status_codes == frozenset({409})
    kept = retries_of_route(base, RouteRetry(retries_max=1))
    assert kept.conditions == base.retry.conditions
    with pytest.raises(MeshConfigError, match="RetryOn"):
        retries_of_route(base, RouteRetry(conditions=("never",)))


@pytest.mark.parametrize(
    ("balancer", "policy"),
    [
        ({"Policy": "round_robin"}, RoundRobinSettings()),
        ({"Policy": "random"}, RandomChoiceSettings()),
        (
            {
                "Policy": "ring_hash",
                "RingHashConfig": {"MinimumRingSize": 10},
                "HashPolicies": [{"Field": "header", "FieldValue": "x-user", "Terminal": True}],
            },
            RingHashSettings(
                size_min=10,
                policies=(HashPolicy(field=HashField.HEADER, name="x-user", terminal=True),),
            ),
        ),
        (
            {"Policy": "maglev", "HashPolicies": [{"SourceIP": True}]},
            MaglevSettings(policies=(HashPolicy(field=HashField.SOURCE_IP),)),
        ),
        ({"Policy": ""}, DEFAULTS.pool.policy),
    ],
)
def test_policy_of_a_resolver(balancer: Any, policy: Policy) -> None:
    """A resolver's policy goes before that of the settings."""
    assert balanced(DEFAULTS, balancer, "").policy == policy


def test_near_first() -> None:
    """Zones matter when that is set and the caller's is known."""
    near = ServiceSettings(near_first=True)
    assert balanced(near, None, "z1").locality.zones == ("z1",)
    assert balanced(near, None, "").locality.zones == ()
    assert balanced(DEFAULTS, None, "z1").locality.zones == ()


def test_upstream_config_of_the_caller() -> None:
    """Consul's limits and passive health checks are heeded; 0 says nothing, as there."""
    found = with_upstream_config(
        DEFAULTS,
        {
            "Limits": {"MaxConcurrentRequests": 7, "MaxPendingRequests": 0},
            "PassiveHealthCheck": {
                "Interval": "20s",
                "MaxFailures": 3,
                "MaxEjectionPercent": 25,
                "BaseEjectionTime": "5s",
            },
        },
    )
    assert (found.bulkhead.concurrent_max, found.bulkhead.queue_max) == (7, 128)
    assert found.outlier == OutlierSettings(
        interval_s=20.0, consecutive_5xx=3, max_ejected=0.25, base_ejection_s=5.0
    )
    assert with_upstream_config(DEFAULTS, {}) == DEFAULTS
    off = with_upstream_config(
        DEFAULTS, {"PassiveHealthCheck": {"MaxFailures": 3, "EnforcingConsecutive5xx": 0}}
    )
    assert off.outlier == OutlierSettings(consecutive_5xx=0)
    with pytest.raises(MeshConfigError, match=r"PassiveHealthCheck: max_ejected"):
        with_upstream_config(DEFAULTS, {"PassiveHealthCheck": {"MaxEjectionPercent": 900}})
