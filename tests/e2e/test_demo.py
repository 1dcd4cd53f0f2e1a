"""`raftreg demo`: shows what it promises, and leaves nothing behind however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from raftreg.clock import new_id
from tests.e2e.cluster import clean_environment, raftreg
from tests.e2e.waiting import until

_MARK = "DEMO_TEST_MARK"
_START_S_MAX = 60.0


class Demo:
    """A demo whose processes are known by a mark in their environment.

    Args:
        directory: Where its temporary files go.
    """

    def __init__(self, directory: Path) -> None:
        self.mark = new_id()
        self.directory = directory
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Starts it on ports of its own, with its output in pipes."""
        self.process = await asyncio.create_subprocess_exec(
            *raftreg("demo", "--base-port", "7500", *arguments),
            env={**clean_environment(), _MARK: self.mark, "TMPDIR": str(self.directory)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return self.process

    async def shown(self, text: str) -> None:
        """Waits until a line with this text was printed."""
        assert self.process is not None
        assert self.process.stdout is not None
        async with asyncio.timeout(_START_S_MAX):
            while text not in (await self.process.stdout.readline()).decode():
                pass

    def processes(self) -> set[int]:
        """Ids of all processes that belong to it."""
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark:
                    found.add(process.pid)
        return found

    def process_of(self, node: str) -> int | None:
        """Id of the process that runs as this node."""
        for pid in self.processes():
            with contextlib.suppress(psutil.Error):
                if node in psutil.Process(pid).cmdline():
                    return pid
        return None


@pytest.fixture
def demo(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that is not started; whatever a failed test leaves of it is ended.

    One at a time over all test processes: two that look for free addresses at the same moment
    could find the same ones.
    """
    with (tmp_path_factory.getbasetemp().parent / "demo.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        demo = Demo(tmp_path)
        yield demo
        for pid in demo.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_once_checks_everything_and_cleans_up(demo: Demo) -> None:
    """Exit code 0, every step passed, a figure for the outage; no process and no file is left."""
    process = await demo.start("--once", "--output", "json")
    out, err = await process.communicate()
    report = json.loads(out)
    assert process.returncode == 0, (report, err)
    assert report["ok"] is True
    assert [step for step in report["steps"] if not step["ok"]] == []
    assert report["figures"]["leader_killed_to_next_write_s"] > 0
    assert demo.processes() == set()
    assert list(demo.directory.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_all(demo: Demo, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM: the table was shown, exit code 0, no process and no file is left."""
    process = await demo.start()
    await demo.shown("INSTANCE")
    assert len(demo.processes()) == 13, "the demo, 6 members, 6 samples"
    process.send_signal(number)
    _, err = await process.communicate()
    assert process.returncode == 0, err
    assert b"Traceback" not in err
    assert demo.processes() == set()
    assert list(demo.directory.iterdir()) == []


async def test_a_signal_while_it_starts(demo: Demo) -> None:
    """Interrupted before anything runs as it should, it cleans up all the same."""
    process = await demo.start()
    assert process.stderr is not None
    assert b"Starting" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 0
    assert demo.processes() == set()
    assert list(demo.directory.iterdir()) == []


async def test_no_process_outlives_a_killed_demo(demo: Demo) -> None:
    """Kill -9 of the demo itself: the kernel ends what it started."""
    process = await demo.start()
    await demo.shown("INSTANCE")
    process.kill()
    await process.wait()

    async def all_gone() -> bool:
        return demo.processes() == set()

    await until("all processes to be gone", all_gone)


async def test_a_dead_server_is_started_again_on_request(demo: Demo) -> None:
    """SIGUSR1 (or the key r) starts what was killed; the table shows it."""
    process = await demo.start()
    await demo.shown("INSTANCE")
    victim = demo.process_of("server-2")
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    await demo.shown("stopped")
    process.send_signal(signal.SIGUSR1)

    async def back() -> bool:
        return demo.process_of("server-2") is not None

    await until("server-2 to run again", back)
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert demo.processes() == set()
