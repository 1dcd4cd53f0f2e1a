"""/v1/agent/metrics of servers and agents: Prometheus's text, or JSON in the form of Consul's.

https://developer.hashicorp.com/consul/api-docs/agent#view-metrics. Consul gives what happened in
the last ten seconds; here figures count from the start of the process, as Prometheus wants them:
so `Rate` and `Stddev` are 0. Names are the same in both forms.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from math import inf, isfinite
from typing import Literal, TypedDict

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from raftreg.clock import Clock
from raftreg.errors import InvalidRequest
from raftreg.http.discovery import query_of
from raftreg.http.json import dumps
from raftreg.http.operation import PLAIN, Flag, Param, operation
from raftreg.http.reply import Reply, json_reply

_TEXT = CONTENT_TYPE_LATEST.encode()


class GaugeJson(TypedDict):
    """A value that goes up and down."""

    Name: str
    Value: float
    Labels: dict[str, str]


class PointJson(TypedDict):
    """Values of one name; none are kept here."""

    Name: str
    Points: list[float]


class SampledJson(TypedDict):
    """A counter, or the summary of what was measured."""

    Name: str
    Count: int
    Rate: float
    Sum: float
    Min: float
    Max: float
    Mean: float
    Stddev: float
    Labels: dict[str, str]


class MetricsJson(TypedDict):
    """All figures of a process."""

    Timestamp: str
    Gauges: list[GaugeJson]
    Points: list[PointJson]
    Counters: list[SampledJson]
    Samples: list[SampledJson]


class MetricsPage:
    """GET /v1/agent/metrics.

    Args:
        registry: Holds all collectors of the process.
        clock: Stamps the JSON form.
    """

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.get("/v1/agent/metrics", self.show)]

    @operation(
        "Tells what this process counts",
        tag="agent",
        query=(
            Param("format", "`prometheus`: its text format, else JSON", Literal["", "prometheus"]),
            Param("pretty", "indent", Flag),
        ),
        answer=(MetricsJson, PLAIN),
    )
    async def show(self, request: web.Request) -> Reply:
        """Prometheus's text with `?format=prometheus`, Consul's JSON without."""
        params = query_of(request)
        match params.get("format", ""):
            case "prometheus":
                return Reply(generate_latest(self._registry), kind=_TEXT)
            case "":
                body = metrics_json(self._registry.collect(), self._clock.wall())
                return json_reply(request, dumps(body, pretty="pretty" in params))
            case other:
                raise InvalidRequest(f"Unknown format {other[:32]!r}: only prometheus is known")


def metrics_json(families: Iterable[Metric], wall_s: float) -> MetricsJson:
    """All figures as Consul's JSON.

    Args:
        families: What the collectors give.
        wall_s: Seconds since the epoch.
    """
    moment = datetime.fromtimestamp(wall_s, UTC)
    out: MetricsJson = {
        # As Go prints a time; clients read it by that layout.
        "Timestamp": moment.strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
        "Gauges": [],
        "Points": [],
        "Counters": [],
        "Samples": [],
    }
    for family in families:
        match family.type:
            case "counter":
                out["Counters"] += [
                    _counter(sample) for sample in family.samples if sample.name.endswith("_total")
                ]
            case "histogram":
                out["Samples"] += _histograms(family)
            case _:
                out["Gauges"] += [_gauge(sample) for sample in family.samples]
    return out


def _gauge(sample: Sample) -> GaugeJson:
    # JSON has no NaN: what is not known yet shows as 0.
    value = sample.value if isfinite(sample.value) else 0.0
    return {"Name": sample.name, "Value": value, "Labels": dict(sample.labels)}


def _counter(sample: Sample) -> SampledJson:
    return _sampled(sample.name, dict(sample.labels), int(sample.value), sample.value, (0.0, 0.0))


def _histograms(family: Metric) -> list[SampledJson]:
    """One summary for each set of labels; least and most are bounds of buckets."""
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        labels = tuple((k, v) for k, v in sorted(sample.labels.items()) if k != "le")
        if sample.name.endswith("_bucket"):
            buckets.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    return [
        _sampled(
            family.name,
            dict(labels),
            int(max(count for _, count in counted)),
            sums.get(labels, 0.0),
            _range(sorted(counted)),
        )
        for labels, counted in buckets.items()
    ]


def _range(counted: list[tuple[float, float]]) -> tuple[float, float]:
    """Lower bound of the first bucket with a value, upper one of the last (finite both)."""
    lowest = highest = below = 0.0
    before, found = 0.0, False
    for bound, count in counted:
        if count > before:
            lowest = lowest if found else below
            highest = below if bound == inf else bound
            found = True
        below, before = bound, count
    return lowest, highest


def _sampled(
    name: str, labels: dict[str, str], count: int, total: float, bounds: tuple[float, float]
) -> SampledJson:
    return {
        "Name": name,
        "Count": count,
        "Rate": 0.0,
        "Sum": total,
        "Min": bounds[0],
        "Max": bounds[1],
        "Mean": total / count if count else 0.0,
        "Stddev": 0.0,
        "Labels": labels,
    }
