"""A snapshot archive on disk: gzip tar of meta.json, state.bin and SHA256SUMS, as Consul has it."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
import msgspec

from raftreg.core import snapshot
from raftreg.errors import InvalidRequest

META = "meta.json"
STATE = "state.bin"
SUMS = "SHA256SUMS"
_CHUNK_BYTES = 64 * 1024
_SMALL_BYTES_MAX = 1 << 20
_STATE_BYTES_MAX = 64 << 30
_MEMBERS_MAX = 16


class Contents(msgspec.Struct, frozen=True):
    """What is in an archive.

    Attributes:
        meta: The object of meta.json.
        tables: Table to rows and bytes.
        state_bytes: Size of state.bin.
    """

    meta: dict[str, Any]
    tables: dict[str, snapshot.TableSummary]
    state_bytes: int


def verify(path: Path) -> dict[str, Any]:
    """Checks every digest; gives the object of meta.json.

    Raises:
        InvalidRequest: It is no snapshot archive, or damaged; the text says where.
        click.FileError: The file can't be read.
    """
    digests: dict[str, str] = {}
    small: dict[str, bytes] = {}
    with _archive(path) as archive:
        for name, file, size in _members(path, archive):
            if name == STATE:
                digests[name] = _digest(_chunks(file))
                continue
            if size > _SMALL_BYTES_MAX:
                raise InvalidRequest(f"{path}: {name} is too large for what it is")
            small[name] = file.read()
            digests[name] = hashlib.sha256(small[name]).hexdigest()
    _compare(path, digests, small.get(SUMS, b""))
    try:
        return msgspec.json.decode(small[META], type=dict[str, Any])
    except msgspec.DecodeError as problem:
        raise InvalidRequest(f"{path}: {META} can't be read: {problem}") from None


def inspect(path: Path) -> Contents:
    """Checks an archive and measures its tables.

    Raises:
        InvalidRequest: As `verify`.
        SnapshotError: The state inside is none.
        click.FileError: The file can't be read.
    """
    meta = verify(path)
    with _archive(path) as archive:
        for name, file, size in _members(path, archive):
            if name == STATE:
                return Contents(meta, snapshot.summary(_chunks(file)), size)
    raise InvalidRequest(f"{path} holds no {STATE}")


@contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        # Not tarfile's own "r|gz": a cut gzip header makes it fail with TypeError.
        with gzip.open(path) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
            yield archive
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise InvalidRequest(f"{path} is no whole snapshot archive: {problem}") from None
    except OSError as problem:
        raise click.FileError(str(path), problem.strerror or str(problem)) from None


def _members(path: Path, archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes], int]]:
    """Name, content and size of each plain file; nothing is ever unpacked to disk."""
    for count, member in enumerate(archive):
        file = archive.extractfile(member) if member.isfile() else None
        if file is None or count >= _MEMBERS_MAX or member.size > _STATE_BYTES_MAX:
            raise InvalidRequest(f"{path}: {member.name!r} does not belong into a snapshot")
        yield member.name, file, member.size


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _digest(chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _compare(path: Path, digests: dict[str, str], sums: bytes) -> None:
    """Holds the digests against the lines `HEX  NAME` of SHA256SUMS."""
    lines = (line.split(None, 1) for line in sums.decode("ascii", "replace").splitlines())
    expected = {pair[1].strip(): pair[0] for pair in lines if len(pair) == 2}
    for name in (META, STATE):
        if name not in digests:
            raise InvalidRequest(f"{path} is no snapshot archive: it holds no {name}")
        if name not in expected:
            raise InvalidRequest(f"{path} is no snapshot archive: {SUMS} does not name {name}")
        if digests[name] != expected[name]:
            raise InvalidRequest(f"{path} is damaged: {name} does not match its digest")
