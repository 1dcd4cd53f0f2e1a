"""Whole runs with real processes: a matrix of some minutes, and what a run leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from jepsen_like import history
from jepsen_like.checkers.verdict import Valid
from jepsen_like.cli import cli
from jepsen_like.folder import Folder
from jepsen_like.ground.capabilities import capabilities
from jepsen_like.history import NEMESIS
from jepsen_like.matrix import Outcome
from tests.e2e.waiting import until

#: Workload, nemesis. What needs more than processes is run where the machine permits it.
WITH_NAMESPACES = [
    ("register", "partition-leader"),
    ("register", "power-loss-all"),
    ("append", "pause-leader"),
    ("bank", "kill-all"),
    ("watch", "partition-flapping"),
    ("once", "kill-leader"),
]
WITH_PROCESSES = [
    ("register", "kill-leader"),
    ("append", "pause-leader"),
    ("bank", "kill-all"),
    ("watch", "rolling-restart"),
    ("once", "kill-majority"),
]
CELLS = WITH_PROCESSES if capabilities().lacks() else WITH_NAMESPACES
SMALL = ("--nodes", "3", "--concurrency", "5", "--rate", "60", "--seed", "11")
LOOPBACK = ("--no-root",)


def command(*arguments: str) -> list[str]:
    """The command line of the harness."""
    return [sys.executable, "-m", "jepsen_like", *arguments]


def environment(folder: Path) -> dict[str, str]:
    """With all temporary files below a folder, by which processes are recognised, too."""
    folder.mkdir()
    return {**os.environ, "TMPDIR": str(folder)}


def execute(tmp_path: Path, *arguments: str, limit_s: float = 100.0) -> tuple[int, str, Folder]:
    """Runs to the end; gives exit code, what was printed, and the folder."""
    out = tmp_path / "out"
    done = subprocess.run(
        command("run", *SMALL, "--out", str(out), *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=limit_s,
        env=environment(tmp_path / "tmp"),
    )
    assert_nothing_left(tmp_path / "tmp")
    return done.returncode, done.stdout + done.stderr, Folder(out)


def processes(mark: Path) -> Iterator[str]:
    """Command lines that hold a path."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(mark) in words:
            yield words


def assert_nothing_left(folder: Path) -> None:
    """No process, no mount and no file of a run is left."""
    assert list(processes(folder)) == []
    assert str(folder) not in Path("/proc/self/mountinfo").read_text("utf-8")
    assert list(folder.iterdir()) == []


@pytest.mark.timeout(150)
@pytest.mark.parametrize(("workload", "nemesis"), CELLS)
def test_the_cluster_holds(tmp_path: Path, workload: str, nemesis: str) -> None:
    """No anomaly, nothing unknown, and the fault is proved to have acted."""
    code, said, folder = execute(
        tmp_path, "--workload", workload, "--nemesis", nemesis, "--time-limit", "8"
    )
    results = folder.read_results() if folder.results_json.exists() else None
    assert code == 0, f"{said}\n{results}"
    assert results is not None
    assert results.valid is Valid.TRUE
    assert results.faults[nemesis].acted >= 1
    assert results.acknowledged > 0


@pytest.mark.timeout(150)
def test_a_folder_tells_all_and_is_decided_the_same_again(tmp_path: Path) -> None:
    """History, injections, settings, logs, results and report are there; `check` needs no more."""
    code, said, folder = execute(
        tmp_path,
        *("--workload", "register", "--nemesis", "kill-one", "--time-limit", "4", *LOOPBACK),
        *("--keep-data", "--option", "keys_max=2"),
    )
    assert code == 0, said
    run, results = folder.read_run(), folder.read_results()
    assert (run.workload, run.nemesis, run.seed, run.nodes) == ("register", "kill-one", 11, 3)
    assert (run.ground, set(run.hosts)) == ("loopback", {"n1", "n2", "n3"})
    assert run.options == {"keys_max": 2}
    assert run.command[:4] == ["python", "-m", "jepsen_like", "run"]
    assert run.capabilities["network"]
    events = history.read(folder.history)
    ops = history.operations(events)
    assert len(ops) == results.operations > 20
    phases = [event.value for event in events if event.f == "phase"]
    assert phases == ["setup", "load", "heal", "final", "stop"]
    assert all((folder.logs / f"{name}.log").stat().st_size for name in run.hosts)
    assert all((folder.path / "data" / name).is_dir() for name in run.hosts)
    assert "<html" in folder.report.read_text("utf-8")

    for path in (folder.results_json, folder.report):
        path.unlink()
    again = CliRunner().invoke(cli, ["check", str(folder.path)])
    assert again.exit_code == 0, again.output
    assert folder.read_results() == results
    assert folder.report.exists()


