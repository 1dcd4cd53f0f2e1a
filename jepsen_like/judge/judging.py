"""Files in, one verdict a file out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from jepsen_like.checkers.linear import check
from jepsen_like.history import LINE_BYTES_MAX, Event
from jepsen_like.judge import inline, jepsen_log, kv_lines, recorded
from jepsen_like.judge.parts import Recorded, Unreadable

HEAD_BYTES: Final = 1 << 20  #: of a file, in which its format must show
FILE_BYTES_MAX: Final = 4 << 30
WHOLE_BYTES_MAX: Final = 64 << 20  #: of a file that is one JSON value


class Judgement(msgspec.Struct, frozen=True):
    """One line of the answer.

    Attributes:
        file: The path as it was given.
        linearizable: The verdict; None if the budget of the search ran out.
        cpu_s: Processor time of reading and deciding, in seconds.
    """

    file: str
    linearizable: bool | None
    cpu_s: float


def judge(
    paths: Iterable[str],
    refuse: Callable[[str, str], None],
    *,
    steps_max: int | None = None,
    cpu_s: Callable[[], float] = time.process_time,
) -> Iterator[Judgement]:
    """Decides recorded histories, one after the other.

    Args:
        paths: The files; a format is known by content, whatever the name.
        refuse: Called with path and reason for a file that can't be judged; the others go on.
        steps_max: Budget of the search for each file, in configurations; see `check`.
        cpu_s: Processor time used so far, in seconds.
    """
    for path in paths:
        begun = cpu_s()
        try:
            history = load(Path(path))
        except (Unreadable, OSError, ValueError) as error:
            refuse(path, _reason(error))
            continue
        found = check(history.parts, history.model.initial, steps_max=steps_max)
        yield Judgement(path, found.linearizable, round(cpu_s() - begun, 6))


def main(files: Iterable[str], *, steps_max: int | None = None) -> int:
    """Judges files: one JSON line each on stdout, at once; what can't be judged on stderr.

    Args:
        files: Their paths.
        steps_max: Budget of the search for each, in configurations; see `check`.

    Returns:
        The exit code: 0 if all could be judged, whatever the verdicts; 1 otherwise.
    """
    refused = 0

    def refuse(path: str, reason: str) -> None:
        nonlocal refused
        refused += 1
        sys.stderr.write(f"judge: {path}: {reason}\n")
        sys.stderr.flush()

    for judgement in judge(files, refuse, steps_max=steps_max):
        sys.stdout.write(msgspec.json.encode(judgement).decode() + "\n")
        sys.stdout.flush()
        if judgement.linearizable is None:
            refuse(judgement.file, "undecided: the search used up its budget")
    return 1 if refused else 0


def load(path: Path) -> Recorded:
    """Reads a history of any format known here.

    Raises:
        Unreadable: It is of none, or broken.
        OSError: It can't be read.
    """
    if not path.is_file():
        raise Unreadable("no such file" if not path.exists() else "not a file")
    if path.stat().st_size > FILE_BYTES_MAX:
        raise Unreadable(f"larger than {FILE_BYTES_MAX} bytes")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head.strip():
        raise Unreadable("is empty")
    if _is_recorded(head):
        with path.open("rb") as file:
            lines = iter(lambda: file.readline(LINE_BYTES_MAX), b"")
            return recorded.read(lines, "history")
    if head.lstrip().startswith(b"{:"):
        return kv_lines.read(_lines(path))
    if head.lstrip().startswith(b"{"):
        with path.open("rb") as file:
            return inline.read(file.read(WHOLE_BYTES_MAX))
    if any(jepsen_log.LINE.match(line) for line in head.decode("utf-8", "replace").splitlines()):
        return jepsen_log.read(_lines(path))
    raise Unreadable("of no known format")


def _is_recorded(head: bytes) -> bool:
    try:
        msgspec.json.decode(head.lstrip().partition(b"\n")[0], type=Event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file; ValueError names one that is not UTF-8 or too long."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX), b"")):
            if len(line) == LINE_BYTES_MAX:
                raise Unreadable(f"line {number + 1}: longer than {LINE_BYTES_MAX} bytes")
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise Unreadable(f"line {number + 1}: {error}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
