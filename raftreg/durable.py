"""Directories that are there after a power loss: what servers and agents both keep data in."""

from __future__ import annotations

import os
from pathlib import Path

DIRECTORY_MODE = 0o700


def make_directory_durably(directory: Path) -> None:
    """Makes a directory and those above it, each durable before anything is put into it.

    One that is there is synced as well: whoever made it may have been killed before that. If it
    lies in a directory that this user may not read, an administrator made it, and saw to that.
    (POSIX makes a name durable by a sync of the directory that holds it, see fsync(2).)

    Args:
        directory: Where; new ones are open to this user alone.

    Raises:
        OSError: It can't be made.
    """
    above = directory.parent
    there = directory.exists()
    if not above.exists():
        make_directory_durably(above)
    directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    try:
        sync_names(above)
    except PermissionError:
        if not there:
            raise


def sync_names(directory: Path) -> None:
    """Makes durable what was created, renamed and removed in a directory.

    Raises:
        OSError: It can't be opened, or not synced.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
