"""One run from a seed: a workload, a cluster, faults, healing, final operations, the verdict."""

from __future__ import annotations

import gc
import re
from collections.abc import Collection, Sequence
from random import Random

import msgspec

from jepsen_like.checkers.verdict import Valid, Verdict
from jepsen_like.history import Event, Type
from jepsen_like.workloads import WORKLOADS
from jepsen_like.workloads.base import Workload
from tests.sim.scheduler import Violation
from tests.sim.whole.faults import Faults
from tests.sim.whole.load import SimLoad
from tests.sim.whole.process import ServerProcess
from tests.sim.whole.seams import installed
from tests.sim.whole.world import WholeWorld

SECONDS = 12.0
TRACE_LINES_MAX = 60
HISTORY_LINES_MAX = 30
#: A storm may let so little through that there is nothing to judge. Any other doubt is a violation.
_TOO_LITTLE = re.compile(r"^no\w* .*\b(acknowledged|acquired|accepted|given|answered|showed)\b")


class WholeOutcome(msgspec.Struct, frozen=True):
    """What a run amounted to.

    Attributes:
        operations, acked: Operations of clients, and how many of them were OK.
        terms: Highest term that had a leader.
        faults: Faults that struck.
        restores: Snapshots that servers began with or took from a leader.
        verdict: The checker's word ("true", or "unknown" where nothing was acknowledged).
    """

    seed: int
    digest: str
    workload: str
    operations: int
    acked: int
    terms: int
    faults: int
    restores: int
    verdict: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a seed makes of a run."""

    workload: str
    size: int
    spares: int
    concurrency: int
    rate: float
    fault_every_s: float


def plan_of(seed: int) -> Plan:
    """What a seed stands for."""
    rng = Random(f"{seed}/plan")
    return Plan(
        # Drawn apart: another list of workloads leaves the rest of the run as it is.
        workload=Random(f"{seed}/workload").choice(sorted(WORKLOADS)),
        size=rng.choice((3, 3, 3, 5)),
        spares=rng.choice((0, 0, 1)),
        concurrency=rng.choice((3, 5, 8)),
        rate=rng.choice((10.0, 20.0, 40.0)),
        # Some runs are calm: what is late without a fault, or lost, has no excuse.
        fault_every_s=rng.choice((0.7, 1.5, 3.0, 3.0, 1000.0)),
    )


def run_whole_seed(
    seed: int,
    seconds: float = SECONDS,
    workload: str | None = None,
    faults: Collection[str] = (),
) -> WholeOutcome:
    """One whole run.

    Args:
        seed: Decides everything.
        seconds: Simulated time under faults.
        workload: Instead of the one that the seed chooses.
        faults: Instead of those that the seed chooses, and never calm.

    Raises:
        Violation: With the seed, the trace and the state of all servers in its text.
    """
    plan = plan_of(seed)
    plan = msgspec.structs.replace(plan, workload=workload or plan.workload)
    if faults:
        plan = msgspec.structs.replace(plan, fault_every_s=min(plan.fault_every_s, 3.0))
    kind = WORKLOADS[plan.workload]
    world = WholeWorld(
        seed,
        size=plan.size,
        spares=plan.spares,
        agents=kind.agents,
        with_dns=kind.agents > 0,
    )
    run = _Run(world, plan, kind(), faults)
    collecting = gc.isenabled()
    gc.disable()  # a collection in the middle only costs time: a run is over in a second
    try:
        with installed(world):
            try:
                return run.all(seconds)
            except Exception as fault:
                raise Violation(run.report(fault)) from fault
            finally:
                world.close()
    finally:
        if collecting:
            gc.enable()


class _Run:
    def __init__(
        self, world: WholeWorld, plan: Plan, workload: Workload, faults: Collection[str]
    ) -> None:
        self.world = world
        self.plan = plan
        self.workload = workload
        self.seconds = SECONDS
        self.load = SimLoad(world, workload, concurrency=plan.concurrency, rate=plan.rate)
        self.faults = Faults(world, plan.fault_every_s, self.load.recorder.note, faults)
        world.on_start = self.faults.process_started
        self.verdict: Verdict | None = None

    def all(self, seconds: float) -> WholeOutcome:
        """From the first start to the verdict."""
        world, load = self.world, self.load
        self.seconds = seconds
        world.start()
        world.run_while(lambda: world.leader() is None, "the first election")
        load.set_up()
        load.begin()
        self.faults.begin()
        world.run(seconds)
        self.faults.end()
        load.end()
        if not load.finish():
            raise Violation("a final operation never succeeded in a whole cluster")
        self._same_everywhere()
        return self._outcome(self._judge(load.recorder.events))

    def _same_everywhere(self) -> None:
        """All servers come to hold the same registry, byte for byte."""
        servers = [server for server in self.world.servers.values() if server.incarnation]
        self.world.run_while(lambda: len(set(map(_index, servers))) > 1, "catching up", 20.0)
        states = {b"".join(server.registry.snapshot()) for server in servers}
        if len(states) > 1:
            raise Violation(f"servers hold different registries at index {_index(servers[0])}")

    def _judge(self, events: Sequence[Event]) -> Verdict:
        verdict = self.verdict = self.workload.checker()(events)
        if verdict.valid is Valid.FALSE:
            raise Violation(f"{verdict.checker}: {verdict.anomalies[0].message}")
        if verdict.valid is Valid.UNKNOWN and not _TOO_LITTLE.search(verdict.why_unknown):
            raise Violation(f"{verdict.checker} does not know: {verdict.why_unknown}")
        return verdict

    def _outcome(self, verdict: Verdict) -> WholeOutcome:
        counts, world = self.load.recorder.counts, self.world
        return WholeOutcome(
            seed=world.seed,
            digest=world.digest(self.load.recorder.events),
            workload=self.plan.workload,
            operations=counts[Type.INVOKE],
            acked=counts[Type.OK],
            terms=max(world.witness.invariants.leaders),
            faults=self.faults.count,
            restores=sum(world.witness.restores.values()),
            verdict=verdict.valid.value,
        )

    # --- the report

    def report(self, fault: Exception) -> str:
        """The seed, how to replay it, what happened before, and how everyone stands."""
        world = self.world
        what = str(fault) if isinstance(fault, Violation) else repr(fault)
        lines = [
            f"seed {world.seed} at {world.timeline.now - world.began:.4f} s: {what}",
            f"replay: make sim SEED={world.seed} "
            f'ARGS="--seconds {self.seconds:g} --workload {self.plan.workload}"',
            f"run: {self.plan}",
            "trace:",
            *world.notes[-TRACE_LINES_MAX:],
            *self._anomalies(),
            "last operations:",
            *map(_told, self._events()[-HISTORY_LINES_MAX:]),
            "servers:",
            *world.state(),
        ]
        return "\n  ".join(lines)

    def _events(self) -> list[Event]:
        return self.load.recorder.events

    def _anomalies(self) -> list[str]:
        if self.verdict is None:
            return []
        events, lines = self._events(), list[str]()
        for anomaly in self.verdict.anomalies[:5]:
            lines.append(f"anomaly {anomaly.kind}: {anomaly.message}")
            lines += [f"  {_told(events[index])}" for index in anomaly.events[:20]]
        return lines


def _index(server: ServerProcess) -> int:
    return server.registry.state.index


def _told(event: Event) -> str:
    parts = [f"{event.time_ns / 1e9:8.4f} #{event.index} process {event.process}", event.type.value]
    parts += [event.f, event.key or "", repr(event.value)]
    parts += [f"at {event.node}" if event.node else "", f"index {event.raft_index}"]
    return " ".join(part for part in parts if part) + (f": {event.error}" if event.error else "")
