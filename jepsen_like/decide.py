"""Decides about a run from its folder alone: the history, the injections, and the servers' logs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from jepsen_like.checkers.verdict import Anomaly, Checker, Valid, Verdict
from jepsen_like.folder import FaultCount, Folder, Injection, Results, Run
from jepsen_like.history import NEMESIS, Event, MalformedHistory, Operation, Type, operations, read
from jepsen_like.nemeses.base import VIOLATION
from jepsen_like.nemeses.combination import MIXED, NONE, TOGETHER

ANOMALIES_MAX: Final = 100
#: What a process writes only when something happened that its authors did not expect.
_UNEXPECTED: Final = re.compile(
    rb"Traceback \(most recent call last\)|a fault of raftreg itself|Fatal Python error"
    rb"|request_failed|transport_fault|undecodable_command"
)
_EXCERPT_CHARS: Final = 400
_LOG_LINE_BYTES_MAX: Final = 1 << 20
_NS: Final = 1e9


def decide(folder: Folder, run: Run, checker: Checker) -> Results:
    """Judges the run and counts what happened. Reads only; `Folder.write_results` keeps it.

    Args:
        folder: Where the record is.
        run: What ran.
        checker: The workload's.

    Raises:
        NoRun: nemesis.jsonl is damaged.
        OSError: A file can't be read.
    """
    injections = folder.injections()
    try:
        events = read(folder.history)
        ops = operations(events)
    except (MalformedHistory, FileNotFoundError) as error:
        unreadable = Verdict("history", Valid.UNKNOWN, why_unknown=str(error))
        return _results(run, [unreadable, crashes([], folder.logs, run.hosts)], [], [], injections)
    verdicts = [
        _judge(run.workload, checker, events),
        crashes(events, folder.logs, run.hosts),
        recovery(events),
        nemesis(run.nemesis, injections),
        *_harness(events),
    ]
    return _results(run, verdicts, events, ops, injections)


def crashes(events: Iterable[Event], logs: Path, hosts: Iterable[str]) -> Verdict:
    """No process ended by itself, none wrote of something unexpected.

    Args:
        events: The history.
        logs: The folder of the logs.
        hosts: Names of servers and agents. Logs of the harness's own processes are not theirs.
    """
    died = [
        Anomaly("crash", f"{e.value['host']} ended and no fault had ended it", (e.index,))
        for e in _notes(events, "died")
    ]
    written = [one for name in sorted(hosts) for one in _unexpected(logs / f"{name}.log")]
    found = [*died, *written]
    return Verdict(
        checker="crash",
        valid=Valid.FALSE if found else Valid.TRUE,
        anomalies=tuple(found[:ANOMALIES_MAX]),
        figures={"ended": len(died), "unexpected": len(written)},
    )


def recovery(events: Iterable[Event]) -> Verdict:
    """With all faults healed, every server answers linearizable reads again."""
    last = next(iter(sorted(_notes(events, "ready", "not-ready"), key=lambda e: -e.index)), None)
    if last is None:
        return Verdict(
            "recovery", Valid.UNKNOWN, why_unknown="the run ended before the cluster was asked"
        )
    if last.f == "ready":
        return Verdict("recovery", Valid.TRUE, figures=dict(last.value))
    missing = ", ".join(last.value["missing"])
    text = f"{missing} still did not answer {last.value['waited_s']:.0f} s after all was healed"
    return Verdict("recovery", Valid.FALSE, (Anomaly("no-recovery", text, (last.index,)),))


def nemesis(name: str, injections: Sequence[Injection]) -> Verdict:
    """What was to be injected was, and is proved to have acted.

    Of a fault, and of each of several named together, one proved injection is enough; of "mixed"
    one of any. Healing that failed makes the run UNKNOWN, too: the cluster was not whole again.
    A fault whose proof tells of a violation (damage that a server served on) is an anomaly itself.
    """
    acted = {one.fault for one in injections if one.acted}
    figures = {"injected": len(injections), "acted": sum(one.acted for one in injections)}
    if name == NONE:
        return Verdict("nemesis", Valid.TRUE, figures=figures)
    broken = [one for one in injections if VIOLATION in one.facts]
    if broken:
        found = tuple(Anomaly(one.fault, str(one.facts[VIOLATION])) for one in broken)
        return Verdict("nemesis", Valid.FALSE, found[:ANOMALIES_MAX], figures=figures)
    idle = set() if name == MIXED and acted else set(name.split(TOGETHER)) - acted
    reasons = [f"never proved to have acted: {', '.join(sorted(idle))}"] if idle else []
    reasons += [f"{one.fault} number {one.number}: {one.error}" for one in injections if one.error]
    return Verdict(
        checker="nemesis",
        valid=Valid.UNKNOWN if reasons else Valid.TRUE,
        why_unknown="; ".join(reasons),
        figures=figures,
    )


def _harness(events: Sequence[Event]) -> Iterator[Verdict]:
    """UNKNOWN when the harness itself failed or was interrupted; else nothing."""
    broken = [e.value for e in _notes(events, "broken") if e.value["what"].startswith("workload")]
    if broken:
        first = f"{broken[0]['what']}: {broken[0]['error']}"
        why = f"the harness failed {len(broken)} times, first in {first}"
        yield Verdict("harness", Valid.UNKNOWN, why_unknown=why)
    if _interrupted(events):
        yield Verdict("run", Valid.UNKNOWN, why_unknown="the run was interrupted")


def _judge(workload: str, checker: Checker, events: Sequence[Event]) -> Verdict:
    try:
        return checker(events)
    except Exception as error:  # noqa: BLE001
        # A history that the checker does not understand decides nothing; it must not end the
        # program either, because the crash of a server may stand in the same folder.
        why = f"the checker failed: {type(error).__name__}: {error}"
        return Verdict(workload, Valid.UNKNOWN, why_unknown=why)


def _unexpected(log: Path) -> Iterator[Anomaly]:
    if not log.exists():
        return
    with log.open("rb") as file:
        lines = iter(lambda: file.readline(_LOG_LINE_BYTES_MAX), b"")
        for number, line in enumerate(lines, 1):
            if _UNEXPECTED.search(line):
                text = line.decode("utf-8", "replace").strip()[:_EXCERPT_CHARS]
                yield Anomaly("crash", f"logs/{log.name}:{number}: {text}")


def _notes(events: Iterable[Event], *names: str) -> Iterator[Event]:
    return (e for e in events if e.process == NEMESIS and e.f in names)


def _interrupted(events: Iterable[Event]) -> bool:
    return any(True for _ in _notes(events, "interrupted"))


def _results(
    run: Run,
    verdicts: Sequence[Verdict],
    events: Sequence[Event],
    ops: Sequence[Operation],
    injections: Sequence[Injection],
) -> Results:
    valid = _worst(verdicts)
    ends = Counter(op.type for op in ops)
    return Results(
        valid=valid,
        why=_why(valid, verdicts, ends[Type.OK]),
        verdicts=list(verdicts),
        operations=len(ops),
        acknowledged=ends[Type.OK],
        failed=ends[Type.FAIL],
        unknown=ends[Type.INFO],
        by_f=_by_f(ops),
        faults=_faults(injections),
        duration_s=round(events[-1].time_ns / _NS, 3) if events else 0.0,
        load_s=round(_load_s(events), 3),
        interrupted=_interrupted(events),
        workload=run.workload,
        nemesis=run.nemesis,
        seed=run.seed,
    )


def _worst(verdicts: Iterable[Verdict]) -> Valid:
    kinds = {verdict.valid for verdict in verdicts}
    if Valid.FALSE in kinds:
        return Valid.FALSE
    return Valid.UNKNOWN if Valid.UNKNOWN in kinds else Valid.TRUE


def _why(valid: Valid, verdicts: Sequence[Verdict], acknowledged: int) -> str:
    decisive = [verdict for verdict in verdicts if verdict.valid is valid]
    match valid:
        case Valid.TRUE:
            return f"no anomaly in {acknowledged} acknowledged operations"
        case Valid.FALSE:
            first = decisive[0]
            total = sum(len(verdict.anomalies) for verdict in decisive)
            what = first.anomalies[0].message if first.anomalies else "see the verdict"
            return f"{total} {'anomaly' if total == 1 else 'anomalies'}; {first.checker}: {what}"
        case Valid.UNKNOWN:
            return "; ".join(f"{one.checker}: {one.why_unknown}" for one in decisive)


def _by_f(ops: Iterable[Operation]) -> dict[str, dict[str, int]]:
    names = {Type.OK: "acknowledged", Type.FAIL: "failed", Type.INFO: "unknown"}
    found: dict[str, dict[str, int]] = {}
    for op in ops:
        empty = {"all": 0, "acknowledged": 0, "failed": 0, "unknown": 0}
        row = found.setdefault(op.invoke.f, empty)
        row["all"] += 1
        row[names[op.type]] += 1
    return dict(sorted(found.items()))


def _faults(injections: Iterable[Injection]) -> dict[str, FaultCount]:
    counts: dict[str, list[int]] = {}
    for one in injections:
        row = counts.setdefault(one.fault, [0, 0])
        row[0] += 1
        row[1] += one.acted
    return {name: FaultCount(*row) for name, row in sorted(counts.items())}


def _load_s(events: Iterable[Event]) -> float:
    """Length of the phase "load"; 0 when it never began."""
    start: Any = None
    for event in _notes(events, "phase"):
        if event.value == "load":
            start = event.time_ns
        elif start is not None:
            return float(event.time_ns - start) / _NS
    return 0.0
