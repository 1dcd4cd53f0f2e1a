"""The parts of a run that need no cluster: beats, recorder, menus, times, folders, decisions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like import history
from jepsen_like.checkers.verdict import Valid, Verdict
from jepsen_like.decide import decide
from jepsen_like.folder import Folder, Injection, NoRun, Run
from jepsen_like.generator import Beats
from jepsen_like.ground.api import Ground, Need
from jepsen_like.history import Event, Type
from jepsen_like.matrix import Cell, Matrix, Outcome, choose, covering, fill_in, markdown
from jepsen_like.nemeses import FAULTS
from jepsen_like.nemeses.base import Evidence, Fault
from jepsen_like.nemeses.combination import Unable, UnknownName, compatible, menu, parts
from jepsen_like.nemeses.schedule import plan
from jepsen_like.recorder import Recorder
from jepsen_like.workloads import WORKLOADS

RUN = Run(
    workload="register",
    nemesis="kill-one",
    time_limit_s=10,
    rate=10,
    concurrency=2,
    nodes=3,
    agents=0,
    seed=1,
    started="2026-01-01T00:00:00+00:00",
    hosts={"n1": "127.0.0.1"},
)
KILLED = Injection(
    number=0, fault="kill-one", start_ns=1, held_ns=2, heal_ns=3, end_ns=4, acted=True
)


class Timed(Fault):
    """A fault that does nothing."""

    name = "timed"

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """Nothing."""
        return {}

    async def heal(self, ground: Ground) -> Evidence:
        """Nothing."""
        return Evidence(acted=False)


def fine(events: Sequence[Event]) -> Verdict:
    """A checker that is content with everything."""
    del events
    return Verdict("fine", Valid.TRUE)


def recorded(path: Path, *notes: tuple[str, Any]) -> Folder:
    """A folder with a short history, and these notes of the runner at its end."""
    folder = Folder(path / "run")
    folder.make()
    folder.write_run(RUN)
    with Recorder(folder.history, itertools.count(1).__next__) as recorder:
        recorder.add(0, Type.INVOKE, "write", key="k", value=1)
        recorder.add(0, Type.OK, "write", key="k", value=1, node="n1", raft_index=7)
        recorder.add(1, Type.INVOKE, "read", key="k")
        recorder.add(1, Type.FAIL, "read", key="k", error="no answer")
        recorder.add(2, Type.INVOKE, "write", key="k", value=2)
        for name, value in notes:
            recorder.note(name, value)
    folder.nemesis.touch()
    return folder


READY = ("ready", {"after_s": 0.1})


def injected(folder: Folder, *injections: Injection) -> None:
    """Writes nemesis.jsonl."""
    folder.nemesis.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in injections))


@given(st.integers(), st.floats(0.1, 1000), st.lists(st.floats(0, 10), max_size=30))
def test_beats_never_lie_in_the_past(seed: int, rate: float, busy: list[float]) -> None:
    """However long a worker was busy, its next beat is still to come, and beats only rise."""
    beats, now, last = Beats(Random(seed), rate, 0.0), 0.0, 0.0
    for busy_s in busy:
        at = beats.after(now)
        assert at >= now
        assert at >= last
        last, now = at, at + busy_s


def test_a_seed_gives_the_same_beats_again() -> None:
    """Two workers with the same seed have the same beats."""
    one, other = (Beats(Random(5), 10.0, 0.0) for _ in range(2))
    assert [one.after(0.0) for _ in range(50)] == [other.after(0.0) for _ in range(50)]


def test_the_rate_must_be_positive() -> None:
    """A rate of nothing is refused: it would wait for ever."""
    with pytest.raises(ValueError, match="rate"):
        Beats(Random(1), 0.0, 0.0)


def test_a_history_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    """What a killed harness leaves are whole lines in order, and perhaps a piece of one."""
    path = tmp_path / "history.jsonl"
    recorder = Recorder(path, itertools.count().__next__)
    for process in range(100):
        recorder.add(process, Type.INVOKE, "read", key="k")
    recorder.flush()
    whole = path.read_bytes()
    assert [event.process for event in history.read(path)] == list(range(100))
    path.write_bytes(whole[:-5])
    assert len(history.read(path)) == 99
    recorder.close()


def test_a_run_never_overwrites_another(tmp_path: Path) -> None:
    """A folder that holds something is refused."""
    (tmp_path / "thing").touch()
    with pytest.raises(NoRun, match="not empty"):
        Folder(tmp_path).make()


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    """A missing or broken file is an error that names it."""
    folder = recorded(tmp_path)
    folder.nemesis.write_bytes(b"{}\n")
    with pytest.raises(NoRun, match=r"nemesis.jsonl:1"):
        folder.injections()
    folder.run_json.write_bytes(b"{")
    with pytest.raises(NoRun, match=r"run\.json"):
        folder.read_run()
    folder.run_json.unlink()
    with pytest.raises(NoRun, match="no such file"):
        folder.read_run()


@given(
    st.integers(),
    st.floats(10, 10_000),
    st.lists(st.tuples(*[st.floats(0, 60)] * 4), min_size=1, max_size=3),
)
def test_the_first_fault_fits_into_the_time_limit(
    seed: int, limit_s: float, bounds: list[tuple[float, float, float, float]]
) -> None:
    """In a run of 10 s or more a fault begins and ends in time, whatever its own times are."""
    faults = []
    for calm_min, calm_more, hold_min, hold_more in bounds:
        fault = Timed()
        fault.calm_s = (calm_min, calm_min + calm_more)  # type: ignore[misc]  # of this one
        fault.hold_s = (hold_min, hold_min + hold_more)  # type: ignore[misc]
        faults.append(fault)
    times = plan(faults, Random(seed), limit_s, first=True)
    assert times is not None
    assert times.calm_s + times.hold_s <= limit_s * 0.8001


def test_no_round_begins_when_no_time_is_left() -> None:
    """After the time limit, and shortly before it, nothing more is injected."""
    assert plan([Timed()], Random(1), 0.0, first=True) is None
    assert plan([Timed()], Random(1), 1.0, first=False) is None
    assert plan([], Random(1), 100.0, first=True) is None


def test_mixed_injects_every_fault_and_only_compatible_pairs() -> None:
    """In a long run nothing is left out, and what acts at a time does not undo each other."""
    drawn = menu("mixed", FAULTS, {}, Random(3), agents=1)
    seen: set[str] = set()
    for _ in range(len(FAULTS) * 2):
        faults = drawn.next()
        seen.update(fault.name for fault in faults)
        assert len(faults) <= 2
        assert len(faults) < 2 or compatible(*faults)
    assert seen == set(FAULTS) - {"none"}


def test_mixed_leaves_out_what_the_machine_lacks() -> None:
    """Without namespaces, disks and clocks, "mixed" has faults of processes and members alone."""
    lacks = dict.fromkeys(Need, "not here")
    faults = menu("mixed", FAULTS, lacks, Random(3)).faults
    assert faults
    assert all(not fault.needs for fault in faults)


def test_a_fault_that_the_machine_lacks_is_refused_with_the_reason() -> None:
    """It is no run without faults instead."""
    with pytest.raises(Unable, match="partition-leader: no root"):
        menu("partition-leader", FAULTS, {Need.NETWORK: "no root"}, Random(1))


def test_an_unknown_nemesis_is_told_with_the_nearest() -> None:
    """A slip of the finger is easily seen."""
    with pytest.raises(UnknownName, match="kill-leader"):
        parts("kill-leeder", FAULTS)
    with pytest.raises(UnknownName, match="nemesis"):
        parts("kill-leader+nothing", FAULTS)


def test_faults_of_a_family_are_not_joined() -> None:
    """Two sets of rules for the same switch would undo each other."""
    with pytest.raises(Unable, match="undo each other"):
        parts("loss+partition-leader", FAULTS)
    assert len(parts("loss+kill-leader", FAULTS)) == 2


def test_a_good_run_is_valid_and_counted(tmp_path: Path) -> None:
    """Operations are counted by how they ended; one that never did is unknown."""
    folder = recorded(tmp_path, READY)
    injected(folder, KILLED)
    results = decide(folder, RUN, fine)
    assert results.valid is Valid.TRUE
    assert (results.acknowledged, results.failed, results.unknown) == (1, 1, 1)
    assert results.by_f["write"] == {"all": 2, "acknowledged": 1, "failed": 0, "unknown": 1}
    assert results.faults["kill-one"].acted == 1


@pytest.mark.parametrize(
    "injections", [(), (msgspec.structs.replace(KILLED, acted=False),)], ids=["none", "unproved"]
)
def test_a_fault_that_never_acted_makes_a_run_unknown(
    tmp_path: Path, injections: tuple[Injection, ...]
) -> None:
    """What is not proved did not happen: such a run shows nothing."""
    folder = recorded(tmp_path, READY)
    injected(folder, *injections)
    results = decide(folder, RUN, fine)
    assert results.valid is Valid.UNKNOWN
    assert "kill-one" in results.why


def test_damage_that_was_served_is_an_anomaly(tmp_path: Path) -> None:
    """A server that runs on a flipped byte fails the run, whatever its clients saw."""
    folder = recorded(tmp_path, READY)
    served = {"violation": "n1 runs on wal-1.seg with a flipped bit"}
    injected(folder, msgspec.structs.replace(KILLED, facts=served))
    results = decide(folder, RUN, fine)
    assert results.valid is Valid.FALSE
    assert "n1 runs on wal-1.seg" in results.why


def test_every_fault_that_was_named_must_act(tmp_path: Path) -> None:
    """Of faults joined with "+" one alone proves nothing about the other; of "mixed" it does."""
    folder = recorded(tmp_path, READY)
    injected(folder, KILLED)
    both = msgspec.structs.replace(RUN, nemesis="kill-one+loss")
    assert decide(folder, both, fine).valid is Valid.UNKNOWN
    mixed = msgspec.structs.replace(RUN, nemesis="mixed")
    assert decide(folder, mixed, fine).valid is Valid.TRUE


@pytest.mark.parametrize(
    ("note", "valid", "word"),
    [
        (("died", {"host": "n1"}), Valid.FALSE, "n1 ended"),
        (("not-ready", {"waited_s": 60.0, "missing": ["n1"]}), Valid.FALSE, "n1 still"),
        (("interrupted", {"signal": "SIGINT"}), Valid.UNKNOWN, "interrupted"),
        (("broken", {"what": "workload: next", "error": "oops"}), Valid.UNKNOWN, "oops"),
    ],
)
def test_what_went_wrong_decides(
    tmp_path: Path, note: tuple[str, Any], valid: Valid, word: str
) -> None:
    """A process that ended, a cluster that stays away, a harness that failed: none is valid."""
    folder = recorded(tmp_path, READY, note)
    injected(folder, KILLED)
    results = decide(folder, RUN, fine)
    assert results.valid is valid
    assert word in results.why


def test_a_traceback_in_a_servers_log_is_an_anomaly(tmp_path: Path) -> None:
    """A server that logs what its authors did not expect has a fault, though it goes on."""
    folder = recorded(tmp_path, READY)
    injected(folder, KILLED)
    text = 'level=error event=request_failed exception="Traceback (most recent call last):"\n'
    (folder.logs / "n1.log").write_text("level=info\n" + text)
    (folder.logs / "switch.log").write_text(text)  # the harness's own
    (verdict,) = [one for one in decide(folder, RUN, fine).verdicts if one.checker == "crash"]
    assert [one.message.partition(": ")[0] for one in verdict.anomalies] == ["logs/n1.log:2"]


def test_a_checker_that_fails_decides_nothing(tmp_path: Path) -> None:
    """A fault of a checker never makes a run valid."""

    def broken(events: Sequence[Event]) -> Verdict:
        raise KeyError("k7")

    folder = recorded(tmp_path, READY)
    injected(folder, KILLED)
    results = decide(folder, RUN, broken)
    assert results.valid is Valid.UNKNOWN
    assert "k7" in results.why


def test_a_run_without_history_is_unknown(tmp_path: Path) -> None:
    """A cluster that never came up leaves a folder that says so."""
    folder = Folder(tmp_path / "run")
    folder.make()
    assert decide(folder, RUN, fine).valid is Valid.UNKNOWN


def test_a_history_that_breaks_the_rules_is_unknown(tmp_path: Path) -> None:
    """Two operations of a process at a time are no history."""
    folder = recorded(tmp_path, READY)
    events = [Event(i, i, 0, Type.INVOKE, "read") for i in range(2)]
    folder.history.write_bytes(b"".join(map(history.encode, events)))
    results = decide(folder, RUN, fine)
    assert results.valid is Valid.UNKNOWN
    assert "busy" in results.why


def test_the_short_matrix_covers_all() -> None:
    """Each workload and each nemesis occurs; the full one has all pairs."""
    cells = choose({}, (), full=False)
    assert {cell.workload for cell in cells} == set(WORKLOADS)
    assert {cell.nemesis for cell in cells} == {*FAULTS, "none", "mixed"}
    assert len(cells) == len(set(cells))
    assert len(choose({}, (), full=True)) == len(WORKLOADS) * len({*FAULTS, "none", "mixed"})


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, unique=True),
    st.lists(st.text("xy", min_size=1, max_size=4), min_size=1, unique=True),
)
def test_any_cover_covers(workloads: list[str], nemeses: list[str]) -> None:
    """Whatever there is of both, nothing is left out, and no more cells than needed are made."""
    cells = covering(workloads, nemeses)
    assert {cell.workload for cell in cells} == set(workloads)
    assert {cell.nemesis for cell in cells} == set(nemeses)
    assert len(cells) == max(len(workloads), len(nemeses))


def test_a_matrix_can_be_narrowed() -> None:
    """--only takes a workload, a nemesis, or a cell that the short matrix does not have."""
    assert {cell.workload for cell in choose({}, ("register",), full=False)} == {"register"}
    assert {cell.nemesis for cell in choose({}, ("loss",), full=True)} == {"loss"}
    assert choose({}, ("bankxloss",), full=False) == [Cell("bank", "loss")]
    with pytest.raises(UnknownName, match="bank"):
        choose({}, ("banc",), full=False)


def test_the_seed_of_a_cell_depends_on_nothing_but_its_name(tmp_path: Path) -> None:
    """A cell runs with the same seed whichever other cells are run."""
    many = Matrix(cells=choose({}, (), full=False), out=tmp_path, seed=4, full=False)
    one = Matrix(cells=[Cell("bank", "loss")], out=tmp_path, seed=4, full=False)
    cell = Cell("bank", "loss")
    assert many.order(cell).seed == one.order(cell).seed
    assert many.order(cell).seed != many.order(Cell("bank", "delay")).seed


def test_the_table_of_a_matrix_gets_into_a_document(tmp_path: Path) -> None:
    """Between the marks, and nowhere else; what is unknown or wrong stands out."""
    folder = recorded(tmp_path, READY)
    injected(folder, KILLED)
    results = decide(folder, RUN, fine)
    outcomes = [
        Outcome("bank", "kill-one", "bank-kill-one", results),
        Outcome("set", "none", "set-none", None, "it did not end"),
    ]
    document = tmp_path / "page.md"
    document.write_text("a\n<!-- matrix -->\nold\n<!-- /matrix -->\nb\n")
    fill_in(document, markdown(outcomes, 7))
    text = document.read_text()
    assert text.startswith("a\n<!-- matrix -->\n| nemesis | bank | set |")
    assert text.endswith("<!-- /matrix -->\nb\n")
    assert "| kill-one | 1, 1 |  |" in text
    assert "| none |  | **unknown** |" in text
    document.write_text("nothing")
    with pytest.raises(NoRun, match="no section"):
        fill_in(document, "")
