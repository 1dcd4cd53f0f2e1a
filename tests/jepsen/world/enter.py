"""Runs a command in a private world, as `jepsen_like` runs itself: `… enter COMMAND…`."""

from __future__ import annotations

import sys

from jepsen_like.ground import sandbox

if __name__ == "__main__":
    sys.exit(sandbox.enter(sys.argv[1:]))
