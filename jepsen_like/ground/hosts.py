"""Hosts: one raftreg process each, started, signalled, watched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from jepsen_like.ground.api import ClockControl, DiskControl

RAFT_PORT: Final = 8300
HTTP_PORT: Final = 8500
DNS_PORT: Final = 8600
STOP_S_MAX: Final = 20.0
KILL_S_MAX: Final = 30.0
#: Meant for another registry, or for the tests of this one.
_FOREIGN: Final = ("RAFTREG_", "CONSUL_", "COV_", "PYTEST_")


class Busy(Exception):
    """A step that needs the process to be gone; the text names the host."""


class ProcessHost:
    """A host of this machine (`api.Host`).

    Args:
        name: Its node name.
        address: Its IP address.
        command: What runs on it, whole.
        data_dir: As the process sees it.
        log: Receives what the process writes.
        environment: Variables beside those of this process.
        disk, clock: Their controls, if any.
    """

    def __init__(
        self,
        name: str,
        address: str,
        command: Sequence[str],
        *,
        data_dir: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
        disk: DiskControl | None = None,
        clock: ClockControl | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.data_dir = data_dir
        self.log = log
        self.disk = disk
        self.clock = clock
        self._command = tuple(command)
        self._environment = {**_clean_environment(), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process, None while none runs."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def state(self) -> str:
        """State letter as in proc_pid_stat(5), "-" for no process."""
        pid = self.pid
        if pid is None:
            return "-"
        try:
            text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
        except OSError:
            return "-"
        # The name of the program, in parentheses, may itself hold spaces and parentheses.
        letter = text.rpartition(")")[2].split()[0]
        return "-" if letter in {"Z", "X"} else letter

    async def start(self, flags: Sequence[str] = ()) -> None:
        """Starts the process (nothing if it runs); does not wait until it answers.

        Raises:
            OSError: The program can't be run.
        """
        if self.pid is None:
            self._process = self._spawn(flags)

    def _spawn(self, flags: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self._command, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment,
            )

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if there is one."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and waits until it is gone.

        Raises:
            Busy: It is not after `KILL_S_MAX`: a system call of it does not end (a frozen disk).
        """
        self.send(signal.SIGKILL)
        await self._killed()

    async def stop(self) -> int:
        """SIGTERM, and waits; SIGKILL after `STOP_S_MAX`. Gives the exit code, -N for signal N."""
        self.send(signal.SIGTERM)
        # A paused process would not see the signal.
        self.send(signal.SIGCONT)
        try:
            return await self._gone(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            return await self._killed()

    async def wipe(self) -> None:
        """Empties the data directory.

        Raises:
            Busy: The process runs.
            OSError: A file can't be removed.
        """
        if self.pid is not None:
            raise Busy(f"{self.name} runs: its data directory can't be emptied")
        await asyncio.to_thread(_empty, self.data_dir)

    async def _killed(self) -> int:
        try:
            return await self._gone(KILL_S_MAX)
        except subprocess.TimeoutExpired as error:
            raise Busy(f"{self.name} is not gone {KILL_S_MAX:g} s after SIGKILL") from error

    async def _gone(self, timeout_s: float) -> int:
        process = self._process
        return 0 if process is None else await asyncio.to_thread(process.wait, timeout_s)


def _empty(folder: Path) -> None:
    """Removes what is in it; the folder itself may be a mount point."""
    if not folder.exists():
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