@pytest.mark.timeout(150)
def test_a_history_that_was_changed_is_found_by_check(tmp_path: Path) -> None:
    """`check` decides from the record, not from what was decided before."""
    code, said, folder = execute(
        tmp_path, "--workload", "register", "--nemesis", "none", "--time-limit", "2", *LOOPBACK
    )
    assert code == 0, said
    lines = folder.history.read_bytes().splitlines(keepends=True)
    for at in range(len(lines) - 1, -1, -1):
        event = json.loads(lines[at])
        if event["process"] != NEMESIS and event["type"] == "ok" and event["f"] == "read":
            event["value"] = 987_654_321  # nobody wrote it
            lines[at] = json.dumps(event).encode() + b"\n"
            break
    folder.history.write_bytes(b"".join(lines))
    assert CliRunner().invoke(cli, ["check", str(folder.path)]).exit_code == 1
    assert folder.read_results().valid is Valid.FALSE


@pytest.mark.timeout(150)
def test_a_fault_that_can_not_act_makes_the_run_unknown(tmp_path: Path) -> None:
    """One server has nobody to hand its leadership to: exit code 3, and the report says why."""
    code, said, folder = execute(
        tmp_path,
        *("--workload", "register", "--nemesis", "transfer-leader", "--time-limit", "3"),
        *("--nodes", "1", *LOOPBACK),
    )
    assert code == 3, said
    results = folder.read_results()
    assert results.valid is Valid.UNKNOWN
    assert results.faults["transfer-leader"].acted == 0
    assert "transfer-leader" in said


@pytest.mark.timeout(150)
@pytest.mark.parametrize("more", [(), LOOPBACK], ids=["default", "no-root"])
def test_ctrl_c_leaves_a_readable_folder_and_nothing_else(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    """The run ends in order with exit code 130: healed, decided, reported, all processes gone."""
    folder = Folder(tmp_path / "out")
    process = subprocess.Popen(
        command(
            *("run", *SMALL, "--workload", "register", "--nemesis", "pause-leader"),
            *("--time-limit", "600", "--out", str(folder.path), *more),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(tmp_path / "tmp"),
    )

    async def under_load() -> bool:
        events = history.read(folder.history)
        assert process.poll() is None
        return any(event.type.value == "ok" for event in events)

    asyncio.run(until("the load is under way", under_load))
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said.decode()
    results = folder.read_results()
    assert results.interrupted
    assert results.valid is Valid.UNKNOWN
    assert results.acknowledged > 0
    assert folder.report.exists()
    assert b"ending in order" in said
    assert_nothing_left(tmp_path / "tmp")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--workload", "registre", "--nemesis", "none"), ("registre", "register")),
        (("--workload", "bank", "--nemesis", "kill-leadr"), ("kill-leadr", "kill-leader")),
        (("--workload", "bank", "--nemesis", "loss", *LOOPBACK), ("loss", "--no-root")),
        (("--workload", "bank", "--nemesis", "none", "--option", "x=1"), ("bank", "'x'")),
        (("--workload", "bank", "--nemesis", "none", "--plant", "no-bug"), ("no-bug",)),
        (("--workload", "answers", "--nemesis", "none", "--agents", "0"), ("agents",)),
    ],
)
def test_what_can_not_be_run_is_told(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    """A wrong name, or what this machine can't do: exit code 2, and a sentence."""
    done = CliRunner().invoke(cli, ["run", *arguments])
    assert done.exit_code == 2
    assert all(word in done.output for word in words), done.output


def test_a_folder_of_no_run_is_told(tmp_path: Path) -> None:
    """`check` of another folder is an error of usage, not a verdict."""
    done = CliRunner().invoke(cli, ["check", str(tmp_path)])
    assert done.exit_code == 2
    assert "run.json" in done.output


def test_list_names_all_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workloads, nemeses, and for each need whether it is there, else why not."""
    monkeypatch.setenv("COLUMNS", "200")
    text = CliRunner().invoke(cli, ["list"]).output
    assert "register" in text
    assert "kill-leader" in text
    assert all(f"\n{need}: " in text for need in ("network", "disk", "clock"))


@pytest.mark.timeout(150)
def test_a_matrix_is_resumed(tmp_path: Path) -> None:
    """What was valid is kept, the rest is run; the page and the JSON hold all."""
    out = tmp_path / "matrix"
    arguments = command(
        *("matrix", "--out", str(out), "--only", "uniquexnone", "--only", "setxnone"),
        *("--time-limit", "2", "--rate", "30", "--nodes", "1", "--seed", "3", *LOOPBACK),
    )
    first, again = (_matrix([*arguments, *more], out) for more in ((), ("--resume",)))
    assert {one.workload for one in again} == {"unique", "set"}
    assert first == again
    refused = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr


def _matrix(arguments: list[str], out: Path) -> list[Outcome]:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "index.html").exists()
    return msgspec.json.decode((out / "matrix.json").read_bytes(), type=list[Outcome])
