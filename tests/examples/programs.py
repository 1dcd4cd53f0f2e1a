"""Other people's programs under test: started by argument list, ended by process group."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from raftreg_cli import leash
from tests.e2e.cluster import clean_environment

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
_STOP_S_MAX = 10.0
_TAIL_BYTES = 6000
#: Where Debian keeps servers; not in everybody's PATH.
_SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin:/usr/local/sbin"


class Program:
    """A running program with all the processes that it made.

    Args:
        name: For the report of a failed test.
        process: The process; it leads a group of its own.
        log: What it writes.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._group_gone = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the program alone."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Sends SIGKILL to the program and all it made, and waits for its end."""
        if not self._group_gone:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._group_gone = True  # from here on the number may be somebody else's

    def stop(self) -> None:
        """Asks it to end; after a while makes it."""
        if self.running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S_MAX)
        self.kill()

    def text(self) -> str:
        """All it wrote so far."""
        return self.log.read_text("utf-8", "replace")

    def tail(self) -> str:
        """The end of what it wrote."""
        return self.text()[-_TAIL_BYTES:]


class Programs:
    """The programs of one test, ended with it.

    Args:
        directory: Holds their logs.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.started: list[Program] = []

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        as_user: str = "",
    ) -> Program:
        """Starts a program; it ends when this process does.

        Args:
            name: For people; also of its log.
            command: Program and arguments.
            cwd: Its working directory.
            env: Further variables of its environment.
            as_user: Give up root for this user; nothing happens when we are not root.
        """
        arguments = [find(str(command[0])), *(str(part) for part in command[1:])]
        log = self._directory / f"{len(self.started)}-{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                leash.command(demoted(arguments, as_user)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=cwd or self._directory,
                env={**clean_environment(), **(env or {})},
                start_new_session=True,
            )
        program = Program(name, process, log)
        self.started.append(program)
        return program

    def stop_all(self) -> None:
        """Ends what runs, the last one first."""
        for program in reversed(self.started):
            program.stop()


def find(name: str) -> str:
    """The path of an installed program.

    Raises:
        FileNotFoundError: It is not installed; `.ci/run` installs what these tests need.
    """
    found = shutil.which(name, path=_SEARCH)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: see the table in .ci/run")
    return found


def demoted(command: Sequence[str], user: str) -> list[str]:
    """The command line that runs a program as a user without any rights of root."""
    if not user or os.geteuid() != 0:
        return list(command)
    # The kernel forgets the leash when the user changes: setpriv ties it again.
    return [
        *(find("setpriv"), "--reuid", user, "--regid", user, "--clear-groups"),
        *("--pdeathsig", "TERM", "--", *command),
    ]


def install(example: str, directory: Path, changes: Mapping[str, str]) -> Path:
    """Copies a file of deploy/examples as an operator would, adapted to this host.

    Args:
        example: Its path under deploy/examples.
        directory: Where the copy goes.
        changes: Texts of the example and what stands in their place here.

    Raises:
        AssertionError: A text to be changed does not occur: the test would test something else.
    """
    source = EXAMPLES / example
    text = source.read_text()
    for old, new in changes.items():
        assert old in text, f"{example} has no {old!r} to replace"
        text = text.replace(old, new)
    target = directory / source.name
    target.write_text(text)
    return target
