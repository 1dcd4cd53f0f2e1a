"""What scenarios share: how long to measure, what, where, and telling how far it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from bench.cluster import Cluster, cluster
from bench.failure import BenchFailure
from bench.generator.jobs import DnsJob, Job, Tally, percentile
from bench.machine import Bystanders
from bench.report import Goal, Published, Row, Times
from bench.systems import Raftreg, System


class Lab(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a run.

    Attributes:
        directory: Where data directories are made (its disk is measured); None: the temporary one.
        quick: Shorter and fewer: to see that it works, not to publish.
        say: Shows what is being done.
        beside: Other systems that are measured in turn with us.
    """

    directory: Path | None
    quick: bool
    say: Callable[[str], None]
    beside: tuple[System, ...] = ()

    @property
    def repeats(self) -> int:
        """How often a rate is measured."""
        return 1 if self.quick else 3

    @property
    def seconds(self) -> float:
        """Length of one measurement of a rate."""
        return 1.0 if self.quick else 3.0


Scenario = Callable[[Lab], Awaitable[list[Row]]]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A row to be, and what is known of it before: see `Row`."""

    name: str
    unit: str = "/s"
    more_is_better: bool = True
    consul: Published | None = None
    etcd: Published | None = None
    goal: Goal | Times | None = None


class Figures(msgspec.Struct, frozen=True):
    """What one turn gave for a line: one value or several."""

    values: list[float]
    note: str = ""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is done again and again, on each system in turn.

    Attributes:
        lines: The rows that come of it.
        turn: Does it once; takes the cluster and the number of the turn, gives figures by line.
        repeats: How often; None: as the lab says.
        restarts: It ends processes, so that nobody can tell what the clusters took of the machine.
    """

    lines: tuple[Line, ...]
    turn: Callable[[Cluster, int], Awaitable[Sequence[Figures]]]
    repeats: int | None = None
    restarts: bool = False


async def side_by_side(
    lab: Lab,
    measurements: Sequence[Measurement],
    *,
    agents: int = 0,
    prepare: Callable[[Cluster], Awaitable[None]] | None = None,
) -> list[Row]:
    """Measures raftreg, and whatever is beside it, turn by turn in the same minutes.

    All clusters run all the time: those whose turn it is not are idle.

    Args:
        lab: Settings.
        measurements: What is done, in this order.
        agents: Agents of each cluster.
        prepare: Fills a cluster before.

    Raises:
        BenchFailure: It failed on raftreg. A failure of another system goes into the notes.
    """
    rows: list[Row] = []
    async with contextlib.AsyncExitStack() as stack:
        clusters: list[Cluster] = []
        for system in (Raftreg(), *lab.beside):
            lab.say(f"starting {system.name}")
            try:
                made = await stack.enter_async_context(
                    cluster(lab.directory, agents, system=system)
                )
                if prepare is not None:
                    await prepare(made)
            except BenchFailure as error:
                if not clusters:
                    raise
                lab.say(f"{system.name} failed: {error.message}")
            else:
                clusters.append(made)
        for measurement in measurements:
            rows += await _measure(lab, clusters, measurement)
    return rows


async def alone_in_turn(
    lab: Lab, line: Line, turns: int, one_turn: Callable[[Lab, System], Awaitable[Figures]]
) -> list[Row]:
    """Measures what starts its own cluster: one system after the other, again and again.

    Raises:
        BenchFailure: It failed on raftreg. A failure of another system goes into the notes.
    """
    taken = _Taken((Raftreg(), *lab.beside))
    load_average = os.getloadavg()[0]
    for turn in range(turns):
        for system in taken.systems:
            lab.say(f"{line.name}: {system.name}, {turn + 1} of {turns}")
            await taken.take(lab, system, _one(one_turn(lab, system)))
    return taken.rows((line,), load_average, None)


async def _one(figures: Awaitable[Figures]) -> Sequence[Figures]:
    return [await figures]


async def _measure(lab: Lab, clusters: list[Cluster], measurement: Measurement) -> list[Row]:
    turns = measurement.repeats or lab.repeats
    watch = Bystanders(lambda: sum(one.all_cpu_s() for one in clusters))
    taken = _Taken(tuple(one.system for one in clusters))
    for turn in range(turns):
        for one in clusters:
            lab.say(f"{measurement.lines[0].name}: {one.system.name}, {turn + 1} of {turns}")
            await taken.take(lab, one.system, measurement.turn(one, turn))
    others = None if measurement.restarts else watch.share()
    return taken.rows(measurement.lines, watch.load_average, others)


class _Taken:
    """The figures of all turns, by system; ours is the first."""

    def __init__(self, systems: tuple[System, ...]) -> None:
        self.systems = systems
        self._turns: dict[str, list[Sequence[Figures]]] = {one.name: [] for one in systems}
        self._troubles: dict[str, str] = {}

    async def take(self, lab: Lab, system: System, turn: Awaitable[Sequence[Figures]]) -> None:
        """Awaits a turn."""
        try:
            self._turns[system.name].append(await turn)
        except BenchFailure as error:
            if system is self.systems[0]:
                raise
            self._troubles[system.name] = error.message.partition("\n")[0]
            lab.say(f"{system.name} failed: {error.message}")

    def rows(self, lines: tuple[Line, ...], load_average: float, others: float | None) -> list[Row]:
        """A row a line."""
        ours, *beside = self._turns.values()
        return [
            self._row(line, _joined(ours, i), [_joined(one, i) for one in beside]).under(
                load_average, others
            )
            for i, line in enumerate(lines)
        ]

    def _row(self, line: Line, ours: Figures, beside: list[Figures]) -> Row:
        theirs = beside[0] if beside else Figures([])
        return Row(
            name=line.name,
            unit=line.unit,
            samples=ours.values,
            more_is_better=line.more_is_better,
            consul_samples=theirs.values,
            consul=line.consul,
            etcd=line.etcd,
            goal=line.goal,
            note=ours.note,
            consul_note="; ".join(filter(None, [theirs.note, *self._troubles.values()])),
        )


def _joined(turns: list[Sequence[Figures]], position: int) -> Figures:
    """The figures of all turns for a line, with the note of the median turn."""
    figures = [turn[position] for turn in turns if turn[position].values]
    if not figures:
        return Figures([])
    ordered = sorted(figures, key=lambda one: sum(one.values))
    return Figures([v for one in figures for v in one.values], ordered[len(ordered) // 2].note)


def rate(tally: Tally, cpu_s: float | None = None) -> Figures:
    """Answers a second, with latency and what they cost."""
    note = f"p50 {tally.p50_ms:.1f} ms, p99 {tally.p99_ms:.1f} ms"
    if cpu_s is not None and tally.answers_total:
        note += f", {cpu_s / tally.answers_total * 1e6:.0f} µs of processor each"
    return Figures([tally.per_s], note)


async def timed(servers: Cluster, name: str, job: Job | DnsJob) -> tuple[Tally, float]:
    """Sends a load, and gives the processor seconds that process `name` used for it."""
    before_s = servers.cpu_s(name)
    tally = await servers.load(job)
    return tally, servers.cpu_s(name) - before_s


def milliseconds(sorted_s: list[float], share: float) -> float:
    """A percentile of sorted seconds."""
    return percentile(sorted_s, share) * 1000
