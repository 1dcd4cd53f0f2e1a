"""From an order on the command line to a decided folder: validate, build, run, decide, report."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from jepsen_like import report
from jepsen_like.checkers.verdict import Valid
from jepsen_like.decide import decide
from jepsen_like.folder import Folder, NoRun, Results, Run
from jepsen_like.generator import child
from jepsen_like.ground.api import Need
from jepsen_like.ground.build import LocalGround, NotReady, Settings, build
from jepsen_like.ground.network import NetworkLost
from jepsen_like.http import Endpoint, HttpDoor
from jepsen_like.interrupt import Interrupt
from jepsen_like.nemeses import FAULTS
from jepsen_like.nemeses.combination import Menu, Unable, UnknownName, menu, unknown
from jepsen_like.progress import Progress, busy
from jepsen_like.runner import Plan, Runner
from jepsen_like.workloads import WORKLOADS
from jepsen_like.workloads.base import Workload

EXIT_VALID: Final = 0
EXIT_ANOMALY: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNKNOWN: Final = 3
EXIT_SIGNAL: Final = 128  #: + the number of the signal

_EXITS: Final = {
    Valid.TRUE: EXIT_VALID,
    Valid.FALSE: EXIT_ANOMALY,
    Valid.UNKNOWN: EXIT_UNKNOWN,
}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asked for.

    Attributes:
        workload, nemesis: Names.
        out: Folder of the run.
        seed: Of everything random.
        time_limit_s: Length of the load.
        rate: Operations a second.
        concurrency: Number of workers.
        nodes: Number of servers.
        agents: Number of agents; None is as many as workload and nemesis need.
        plant: A known bug to switch on.
        options: Arguments of the workload's constructor.
        keep_data: Copy the servers' data into the folder at the end.
        quiet: Only the verdict is printed.
        root: Use namespaces, disks and clocks if this machine has them.
    """

    workload: str
    nemesis: str
    out: Path
    seed: int
    time_limit_s: float = 120.0
    rate: float = 200.0
    concurrency: int = 10
    nodes: int = 5
    agents: int | None = None
    plant: str | None = None
    options: dict[str, Any] = {}
    keep_data: bool = False
    quiet: bool = False
    root: bool = True

    def arguments(self) -> list[str]:
        """The command line of this order, after `python -m jepsen_like`."""
        optional: list[tuple[str, str | None]] = [
            ("--agents", None if self.agents is None else str(self.agents)),
            ("--plant", self.plant),
        ]
        flags = {"--keep-data": self.keep_data, "--quiet": self.quiet, "--no-root": not self.root}
        return [
            *("run", "--workload", self.workload, "--nemesis", self.nemesis),
            *("--time-limit", f"{self.time_limit_s:g}", "--rate", f"{self.rate:g}"),
            *("--concurrency", str(self.concurrency), "--nodes", str(self.nodes)),
            *("--seed", str(self.seed), "--out", str(self.out)),
            *(part for flag, text in optional if text is not None for part in (flag, text)),
            *(part for name in self.options for part in ("--option", self._option(name))),
            *(flag for flag, on in flags.items() if on),
        ]

    def _option(self, name: str) -> str:
        return f"{name}={msgspec.json.encode(self.options[name]).decode()}"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """An order that can be done: its names exist and the machine has what it needs.

    Attributes:
        order: It.
        workload: The object that makes and does the operations.
        menu: What the nemesis may inject.
        needs: Controls that the ground must have.
        agents, spares: How many hosts of these kinds.
    """

    order: Order
    workload: Workload
    menu: Menu
    needs: frozenset[Need]
    agents: int
    spares: int


def workload_of(name: str, options: Mapping[str, Any]) -> Workload:
    """Makes a workload.

    Raises:
        UnknownName: There is none of that name.
        Unable: It does not take these options.
    """
    if name not in WORKLOADS:
        raise UnknownName(unknown("workload", name, WORKLOADS))
    try:
        return WORKLOADS[name](**options)
    except (TypeError, ValueError) as error:
        raise Unable(f"workload {name}: {error}") from error


def prepare(order: Order, lacks: Mapping[Need, str]) -> Job:
    """Checks an order.

    Args:
        order: It.
        lacks: What the machine can't offer, each with the reason.

    Raises:
        UnknownName: A workload, nemesis or bug that does not exist.
        Unable: The machine, or a cluster of this size, can't do it.
    """
    workload = workload_of(order.workload, order.options)
    _check_plant(order.plant)
    kinds = menu(order.nemesis, FAULTS, lacks, child(order.seed, "menu"), agents=_agents(order))
    wanted = [workload.agents, *(fault.agents for fault in kinds.faults)]
    agents = order.agents if order.agents is not None else max(wanted)
    if agents < max(wanted):
        raise Unable(f"{order.workload} under {order.nemesis} needs {max(wanted)} agents or more")
    return Job(
        order=order,
        workload=workload,
        menu=kinds,
        needs=frozenset(need for fault in kinds.faults for need in fault.needs),
        agents=agents,
        spares=max((fault.spares for fault in kinds.faults), default=0),
    )


def _agents(order: Order) -> int:
    """How many agents there are if the nemesis asks for none."""
    return order.agents if order.agents is not None else WORKLOADS[order.workload].agents


def _check_plant(name: str | None) -> None:
    if name is None:
        return
    from jepsen_like.planted import BUGS  # noqa: PLC0415  # hardly any run needs them

    if name not in BUGS:
        raise UnknownName(unknown("planted bug", name, BUGS))


