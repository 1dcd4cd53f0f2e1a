"""What an agent remembers over a restart: one small JSON file a service, check and status.

    data_dir/node-id              UUID of this host
    data_dir/services/*.json      services that were registered by API, with their checks
    data_dir/checks/*.json        checks that were registered by API on their own
    data_dir/check-state/*.json   last status of each check

A file is written aside, synced and renamed; the directory is synced once for all files of a group.
Callers that come while a group is being written form the next one (group commit). A file that
can't be read is set aside as `*.corrupt` and said so: one bad file does not stop an agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import hashlib
import os
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TypeVar

import msgspec
import structlog

from raftreg.clock import new_id
from raftreg.errors import ConfigurationError
from raftreg.http.decode import CheckDefinition, ServiceDefinition
from raftreg_agent.state import KnownStatus

FILE_BYTES_MAX = 4 << 20
_T = TypeVar("_T")

log = structlog.get_logger(__name__)


class Shelf(enum.Enum):
    """The directories of a store."""

    SERVICES = "services"
    CHECKS = "checks"
    STATUSES = "check-state"


class Remembered(msgspec.Struct, frozen=True):
    """What a store held."""

    services: tuple[ServiceDefinition, ...] = ()
    checks: tuple[CheckDefinition, ...] = ()
    statuses: tuple[KnownStatus, ...] = ()


class Store:
    """Files of an agent.

    Args:
        data_dir: Directory of this agent alone; it is made when missing. None keeps nothing.
    """

    def __init__(self, data_dir: Path | None) -> None:
        self._dir = data_dir
        self._pending: dict[Path, bytes | None] = {}
        self._turn = asyncio.Lock()
        self._closed = False
        # One thread, so that groups reach the disk in the order in which they were formed.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="agent-store")

    def open(self) -> Remembered:
        """Makes the directories and reads what is there.

        Raises:
            ConfigurationError: The directory can't be used.
        """
        if self._dir is None:
            return Remembered()
        try:
            for shelf in Shelf:
                (self._dir / shelf.value).mkdir(parents=True, exist_ok=True)
                for unfinished in (self._dir / shelf.value).glob("*.tmp"):
                    unfinished.unlink()
        except OSError as error:
            raise ConfigurationError(f"data directory {self._dir}: {error.strerror}") from error
        return Remembered(
            services=tuple(self._read(Shelf.SERVICES, ServiceDefinition)),
            checks=tuple(self._read(Shelf.CHECKS, CheckDefinition)),
            statuses=tuple(self._read(Shelf.STATUSES, KnownStatus)),
        )

    def node_id(self, rng: Random | None = None) -> str:
        """The UUID of this host; made when there is none, or when the file holds none."""
        if self._dir is None:
            return new_id(rng)
        path = self._dir / "node-id"
        if path.exists():
            try:
                return str(uuid.UUID(path.read_text(encoding="ascii").strip()))
            except (ValueError, OSError) as error:
                _set_aside(path, error)
        made = new_id(rng)
        _write_group({path: made.encode() + b"\n"})
        return made

    def put(self, shelf: Shelf, key: str, value: msgspec.Struct) -> None:
        """Takes note of a value to write; `flush` puts it on disk."""
        if self._dir is not None:
            self._pending[self._path(shelf, key)] = msgspec.json.encode(value)

    def remove(self, shelf: Shelf, key: str) -> None:
        """Takes note of a file to remove."""
        if self._dir is not None:
            self._pending[self._path(shelf, key)] = None

    async def flush(self) -> None:
        """Returns when all that was noted before is on disk.

        Raises:
            OSError: It could not be written; it is tried again by the next call.
        """
        async with self._turn:
            group, self._pending = self._pending, {}
            if not group:
                return
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._writer, _write_group, group)
            except OSError:
                self._pending = group | self._pending
                raise

    async def close(self) -> None:
        """Writes what is left and ends the thread; once is enough, twice is fine."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.flush()
        except OSError as error:
            log.warning("agent state not written", dir=str(self._dir), error=str(error))
        # A group whose caller was cancelled may still be on its way.
        await asyncio.get_running_loop().run_in_executor(self._writer, _nothing)
        self._writer.shutdown(wait=False)

    def _path(self, shelf: Shelf, key: str) -> Path:
        # Ids may hold any character and be longer than a file name.
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:40]
        return Path(self._dir or "") / shelf.value / f"{name}.json"

    def _read(self, shelf: Shelf, kind: type[_T]) -> Iterable[_T]:
        for path in sorted((Path(self._dir or "") / shelf.value).glob("*.json")):
            try:
                with path.open("rb") as file:
                    # A longer file is cut, and so refused as malformed.
                    yield msgspec.json.decode(file.read(FILE_BYTES_MAX), type=kind)
            except (OSError, ValueError, msgspec.DecodeError) as error:
                _set_aside(path, error)


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_name(path.name + ".corrupt")
    log.error(
        "file can't be read, it is set aside", path=str(path), aside=str(aside), error=str(error)
    )
    with contextlib.suppress(OSError):
        path.replace(aside)


def _nothing() -> None:
    """Comes after everything that was handed to the thread before."""


def _write_group(group: dict[Path, bytes | None]) -> None:
    """Writes and removes files, then syncs their directories once."""
    for path, data in group.items():
        if data is None:
            path.unlink(missing_ok=True)
        else:
            _write_file(path, data)
    for directory in {path.parent for path in group}:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write_file(path: Path, data: bytes) -> None:
    aside = path.with_suffix(".tmp")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(handle, "wb", closefd=False) as file:
            file.write(data)
        os.fdatasync(handle)
    finally:
        os.close(handle)
    aside.replace(path)
