"""A small table in one file: appended to, synced once a group, written anew when it has grown.

Each line is the CRC-32 of its text and a JSON array `[shelf, key, value]`; a null value removes the
key. An append costs one fdatasync for any number of records, where a file a record costs a journal
commit of the file system each. What the last writes replaced makes the file grow; when most of it
is of no more use the live records are written to a new file that replaces it (temporary file,
sync, rename, sync of the directory).

Not thread-safe: one thread at a time.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from raftreg.durable import sync_names

RECORD_BYTES_MAX = 4 << 20
#: A smaller file is never written anew.
REWRITE_BYTES_MIN = 1 << 20
#: Parts of the file that are of no more use, as a multiple of those that are.
REWRITE_RATIO = 3

Key = tuple[str, str]
_CRC_CHARS = 8
_Line = tuple[str, str, msgspec.Raw]
_decoder = msgspec.json.Decoder(_Line)
_NULL = b"null"


class RecordLog:
    """Values by (shelf, key).

    Args:
        path: The file; its directory exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._live: dict[Key, bytes] = {}
        self._live_bytes = 0
        self._file_bytes = 0
        #: The file holds nothing that could be appended to: it is missing, damaged, or a write
        #: to it failed and nobody knows what is there.
        self._rewrite = True

    def load(self) -> tuple[dict[Key, bytes], list[bytes]]:
        """Reads the file.

        Returns:
            Values by key, and the lines that could not be read. A last line without its end is what
            a crash left of a write that nobody was told of: it is dropped without a word.

        Raises:
            OSError: The file can't be read.
        """
        self._path.with_suffix(".tmp").unlink(missing_ok=True)
        if not self._path.exists():
            return {}, []
        damaged: list[bytes] = []
        with self._path.open("rb") as file:
            while line := file.readline(RECORD_BYTES_MAX + 1):
                self._file_bytes += len(line)
                if not line.endswith(b"\n") and len(line) <= RECORD_BYTES_MAX:
                    self._file_bytes = -1  # torn: nothing can be appended behind it
                    break
                record = _parse(line)
                if record is None:
                    damaged.append(line)
                else:
                    self._keep(*record)
        self._rewrite = bool(damaged) or self._file_bytes < 0
        return dict(self._live), damaged

    def prove(self) -> None:
        """Puts what `load` has read on disk, in a new file; on return it may be acted on.

        That lines can be read does not tell that they are on disk: the process before may have been
        killed between its write and the end of its sync, or its sync failed; then the kernel takes
        the pages for clean, and no later sync of that file writes them (Rebello et al., "Can
        Applications Recover from fsync Failures?", USENIX ATC 2020).

        Raises:
            OSError: It could not be written. Nothing was lost.
        """
        if self._path.exists():
            self._rewrite = True
            self._write_anew()
            self._rewrite = False

    def write(self, group: Mapping[Key, bytes | None]) -> None:
        """Puts a group on disk; on return it is durable.

        Args:
            group: JSON values by key, None to remove.

        Raises:
            OSError: It is not known how much of it is. The file is never trusted again: the next
                call writes everything to a new one.
        """
        lines = b"".join(_line(key, value) for key, value in group.items())
        for key, value in group.items():
            self._keep(key, value)
        wasted_bytes = self._file_bytes + len(lines) - self._live_bytes
        grown = wasted_bytes > max(REWRITE_BYTES_MIN, REWRITE_RATIO * self._live_bytes)
        if self._rewrite or grown:
            self._rewrite = True
            self._write_anew()
        else:
            self._rewrite = True
            self._append(lines)
        self._rewrite = False

    def _keep(self, key: Key, value: bytes | None) -> None:
        old = self._live.pop(key, None)
        if old is not None:
            self._live_bytes -= len(_line(key, old))
        if value is not None:
            self._live[key] = value
            self._live_bytes += len(_line(key, value))

    def _append(self, lines: bytes) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            _write_all(handle, lines)
            os.fdatasync(handle)
        finally:
            os.close(handle)
        self._file_bytes += len(lines)

    def _write_anew(self) -> None:
        write_durably(self._path, b"".join(_line(*item) for item in self._live.items()))
        self._file_bytes = self._live_bytes


def _line(key: Key, value: bytes | None) -> bytes:
    text = msgspec.json.encode((*key, msgspec.Raw(_NULL if value is None else value)))
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> tuple[Key, bytes | None] | None:
    """The key and value of a line, None when it holds none."""
    text = line[_CRC_CHARS + 1 : -1]
    if line[: _CRC_CHARS + 1] != b"%08x " % zlib.crc32(text):
        return None
    try:
        shelf, key, value = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    found = bytes(value)
    return (shelf, key), None if found == _NULL else found


def write_durably(path: Path, data: bytes) -> None:
    """Writes a file aside, syncs it, and puts it in the place of the one that is there.

    Raises:
        OSError: The file is as it was, or as it should be.
    """
    aside = path.with_suffix(".tmp")
    # A file of its own: what an earlier failed sync left in the other one is worth nothing.
    aside.unlink(missing_ok=True)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _write_all(handle, data)
        os.fdatasync(handle)
    finally:
        os.close(handle)
    aside.replace(path)
    sync_names(path.parent)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
