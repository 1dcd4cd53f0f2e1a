"""Lives in a private world with a host of its own until asked to end: `… resident TOKEN FILE`.

It says "ready NAMESPACES SCRATCH" on standard output; at SIGTERM or SIGINT it writes FILE, as the
runner writes the rest of its folder, and exits with the code of that signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from jepsen_like.ground import network, sandbox


async def main(token: str, file: Path) -> int:
    """Builds a host, starts a process on it, waits for a signal."""
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set_result, number)
    folder = sandbox.scratch()
    assert folder is not None
    async with network.open_network({"n1": "10.77.0.1"}, seed=1, log=folder / "switch.log"):
        pid = await asyncio.to_thread(settle, token)
        sys.stdout.write(f"ready {namespace(pid)},{namespace(os.getpid())} {folder}\n")
        sys.stdout.flush()
        number = await asked
        await asyncio.to_thread(file.write_text, "in order", encoding="utf-8")
    return 128 + number


def settle(token: str) -> int:
    """Starts a process on the host and waits until it is ready; gives its id.

    It ignores all that can be ignored, in a session of its own: only the kernel ends it.
    """
    program = "import signal,sys; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]\n"
    program += "print(flush=True)\nwhile True: signal.pause()"
    tough = subprocess.Popen(
        [*network.prefix("n1"), sys.executable, "-c", program, token],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert tough.stdout is not None
    tough.stdout.readline()
    return tough.pid


def namespace(pid: int) -> int:
    """Which network a process is in."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], Path(sys.argv[2]))))
