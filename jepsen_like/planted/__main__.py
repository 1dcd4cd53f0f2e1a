"""`python -m jepsen_like.planted BUG -- server …`: raftreg's command line with a known bug."""

from __future__ import annotations

import sys

from jepsen_like.planted import BUGS
from raftreg_cli.main import main

_USAGE = "usage: python -m jepsen_like.planted BUG -- COMMAND…"


def _run(arguments: list[str]) -> None:
    if len(arguments) < 3 or arguments[1] != "--":
        sys.exit(_USAGE)
    if arguments[0] not in BUGS:
        sys.exit(f"no such bug: {arguments[0]!r}; there are {', '.join(BUGS)}")
    BUGS[arguments[0]].patch()
    sys.argv = ["raftreg", *arguments[2:]]
    main()


if __name__ == "__main__":
    _run(sys.argv[1:])
