"""The page of a matrix: a table of workloads and nemeses that leads to the report of each run."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from jepsen_like.checkers.verdict import Valid
from jepsen_like.folder import Folder, NoRun, Results
from jepsen_like.report import words
from jepsen_like.report.page import page, put

RUNS_MAX: Final = 2_000
_WORDS: Final = {Valid.TRUE: "valid", Valid.FALSE: "anomaly", Valid.UNKNOWN: "unknown"}


class Cell(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        valid, word: Its verdict.
        href: To its report; to its folder where it has none.
        operations, acknowledged: How many.
        acted: Proved faults.
        why: The decision in a sentence.
        title: Seed and the decision.
    """

    valid: Valid
    word: str
    href: str
    operations: int
    acknowledged: int
    acted: int
    why: str
    title: str


def matrix_index(folder: Path) -> Path:
    """Writes index.html for the runs in the folders below `folder`, one or two levels down.

    Args:
        folder: Holds a folder for each run. One that has no readable results.json is listed as
            unknown.

    Returns:
        The page's path.

    Raises:
        OSError: The folder can't be read, or the page can't be written.
    """
    cells: dict[tuple[str, str], list[Cell]] = {}
    broken: list[str] = []
    for path in _runs(folder):
        try:
            results = Folder(path).read_results()
        except NoRun as error:
            broken.append(words.value(str(error), 400))
            continue
        key = (words.value(results.workload, 60), words.value(results.nemesis, 60))
        cells.setdefault(key, []).append(_cell(path, folder, results))
    return put(folder / "index.html", _render(folder, cells, broken))


def _runs(folder: Path) -> Iterator[Path]:
    """Folders of runs: those with a run.json or a results.json."""
    found = 0
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        candidates = [path] if _is_run(path) else sorted(p for p in path.iterdir() if p.is_dir())
        for candidate in candidates:
            if _is_run(candidate) and found < RUNS_MAX:
                found += 1
                yield candidate


def _is_run(path: Path) -> bool:
    folder = Folder(path)
    return folder.run_json.exists() or folder.results_json.exists()


def _cell(path: Path, folder: Path, results: Results) -> Cell:
    href = urllib.parse.quote(str(path.relative_to(folder)))
    why = words.value(results.why, 400)
    return Cell(
        valid=results.valid,
        word=_WORDS[results.valid],
        href=f"{href}/report.html" if Folder(path).report.exists() else f"{href}/",
        operations=results.operations,
        acknowledged=results.acknowledged,
        acted=sum(count.acted for count in results.faults.values()),
        why=why,
        title=f"seed {results.seed}: {why}",
    )


def _render(folder: Path, cells: dict[tuple[str, str], list[Cell]], broken: list[str]) -> str:
    every = [cell for some in cells.values() for cell in some]
    failed = [
        (workload, nemesis, cell)
        for (workload, nemesis), some in sorted(cells.items())
        for cell in some
        if cell.valid is not Valid.TRUE
    ]
    valid = _whole([cell.valid for cell in every], bool(broken))
    return page(
        "matrix.html.j2",
        title=f"Matrix {words.value(folder.resolve().name, 80)}",
        valid=valid,
        sentence=_sentence(valid, every),
        summary=(
            f"{words.counted(len(every), 'run')}, "
            f"{words.counted(sum(c.operations for c in every), 'operation')}, "
            f"{sum(c.acknowledged for c in every):,} acknowledged, "
            f"{words.counted(sum(c.acted for c in every), 'fault')} proved to have acted."
        ),
        workloads=sorted({workload for workload, _ in cells}),
        nemeses=sorted({nemesis for _, nemesis in cells}),
        cells=cells,
        failed=failed,
        broken=broken,
    )


def _whole(verdicts: list[Valid], broken: bool) -> Valid:
    if Valid.FALSE in verdicts:
        return Valid.FALSE
    if broken or not verdicts or Valid.UNKNOWN in verdicts:
        return Valid.UNKNOWN
    return Valid.TRUE


def _sentence(valid: Valid, every: list[Cell]) -> str:
    anomalous = sum(cell.valid is Valid.FALSE for cell in every)
    match valid:
        case Valid.TRUE:
            return "No anomaly, nothing unknown"
        case Valid.FALSE:
            return f"Anomalies in {words.counted(anomalous, 'run')}"
        case Valid.UNKNOWN:
            return "Not all is known, which counts as a failure" if every else "No run is here"
