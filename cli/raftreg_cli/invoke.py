"""Runs a program to its end: no shell, bounded in time and output, ended with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

import msgspec

OUTPUT_BYTES_MAX = 16 * 1024
#: How long a grandchild may hold our pipes open after the program itself has ended.
LINGER_S = 1.0
GRACE_S = 5.0
_READ_BYTES = 64 * 1024
_NOT_FOUND = 127
_NOT_EXECUTABLE = 126


class Ended(msgspec.Struct, frozen=True):
    """How a program ended.

    Attributes:
        code: Exit code; 128 + N when signal N ended it (as shells say).
        output: The end of what it wrote, when that was captured.
        timed_out: It was ended because its time was over.
    """

    code: int
    output: str = ""
    timed_out: bool = False


async def invoke(
    arguments: Sequence[str],
    *,
    stdin: bytes = b"",
    extra_env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    capture: bool = False,
) -> Ended:
    """Runs a program; one that can't be started ends with a shell's code and a text.

    It leads a process group. When its time is over, or this call is cancelled, the whole group
    gets SIGTERM, and SIGKILL after a grace of 5 s.

    Args:
        arguments: Program and its arguments.
        stdin: What it can read.
        extra_env: Variables to add to our environment.
        timeout_s: Longest run in seconds; None: no limit.
        capture: Keep the last 16 KiB of its stdout and stderr, which are ours otherwise.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if capture else None,
            stderr=asyncio.subprocess.STDOUT if capture else None,
            env={**os.environ, **(extra_env or {})},
            start_new_session=True,
        )
    except FileNotFoundError:
        return Ended(_NOT_FOUND, f"{arguments[0]}: command not found")
    except (OSError, ValueError) as problem:
        return Ended(_NOT_EXECUTABLE, f"{arguments[0]}: {problem}")
    tail = bytearray()
    timed_out = False
    try:
        async with asyncio.timeout(timeout_s):
            await _attended(process, stdin, tail)
    except TimeoutError:
        timed_out = True
    finally:
        if process.returncode is None:
            await asyncio.shield(_end_group(process))
    code = process.returncode or 0
    return Ended(128 - code if code < 0 else code, tail.decode("utf-8", "replace"), timed_out)


async def _attended(process: asyncio.subprocess.Process, stdin: bytes, tail: bytearray) -> None:
    """Feeds and drains the program until it ends."""
    async with asyncio.TaskGroup() as group:
        pipes = [
            group.create_task(_feed(process.stdin, stdin)),
            group.create_task(_drain(process.stdout, tail)),
        ]
        await process.wait()
        await asyncio.wait(pipes, timeout=LINGER_S)
        for pipe in pipes:
            pipe.cancel()


async def _feed(pipe: asyncio.StreamWriter | None, data: bytes) -> None:
    if pipe is None:
        return
    # A program need not read what it was given.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        pipe.write(data)
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()


async def _drain(pipe: asyncio.StreamReader | None, tail: bytearray) -> None:
    """Keeps the last bytes of a stream."""
    while pipe is not None and (data := await pipe.read(_READ_BYTES)):
        tail += data
        del tail[:-OUTPUT_BYTES_MAX]


async def _end_group(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await process.wait()
                return
