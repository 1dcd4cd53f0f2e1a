"""Figures of an agent in Prometheus's form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from raftreg_agent.external import ExternalChecks
from raftreg_agent.local import LocalAgent
from raftreg_agent.proxy import ServerProxy
from raftreg_agent.view import CatalogView


class ExternalCollector(Collector):
    """Figures of the checks that a server runs for hosts without an agent.

    Args:
        checks: What runs here.
    """

    def __init__(self, checks: ExternalChecks) -> None:
        self._checks = checks

    def collect(self) -> Iterator[Metric]:
        """All families."""
        checks = self._checks
        yield GaugeMetricFamily(
            "raftreg_external_checks",
            "Checks of hosts without an agent that this server runs",
            checks.count,
        )
        yield CounterMetricFamily(
            "raftreg_external_probes", "Their probes that ended", checks.probes_total
        )
        yield CounterMetricFamily(
            "raftreg_external_edges", "Changes of their status written", checks.edges_total
        )


class AgentCollector(Collector):
    """Reads the figures when they are asked for.

    Args:
        local: What is registered and checked.
        view: Its copy of the catalog; None inside a server.
        proxy: Its way to the servers; None inside a server.
    """

    def __init__(
        self, local: LocalAgent, view: CatalogView | None = None, proxy: ServerProxy | None = None
    ) -> None:
        self._local = local
        self._view = view
        self._proxy = proxy

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield from self._registration()
        yield from self._sync()
        if self._view is not None:
            yield from _view(self._view)
        if self._proxy is not None:
            yield _gauge("proxied_watches", "Blocking queries held at servers", self._proxy.watches)

    def _registration(self) -> Iterator[Metric]:
        state = self._local.state
        yield _gauge("services", "Instances registered on this host", len(state.services))
        family = GaugeMetricFamily(
            "raftreg_agent_checks", "Checks of this host, by status", labels=("status",)
        )
        counts = Counter(check.machine.status.value for check in state.checks.values())
        for status in ("passing", "warning", "critical"):
            family.add_metric((status,), counts[status])
        yield family
        scheduler = self._local.scheduler
        yield _counter("probes", "Probes of checks that ended", scheduler.probes_total)
        yield _gauge("probes_running", "Probes of checks in flight", scheduler.running)

    def _sync(self) -> Iterator[Metric]:
        registrar, lease = self._local.registrar, self._local.lease
        yield _counter("syncs", "Syncs that the registry took", registrar.syncs_total)
        yield _counter("sync_failures", "Syncs that failed", registrar.failures_total)
        yield _counter("lease_renewals", "Renewals of the lease", lease.renewals_total)
        yield _counter("lease_failures", "Renewals that failed", lease.failures_total)
        keeper = self._local.coordinates
        yield _counter("coordinate_rounds", "Rounds of measurements", keeper.rounds)
        yield _counter("coordinate_reports", "Coordinates told to the registry", keeper.reports)
        yield _gauge("lease_held", "1 while the lease of this host is held", int(lease.held))
        settled = int(self._local.ledger.settled)
        yield _gauge("synced", "1 while nothing waits to be synced", settled)


def _view(view: CatalogView) -> Iterator[Metric]:
    age_s = float("nan") if view.age_s is None else view.age_s
    yield _gauge("view_age_seconds", "Age of the view of the catalog", age_s)
    yield _gauge("view_index", "Registry index of the view", view.catalog.index)
    yield _counter("view_resets", "Times that the view was loaded anew", view.resets_total)
    yield _gauge("view_watches", "Blocking queries over the view", view.hub.count)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"raftreg_agent_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"raftreg_agent_{name}", text, value=value)
