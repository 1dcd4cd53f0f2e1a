"""Proves the harness: each known bug must be caught by the run that is named for it.

A run is a process of its own, `python -m jepsen_like run --plant BUG …`, and its folder decides. A
bug counts as caught when the run found one of the anomalies that the bug is to show, or a process
that ended by itself: many bugs of consensus are noticed by raftreg's own invariants, and a server
that stops loudly is found, too.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from jepsen_like.checkers.verdict import Valid
from jepsen_like.folder import Folder, NoRun, Results
from jepsen_like.ground.api import Need
from jepsen_like.ground.capabilities import capabilities, loopback_only
from jepsen_like.nemeses import FAULTS
from jepsen_like.nemeses.combination import NONE, missing, parts, unknown
from jepsen_like.planted import BUGS
from jepsen_like.planted.bug import Bug

SEEDS_MAX: Final = 5
CRASH: Final = "crash"
_RUN_S_MAX: Final = 300.0  #: building, load, healing and final operations of one run
_USAGE: Final = 2


class Attempt(msgspec.Struct, frozen=True):
    """One run with a bug.

    Attributes:
        seed: Its seed.
        caught: The harness found the bug.
        how: The anomalies that showed it, or why nothing did.
    """

    seed: int
    caught: bool
    how: str


def command(bug: Bug, seed: int, out: Path, *, root: bool = True) -> list[str]:
    """The run that catches a bug, as a command line."""
    options = (f"{name}={msgspec.json.encode(it).decode()}" for name, it in bug.options.items())
    return [
        *(sys.executable, "-m", "jepsen_like", "run", "--plant", bug.name, "--quiet"),
        *("--workload", bug.workload, "--nemesis", bug.nemesis, "--seed", str(seed)),
        *("--time-limit", f"{bug.time_limit_s:g}", "--rate", f"{bug.rate:g}"),
        *("--concurrency", str(bug.concurrency), "--nodes", str(bug.nodes), "--out", str(out)),
        *(part for option in options for part in ("--option", option)),
        *(() if root else ("--no-root",)),
    ]


def attempt(bug: Bug, seed: int, out: Path, *, root: bool = True) -> Attempt:
    """Runs a bug once and says whether it was caught.

    Args:
        bug: Which.
        seed: Of everything random.
        out: Folder of the run; it must not exist.
        root: Use namespaces and disks where the machine has them.
    """
    arguments = command(bug, seed, out, root=root)
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=_RUN_S_MAX, check=False
        )
        results = Folder(out).read_results()
    except subprocess.TimeoutExpired:
        return Attempt(seed, caught=False, how=f"the run did not end within {_RUN_S_MAX:g} s")
    except NoRun as error:
        said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        return Attempt(seed, caught=False, how=f"{error}; {said}")
    return judge(bug, seed, results)


def judge(bug: Bug, seed: int, results: Results) -> Attempt:
    """Decides from the results of a run whether it caught the bug."""
    found = {anomaly.kind for verdict in results.verdicts for anomaly in verdict.anomalies}
    shown = sorted(found & (bug.kinds | {CRASH}))
    if results.valid is Valid.FALSE and shown:
        return Attempt(seed, caught=True, how=", ".join(shown))
    return Attempt(seed, caught=False, how=f"{results.valid.value}: {results.why}")


def attempts(bug: Bug, folder: Path, *, root: bool) -> Iterator[Attempt]:
    """Runs seed after seed until the bug is caught, or `SEEDS_MAX` are over."""
    for seed in range(1, SEEDS_MAX + 1):
        done = attempt(bug, seed, folder / f"{bug.name}-{seed}", root=root)
        yield done
        if done.caught:
            return


def lacking(bug: Bug, lacks: dict[Need, str]) -> str | None:
    """Why this machine can't do the run of a bug; None when it can."""
    faults = [] if bug.nemesis == NONE else parts(bug.nemesis, FAULTS)
    reasons = (missing(fault, lacks) for fault in faults)
    return next((reason for reason in reasons if reason is not None), None)


def main(names: Sequence[str], *, root: bool = True) -> int:
    """Proves all bugs, or those named; prints a table.

    Args:
        names: Of bugs; empty for all.
        root: Use namespaces and disks where the machine has them.

    Returns:
        0 when every one was caught, 1 when one was not (or could not be tried), 2 for a name that
        is none.
    """
    console = Console()
    wrong = [name for name in names if name not in BUGS]
    if wrong:
        console.print(unknown("planted bug", wrong[0], BUGS), markup=False)
        return _USAGE
    lacks = (capabilities() if root else loopback_only("no root")).lacks()
    with tempfile.TemporaryDirectory(prefix="jepsen-prove-") as folder:
        rows = [
            _prove(BUGS[name], Path(folder), lacks, console, root=root) for name in names or BUGS
        ]
    console.print(_table(rows))
    missed = sum(not caught for _, _, caught in rows)
    console.print(f"{len(rows) - missed} of {len(rows)} known bugs were caught")
    return 1 if missed else 0


def _prove(
    bug: Bug, folder: Path, lacks: dict[Need, str], console: Console, *, root: bool
) -> tuple[Bug, str, bool]:
    reason = lacking(bug, lacks)
    if reason is not None:
        return bug, f"not tried: {reason}", False
    last = Attempt(0, caught=False, how="no attempt")
    for last in attempts(bug, folder, root=root):
        word = "caught" if last.caught else "missed"
        console.print(f"{bug.name}, seed {last.seed}: {word}: {last.how}", markup=False)
    return bug, f"seed {last.seed}: {last.how}", last.caught


def _table(rows: Iterable[tuple[Bug, str, bool]]) -> Table:
    table = Table("bug", "what", "workload x nemesis", "caught", "by")
    for bug, how, caught in rows:
        mark = "yes" if caught else "[bold red]no[/]"
        table.add_row(bug.name, bug.what, f"{bug.workload} x {bug.nemesis}", mark, how)
    return table
