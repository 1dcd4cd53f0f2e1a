"""A private world for a run: own processes, mounts, network, host name; the kernel removes it.

`enter` runs the same command line again as a chain of three processes:

    this process -- unshare(1) -- `init`, process 1 of the new world -- the command itself

The world ends when `init` ends, and `init` ends when the command does, or when its line to this
process closes; `unshare --kill-child` ends it when unshare(1) is killed. So whichever of the three
dies, in whatever way, the kernel ends every process of the world, and with the last one the
namespaces, their mounts and devices (pid_namespaces(7), network_namespaces(7)).

Signals: this process passes SIGINT, SIGTERM and SIGHUP (as SIGTERM) on through that line, each as
one byte; the chain has a process group of its own, so that Ctrl-C in a terminal arrives once. The
exit code comes back on it in the same way: that of unshare(1) does not tell all ends apart.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

MARK: Final = "JEPSEN_LIKE_WORLD"  #: names the network namespace of the world
SCRATCH: Final = "JEPSEN_LIKE_SCRATCH"  #: a folder for data; it is removed after the world
_NOT_FOUND: Final = 127
_KILLED: Final = 128 + signal.SIGKILL
_UNSHARE: Final = (
    *("unshare", "--pid", "--fork", "--mount-proc", "--net", "--mount", "--uts"),
    "--kill-child",
)
_PASSED_ON: Final = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
}
_Handler = Callable[[int, FrameType | None], object] | int | None


def inside() -> bool:
    """Whether this process runs in a private world."""
    return os.environ.get(MARK, "") == _network_namespace()


def scratch() -> Path | None:
    """The folder of this world for data; None outside, or when nobody made one."""
    name = os.environ.get(SCRATCH, "")
    return Path(name) if name and inside() else None


def enter(command: Sequence[str]) -> int:
    """Runs a command in a private world and waits until nothing of it is left.

    Call it in the main thread: it handles signals while it waits.

    Args:
        command: The program with its arguments; it finds the same files, environment, standard
            output and error, and an empty standard input.

    Returns:
        The exit code of the command, 128 + N when signal N ended it.
    """
    ours, theirs = socket.socketpair()
    with ours, contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="jepsen-like-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(_passing_on(ours))
        with theirs:
            init = [sys.executable, "-m", __name__, str(theirs.fileno()), *command]
            process = subprocess.Popen(
                [*_UNSHARE, *init],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,
                env={**os.environ, SCRATCH: folder},
            )
        process.wait()
        return _code(ours)


def _code(line: socket.socket) -> int:
    """The exit code that `init` has sent; none was sent if it was killed."""
    line.setblocking(False)
    with contextlib.suppress(BlockingIOError, ConnectionError):
        if said := line.recv(1):
            return said[0]
    return _KILLED


@contextlib.contextmanager
def _passing_on(line: socket.socket) -> Iterator[None]:
    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ConnectionError):
            line.send(bytes([_PASSED_ON[signal.Signals(number)]]))

    before: Mapping[signal.Signals, _Handler] = {
        number: signal.signal(number, pass_on) for number in _PASSED_ON
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def why_not() -> str | None:
    """Why this machine gives no private world with a network of its own, in a sentence.

    Returns:
        None when it does. The answer is tried out, which takes some hundredths of a second.
    """
    if inside():
        return None
    if os.name != "posix" or sys.platform != "linux":
        return f"network namespaces exist on Linux only, this is {sys.platform}"
    if os.geteuid() != 0:
        return "network namespaces need root; run it with sudo"
    for tool, package in (("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2")):
        if shutil.which(tool) is None:
            return f"the program {tool} is missing; install {package}"
    probe = ("ip", "tuntap", "add", "dev", "probe", "mode", "tun")
    try:
        result = subprocess.run(
            [*_UNSHARE, *probe],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=20,
        )
    except subprocess.TimeoutExpired:
        return "making a network namespace with a tun device did not end within 20 s"
    if result.returncode == 0:
        return None
    words = result.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"a namespace with a tun device is not permitted: {words[-1] if words else 'no reason'}"


def _network_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/net").readlink())
    except OSError:
        return "none"


# Everything below runs as process 1 of the new world.


def main() -> int:
    """`init`: makes the world ready, runs the command, passes signals on, reaps orphans."""
    line, command = socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]
    line.set_inheritable(False)
    code = _run(command, line)
    with contextlib.suppress(ConnectionError):
        line.send(bytes([code]))
    return code


def _run(command: list[str], line: socket.socket) -> int:
    alarms = _alarms()
    _furnish()
    try:
        child = os.posix_spawnp(command[0], command, {**os.environ, MARK: _network_namespace()})
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return _NOT_FOUND
    return _attend(child, line, alarms)


def _alarms() -> socket.socket:
    """A socket from which the numbers of the signals come that this process gets."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    # Detached: it must stay open for as long as signals may come.
    signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
    return ours


def _furnish() -> None:
    names = Path("/run/netns")
    names.mkdir(parents=True, exist_ok=True)
    for step in (
        ("mount", "-t", "tmpfs", "tmpfs", str(names)),
        ("ip", "link", "set", "lo", "up"),
    ):
        subprocess.run(step, check=True, timeout=20)


def _attend(child: int, line: socket.socket, alarms: socket.socket) -> int:
    """Waits until the command ends or the process that made this world has gone."""
    poll = select.poll()
    sources = {source.fileno(): source for source in (line, alarms)}
    for number in sources:
        poll.register(number, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            numbers = _received(sources[ready])
            if not numbers:
                return _abandoned(child)
            for number in numbers:
                if number != signal.SIGCHLD:
                    os.kill(child, number)
                elif (code := _reap(child)) is not None:
                    return code


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(64)
    except ConnectionError:
        return b""


def _reap(child: int) -> int | None:
    """Takes all that have ended; gives the exit code of the command if it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def _abandoned(child: int) -> int:
    """Nobody else is left to remove the scratch folder; the kernel removes the rest."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    folder = Path(os.environ.get(SCRATCH, "/nonexistent"))
    for mount in _mounts_below(folder):
        subprocess.run(["umount", "-l", mount], check=False, timeout=20, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)
    return _KILLED


def _mounts_below(folder: Path) -> list[str]:
    """Mount points, the innermost first. Fields of mountinfo: proc_pid_mountinfo(5)."""
    lines = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    points = [Path(line.split(" ")[4]) for line in lines]
    return [str(point) for point in reversed(points) if folder in point.parents]


if __name__ == "__main__":
    sys.exit(main())
