"""What the report of a run shows, whatever is in the folder."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like import report
from jepsen_like.checkers.verdict import Anomaly, Valid
from jepsen_like.history import Event, Operation, Type
from jepsen_like.report.bins import BINS_MAX, Latencies, TimeBins
from jepsen_like.report.lamport import draw
from jepsen_like.report.survey import Survey, Thinned
from tests.jepsen.synthetic_run import SyntheticRun

HOSTILE = "</script></style></title><script>a()</script><img src=x onerror=b()>\"'&\U0001f600"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class _Page(HTMLParser):
    """Collects the elements of a page, and checks that they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in {"script", "style"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def by_class(self, name: str) -> list[dict[str, str]]:
        return [a for _, a in self.tags if name in a.get("class", "").split()]

    def ids(self) -> list[str]:
        return [a["id"] for _, a in self.tags if "id" in a]


def _page(folder: Path) -> _Page:
    return _Page(report.write(folder).read_text(encoding="utf-8"))


def test_a_valid_run_says_so_first_and_shows_what_ran(tmp_path: Path) -> None:
    """Verdict, evidence, settings, faults with proof and logs are all on the page."""
    page = _page(SyntheticRun(tmp_path / "run", operations=3000).write())
    assert page.by_class("verdict")[0]["class"] == "verdict true"
    assert page.text.index("No anomaly") < page.text.index("What ran")
    assert "3,000 operations" in page.text
    assert "1 fault injected, 1 proved to have acted" in page.text
    assert "dropped 214" in page.text
    assert {"href": "logs/n1.log"} in [a for tag, a in page.tags if tag == "a"]
    assert "anomalies" not in page.ids()
    assert page.by_class("band")
    assert page.by_class("p99")


def test_an_anomaly_is_drawn_with_its_operations_and_told_in_a_sentence(tmp_path: Path) -> None:
    """Each operation that the checker named is a bar, the sentence stands above it."""
    anomaly = Anomaly("lost-write", "The write of 1 was lost.", (1, 2, 9))
    page = _page(SyntheticRun(tmp_path / "run").write(Valid.FALSE, (anomaly,)))
    assert page.by_class("verdict")[0]["class"] == "verdict false"
    assert "The write of 1 was lost." in page.text
    assert 1 <= len(page.by_class("op")) <= 3
    assert "anomaly-1" in page.ids()


def test_more_anomalies_than_are_drawn_are_told_in_words(tmp_path: Path) -> None:
    """The limit on drawings hides no anomaly."""
    anomalies = tuple(Anomaly("G1c", f"Cycle {n} here.", (n,)) for n in range(60))
    page = _page(SyntheticRun(tmp_path / "run").write(Valid.FALSE, anomalies))
    for number in range(60):
        assert f"Cycle {number} here." in page.text


def test_an_unknown_verdict_is_called_a_failure(tmp_path: Path) -> None:
    """Nobody can take "unknown" for "valid"."""
    page = _page(SyntheticRun(tmp_path / "run").write(Valid.UNKNOWN, why="Nothing acknowledged."))
    assert page.by_class("verdict")[0]["class"] == "verdict unknown"
    assert "counts as a failure" in page.text


def test_an_empty_folder_gives_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    """No file is needed."""
    page = _page(tmp_path)
    assert page.by_class("verdict")[0]["class"] == "verdict unknown"
    for name in ("run.json", "results.json", "history.jsonl", "nemesis.jsonl"):
        assert f"{name}: " in page.text or f"{name} " in page.text
    assert "nothing was recorded" in page.text


def test_a_record_that_was_cut_off_is_shown_up_to_there(tmp_path: Path) -> None:
    """A harness that was killed leaves half a line; all before it counts."""
    folder = SyntheticRun(tmp_path / "run", operations=200).write()
    history = folder / "history.jsonl"
    lines = history.read_bytes().splitlines(keepends=True)
    history.write_bytes(b"".join(lines[:100]) + lines[100][:-9])
    (folder / "results.json").write_bytes(b'{"valid":')
    page = _page(folder)
    assert "ends inside a line" in page.text
    assert "results.json" in page.text
    assert "with unknown outcome" in page.text


@pytest.mark.parametrize("name", ["history.jsonl", "nemesis.jsonl", "run.json", "results.json"])
@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"[" * 100_000, b"null\n", b"{}\n", b""])
def test_a_damaged_file_costs_its_part_only(tmp_path: Path, name: str, content: bytes) -> None:
    """Whatever one file holds, there is a page, and it says that something is wrong."""
    folder = SyntheticRun(tmp_path / "run", operations=50).write()
    (folder / name).write_bytes(content)
    page = _page(folder)
    assert page.by_class("warnings") or (name, content) == ("nemesis.jsonl", b"")