def perform(job: Job, capabilities: Mapping[Need, str], console: Console) -> int:
    """Does the job, decides and reports; gives the exit code.

    Args:
        job: What.
        capabilities: What the machine lacks, for the record.
        console: Where to tell of it.

    Raises:
        NoRun: The folder can't be used.
    """
    order = job.order
    folder = Folder(order.out)
    folder.make()
    shown = None if order.quiet else console
    progress = Progress(shown, f"{order.workload} x {order.nemesis}", order.time_limit_s)
    try:
        number = asyncio.run(_conduct(job, capabilities, folder, progress))
    except (NotReady, NetworkLost) as error:
        console.print(f"the cluster did not come up: {error}", style="red", markup=False)
        number = 0
    results = settle(folder, shown)
    tell(results, folder, console)
    return EXIT_SIGNAL + number if number else exit_code(results)


async def _conduct(
    job: Job, capabilities: Mapping[Need, str], folder: Folder, progress: Progress
) -> int:
    """Builds the ground and runs; gives the number of the signal that ended it early, or 0."""
    task = asyncio.current_task()
    assert task is not None
    interrupt = Interrupt(lambda _: task.cancel())
    with interrupt.listen():
        try:
            folder.write_run(_record(job, capabilities))
            progress.say(f"{folder.path}: building {job.order.nodes} servers, {job.agents} agents")
            async with _stage(job, folder) as ground:
                folder.write_run(_record(job, capabilities, ground))
                await _run(job, ground, folder, progress, interrupt)
                await _leave(ground, job, folder, orderly=not interrupt.number)
        except asyncio.CancelledError:
            if not interrupt.number:
                raise
    return interrupt.number


@contextlib.asynccontextmanager
async def _stage(job: Job, folder: Folder) -> AsyncIterator[LocalGround]:
    order = job.order
    more: dict[str, Any] = {}
    if order.plant is not None:
        more["command_prefix"] = (sys.executable, "-m", "jepsen_like.planted", order.plant, "--")
    settings = Settings.of_needs(
        job.needs,
        logs=folder.logs,
        servers=order.nodes,
        spares=job.spares,
        agents=job.agents,
        loopback=not order.root,
        seed=order.seed,
        **more,
    )
    async with build(settings) as ground:
        yield ground


async def _run(
    job: Job, ground: LocalGround, folder: Folder, progress: Progress, interrupt: Interrupt
) -> None:
    order = job.order
    plan = Plan(
        workload=job.workload,
        menu=job.menu,
        seed=order.seed,
        time_limit_s=order.time_limit_s,
        rate=order.rate,
        concurrency=order.concurrency,
    )
    endpoints = {name: Endpoint(address) for name, address in ground.addresses.items()}
    async with HttpDoor(endpoints) as door:
        await Runner(plan, ground, door, folder, progress, interrupt).run()


async def _leave(ground: LocalGround, job: Job, folder: Folder, *, orderly: bool) -> None:
    """Stops the processes, by SIGTERM where there is time; keeps their data if asked to."""
    hosts = ground.hosts
    if orderly:
        await asyncio.gather(*(host.stop() for host in hosts))
    if not job.order.keep_data:
        return
    await asyncio.gather(*(host.kill() for host in hosts))
    for host in ground.servers:
        if host.data_dir.is_dir():
            target = folder.path / "data" / host.name
            await asyncio.to_thread(shutil.copytree, host.data_dir, target)


def settle(folder: Folder, console: Console | None) -> Results:
    """Decides from the folder alone, and writes results.json and the report anew.

    Raises:
        NoRun: It is not the folder of a run.
    """
    run = folder.read_run()
    try:
        workload = workload_of(run.workload, run.options)
    except (UnknownName, Unable) as error:
        raise NoRun(f"{folder.run_json}: {error}") from error
    with busy(console, "checking the history"):
        results = decide(folder, run, workload.checker())
    folder.write_results(results)
    with busy(console, "writing the report"):
        try:
            report.write(folder.path)
        except Exception as error:  # noqa: BLE001  # the verdict stands, with a page or without
            Console(stderr=True).print(f"no report: {type(error).__name__}: {error}", markup=False)
    return results


def exit_code(results: Results) -> int:
    """What the program ends with."""
    return _EXITS[results.valid]


def tell(results: Results, folder: Folder, console: Console) -> None:
    """Prints the verdict in a few lines."""
    style = {Valid.TRUE: "green", Valid.FALSE: "bold red", Valid.UNKNOWN: "bold yellow"}
    word = {Valid.TRUE: "valid", Valid.FALSE: "ANOMALY", Valid.UNKNOWN: "UNKNOWN"}
    verdict = f"{word[results.valid]}: {results.why}"
    console.print(verdict, style=style[results.valid], markup=False, soft_wrap=True)
    faults = ", ".join(f"{name} {row.acted}/{row.injected}" for name, row in results.faults.items())
    console.print(
        f"{results.operations} operations: {results.acknowledged} ok, {results.failed} failed, "
        f"{results.unknown} unknown; faults that acted: {faults or 'none'}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"{folder.report}", markup=False, highlight=False, soft_wrap=True)


def _record(job: Job, lacks: Mapping[Need, str], ground: LocalGround | None = None) -> Run:
    order = job.order
    return Run(
        workload=order.workload,
        nemesis=order.nemesis,
        time_limit_s=order.time_limit_s,
        rate=order.rate,
        concurrency=order.concurrency,
        nodes=order.nodes,
        agents=job.agents,
        seed=order.seed,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        command=["python", "-m", "jepsen_like", *order.arguments()],
        plant=order.plant,
        ground="loopback" if ground is None or ground.network is None else "namespaces",
        hosts={} if ground is None else ground.addresses,
        capabilities={need.value: lacks.get(need, "") for need in Need},
        versions=_versions(),
        options=order.options,
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "kernel": platform.release()}
    for name in ("raftreg", "pysyncobj", "aiohttp", "uvloop"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    found["cores"] = str(os.cpu_count() or 0)
    return found
