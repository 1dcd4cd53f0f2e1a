"""Reads the folder of a run, whole or not: what is missing or damaged becomes a warning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from jepsen_like import history
from jepsen_like.checkers.verdict import Anomaly, Valid, Verdict
from jepsen_like.folder import Folder, Injection, NoRun, Results, Run
from jepsen_like.report.survey import Survey, Window

EVIDENCE_MAX = 5_000
WARNINGS_MAX = 50
DRAWN_MAX = 20  #: anomalies that are drawn; the others are told in words
DRAWN_EVENTS_MAX = 40  #: events that are drawn of one anomaly
LOGS_MAX = 100
_LINE_BYTES_MAX = 1 << 20

_T = TypeVar("_T")


class Material(msgspec.Struct):
    """All that a report is made of.

    Attributes:
        path: The folder.
        run, results: What its files say; None where they are missing or damaged.
        injections: From nemesis.jsonl, by fault, in order.
        logs: Names of the files in logs/.
        survey: What the history shows.
        warnings: What is missing or can't be read, in sentences.
    """

    path: Path
    survey: Survey
    run: Run | None = None
    results: Results | None = None
    injections: dict[str, list[Injection]] = {}
    logs: list[str] = []
    warnings: list[str] = []

    @property
    def valid(self) -> Valid:
        """The verdict of the run; UNKNOWN where nothing says it."""
        return Valid.UNKNOWN if self.results is None else self.results.valid

    @property
    def verdicts(self) -> list[Verdict]:
        """The checkers' own words."""
        return [] if self.results is None else self.results.verdicts

    @property
    def anomalies(self) -> list[tuple[str, Anomaly]]:
        """(checker, anomaly) of all verdicts."""
        return [(v.checker, anomaly) for v in self.verdicts for anomaly in v.anomalies]

    def proofs(self) -> list[tuple[Window, Injection | None]]:
        """The faults with what was proved: the n-th of a name has the n-th injection of it."""
        seen: dict[str, int] = {}
        pairs: list[tuple[Window, Injection | None]] = []
        for window in self.survey.windows:
            number = seen.get(window.fault, 0)
            seen[window.fault] = number + 1
            known = self.injections.get(window.fault, [])
            pairs.append((window, known[number] if number < len(known) else None))
        return pairs


def read(path: Path) -> Material:
    """Reads a run's folder; never fails for what is in it or missing from it.

    Raises:
        OSError: The folder itself can't be read.
    """
    next(path.iterdir(), None)
    folder = Folder(path)
    warnings: list[str] = []
    run = _file(folder.read_run, warnings)
    results = _file(folder.read_results, warnings)
    drawn = [a for v in (results.verdicts if results else []) for a in v.anomalies][:DRAWN_MAX]
    survey = Survey(index for anomaly in drawn for index in anomaly.events[:DRAWN_EVENTS_MAX])
    _read_history(folder.history, survey, warnings)
    material = Material(path, survey, run, results, logs=_logs(folder.logs), warnings=warnings)
    for injection in _injections(folder.nemesis, warnings):
        material.injections.setdefault(injection.fault, []).append(injection)
    del warnings[WARNINGS_MAX:]
    return material


def _file(reader: Callable[[], _T], warnings: list[str]) -> _T | None:
    try:
        return reader()
    except NoRun as error:
        warnings.append(str(error))
        return None


def _injections(path: Path, warnings: list[str]) -> Iterator[Injection]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LINE_BYTES_MAX), b""), 1):
                if number > EVIDENCE_MAX:
                    warnings.append(f"{path.name}: only the first {EVIDENCE_MAX} lines are shown")
                    return
                yield from _injection(line, f"{path.name}:{number}", warnings)
    except OSError as error:
        warnings.append(f"{path}: {error.strerror}")


def _injection(line: bytes, where: str, warnings: list[str]) -> Iterator[Injection]:
    try:
        yield msgspec.json.decode(line, type=Injection)
    except (msgspec.DecodeError, RecursionError) as error:
        if len(warnings) < WARNINGS_MAX:
            warnings.append(f"{where}: {error}")


def _logs(path: Path) -> list[str]:
    try:
        return sorted(file.name for file in path.iterdir() if file.is_file())[:LOGS_MAX]
    except OSError:
        return []


def _read_history(path: Path, survey: Survey, warnings: list[str]) -> None:
    try:
        with path.open("rb") as file:
            lines = iter(lambda: file.readline(history.LINE_BYTES_MAX), b"")
            survey.take(history.decode(lines, path.name))
        if not _ends_whole(path):
            warnings.append(f"{path.name} ends inside a line: whoever wrote it was stopped there")
    except OSError as error:
        warnings.append(f"{path}: {error.strerror}")
    except history.MalformedHistory as error:
        warnings.append(f"the history is shown up to its damage: {error}")
    survey.finish()
    if not survey.events:
        warnings.append("the history holds no event: nothing was recorded")


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 1, 0))
        return file.read(1) in {b"\n", b""}
