"""Programs on a leash: exit codes and signals pass through, and none outlives its starter."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import pytest

from raftreg_cli import child, leash


async def _code(*arguments: str) -> int:
    async with child.started(arguments) as program:
        return await program.wait()


@pytest.mark.parametrize("code", [0, 1, 7, 255])
async def test_the_exit_code_is_kept(code: int) -> None:
    """What the program exits with is what we get."""
    assert await _code(sys.executable, "-c", f"raise SystemExit({code})") == code


async def test_a_death_by_signal_is_told_as_shells_do() -> None:
    """Signal N is 128 + N."""
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert await _code(sys.executable, "-c", program) == 128 + signal.SIGKILL


async def test_a_program_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    """127 and a sentence, as shells do; no traceback."""
    assert await _code("/no/such/program") == 127
    assert capfd.readouterr().err == "raftreg: /no/such/program: command not found\n"


async def test_no_shell_reads_the_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    """Quotes, dollars and semicolons arrive as they are."""
    text = "$(echo no); `ls` \"'"
    await _code(sys.executable, "-c", "import sys; print(sys.argv[1])", text)
    assert capfd.readouterr().out == text + "\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
async def test_signals_are_passed_on(number: signal.Signals) -> None:
    """What we are sent reaches the program, which decides; we live on."""
    program = (
        f"import os, signal; signal.signal({int(number)}, lambda *_: os._exit(42));"
        "print('ready', flush=True); signal.pause()"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _RUN, sys.executable, "-c", program),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert await process.wait() == 42


#: Runs the rest of its command line through `child`, and exits with its code.
_RUN = """
import asyncio, sys
from raftreg_cli import child
async def main():
    async with child.started(sys.argv[1:]) as program:
        return await program.wait()
sys.exit(asyncio.run(main()))
"""


async def test_no_program_outlives_its_starter() -> None:
    """When the starter is killed with SIGKILL, the kernel ends the program."""
    read_end, write_end = os.pipe()
    program = f"import os, signal; os.write({write_end}, b'r'); signal.pause()"
    starter = (
        "import os, subprocess, sys; from raftreg_cli import leash;"
        f"subprocess.Popen(leash.command([sys.executable, '-c', {program!r}]),"
        f" pass_fds=[{write_end}]).wait()"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", starter, pass_fds=[write_end]
    )
    os.close(write_end)
    assert await _read(read_end, keep=True) == b"r"
    process.kill()
    await process.wait()
    assert await _read(read_end) == b"", "the program's end of the pipe is closed by its death"


async def test_a_starter_that_is_gone_already() -> None:
    """A program whose starter died before the leash was on is not started at all."""
    command = leash.command([sys.executable, "-c", "print('ran')"])
    command[3] = "1"  # the process id of a parent that is not ours
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (out, process.returncode) == (b"", 128 + signal.SIGTERM)


async def test_leaving_the_block_stops_the_program() -> None:
    """A failure beside the program ends it: SIGTERM, then SIGKILL when it does not listen."""
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
    seen: list[child.Child] = []
    with contextlib.suppress(RuntimeError):
        async with child.started(
            [sys.executable, "-c", stubborn + "; signal.pause()"], grace_s=0.01
        ) as program:
            seen.append(program)
            raise RuntimeError("something else failed")
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0].pid, 0)


async def _read(descriptor: int, *, keep: bool = False) -> bytes:
    """Reads one byte when there is one, or nothing at the end, without blocking the loop."""
    data = await asyncio.to_thread(os.read, descriptor, 1)
    if not keep:
        os.close(descriptor)
    return data
