"""Many runs, one after the other: which ones, their table while they go, and what came of them.

Each run is a process of its own, so that none can spoil another; its folder is WORKLOAD-NEMESIS
below the matrix's, which also gets matrix.json and index.html after every run.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jepsen_like import report
from jepsen_like.checkers.verdict import Valid
from jepsen_like.folder import Folder, NoRun, Results
from jepsen_like.ground.api import Need
from jepsen_like.nemeses import FAULTS
from jepsen_like.nemeses.combination import MIXED, NONE, UnknownName, missing, unknown
from jepsen_like.perform import EXIT_ANOMALY, EXIT_SIGNAL, EXIT_VALID, Order
from jepsen_like.workloads import WORKLOADS

SHORT_S: Final = 10.0
FULL_S: Final = 30.0
SHORT_NODES: Final = 3
FULL_NODES: Final = 5
SHORT_RATE: Final = 100.0
FULL_RATE: Final = 200.0
#: Longest a run may take beyond its load: start, healing, final operations, checking.
_BEYOND_S_MAX: Final = 600.0
_POLL_S: Final = 0.5
_MARKS: Final = ("<!-- matrix -->", "<!-- /matrix -->")
_BETWEEN: Final = "x"  #: as in "registerxkill-leader"

#: Nemeses whose meaning is tied to a workload: these meet in the short matrix.
_AFFINITY: Final = {
    "partition-agents": "answers",
    "partition-leader": "register",
    "pause-leader": "register",
    "kill-all": "bank",
    "power-loss-all": "append",
    "kill-leader": "once",
    "partition-flapping": "watch",
}


class Cell(msgspec.Struct, frozen=True, order=True):
    """One run of the matrix."""

    workload: str
    nemesis: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.workload}-{self.nemesis}"


class Outcome(msgspec.Struct, frozen=True):
    """What came of a cell: `results` is None where the run left none, then `why` tells."""

    workload: str
    nemesis: str
    folder: str
    results: Results | None
    why: str = ""

    @property
    def valid(self) -> Valid:
        """The verdict; no results are UNKNOWN."""
        return Valid.UNKNOWN if self.results is None else self.results.valid


def choose(lacks: Mapping[Need, str], only: Sequence[str], *, full: bool) -> list[Cell]:
    """The cells to run, on this machine.

    Args:
        lacks: What the machine can't offer.
        only: Names of workloads, nemeses or cells ("WORKLOADxNEMESIS"); empty is all.
        full: Every workload with every nemesis; else each workload and each nemesis at least once.

    Raises:
        UnknownName: `only` names nothing.
    """
    nemeses = [NONE, *(n for n, kind in FAULTS.items() if n != NONE and not missing(kind, lacks))]
    nemeses.append(MIXED)
    everything = [Cell(w, n) for w, n in itertools.product(WORKLOADS, nemeses)]
    wanted = [_cells_of(name, everything) for name in only]
    cells = everything if full else covering(list(WORKLOADS), nemeses)
    if not wanted:
        return cells
    named = set().union(*wanted)
    # A cell named as such is run even when the short matrix would not have it.
    exact = {cell for found in wanted if len(found) == 1 for cell in found}
    chosen = [cell for cell in everything if cell in exact or (cell in named and cell in cells)]
    return chosen or sorted(named)


def _cells_of(name: str, everything: Sequence[Cell]) -> set[Cell]:
    found = {
        cell
        for cell in everything
        if name in {cell.workload, cell.nemesis, f"{cell.workload}{_BETWEEN}{cell.nemesis}"}
    }
    if not found:
        known = {name for cell in everything for name in (cell.workload, cell.nemesis)}
        raise UnknownName(unknown("workload, nemesis or cell of both", name, known))
    return found


def covering(workloads: Sequence[str], nemeses: Sequence[str]) -> list[Cell]:
    """Few cells in which each workload and each nemesis occurs, workloads about equally often."""
    uses: Counter[str] = Counter(dict.fromkeys(workloads, 0))
    cells = []
    for nemesis in nemeses:
        workload = _AFFINITY.get(nemesis, "")
        if workload not in uses:
            workload = min(uses, key=lambda name: uses[name])
        uses[workload] += 1
        cells.append(Cell(workload, nemesis))
    spare = [nemesis for nemesis in nemeses if nemesis != NONE] or list(nemeses)
    unused = [name for name, count in uses.items() if not count]
    return cells + [Cell(w, n) for w, n in zip(unused, itertools.cycle(spare), strict=False)]


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """A matrix to run.

    Attributes:
        cells: In the order of running.
        out: Folder of the matrix.
        seed: The seed of a cell derives from it and the cell's names.
        full: Chooses the defaults of the three limits.
        root: As in `Order`.
        resume: Keep cells of `out` that have results and are valid; run the others.
        time_limit, nodes, rate: Limits of each run; None is the default.
        document: Gets the table, between `<!-- matrix -->` and `<!-- /matrix -->`.
    """

    cells: list[Cell]
    out: Path
    seed: int
    full: bool
    root: bool = True
    resume: bool = False
    time_limit: float | None = None
    nodes: int | None = None
    rate: float | None = None
    document: Path | None = None

    def order(self, cell: Cell) -> Order:
        """What is asked of the run of a cell."""
        return Order(
            workload=cell.workload,
            nemesis=cell.nemesis,
            out=self.out / cell.name,
            seed=Random(f"{self.seed}/{cell.name}").randrange(2**32),
            time_limit_s=self.time_limit or (FULL_S if self.full else SHORT_S),
            nodes=self.nodes or (FULL_NODES if self.full else SHORT_NODES),
            rate=self.rate or (FULL_RATE if self.full else SHORT_RATE),
            quiet=True,
            root=self.root,
        )

    def run(self, console: Console) -> int:
        """Runs all cells; gives the exit code: 0 only if every one is valid.

        Raises:
            NoRun: The folder holds something and `resume` is not set.
        """
        if not self.resume and self.out.exists() and any(self.out.iterdir()):
            raise NoRun(f"{self.out} is not empty; --resume goes on in it")
        self.out.mkdir(parents=True, exist_ok=True)
        outcomes: list[Outcome] = []
        with _Interruptible() as interrupt, _table(console, len(self.cells)) as show:
            for cell in self.cells:
                if interrupt.number:
                    break
                show(outcomes, cell)
                outcome = self._kept(cell) or self._run(cell, interrupt)
                outcomes.append(outcome)
                show(outcomes, None)
                self._write(outcomes)
        if self.document is not None:
            fill_in(self.document, markdown(outcomes, self.seed))
        return self._conclude(outcomes, interrupt.number, console)

    def _kept(self, cell: Cell) -> Outcome | None:
        """What an earlier turn left of a cell, if it is good; anything else makes way."""
        folder = self.out / cell.name
        if not self.resume or not folder.exists():
            return None
        outcome = _outcome(cell, folder, "")
        if outcome.valid is Valid.TRUE:
            return outcome
        shutil.rmtree(folder)
        return None

    def _run(self, cell: Cell, interrupt: _Interruptible) -> Outcome:
        order = self.order(cell)
        log = self.out / f"{cell.name}.log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", "jepsen_like", *order.arguments()]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
            )
            code = interrupt.wait(process, order.time_limit_s + _BEYOND_S_MAX)
        said = log.read_text("utf-8", "replace").strip()
        why = said.splitlines()[-1] if said else f"the run ended with exit code {code}"
        return _outcome(cell, order.out, why)

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        text = msgspec.json.format(msgspec.json.encode(outcomes), indent=2)
        (self.out / "matrix.json").write_bytes(text + b"\n")
        report.matrix_index(self.out)

    def _conclude(self, outcomes: Sequence[Outcome], number: int, console: Console) -> int:
        bad = [one for one in outcomes if one.valid is not Valid.TRUE]
        for one in bad:
            why = one.why if one.results is None else one.results.why
            text = f"{one.workload} x {one.nemesis}: {why}"
            console.print(text, style="red", markup=False, soft_wrap=True)
        counts = Counter(one.valid for one in outcomes)
        operations = sum(one.results.operations for one in outcomes if one.results is not None)
        console.print(
            f"{len(outcomes)} of {len(self.cells)} runs, {operations} operations: "
            f"{counts[Valid.TRUE]} valid, {counts[Valid.FALSE]} with anomalies, "
            f"{counts[Valid.UNKNOWN]} unknown; seed {self.seed}; {self.out / 'index.html'}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if number:
            return EXIT_SIGNAL + number
        return EXIT_ANOMALY if bad else EXIT_VALID


def markdown(outcomes: Sequence[Outcome], seed: int) -> str:
    """The table for a document: nemeses down, workloads across.

    Each cell: operations acknowledged, and how often faults are proved to have acted.
    """
    workloads = sorted({one.workload for one in outcomes})
    cells = {(one.nemesis, one.workload): one for one in outcomes}
    lines = [f"| nemesis | {' | '.join(workloads)} |", "|---|" + "---|" * len(workloads)]
    for nemesis in dict.fromkeys(one.nemesis for one in outcomes):
        row = (_brief(cells.get((nemesis, workload))) for workload in workloads)
        lines.append(f"| {nemesis} | {' | '.join(row)} |")
    counts = Counter(one.valid for one in outcomes)
    kept = [one.results for one in outcomes if one.results is not None]
    acted = sum(row.acted for results in kept for row in results.faults.values())
    lines += [
        "",
        f"{len(outcomes)} runs, {sum(one.operations for one in kept)} operations, {acted} faults "
        f"that acted; {counts[Valid.FALSE]} runs with anomalies, {counts[Valid.UNKNOWN]} unknown; "
        f"seed {seed}. A cell: acknowledged operations, faults that acted.",
    ]
    return "\n".join(lines) + "\n"


def _brief(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    if outcome.results is None or outcome.valid is Valid.UNKNOWN:
        return "**unknown**"
    acted = sum(row.acted for row in outcome.results.faults.values())
    text = f"{outcome.results.acknowledged}, {acted}"
    return text if outcome.valid is Valid.TRUE else f"**anomaly** {text}"


def fill_in(document: Path, table: str) -> None:
    """Replaces what a document has between its marks.

    Raises:
        NoRun: It has none.
    """
    before, start, rest = document.read_text("utf-8").partition(_MARKS[0])
    _, end, after = rest.partition(_MARKS[1])
    if not start or not end:
        raise NoRun(f"{document} has no section {_MARKS[0]} … {_MARKS[1]}")
    document.write_text(f"{before}{start}\n{table}{end}{after}", "utf-8")


def _outcome(cell: Cell, folder: Path, why: str) -> Outcome:
    try:
        results = Folder(folder).read_results()
    except NoRun as error:
        return Outcome(cell.workload, cell.nemesis, folder.name, None, why or str(error))
    return Outcome(cell.workload, cell.nemesis, folder.name, results, results.why)


class _Interruptible:
    """Passes SIGINT and SIGTERM on to the run that is under way, and remembers the first."""

    def __init__(self) -> None:
        self.number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> _Interruptible:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._got)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave

    def _got(self, number: int, _frame: FrameType | None) -> None:
        self.number = self.number or number
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, process: subprocess.Popen[bytes], limit_s: float) -> int:
        """Waits for a run; kills one that takes longer than it can."""
        self._process = process
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            self._process = None


_Show = Callable[[Sequence[Outcome], Cell | None], None]


@contextlib.contextmanager
def _table(console: Console, total: int) -> Iterator[_Show]:
    """A table that grows on a terminal; elsewhere a line for each run that has ended."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda done, now: live.update(_rows(done, now, total), refresh=True)
        return

    def line(done: Sequence[Outcome], now: Cell | None) -> None:
        if now is None:
            words = (cell.plain for cell in _row(done[-1]))
            text = Text(f"[{len(done)} of {total}] {'  '.join(words)}")
            console.print(text, soft_wrap=True)

    yield line


def _rows(outcomes: Sequence[Outcome], now: Cell | None, total: int) -> Table:
    table = Table("workload", "nemesis", "verdict", "operations", "faults", title_justify="left")
    table.title = f"{len(outcomes)} of {total}"
    for outcome in outcomes:
        table.add_row(*_row(outcome))
    if now is not None:
        table.add_row(now.workload, now.nemesis, "running", "", "")
    return table


def _row(outcome: Outcome) -> list[Text]:
    style = {Valid.TRUE: "green", Valid.FALSE: "bold red", Valid.UNKNOWN: "bold yellow"}
    word = {Valid.TRUE: "valid", Valid.FALSE: "ANOMALY", Valid.UNKNOWN: "UNKNOWN"}
    results = outcome.results
    faults = {} if results is None else results.faults
    acted = " ".join(f"{name} {row.acted}/{row.injected}" for name, row in faults.items())
    return [
        Text(outcome.workload),
        Text(outcome.nemesis),
        Text(word[outcome.valid], style=style[outcome.valid]),
        Text("" if results is None else f"{results.acknowledged}/{results.operations} ok"),
        Text(acted),
    ]
