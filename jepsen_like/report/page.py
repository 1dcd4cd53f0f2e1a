"""Makes report.html of a run's folder: one file, no network, readable by people and keyboards."""

from __future__ import annotations

import base64
import hashlib
import urllib.parse
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec
from markupsafe import Markup

from jepsen_like.checkers.verdict import Anomaly, Valid, Verdict
from jepsen_like.folder import Injection, Run
from jepsen_like.history import Type
from jepsen_like.report import axis, charts, lamport, lanes, words
from jepsen_like.report.bins import Latencies
from jepsen_like.report.material import DRAWN_MAX, Material, read
from jepsen_like.report.survey import Survey, Window

TEMPLATES: Final = Path(__file__).parent / "templates"
LISTED_ERRORS_MAX: Final = 40
LISTED_FAULTS_MAX: Final = 500
MESSAGE_CHARS_MAX: Final = 2_000
OPEN_DRAWINGS: Final = 3  #: the others are folded
SENTENCES: Final = {
    Valid.TRUE: "No anomaly",
    Valid.FALSE: "Anomalies",
    Valid.UNKNOWN: "Not known",
}


class FaultRow(msgspec.Struct, frozen=True):
    """A line of the table of faults."""

    number: int
    fault: str
    start: str
    held: str
    done: str
    acted: str
    facts: str


class KindRow(msgspec.Struct, frozen=True):
    """A line of the table of operations."""

    f: str
    ended: list[int]
    quantiles: list[str]


class LogLink(msgspec.Struct, frozen=True):
    """A file in logs/."""

    name: str
    href: str


def write(folder: Path) -> Path:
    """Writes report.html beside the record it is made of.

    Args:
        folder: A run's folder. What is missing in it is said in the report.

    Returns:
        The report's path.

    Raises:
        OSError: The folder can't be read, or the report can't be written.
    """
    return put(folder / "report.html", render(read(folder)))


def put(path: Path, text: str) -> Path:
    """Writes a page aside and renames it, so that a browser never reads half of one."""
    aside = path.with_name(path.name + ".new")
    aside.write_text(text, encoding="utf-8", errors="backslashreplace")
    aside.replace(path)
    return path


def render(material: Material) -> str:
    """The report as HTML."""
    survey, run = material.survey, material.run
    anomalies = material.anomalies
    return page(
        "report.html.j2",
        title=_title(material),
        valid=material.valid,
        sentence=SENTENCES[material.valid],
        why=_why(material),
        summary=_summary(material),
        warnings=[words.value(text, MESSAGE_CHARS_MAX) for text in material.warnings],
        verdicts=[_verdict(verdict) for verdict in material.verdicts],
        drawings=_drawings(anomalies, survey),
        open_drawings=OPEN_DRAWINGS,
        told=[
            (checker, a.kind, words.value(a.message, MESSAGE_CHARS_MAX))
            for checker, a in anomalies[DRAWN_MAX:]
        ],
        settings=[] if run is None else _settings(run),
        command="" if run is None else " ".join(run.command),
        charts=[charts.throughput(survey), charts.latency(survey)] if survey.events else [],
        lanes=lanes.lanes(survey, None if run is None else run.concurrency),
        axis=axis.TimeAxis(survey.end_ns),
        frame=axis,
        lane_row=lanes.ROW_HEIGHT,
        box=lamport,
        faults=_faults(material.proofs()),
        faults_left_out=max(0, len(survey.windows) - LISTED_FAULTS_MAX) + survey.windows_left_out,
        kinds=_kinds(survey),
        errors=_errors(survey),
        notes=[
            (words.moment(n.time_ns), words.value(n.what, 60), _noted(n.value, n.error))
            for n in survey.notes
        ],
        logs=[LogLink(name, "logs/" + urllib.parse.quote(name)) for name in material.logs],
    )


def page(template: str, **values: Any) -> str:
    """Renders a template with the style and script that all pages share."""
    style, script = _asset("style.css"), _asset("zoom.js")
    # Only these two may act in the page: whatever a value in a history says, it is text.
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup(style),
            script=Markup(script),
            policy=policy,
            **values,
        )
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = words.counted
    environment.filters["number"] = words.number
    return environment


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The source expression of CSP (W3C, Content Security Policy 3, section 2.3.1) for a text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _title(material: Material) -> str:
    run = material.run
    if run is None:
        return words.value(material.path.resolve().name, 80)
    return f"{words.value(run.workload, 60)} under {words.value(run.nemesis, 60)}"


