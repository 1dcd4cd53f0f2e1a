"""A private world: what passes through it, and that nothing of it is ever left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jepsen_like.ground import sandbox
from jepsen_like.ground.capabilities import capabilities
from tests.e2e.waiting import until

ENTER = (sys.executable, "-m", "tests.jepsen.world.enter")
#: Where the machine permits no world, the tests of one hold the sentence that says so instead.
REFUSED = capabilities().network
END_S = 40.0


def told_why() -> bool:
    """Whether this machine permits no private world; then it must have said why."""
    if REFUSED is None:
        return False
    assert len(REFUSED.split()) > 3
    return True


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a private world of its own."""
    return subprocess.run(
        [*ENTER, *command], capture_output=True, text=True, check=False, timeout=END_S
    )


class Resident:
    """A world with a host in which a process runs that only the kernel ends."""

    def __init__(self, folder: Path) -> None:
        self.token = f"resident-{os.getpid()}-{folder.name}"
        self.file = folder / "written"
        command = [*ENTER, sys.executable, "-m", "tests.jepsen.world.resident", self.token]
        self.outer = subprocess.Popen([*command, str(self.file)], stdout=subprocess.PIPE, text=True)
        assert self.outer.stdout is not None
        _, namespaces, scratch = self.outer.stdout.readline().split()
        self.namespaces = set(namespaces.split(","))
        self.scratch = Path(scratch)

    def chain(self) -> list[psutil.Process]:
        """This world's processes from the outside in: outer, unshare, init, the command."""
        found = [psutil.Process(self.outer.pid)]
        while len(found) < 4:
            found.append(found[-1].children()[0])
        return found

    def left(self) -> list[str]:
        """All that is left of it; empty when it is as if it had never been."""
        found = [f"process {p.pid} {p.status()}" for p in _living() if self.token in _words(p)]
        found += [f"namespace of {p.pid}" for p in _living() if _namespace(p) in self.namespaces]
        found += [f"mount {line}" for line in _mounts() if "/run/netns" in line and "tmpfs" in line]
        found += [f"name {name}" for name in _names() if name == "n1"]
        found += [f"device {d.name}" for d in Path("/sys/class/net").glob("lan0")]
        return found + ([f"folder {self.scratch}"] if self.scratch.exists() else [])

    def close(self) -> None:
        """Ends it whatever the test did."""
        self.outer.kill()
        self.outer.wait()
        assert self.outer.stdout is not None
        self.outer.stdout.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


def _living() -> Iterator[psutil.Process]:
    yield from psutil.process_iter()


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _namespace(process: psutil.Process) -> str:
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{process.pid}/ns/net").stat().st_ino)
    return ""


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text("utf-8").splitlines()


def _names() -> list[str]:
    folder = Path("/run/netns")
    return [path.name for path in folder.iterdir()] if folder.exists() else []


@pytest.fixture
def resident(tmp_path: Path) -> Iterator[Resident | None]:
    """A world that is ready; None where there can be none."""
    if told_why():
        yield None
        return
    with contextlib.closing(Resident(tmp_path)) as world:
        yield world


async def test_it_has_nothing_of_the_outside_but_files() -> None:
    """Own processes, own network with nothing but loopback, own names; the same working folder."""
    if told_why():
        return
    script = "ps -e -o pid= | wc -l; ip -o link | wc -l; ip route; ls /run/netns; pwd; echo $HOME"
    result = run("sh", "-c", script)
    processes, links, folder, home = result.stdout.split()
    # init, the shell, and its pipeline.
    assert int(processes) <= 5
    assert (int(links), folder, home) == (1, str(Path.cwd()), os.environ.get("HOME", ""))
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
async def test_the_exit_code_is_that_of_the_command(script: str, code: int) -> None:
    """A signal that ended it is told as a shell does, 128 + N."""
    if not told_why():
        assert run("sh", "-c", script).returncode == code


async def test_a_command_that_is_not_there_is_said_so() -> None:
    """Exit code 127, and its name on standard error."""
    if told_why():
        return
    result = run("/no/such/program")
    assert (result.returncode, result.stderr) == (
        127,
        "/no/such/program: No such file or directory\n",
    )


async def test_orphans_are_reaped_and_do_not_end_the_world() -> None:
    """A process whose parent has gone ends without trace, and only the command's end counts."""
    if told_why():
        return
    script = "(sh -c 'exit 3' & ) ; while ps -e -o stat= | grep -q Z; do :; done; exit 5"
    assert run("sh", "-c", script).returncode == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_to_the_outside_ends_the_run_in_order(
    resident: Resident | None, number: signal.Signals
) -> None:
    """The command gets it once, writes what it has to write, and then nothing is left."""
    if resident is None:
        return
    resident.outer.send_signal(number)
    expected = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
    assert resident.outer.wait(END_S) == 128 + expected
    assert resident.file.read_text("utf-8") == "in order"
    assert resident.left() == []


@pytest.mark.parametrize("depth", [0, 1, 2, 3], ids=["outer", "unshare", "init", "command"])
async def test_a_kill_of_any_of_its_processes_leaves_nothing(
    resident: Resident | None, depth: int
) -> None:
    """SIGKILL, to whichever: the kernel removes processes, namespaces, mounts and devices."""
    if resident is None:
        return
    assert any("process" in one for one in resident.left())
    assert any("namespace" in one for one in resident.left())
    resident.chain()[depth].send_signal(signal.SIGKILL)

    async def nothing() -> bool:
        left = resident.left()
        assert left == []
        return True

    await until("nothing is left", nothing, limit_s=END_S)
    assert resident.outer.wait(END_S) in {-signal.SIGKILL, 128 + signal.SIGKILL}


async def test_a_mark_of_another_world_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that only inherited the variable is not inside, and gets no scratch folder."""
    monkeypatch.setenv(sandbox.MARK, "net:[1]")
    monkeypatch.setenv(sandbox.SCRATCH, "/tmp")
    assert not sandbox.inside()
    assert sandbox.scratch() is None


async def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is a sentence for people."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in (sandbox.why_not() or "")


async def test_a_missing_tool_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that one knows what to install."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "util-linux" in (sandbox.why_not() or "")


async def test_what_the_kernel_refuses_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reason holds the tool's own words."""
    for name in ("unshare", "nsenter", "ip"):
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2; exit 1\n")
        tool.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "Operation not permitted" in (sandbox.why_not() or "")
