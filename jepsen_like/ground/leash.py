"""Runs a program that must not outlive this process, where no private world cares.

`python -m jepsen_like.ground.leash PPID CMD…` asks the kernel for SIGKILL when its parent
dies (PR_SET_PDEATHSIG, prctl(2)) and becomes CMD by exec. It is SIGKILL because a paused process
would keep any other signal for ever. Where prctl is missing CMD simply runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_NOT_FOUND = 127


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that runs `arguments` on a leash held by this process."""
    return [sys.executable, "-m", __name__, str(os.getpid()), *arguments]


def main() -> int:
    """Takes the leash and becomes the command; returns only when it can't."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call: no signal will ever come
            return 128 + signal.SIGKILL
    try:
        os.execvp(program[0], program)  # no shell: this is what the module is for
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
        return _NOT_FOUND


if __name__ == "__main__":
    sys.exit(main())
