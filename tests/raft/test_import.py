"""What importing the consensus room does to the process: nothing."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_engine_leaves_the_socket_module_alone() -> None:
    """PySyncObj puts a function for Windows in the place of `socket.inet_ntop`; ours stays."""
    code = (
        "import socket; before = socket.inet_ntop, socket.inet_pton; import raftreg.raft.replica; "
        "assert (socket.inet_ntop, socket.inet_pton) == before; "
        "assert socket.inet_ntop(socket.AF_INET, bytes(4)) == '0.0.0.0'"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
