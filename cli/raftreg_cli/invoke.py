"""Runs a program to its end: no shell, bounded in time and output, ended with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import IO

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
    tail = bytearray()
    # A file and no pipe: a program need not read what it is given, nor when.
    with tempfile.TemporaryFile() as given:
        await asyncio.to_thread(_fill, given, stdin)
        async with _collected(tail) if capture else nullcontext() as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *arguments,
                    stdin=given,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **(extra_env or {})},
                    start_new_session=True,
                )
            except FileNotFoundError:
                return Ended(_NOT_FOUND, f"{arguments[0]}: command not found")
            except (OSError, ValueError) as problem:
                return Ended(_NOT_EXECUTABLE, f"{arguments[0]}: {problem}")
            timed_out = await _waited(process, timeout_s)
    code = process.returncode or 0
    return Ended(128 - code if code < 0 else code, tail.decode("utf-8", "replace"), timed_out)


def _fill(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
    file.seek(0)


async def _waited(process: asyncio.subprocess.Process, timeout_s: float | None) -> bool:
    """Waits for the program's end; tells whether it had to be ended."""
    try:
        async with asyncio.timeout(timeout_s):
            await process.wait()
    except TimeoutError:
        return True
    finally:
        if process.returncode is None:
            await asyncio.shield(_end_group(process))
    return False


@asynccontextmanager
async def _collected(tail: bytearray) -> AsyncIterator[int]:
    """Gives a pipe to write to, whose last bytes are in `tail` after the block.

    A pipe of our own: asyncio's would have us wait until every holder of it has gone, also what the
    program has left running on purpose.
    """
    end, pipe = os.pipe()
    reader = asyncio.StreamReader()
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(end, "rb", buffering=0)
        )
    except BaseException:
        os.close(pipe)
        raise
    async with asyncio.TaskGroup() as group:
        draining = group.create_task(_drain(reader, tail))
        try:
            yield pipe
        finally:
            os.close(pipe)
            await asyncio.wait([draining], timeout=LINGER_S)
            draining.cancel()
            transport.close()


async def _drain(pipe: asyncio.StreamReader, tail: bytearray) -> None:
    """Keeps the last bytes of a stream."""
    while data := await pipe.read(_READ_BYTES):
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
