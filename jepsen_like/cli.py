"""The command line: `python -m jepsen_like run|check|judge|matrix|list|prove|figures`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from jepsen_like import perform
from jepsen_like.folder import Folder, NoRun
from jepsen_like.ground import sandbox
from jepsen_like.ground.api import Need
from jepsen_like.ground.capabilities import capabilities, loopback_only
from jepsen_like.matrix import Matrix, choose
from jepsen_like.nemeses import FAULTS
from jepsen_like.nemeses.combination import MIXED, NONE, Unable, UnknownName, missing
from jepsen_like.perform import Order
from jepsen_like.workloads import WORKLOADS

_RESULTS: Final = Path("jepsen-results")
_SEED_MAX: Final = 2**32
_EXITS: Final = """\b
Exit codes:
  0    valid: no anomaly, and every fault that decides is proved to have acted
  1    an anomaly
  2    usage: no such name, or this machine can't do it
  3    unknown: nothing could be decided, or a fault never acted
  130  interrupted (143 by SIGTERM); the folder holds what was recorded until then
"""


class Options(click.ParamType):  # type: ignore[type-arg]  # generic in its stubs only
    """NAME=JSON; text that is no JSON is taken as it is."""

    name = "name=json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Splits it; fails when there is no name."""
        name, sign, text = str(value).partition("=")
        if not name.isidentifier() or not sign:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        try:
            return name, msgspec.json.decode(text)
        except msgspec.DecodeError:
            return name, text


@click.group(epilog=_EXITS, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Break a real raftreg cluster, and decide from its clients' record alone what held."""


@cli.command(epilog=_EXITS)
@click.option("--workload", required=True, help="What clients do; `list` names all.")
@click.option(
    "--nemesis",
    required=True,
    help="A fault, several as a+b, `mixed` or `none`; `list` names all.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(1, 86_400),
    default=120,
    show_default=True,
    help="Seconds of load.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 100_000),
    default=200,
    show_default=True,
    help="Operations a second, of all workers together.",
)
@click.option("--concurrency", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option(
    "--nodes", type=click.IntRange(1, 15), default=5, show_default=True, help="Number of servers."
)
@click.option("--seed", type=click.IntRange(0, _SEED_MAX), help="Of everything random.")
@click.option(
    "--agents", type=click.IntRange(0, 100), help="Number of agents, if more than needed."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run.  [default: jepsen-results/WORKLOAD-NEMESIS-SEED-DATE]",
)
@click.option(
    "--option", "options", type=Options(), multiple=True, help="Argument of the workload."
)
@click.option("--plant", hidden=True, help="A known bug to switch on.")
@click.option("--keep-data", is_flag=True, help="Keep the servers' data directories.")
@click.option("--quiet", is_flag=True, help="Print the verdict only.")
@click.option(
    "--no-root",
    is_flag=True,
    envvar="JEPSEN_LIKE_NO_ROOT",
    help="Use the loopback and faults of processes only, also where more is permitted.",
)
def run(
    seed: int | None,
    out: Path | None,
    options: tuple[tuple[str, Any], ...],
    no_root: bool,
    time_limit: float,
    **rest: Any,
) -> None:
    """Run a workload under a nemesis, and check what the clients saw."""
    seed = SystemRandom().randrange(_SEED_MAX) if seed is None else seed
    order = Order(
        seed=seed,
        out=(out or _default_folder(rest["workload"], rest["nemesis"], seed)).absolute(),
        options=dict(options),
        root=not no_root,
        time_limit_s=time_limit,
        **rest,
    )
    sys.exit(_run(order, Console(stderr=False)))


def _run(order: Order, console: Console) -> int:
    lacks = _lacks(order.root)
    try:
        job = perform.prepare(order, lacks)
        if Need.NETWORK not in lacks and not sandbox.inside():
            return sandbox.enter([sys.executable, "-m", "jepsen_like", *order.arguments()])
        if Need.NETWORK in lacks and not order.quiet:
            console.print(f"hosts share the loopback: {lacks[Need.NETWORK]}", style="yellow")
        return perform.perform(job, lacks, console)
    except (UnknownName, Unable, NoRun) as error:
        raise click.UsageError(str(error)) from error


def _lacks(root: bool) -> dict[Need, str]:
    found = capabilities() if root else loopback_only("--no-root was given")
    return found.lacks()


def _default_folder(workload: str, nemesis: str, seed: int) -> Path:
    date = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return _RESULTS / f"{workload}-{nemesis}-{seed}-{date}"


@cli.command(epilog=_EXITS)
@click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path))
def check(folder: Path) -> None:
    """Decide again from the record of a run; write its results.json and report.html anew."""
    console = Console()
    place = Folder(folder)
    try:
        results = perform.settle(place, console if console.is_terminal else None)
    except NoRun as error:
        raise click.UsageError(str(error)) from error
    perform.tell(results, place, console)
    sys.exit(perform.exit_code(results))


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
def judge(files: tuple[str, ...]) -> None:
    """Decide whether recorded histories are linearizable: one JSON line a file.

    The formats are told apart by content. Exit code 0 when every file could be judged.
    """
    from jepsen_like import judge as judging  # noqa: PLC0415  # only this command needs it

    sys.exit(judging.main(files))


