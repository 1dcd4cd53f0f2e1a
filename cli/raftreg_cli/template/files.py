"""Replaces a file as a whole: whoever reads it finds the old text or the new one, never a part.

The new text is written beside the file and synced, then takes its name (rename(2) is atomic), and
the directory is synced. A symbolic link stays; what it leads to is replaced.

A *mark* beside the file says that its command has still to run. It is there before the file changes
and goes when the command has succeeded, so that a process that dies in between leaves word.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from raftreg.durable import sync_names


def current(target: Path) -> bytes | None:
    """The file's text; None when there is no such file.

    Raises:
        OSError: It can't be read.
    """
    try:
        return target.read_bytes()
    except FileNotFoundError:
        return None


def stage(target: Path, text: bytes, mode: int) -> Path:
    """Writes the text beside the file, with the file's mode and owner.

    Args:
        target: The file.
        text: Its new text.
        mode: Mode, when there is no file yet.

    Returns:
        Where the text is.

    Raises:
        OSError: It can't be written, or not be given the owner of the file.
    """
    real = target.resolve()
    handle, name = tempfile.mkstemp(prefix=f".{real.name}.", suffix=".new", dir=real.parent)
    staged = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _imitate(file.fileno(), real, mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        discard(staged)
        raise
    return staged


def _imitate(handle: int, real: Path, mode: int) -> None:
    try:
        before = real.stat()
    except FileNotFoundError:
        os.fchmod(handle, mode)
        return
    ours = os.fstat(handle)
    if (before.st_uid, before.st_gid) != (ours.st_uid, ours.st_gid):
        os.fchown(handle, before.st_uid, before.st_gid)
    os.fchmod(handle, stat.S_IMODE(before.st_mode))  # after fchown, which may take bits away


def commit(staged: Path, target: Path) -> None:
    """Gives the staged text the file's name.

    Raises:
        OSError: It can't be renamed, or the directory not be synced.
    """
    real = target.resolve()
    staged.replace(real)
    sync_names(real.parent)


def discard(staged: Path) -> None:
    """Removes a staged text that is not wanted."""
    with contextlib.suppress(OSError):
        staged.unlink()


def _mark_of(target: Path) -> Path:
    real = target.resolve()
    return real.with_name(f".{real.name}.pending")


def mark(target: Path) -> None:
    """Notes that the file's command has to run.

    Raises:
        OSError: It can't be noted.
    """
    _mark_of(target).touch()
    sync_names(target.resolve().parent)


def marked(target: Path) -> bool:
    """The file's command has still to run, as far as was noted."""
    return _mark_of(target).exists()


def unmark(target: Path) -> None:
    """The file's command has run; best effort: once more does no harm."""
    discard(_mark_of(target))