def test_hostile_values_stay_text(tmp_path: Path) -> None:
    """Markup in names, values, errors and messages adds no element and no attribute."""
    plain, hostile = tmp_path / "plain", tmp_path / "hostile"
    anomalies = (Anomaly("kind", "message", (0, 1)),)
    bad = (Anomaly(f"kind{HOSTILE}", f"message{HOSTILE}", (0, 1)),)
    expected = _page(SyntheticRun(plain, operations=1500).write(Valid.FALSE, anomalies, "why"))
    run = SyntheticRun(hostile, operations=1500, text=HOSTILE)
    found = _page(run.write(Valid.FALSE, bad, f"why{HOSTILE}"))
    # The names of faults are longer, so labels may be left out; nothing else differs.
    assert {t for t, _ in found.tags} == {t for t, _ in expected.tags}
    assert sum(t == "script" for t, _ in found.tags) == 1
    assert not any(name.startswith("on") for _, attrs in found.tags for name in attrs)
    assert HOSTILE in " ".join(found.words)


def test_only_the_pages_own_script_and_style_may_act(tmp_path: Path) -> None:
    """The policy names both by digest and allows nothing from elsewhere."""
    text = report.write(SyntheticRun(tmp_path / "run").write()).read_text()
    policy = next(a for t, a in _Page(text).tags if a.get("http-equiv"))["content"]
    assert policy.startswith("default-src 'none'")
    assert policy.count("'sha256-") == 2
    assert "unsafe" not in policy
    assert " style=" not in text
    assert not re.search(r"(src|href)=\"?(https?:|//)", text)


def test_every_drawing_is_well_formed(tmp_path: Path) -> None:
    """Each SVG parses as XML and names its content for those who can't see it."""
    anomaly = Anomaly("k", "m", tuple(range(30)))
    folder = SyntheticRun(tmp_path / "run").write(Valid.FALSE, (anomaly,))
    text = report.write(folder).read_text()
    drawings = re.findall(r"<svg (?:id|class)=\"(?:lanes|chart|drawing).*?</svg>\n</", text, re.S)
    assert len(drawings) >= 3
    for drawing in drawings:
        root = ET.fromstring(drawing[:-2])
        assert root.get("aria-label")


def test_everything_that_scrolls_or_zooms_can_be_reached_by_keyboard(tmp_path: Path) -> None:
    """The timeline and wide drawings take the focus; buttons are buttons."""
    page = _page(SyntheticRun(tmp_path / "run").write())
    assert any(a.get("id") == "lanes" and a.get("tabindex") == "0" for _, a in page.tags)
    assert len([a for tag, a in page.tags if tag == "button" and "data-zoom" in a]) == 5
    targets = {a["href"][1:] for t, a in page.tags if t == "a" and a["href"].startswith("#")}
    assert targets <= set(page.ids())


def test_a_page_does_not_grow_with_the_run(tmp_path: Path) -> None:
    """Ten times the operations make no larger drawing once the samples are full."""
    small = report.write(SyntheticRun(tmp_path / "a", operations=6_000).write()).stat().st_size
    large = report.write(SyntheticRun(tmp_path / "b", operations=60_000).write()).stat().st_size
    assert large < 5_000_000
    assert large < 3 * small


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_is_right_within_three_percent(latencies: list[int], share: float) -> None:
    """The histogram gives what sorting would, but for the width of a step."""
    histogram = Latencies()
    for latency in latencies:
        histogram.add(latency)
    ordered = sorted(latencies)
    exact = next(v for n, v in enumerate(ordered, 1) if n >= share * len(ordered) - 1e-9)
    assert histogram.quantile_ns(share) == pytest.approx(exact, rel=0.031, abs=1)