def _why(material: Material) -> str:
    if material.results is None:
        return "There is no results.json: the run was not decided. That counts as a failure."
    why = words.value(material.results.why, MESSAGE_CHARS_MAX)
    if material.valid is Valid.UNKNOWN:
        why += " An unknown verdict counts as a failure."
    return why


def _summary(material: Material) -> str:
    """The size of the evidence, in a sentence."""
    survey = material.survey
    ok, failed, unknown = survey.ended
    proofs = material.proofs()
    acted = sum(injection is not None and injection.acted for _, injection in proofs)
    text = (
        f"{words.counted(ok + failed + unknown, 'operation')} in {words.duration(survey.end_ns)}: "
        f"{ok:,} acknowledged, {failed:,} definitely failed, {unknown:,} with unknown outcome. "
    )
    if not proofs:
        return text + "No fault was injected."
    return text + (
        f"{words.counted(len(proofs) + survey.windows_left_out, 'fault')} injected, "
        f"{acted:,} proved to have acted."
    )


def _verdict(verdict: Verdict) -> tuple[str, Valid, str, str]:
    """Checker, verdict, why, figures."""
    why = verdict.why_unknown or ", ".join(sorted({a.kind for a in verdict.anomalies})[:12])
    return verdict.checker, verdict.valid, words.value(why), words.facts(verdict.figures)


def _drawings(anomalies: Sequence[tuple[str, Anomaly]], survey: Survey) -> list[lamport.Drawing]:
    return [
        lamport.draw(number, checker, _cut(anomaly), survey)
        for number, (checker, anomaly) in enumerate(anomalies[:DRAWN_MAX], 1)
    ]


def _cut(anomaly: Anomaly) -> Anomaly:
    return msgspec.structs.replace(anomaly, message=words.value(anomaly.message, MESSAGE_CHARS_MAX))


def _settings(run: Run) -> list[tuple[str, str]]:
    missing = {name: why for name, why in run.capabilities.items() if why}
    settings = [
        ("workload", run.workload),
        ("nemesis", run.nemesis),
        ("load", f"{run.time_limit_s:g} s, {run.rate:g} operations a second aimed at"),
        ("workers", str(run.concurrency)),
        ("servers", str(run.nodes)),
        ("agents", str(run.agents)),
        ("seed", str(run.seed)),
        ("started", run.started),
        ("ground", run.ground),
        ("hosts", ", ".join(f"{name} {address}" for name, address in run.hosts.items())),
        ("planted bug", run.plant or ""),
        ("options", words.facts(run.options)),
        ("versions", words.facts(run.versions)),
        ("not possible here", words.facts(missing)),
    ]
    return [(name, words.value(text, 600)) for name, text in settings if text]


def _faults(proofs: Sequence[tuple[Window, Injection | None]]) -> list[FaultRow]:
    return [_fault(window, injection) for window, injection in proofs[:LISTED_FAULTS_MAX]]


def _fault(window: Window, injection: Injection | None) -> FaultRow:
    stop = window.stop_ns
    facts = words.facts(window.healed)
    acted = "not said"
    if injection is not None:
        acted = "yes" if injection.acted else "no"
        facts = words.facts(injection.facts)
        if injection.error:
            facts = f"error: {injection.error}. {facts}"
    return FaultRow(
        number=window.number,
        fault=words.value(window.fault, 60),
        start=words.moment(window.start_ns),
        held="to the end" if stop is None else words.duration(stop - window.start_ns),
        done=words.value(words.facts(window.injected), 600),
        acted=acted,
        facts=words.value(facts, 900),
    )


def _kinds(survey: Survey) -> list[KindRow]:
    rows = [
        KindRow(name, kind.ended, _quantiles(kind.latencies))
        for name, kind in sorted(survey.kinds.items())
    ]
    if len(rows) > 1:
        rows.append(KindRow("all", survey.ended, _quantiles(survey.latencies)))
    return rows


def _quantiles(latencies: Latencies) -> list[str]:
    if not latencies.count:
        return ["-"] * len(charts.QUANTILES)
    return [words.duration(latencies.quantile_ns(share)) for _, share in charts.QUANTILES]


def _errors(survey: Survey) -> list[tuple[int, str, Type, str]]:
    ranked = sorted(survey.errors.items(), key=lambda item: -item[1])
    return [(count, f, kind, text) for (f, kind, text), count in ranked[:LISTED_ERRORS_MAX]]


def _noted(value: object, error: str | None) -> str:
    return words.value(" ".join(part for part in (words.facts(value), error) if part), 300)