@cli.command(epilog=_EXITS)
@click.option("--full", "full", is_flag=True, help="Every workload with every nemesis; hours.")
@click.option("--short", "short", is_flag=True, help="Each of both at least once.  [default]")
@click.option("--only", multiple=True, help="WORKLOAD, NEMESIS or WORKLOADxNEMESIS; repeatable.")
@click.option("--time-limit", type=click.FloatRange(1, 86_400), help="Seconds of load in each run.")
@click.option("--nodes", type=click.IntRange(1, 15), help="Number of servers.")
@click.option("--rate", type=click.FloatRange(0.1, 100_000), help="Operations a second.")
@click.option("--seed", type=click.IntRange(0, _SEED_MAX), help="Each run's own derives from it.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the matrix.  [default: jepsen-results/matrix-DATE]",
)
@click.option("--resume", is_flag=True, help="Go on in the folder given by --out.")
@click.option(
    "--write",
    "document",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Document whose section <!-- matrix --> gets the table.",
)
@click.option("--no-root", is_flag=True, envvar="JEPSEN_LIKE_NO_ROOT", help="As for `run`.")
def matrix(
    full: bool,
    short: bool,
    only: tuple[str, ...],
    seed: int | None,
    out: Path | None,
    resume: bool,
    no_root: bool,
    **limits: Any,
) -> None:
    """Run many workloads under many nemeses, one after the other."""
    if full and short:
        raise click.UsageError("--full and --short exclude each other")
    if resume and out is None:
        raise click.UsageError("--resume needs --out: the folder to go on in")
    date = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    try:
        cells = choose(_lacks(not no_root), only, full=full)
        plan = Matrix(
            cells=cells,
            out=(out or _RESULTS / f"matrix-{date}").absolute(),
            seed=SystemRandom().randrange(_SEED_MAX) if seed is None else seed,
            full=full,
            root=not no_root,
            resume=resume,
            **limits,
        )
        sys.exit(plan.run(Console()))
    except (UnknownName, Unable, NoRun) as error:
        raise click.UsageError(str(error)) from error


@cli.command("list")
def list_command() -> None:
    """Name workloads and nemeses, and say what this machine can do and why not."""
    console, lacks = Console(), _lacks(root=True)
    table = Table("workload", "agents", "what", title="Workloads", title_justify="left")
    for name, workload in sorted(WORKLOADS.items()):
        table.add_row(name, str(workload.agents or ""), _summary(workload))
    console.print(table)
    table = Table("nemesis", "needs", "what", title="Nemeses", title_justify="left")
    table.add_row(NONE, "", "Leaves the cluster in peace.")
    for name, fault in FAULTS.items():
        if name != NONE:
            able = "" if missing(fault, lacks) is None else " (not here)"
            needs = ", ".join(sorted(need.value for need in fault.needs))
            table.add_row(name, needs + able, _summary(fault))
    table.add_row(MIXED, "", "One or two of those that this machine can do, chosen by the seed.")
    table.add_row("a+b", "", "Faults of different families at the same time.")
    console.print(table)
    for need in Need:
        console.print(f"{need.value}: {lacks.get(need, 'available')}", markup=False)


def _summary(kind: type) -> str:
    """The first sentence of a class's docstring, or of its module's where it says nothing."""
    text = kind.__doc__ or ""
    if text.startswith("See the module"):
        text = sys.modules[kind.__module__].__doc__ or ""
    return " ".join(text.split("\n\n")[0].split())


@cli.command()
@click.argument("bugs", nargs=-1)
@click.option("--no-root", is_flag=True, envvar="JEPSEN_LIKE_NO_ROOT", help="As for `run`.")
def prove(bugs: tuple[str, ...], no_root: bool) -> None:
    """Switch on known bugs, one after the other, and show that each is caught."""
    from jepsen_like.planted import prove as proving  # noqa: PLC0415  # only this command needs it

    sys.exit(proving.main(bugs, root=not no_root))


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--quick", is_flag=True, help="Few and short: to see that it works.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of figures.")
@click.option(
    "--write", type=click.Path(dir_okay=False, path_type=Path), help="Document to fill in."
)
def figures(names: tuple[str, ...], quick: bool, out: Path | None, write: Path | None) -> None:
    """Measure the figures of docs/resilience.md."""
    from jepsen_like import figures as measuring  # noqa: PLC0415  # only this command needs it

    sys.exit(measuring.main(names, quick, out, write))


def main() -> None:
    """Entry point of `python -m jepsen_like`."""
    try:
        cli.main(prog_name="python -m jepsen_like", standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)
