"""What an agent remembers over a restart.

    data_dir/node-id              UUID of this host
    data_dir/registrations.log    one line a change: services that were registered by API with their
                                  checks, checks on their own, last status of each check

Callers that come while a group is being written form the next one (group commit). A line that can't
be read is set aside in `registrations.corrupt` and said so: it does not stop an agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TypeVar

import msgspec
import structlog

from raftreg.clock import new_id
from raftreg.durable import make_directory_durably, sync_names
from raftreg.errors import ConfigurationError
from raftreg.http.decode import CheckDefinition, ServiceDefinition
from raftreg_agent.record_log import Key, RecordLog, write_durably
from raftreg_agent.state import KnownStatus

LOG_NAME = "registrations.log"
ASIDE_NAME = "registrations.corrupt"
_T = TypeVar("_T")

log = structlog.get_logger(__name__)


class Shelf(enum.Enum):
    """The tables of a store."""

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
        self._log = RecordLog((data_dir or Path()) / LOG_NAME)
        self._pending: dict[Key, bytes | None] = {}
        # How many values were noted so far, and how many of them are on disk.
        self._noted = 0
        self._written = 0
        self._turn = asyncio.Lock()
        self._closed = False
        # One thread, so that groups reach the disk in the order in which they were formed.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="agent-store")

    def open(self) -> Remembered:
        """Makes the directory and reads what is there.

        What can be read is written to a new file before it counts: see `RecordLog.prove`.

        Raises:
            ConfigurationError: The directory can't be used.
        """
        if self._dir is None:
            return Remembered()
        try:
            make_directory_durably(self._dir)
            values, damaged = self._log.load()
            for line in damaged:
                self._set_line_aside(line, "the line is damaged")
            remembered = Remembered(
                services=tuple(self._decoded(values, Shelf.SERVICES, ServiceDefinition)),
                checks=tuple(self._decoded(values, Shelf.CHECKS, CheckDefinition)),
                statuses=tuple(self._decoded(values, Shelf.STATUSES, KnownStatus)),
            )
            self._log.prove()
            sync_names(self._dir)  # the node id was renamed into it
        except OSError as error:
            raise ConfigurationError(f"data directory {self._dir}: {error.strerror}") from error
        return remembered

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
        write_durably(path, made.encode() + b"\n")
        return made

    def put(self, shelf: Shelf, key: str, value: msgspec.Struct) -> None:
        """Takes note of a value to write; `flush` puts it on disk."""
        if self._dir is not None:
            self._note((shelf.value, key), msgspec.json.encode(value))

    def remove(self, shelf: Shelf, key: str) -> None:
        """Takes note of a value to remove."""
        if self._dir is not None:
            self._note((shelf.value, key), None)

    async def flush(self) -> None:
        """Returns when all that was noted before is on disk.

        Raises:
            OSError: It could not be written; it is tried again by the next call.
        """
        wanted = self._noted
        async with self._turn:
            # Whoever was in the group before this one is through: it does not write for others.
            if self._written >= wanted:
                return
            group, self._pending = self._pending, {}
            upto = self._noted
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._writer, _write_group, self._log, group)
            except (OSError, asyncio.CancelledError):
                self._pending = group | self._pending
                raise
            self._written = upto

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

    def _note(self, key: Key, value: bytes | None) -> None:
        self._pending[key] = value
        self._noted += 1

    def _decoded(self, values: Mapping[Key, bytes], shelf: Shelf, kind: type[_T]) -> Iterable[_T]:
        for (name, key), value in values.items():
            if name != shelf.value:
                continue
            try:
                yield msgspec.json.decode(value, type=kind)
            except (ValueError, msgspec.DecodeError) as error:
                self._set_line_aside(value + b"\n", str(error))
                self._note((name, key), None)

    def _set_line_aside(self, line: bytes, why: str) -> None:
        aside = (self._dir or Path()) / ASIDE_NAME
        path = str((self._dir or Path()) / LOG_NAME)
        log.error("line can't be read, it is set aside", path=path, aside=str(aside), error=why)
        with contextlib.suppress(OSError), aside.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())  # the log is about to be written without it


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_name(path.name + ".corrupt")
    log.error(
        "file can't be read, it is set aside", path=str(path), aside=str(aside), error=str(error)
    )
    with contextlib.suppress(OSError):
        path.replace(aside)


def _nothing() -> None:
    """Comes after everything that was handed to the thread before."""


def _write_group(records: RecordLog, group: dict[Key, bytes | None]) -> None:
    """What the thread does."""
    records.write(group)
