"""What a server tells Prometheus: read from plain counters when it is asked, never pushed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from raftreg.http.watch import WatchHub
from raftreg.model import Status
from raftreg.raft.api import ReplicaAPI, Role
from raftreg.raft.metrics import Distribution, NodeMetrics
from raftreg.server.expiry import KeyExpiry
from raftreg.server.leases import Leases
from raftreg.server.machine import RegistryMachine

_TEXT = CONTENT_TYPE_LATEST.encode()


class Measured(Protocol):
    """A replica that counts what it does (`Replica`, not `SoloReplica`)."""

    @property
    def metrics(self) -> NodeMetrics:
        """Its counters."""
        ...


class ServerCollector(Collector):
    """Gauges and counters of a server.

    Args:
        replica: Tells term, role and indexes, and its counters when it has any.
        machine: Tells the size of the state.
        hub: Tells how many wait.
        leases: Tells how many are held.
        expiry: Tells how many keys ended.
    """

    def __init__(
        self,
        replica: ReplicaAPI,
        machine: RegistryMachine,
        hub: WatchHub,
        leases: Leases,
        expiry: KeyExpiry,
    ) -> None:
        self._replica = replica
        self._machine = machine
        self._hub = hub
        self._leases = leases
        self._expiry = expiry

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield from self._raft()
        yield from self._registry()
        counters = counters_of(self._replica)
        if counters is not None:
            yield from _engine(counters)

    def _raft(self) -> Iterator[Metric]:
        status = self._replica.status()
        yield _gauge("raft_term", "Present Raft term", status.term)
        role = GaugeMetricFamily(
            "raftreg_raft_role", "1 for the role that this server has", labels=("role",)
        )
        for known in Role:
            role.add_metric((known.value,), float(status.role is known))
        yield role
        yield _gauge("raft_commit_index", "Newest committed log index", status.commit_index)
        yield _gauge("raft_applied_index", "Newest applied log index", status.applied_index)
        yield _gauge("raft_last_log_index", "Newest log index", status.last_log_index)
        yield _gauge("raft_first_log_index", "Oldest log index kept", status.first_log_index)
        yield _gauge(
            "raft_snapshot_index", "Log index of the last snapshot", status.last_snapshot_index
        )
        yield _gauge("raft_servers", "Members of the cluster", len(status.servers))
        yield _gauge("raft_leader_known", "1 while a leader is known", status.leader_id is not None)

    def _registry(self) -> Iterator[Metric]:
        state = self._machine.state
        yield _gauge("registry_index", "Index of the registry", state.index)
        rows = GaugeMetricFamily("raftreg_registry_rows", "Rows by table", labels=("table",))
        for table, number in (
            ("kv", len(state.kv.rows)),
            ("nodes", len(state.catalog.nodes)),
            ("services", sum(1 for _ in state.catalog.all_services())),
            ("sessions", len(state.sessions)),
            ("queries", len(state.queries.rows)),
            ("coordinates", len(state.coordinates.rows)),
        ):
            rows.add_metric((table,), number)
        yield rows
        checks = GaugeMetricFamily("raftreg_checks", "Checks by status", labels=("status",))
        for status in Status:
            checks.add_metric((status.value,), len(state.catalog.checks_by_state(status)))
        yield checks
        yield _gauge("watches", "Blocking queries that wait now", self._hub.count)
        leases = GaugeMetricFamily(
            "raftreg_leases", "Leases that this server holds as the leader", labels=("kind",)
        )
        leases.add_metric(("node",), self._leases.node_count)
        leases.add_metric(("session",), self._leases.session_count)
        yield leases
        expired = CounterMetricFamily(
            "raftreg_leases_expired", "Leases that this server let expire", labels=("kind",)
        )
        expired.add_metric(("node",), self._leases.expired_nodes)
        expired.add_metric(("session",), self._leases.expired_sessions)
        expired.add_metric(("key",), self._expiry.expired_keys)
        yield expired


def counters_of(replica: object) -> NodeMetrics | None:
    """The counters of a replica, if it has any: on itself, or on its node once it has started."""
    for owner in (replica, getattr(replica, "node", None)):
        found = getattr(owner, "metrics", None)
        if isinstance(found, NodeMetrics):
            return found
    return None


def _engine(counters: NodeMetrics) -> Iterator[Metric]:
    for name, text, value in (
        ("raft_entries_applied", "Log entries applied", counters.entries_applied_total),
        ("raft_proposals_applied", "Proposals applied", counters.proposals_applied_total),
        ("raft_batches", "Log entries formed of proposals", counters.batches_total),
        ("raft_read_rounds", "Rounds that confirmed leadership", counters.read_rounds_total),
        ("raft_snapshots_installed", "Snapshots taken over", counters.snapshots_installed_total),
        (
            "raft_protocol_violations",
            "Messages that broke the protocol",
            counters.protocol_violations_total,
        ),
    ):
        yield CounterMetricFamily(f"raftreg_{name}", text, value=value)
    yield _histogram("raft_fsync_seconds", "Syncs of the log", counters.fsync_s)
    yield _histogram("raft_proposal_seconds", "From proposal to its result", counters.proposal_s)
    yield _histogram("raft_batch_size", "Proposals in one log entry", counters.batch_sizes)
    yield _histogram(
        "raft_read_index_seconds", "From the request of a read index to it", counters.read_index_s
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"raftreg_{name}", text, value=float(value))


def _histogram(name: str, text: str, values: Distribution) -> Metric:
    total, buckets = 0, []
    for bound, count in zip((*values.bounds, float("inf")), values.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(total)))
    return HistogramMetricFamily(f"raftreg_{name}", text, buckets=buckets, sum_value=values.total)
