"""Many keys at once: `raftreg kv export` and `import`, in the form of Consul's commands."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import click
import msgspec

from raftreg.client.api import RegistryClient
from raftreg.client.cluster import kv_op
from raftreg.errors import Conflict, InvalidRequest, TooLarge
from raftreg.model import KV_VALUE_BYTES_MAX, TXN_OPERATIONS_MAX, KVEntry
from raftreg_cli.output import Advance, progress

#: Values of one transaction together; its JSON (base64) then stays far below a body's limit.
GROUP_BYTES_MAX = 256 * 1024
FILE_BYTES_MAX = 1 << 30
_PARALLEL_GETS = 32


class Entry(msgspec.Struct, frozen=True):
    """An entry of an export file; `ttl_ms` (ours) is there only for a key that has a TTL."""

    key: str
    flags: int = 0
    value: bytes = b""
    ttl_ms: int | msgspec.UnsetType = msgspec.UNSET


async def export(client: RegistryClient, prefix: str, target: Path | None) -> int:
    """Writes all entries under a prefix as a JSON list; gives their number.

    Args:
        client: Where to read.
        prefix: Beginning of the keys.
        target: File to write; None: stdout.
    """
    keys = await client.kv.keys(prefix)
    if target is None:
        return await _export_to(sys.stdout, client, keys)
    try:
        # A terminal or a disk at the other end: short writes, nothing else runs meanwhile.
        with target.open("w") as file:
            return await _export_to(file, client, keys)
    except OSError as problem:
        raise click.FileError(str(target), problem.strerror) from None


async def _export_to(file: TextIO, client: RegistryClient, keys: Sequence[str]) -> int:
    count = 0
    file.write("[")
    with progress("exporting keys", len(keys)) as advance:
        for start in range(0, len(keys), _PARALLEL_GETS):
            for entry in await _get_all(client, keys[start : start + _PARALLEL_GETS]):
                ttl_ms = entry.ttl_ms or msgspec.UNSET
                shape = Entry(entry.key, entry.flags, entry.value, ttl_ms)
                file.write(",\n" if count else "\n")
                file.write(msgspec.json.encode(shape).decode())
                count += 1
            advance(min(_PARALLEL_GETS, len(keys) - start))
    file.write("\n]\n")
    return count


async def _get_all(client: RegistryClient, keys: Sequence[str]) -> list[KVEntry]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.kv.get(key)) for key in keys]
    # A key that was deleted since the names were read is simply not there.
    return [entry for task in tasks if (entry := task.result()) is not None]


def read_entries(source: str, prefix: str) -> list[Entry]:
    """Reads an export file.

    Args:
        source: Its path, or "-" for stdin.
        prefix: Put before every key.

    Raises:
        InvalidRequest: It is no such file; the text says where.
        TooLarge: The file, or one of its values, is over a limit.
    """
    data = _read(source)
    try:
        entries = msgspec.json.decode(data, type=list[Entry])
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise InvalidRequest(f"{source} is no export of keys: {problem}") from None
    for entry in entries:
        if len(entry.value) > KV_VALUE_BYTES_MAX:
            raise TooLarge(f"{entry.key!r} is larger than a value may be ({KV_VALUE_BYTES_MAX})")
        if not entry.key + prefix:
            raise InvalidRequest(f"{source} holds an entry without a key")
    return [msgspec.structs.replace(entry, key=prefix + entry.key) for entry in entries]


def _read(source: str) -> bytes:
    try:
        with click.open_file(source, "rb") as file:
            data: bytes = file.read(FILE_BYTES_MAX + 1)
    except OSError as problem:
        raise click.FileError(source, problem.strerror) from None
    if len(data) > FILE_BYTES_MAX:
        raise TooLarge(f"{source} is larger than {FILE_BYTES_MAX} bytes: import it in parts")
    return data


async def import_entries(
    client: RegistryClient, entries: Sequence[Entry], advance: Advance
) -> None:
    """Sets all entries, group by group.

    Raises:
        Conflict: A group was refused; the text says how far the import came.
    """
    done = 0
    for group in _groups(entries):
        outcome = await client.txn.run(
            [
                kv_op("set", entry.key, entry.value, flags=entry.flags, ttl_s=_ttl_s(entry))
                for entry in group
            ]
        )
        if not outcome.ok:
            index, what = outcome.errors[0]
            raise Conflict(
                f"{group[index].key!r} was refused: {what}; {done} keys before it are imported"
            )
        done += len(group)
        advance(len(group))


def _ttl_s(entry: Entry) -> float | None:
    """An imported key begins a full term."""
    return entry.ttl_ms / 1000 if entry.ttl_ms else None


def _groups(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Splits into transactions by count and size; a large value goes alone."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        full = len(group) == TXN_OPERATIONS_MAX or size + len(entry.value) > GROUP_BYTES_MAX
        if group and full:
            yield group
            group, size = [], 0
        group.append(entry)
        size += len(entry.value)
    if group:
        yield group
