"""Programs that are run to their end."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from raftreg_cli.invoke import OUTPUT_BYTES_MAX, Ended, invoke
from tests.e2e.waiting import until


@pytest.mark.parametrize("size_bytes", [0, 10, 3_000_000])
async def test_a_program_need_not_read_what_it_is_given(size_bytes: int) -> None:
    """Whether it reads all, or ends at once, nothing hangs and the code is its own."""
    counts = [sys.executable, "-c", "import sys; print(len(sys.stdin.buffer.read()))"]
    given = b"x" * size_bytes
    assert (await invoke(counts, stdin=given, capture=True)).output == f"{size_bytes}\n"
    for _ in range(10):
        assert await invoke(["sh", "-c", "exit 3"], stdin=given) == Ended(3)


async def test_output_is_bounded_and_arguments_stay_as_they_are() -> None:
    """The end of a long output is kept; no shell looks at the arguments."""
    long = await invoke([sys.executable, "-c", "print('a' * 10**6 + 'end')"], capture=True)
    assert len(long.output) == OUTPUT_BYTES_MAX
    assert long.output.endswith("end\n")
    assert (await invoke(["echo", "$HOME; *"], capture=True)).output == "$HOME; *\n"


async def test_how_a_program_ended_is_told_as_a_shell_does() -> None:
    """127 when there is none, 126 when it is none, 128 + N for a signal."""
    assert (await invoke(["/no/such/program"])).code == 127
    assert (await invoke(["/etc/passwd"])).code == 126
    assert (await invoke(["sh", "-c", "kill -9 $$"])).code == 137


async def test_when_time_is_over_all_of_it_ends(tmp_path: Path) -> None:
    """Also what the program has started; a child that keeps our pipe open delays nothing."""
    pid = tmp_path / "pid"
    ended = await invoke(["sh", "-c", f"sleep 600 & echo $! > {pid}; wait"], timeout_s=1.0)
    assert ended.timed_out

    async def gone() -> bool:
        return not _runs(int(pid.read_text()))

    await until("the child is gone", gone)
    started = await invoke(["sh", "-c", f"sleep 600 & echo $! > {pid}"], capture=True)
    assert started == Ended(0)
    assert _runs(int(pid.read_text())), "what it left behind on purpose is not ours to end"
    os.kill(int(pid.read_text()), 9)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_a_call_that_is_cancelled_ends_its_program(tmp_path: Path) -> None:
    """Nothing is left running behind the caller's back."""
    pid = tmp_path / "pid"

    async def started() -> bool:
        return bool(pid.read_text().strip())

    async with asyncio.TaskGroup() as group:
        call = group.create_task(invoke(["sh", "-c", f"echo $$ > {pid}; exec sleep 600"]))
        await until("the program runs", started)
        call.cancel()
    assert not _runs(int(pid.read_text()))
