"""The exit codes of `raftreg`, as `raftreg --help` and the documentation list them.

The codes themselves live with the errors (`raftreg.errors`); this is what they mean to a script.
"""

from __future__ import annotations

#: Code to meaning. `tests/cli/test_exits.py` holds it against the error tree.
EXIT_CODES = {
    0: "done",
    1: "a fault of raftreg itself, or a check that failed (`health --fail`, `demo --once`)",
    2: "the command line, a file or a value can't be used",
    3: "not allowed (token)",
    4: "what was named does not exist",
    5: "refused: a condition did not hold (cas), a conflict, or a lock was lost",
    6: "no leader or too busy; nothing happened, safe to repeat",
    7: "unknown outcome: the change may have taken effect",
    8: "no server could be reached; nothing was sent",
    130: "interrupted",
}


def epilog() -> str:
    """The text below `raftreg --help`."""
    lines = "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())
    told = "Exit codes (`run`, `lock` and `watch --once` exit with their program's code):"
    return f"\b\n{told}\n{lines}"
