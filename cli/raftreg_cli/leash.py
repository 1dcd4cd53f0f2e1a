"""Runs a program that must not outlive the process which started it.

`python -m raftreg_cli.leash PPID CMD…` asks the kernel for a signal when its parent dies
(PR_SET_PDEATHSIG, prctl(2)), then becomes CMD by exec. Setting this between fork and exec of the
parent would run Python in a forked child of a process that has threads; a small process of its own
is the safe place. Where prctl is missing (macOS) CMD simply runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NOT_FOUND = 127
_NOT_EXECUTABLE = 126


def command(arguments: list[str]) -> list[str]:
    """The argument list that runs `arguments` on a leash held by this process."""
    return [sys.executable, "-m", __name__, str(os.getpid()), *arguments]


def main() -> None:
    """Takes the leash, then becomes the command; exits with a shell's codes when it can't."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    _follow(parent)
    try:
        os.execvp(program[0], program)  # no shell: this is what the module is for
    except FileNotFoundError:
        _fail(f"{program[0]}: command not found", _NOT_FOUND)
    except OSError as problem:
        _fail(f"{program[0]}: {problem.strerror}", _NOT_EXECUTABLE)


def _follow(parent: int) -> None:
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    if prctl is None:
        return
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The parent may have died before the call above; then no signal will ever come.
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"raftreg: {message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
