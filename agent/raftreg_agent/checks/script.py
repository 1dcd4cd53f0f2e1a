"""Script checks: exit status 0 is passing, 1 a warning, everything else critical.

There is no shell: `Args` is the program with its arguments. The program runs in a process group of
its own, which is ended as a whole when the time is over, also when only a child still runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from raftreg.http.decode import CheckDefinition
from raftreg.model import Status
from raftreg_agent.checks.machine import CheckResult
from raftreg_agent.checks.runners import critical, output_bytes_max, reason, timeout_s

REAP_WAIT_S = 5.0
_READ_BYTES = 65_536
_STATUS = {0: Status.PASSING, 1: Status.WARNING}


class ScriptRunner:
    """Runs a program of this host; the registrar refuses such checks unless they are enabled."""

    async def run(self, check: CheckDefinition) -> CheckResult:
        """See `Runner`."""
        try:
            process = await asyncio.create_subprocess_exec(
                *check.args,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return critical(f"{check.args[0]}: {reason(error)}", check)
        tail = _Tail(output_bytes_max(check))
        code = None
        try:
            async with asyncio.timeout(timeout_s(check)):
                await _drain(process, tail)
                code = await process.wait()
        except TimeoutError:
            return critical(
                f"Timed out ({timeout_s(check):g}s) running check. {tail.text()}", check
            )
        finally:
            if code is None:
                await _end_group(process)
        return CheckResult(_STATUS.get(code, Status.CRITICAL), tail.text())


class _Tail:
    """Keeps the last bytes of a stream."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        self._data += data
        del self._data[: -self._size_max]

    def text(self) -> str:
        return self._data.decode("utf-8", "ignore")


async def _drain(process: asyncio.subprocess.Process, tail: _Tail) -> None:
    """Reads until every holder of the pipe has closed it."""
    if process.stdout is not None:
        while data := await process.stdout.read(_READ_BYTES):
            tail.add(data)


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """Ends what is left of the process group, and waits for its first process."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REAP_WAIT_S):
                await process.wait()
