"""The examples of `raftreg watch` and `raftreg lock`, and the systemd units beside them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.ask import Ask
from tests.e2e.cluster import HTTP_PORT, Cluster, Member, raftreg
from tests.e2e.waiting import until
from tests.examples.programs import EXAMPLES, Program, Programs, find

UNITS = sorted(EXAMPLES.rglob("*.service"))


def at(member: Member, *arguments: str) -> list[str]:
    """The command line of a command that asks this member."""
    command, *rest = arguments
    return raftreg(command, "--http-addr", f"{member.address}:{HTTP_PORT}", *rest)


def example_line(path: str, *words: str) -> list[str]:
    """The arguments of the line of a page that holds these words, without its program."""
    for line in (EXAMPLES / path).read_text().splitlines():
        if all(word in line for word in words):
            return shlex.split(line[line.index("raftreg ") :])[1:]
    raise AssertionError(f"{path} has no line with {words}")


async def test_the_handler_keeps_a_file_of_healthy_instances(
    agent: Member, ask: Ask, net: str, programs: Programs, tmp_path: Path
) -> None:
    """The command line of the page, with the handler of the example, follows the registry."""
    target = tmp_path / "backends"
    arguments = [
        {"web": "handled", "/tmp/backends": str(target)}.get(part, part)  # the page's
        for part in example_line("watch/README.md", "raftreg watch --type service")
    ]
    handler = arguments.index("--") + 1
    assert arguments[handler] == "deploy/examples/watch/backends.py"
    arguments[handler : handler + 1] = [sys.executable, str(EXAMPLES / "watch" / "backends.py")]
    programs.start("watch", at(agent, *arguments))

    async def lists(*expected: str) -> None:
        async def same() -> bool:
            return target.read_text().splitlines() == sorted(expected)

        await until(f"a file with {expected}", same)

    await lists()
    for number in (1, 2):
        check = {"CheckID": f"handled-{number}-ttl", "TTL": "10m", "Status": "passing"}
        place = {"Address": f"{net}.{number}", "Port": 80}
        await ask.register(agent, "handled", ID=f"handled-{number}", Check=check, **place)
    await lists(f"{net}.1:80", f"{net}.2:80")
    await ask.put(agent, "/v1/agent/check/fail/handled-1-ttl")
    await lists(f"{net}.2:80")
    await ask.put(agent, "/v1/agent/service/deregister/handled-1")
    await ask.put(agent, "/v1/agent/service/deregister/handled-2")
    await lists()


async def test_a_job_runs_on_one_host_at_a_time_and_the_standby_takes_over(
    registry: Cluster, programs: Programs, tmp_path: Path
) -> None:
    """Two hosts start the same line: one runs it, a third try leaves at once, and when the holder
    is killed its program ends with it and the other host takes over after the TTL.
    """
    job = "import pathlib, signal, sys; pathlib.Path(sys.argv[1]).touch(); signal.pause()"

    def start(host: int, line: str, name: str) -> tuple[Program, Path]:
        options = example_line("lock/README.md", line)
        runs = tmp_path / name
        command = [*options[: options.index("--") + 1], sys.executable, "-c", job, str(runs)]
        return programs.start(name, at(registry.agents[host], *command)), runs

    def exists(mark: Path) -> bool:
        return mark.exists()

    async def running(mark: Path) -> bool:
        return exists(mark)

    holder, first = start(0, "services/scheduler", "first")
    await until("a first holder", lambda: running(first))
    _, second = start(1, "services/scheduler", "second")
    tried = programs.start(
        "tried", at(registry.agents[1], "lock", "--try", "0s", "services/scheduler", "--", "true")
    )

    async def refused() -> bool:
        return not tried.running

    await until("a try that finds it taken", refused)
    assert "is held by session" in tried.text()
    assert not second.exists()
    holder.kill()
    await until("the standby took over", lambda: running(second))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_units_start_commands_that_exist(unit: Path) -> None:
    """Each unit starts raftreg with options that it knows, and restarts it."""
    text = unit.read_text()
    (start,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    program, command, *arguments = shlex.split(start.removeprefix("ExecStart="))
    assert program == "/opt/raftreg/bin/raftreg"
    if "--" in arguments:
        arguments = arguments[: arguments.index("--")]
    done = subprocess.run(
        raftreg(command, "--help"), capture_output=True, text=True, timeout=60, check=True
    )
    options = {part for part in arguments if part.startswith("-")}
    assert all(option in done.stdout for option in options)
    assert "Restart=" in text


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to say about them as they would be installed."""
    analyze = find("systemd-analyze")
    root = tmp_path / "root"
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    for name in ("opt/raftreg/bin/raftreg", "bin/kill"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("#!/bin/sh\n")
        (root / name).chmod(0o755)
    installed = root / "etc/systemd/system"
    installed.mkdir(parents=True)
    for unit in [*UNITS, *(EXAMPLES.parent / "systemd").glob("*.service")]:
        shutil.copy(unit, installed)
    command = [analyze, "verify", "--man=no", f"--root={root}", *(unit.name for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
