"""The folder of a run: all that `check` needs to decide again, and all that a report shows.

    run.json       settings, seed, command, versions, what the machine could do (`Run`)
    history.jsonl  every invocation and completion, and what the nemesis did (`jepsen_like.history`)
    nemesis.jsonl  one injected fault a line, with the proof that it acted (`Injection`)
    logs/HOST.log  what each process wrote, over all its starts
    results.json   the verdict and the figures (`Results`); made anew by `check`
    report.html    the same for people; made anew by `check`

The nemesis (process -1) notes in the history:

    start-<fault>  twice: before the injection (no value), and when it is done (value: what was
               done to whom; "error" if it failed)
    stop-<fault>  when it is healed (value: the proof that it acted)
    phase      value "setup", "load", "heal", "final", "stop": the phase that begins
    ready      value {"after_s": s}: every server answers linearizable reads after the healing
    not-ready  value {"waited_s": s, "missing": [names]}: they did not
    died       value {"host": name}: its process is gone and the nemesis had not touched it
    broken     value {"what": where, "error": text}: a fault of the harness itself
    interrupted  value {"signal": name}: somebody ended the run early
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from jepsen_like.checkers.verdict import Valid, Verdict

FORM: Final = 1  #: of run.json, nemesis.jsonl and results.json
_JSON_BYTES_MAX: Final = 64 << 20

T = TypeVar("T")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What ran.

    Attributes:
        workload, nemesis: Names, as on the command line.
        time_limit_s: How long the load lasted, unless somebody interrupted it.
        rate: Operations a second of all workers together, aimed at.
        concurrency: Number of workers.
        nodes, agents: Number of servers and of hosts with an agent only.
        seed: Of everything random in the harness.
        started: UTC, ISO 8601.
        command: The command line that repeats the run.
        plant: The bug that was switched on, if any.
        ground: "namespaces" (a host each) or "loopback" (an address each).
        hosts: Addresses by name.
        capabilities: What faults may need of the machine: "" where it is there, else why not.
        versions: Of raftreg, its engine, Python and the kernel.
        options: More that the workload was made with.
        form: Version of the files in this folder.
    """

    workload: str
    nemesis: str
    time_limit_s: float
    rate: float
    concurrency: int
    nodes: int
    agents: int
    seed: int
    started: str
    command: list[str] = []
    plant: str | None = None
    ground: str = ""
    hosts: dict[str, str] = {}
    capabilities: dict[str, str] = {}
    versions: dict[str, str] = {}
    options: dict[str, Any] = {}
    form: int = FORM


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """One fault from injection to healing: a line of nemesis.jsonl.

    Attributes:
        number: From 0, in the order of the injections.
        fault: Its name.
        start_ns: When the injection began, as in the history.
        held_ns: When the injection was done.
        heal_ns: When the healing began.
        end_ns: When it was healed.
        done: What was done to whom.
        acted: It is proved that it acted.
        facts: The proof.
        error: Why injection or healing failed.
    """

    number: int
    fault: str
    start_ns: int
    held_ns: int
    heal_ns: int
    end_ns: int
    done: dict[str, Any] = {}
    acted: bool = False
    facts: dict[str, Any] = {}
    error: str | None = None


class FaultCount(msgspec.Struct, frozen=True):
    """How often a fault was injected, and how often it is proved that it acted."""

    injected: int
    acted: int


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """The decision about a run.

    Attributes:
        valid: FALSE when any verdict is FALSE; else UNKNOWN when any is; else TRUE.
        why: The decision in a sentence.
        verdicts: Of the workload's checker ("register", …), of the processes and their logs
            ("crash"), of recovery ("recovery") and of the nemesis ("nemesis").
        operations: Invocations of clients.
        acknowledged, failed, unknown: How they ended; what never completed is unknown.
        by_f: The same three and "all", for each kind of operation.
        faults: By name.
        duration_s: From the first event to the last.
        load_s: Length of the phase "load".
        interrupted: Somebody ended the run early.
        workload, nemesis, seed: As in run.json, so that this file stands alone.
    """

    valid: Valid
    why: str
    verdicts: list[Verdict]
    operations: int
    acknowledged: int
    failed: int
    unknown: int
    by_f: dict[str, dict[str, int]]
    faults: dict[str, FaultCount]
    duration_s: float
    load_s: float
    interrupted: bool
    workload: str
    nemesis: str
    seed: int
    form: int = FORM


class NoRun(Exception):
    """A folder is not that of a run, or a file in it can't be read; the text says which."""


class Folder:
    """Paths in the folder of a run, and the files that are read and written whole.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_json = path / "run.json"
        self.history = path / "history.jsonl"
        self.nemesis = path / "nemesis.jsonl"
        self.logs = path / "logs"
        self.results_json = path / "results.json"
        self.report = path / "report.html"

    def make(self) -> None:
        """Makes it.

        Raises:
            NoRun: It holds something already, or can't be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()):
                raise NoRun(f"{self.path} is not empty: a run never overwrites another")
            self.logs.mkdir()
        except OSError as error:
            raise NoRun(f"{self.path}: {error.strerror}") from error

    def write_run(self, run: Run) -> None:
        """Writes run.json."""
        _write(self.run_json, run)

    def read_run(self) -> Run:
        """Reads run.json.

        Raises:
            NoRun: It is missing or damaged.
        """
        return _read(self.run_json, Run)

    def write_results(self, results: Results) -> None:
        """Writes results.json."""
        _write(self.results_json, results)

    def read_results(self) -> Results:
        """Reads results.json.

        Raises:
            NoRun: It is missing or damaged.
        """
        return _read(self.results_json, Results)

    def injections(self) -> list[Injection]:
        """Reads nemesis.jsonl; a last line that was cut off is left out.

        Raises:
            NoRun: Another line is damaged.
        """
        if not self.nemesis.exists():
            return []
        return list(_injections(self.nemesis))


def _injections(path: Path) -> Iterator[Injection]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield msgspec.json.decode(line, type=Injection)
            except msgspec.DecodeError as error:
                raise NoRun(f"{path}:{number}: {error}") from error


def _write(path: Path, value: msgspec.Struct) -> None:
    """Writes aside and renames: a reader never sees half a file."""
    aside = path.with_name(path.name + ".new")
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    aside.replace(path)


def _read(path: Path, kind: type[T]) -> T:
    try:
        with path.open("rb") as file:
            data = file.read(_JSON_BYTES_MAX + 1)
    except FileNotFoundError:
        raise NoRun(f"{path}: no such file; is {path.parent} the folder of a run?") from None
    except OSError as error:
        raise NoRun(f"{path}: {error.strerror}") from error
    if len(data) > _JSON_BYTES_MAX:
        raise NoRun(f"{path}: larger than {_JSON_BYTES_MAX >> 20} MiB")
    with contextlib.suppress(RecursionError):
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise NoRun(f"{path}: {error}") from error
    raise NoRun(f"{path}: nested too deeply")