@given(st.lists(st.integers(0, 10**14), max_size=60))
def test_bins_keep_every_operation_and_stay_few(times: list[int]) -> None:
    """However long the run, nothing is lost and the number of bins is bounded."""
    bins = TimeBins()
    for time_ns in times:
        bins.add(time_ns, time_ns, Type.OK)
    assert len(bins.bins) <= BINS_MAX
    assert sum(one.ended[0] for one in bins.bins) == len(times)
    assert sum(one.begun[0].count for one in bins.coarse(7)[1]) == len(times)


@given(st.integers(0, 5_000), st.integers(1, 64))
def test_a_sample_is_bounded_and_in_order(count: int, limit: int) -> None:
    """What is kept is never more than the limit, and keeps its order."""
    thinned: Thinned[int] = Thinned(limit)
    for number in range(count):
        thinned.add(number)
    assert len(thinned.kept) <= limit
    assert thinned.kept == sorted(thinned.kept)
    assert count > limit or thinned.kept == list(range(count))


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_a_drawing_keeps_the_real_time_order(seed: int, count: int) -> None:
    """One bar ends left of where another begins exactly if it was over before that began."""
    rng = Random(seed)
    survey, operations = _random_operations(rng, count)
    events = tuple(sorted(o.invoke.index for o in operations))
    drawing = draw(1, "c", Anomaly("k", "m", events), survey)
    boxes = {box.title: box for box in drawing.boxes}
    assert len(drawing.boxes) == len(operations)
    ordered = sorted(operations, key=lambda o: o.invoke.index)
    placed = sorted(drawing.boxes, key=lambda box: box.x)
    assert len(boxes) <= len(placed)
    for a, box_a in zip(ordered, placed, strict=True):
        for b, box_b in zip(ordered, placed, strict=True):
            over = a.completion is not None and a.type is not Type.INFO
            before = over and a.completion is not None and a.completion.index < b.invoke.index
            assert (box_a.x + box_a.width < box_b.x) == before


def _random_operations(rng: Random, count: int) -> tuple[Survey, list[Operation]]:
    events: list[Event] = []
    open_processes: list[int] = []
    started = 0
    while started < count or open_processes:
        index = len(events)
        if started < count and (not open_processes or rng.random() < 0.5):
            events.append(Event(index, index, started, Type.INVOKE, "write", "k", started))
            open_processes.append(started)
            started += 1
            continue
        process = open_processes.pop(rng.randrange(len(open_processes)))
        kind = rng.choice((Type.OK, Type.FAIL, Type.INFO))
        events.append(Event(index, index, process, kind, "write", "k", process))
    survey = Survey(range(len(events)))
    survey.take(events)
    survey.finish()
    return survey, list({o.invoke.index: o for o in survey.found.values()}.values())


def test_the_matrix_leads_to_each_run_and_names_what_failed(tmp_path: Path) -> None:
    """One run with an anomaly makes the whole page fail, and is linked."""
    good = SyntheticRun(tmp_path / "good").write()
    bad = SyntheticRun(tmp_path / "bad #1", text="-x").write(Valid.FALSE, (), "Lost <b>writes</b>.")
    report.write(good)
    report.write(bad)
    page = _Page(report.matrix_index(tmp_path).read_text())
    assert page.by_class("verdict")[0]["class"] == "verdict false"
    hrefs = {a["href"] for tag, a in page.tags if tag == "a"}
    assert hrefs == {"good/report.html", "bad%20%231/report.html"}
    assert "Lost <b>writes</b>." in page.text


@pytest.mark.parametrize("broken", [True, False])
def test_a_matrix_without_decided_runs_is_not_valid(tmp_path: Path, broken: bool) -> None:
    """No run, or one that was never decided, is no success."""
    if broken:
        folder = SyntheticRun(tmp_path / "one").write()
        (folder / "results.json").unlink()
    page = _Page(report.matrix_index(tmp_path).read_text())
    assert page.by_class("verdict")[0]["class"] == "verdict unknown"
