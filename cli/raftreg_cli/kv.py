"""`raftreg kv`: keys and values."""

from __future__ import annotations

import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO

import click

from raftreg.client.options import Read
from raftreg.client.records import duration_text
from raftreg.errors import Conflict, NotFound, TooLarge
from raftreg.model import KV_VALUE_BYTES_MAX, KVEntry
from raftreg_cli import kv_bulk
from raftreg_cli.call import Call, reads, with_client
from raftreg_cli.output import Output, columns, printable, progress

_FLAGS_MAX = 2**64 - 1
flags_option = click.option(
    "--flags", type=click.IntRange(0, _FLAGS_MAX), default=0, help="Number kept with the value."
)


ttl_option = click.option(
    "--ttl",
    "ttl_s",
    type=click.FloatRange(1.0),
    help="Seconds after which the key ends, unless it is renewed or written again.",
)


@click.group()
def kv() -> None:
    """Keys and values."""


@kv.command("get")
@click.argument("key")
@click.option("--detailed", is_flag=True, help="Show indexes, flags and session too.")
@reads
@with_client
async def get(call: Call, key: str, detailed: bool, read: Read) -> None:
    """Print the value of KEY as it is; exit code 4 when there is no such key."""
    entry = await call.client.kv.get(key, read=read)
    if entry is None:
        raise NotFound(f"there is no key {key!r}")
    if call.output is Output.JSON or detailed:
        call.show(entry_shape(entry), columns(("FIELD", "VALUE"), _fields(entry)))
        return
    sys.stdout.buffer.write(entry.value)
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")


@kv.command("put")
@click.argument("key")
@click.argument("value", default="")
@flags_option
@ttl_option
@with_client
async def put(call: Call, key: str, value: str, flags: int, ttl_s: float | None) -> None:
    """Set KEY to VALUE; @FILE takes the content of a file, - that of stdin."""
    data = read_value(value)
    await call.client.kv.put(key, data, flags=flags, ttl_s=ttl_s)
    call.show({"key": key, "written": True}, f"Wrote {len(data)} bytes to {printable(key)}.")


@kv.command("renew")
@click.argument("key")
@ttl_option
@with_client
async def renew(call: Call, key: str, ttl_s: float | None) -> None:
    """Begin the TTL of KEY anew; exit code 4 when there is no such key."""
    if not await call.client.kv.renew(key, ttl_s=ttl_s):
        raise NotFound(f"there is no key {key!r}")
    call.show({"key": key, "renewed": True}, f"Renewed {printable(key)}.")


@kv.command("cas")
@click.argument("key")
@click.argument("index", type=click.IntRange(min=0))
@click.argument("value", default="")
@flags_option
@ttl_option
@with_client
async def cas(
    call: Call, key: str, index: int, value: str, flags: int, ttl_s: float | None
) -> None:
    """Set KEY only if its ModifyIndex is INDEX (0: only if it does not exist).

    Exit code 5 when it was not; then nothing changed.
    """
    data = read_value(value)
    if not await call.client.kv.cas(key, data, index, flags=flags, ttl_s=ttl_s):
        raise Conflict(f"{key!r} is not at index {index} any more; nothing was changed")
    call.show({"key": key, "written": True}, f"Wrote {len(data)} bytes to {printable(key)}.")


@kv.command("delete")
@click.argument("key")
@click.option("--recurse", is_flag=True, help="Delete all keys that begin with KEY.")
@click.option("--cas", type=click.IntRange(min=0), help="Only if its ModifyIndex is this.")
@with_client
async def delete(call: Call, key: str, recurse: bool, cas: int | None) -> None:
    """Delete KEY; a key that does not exist is no error."""
    if recurse and cas is not None:
        raise click.UsageError("--recurse and --cas exclude each other")
    if recurse:
        await call.client.kv.delete_tree(key)
    elif not await call.client.kv.delete(key, cas=cas):
        raise Conflict(f"{key!r} is not at index {cas} any more; nothing was deleted")
    what = f"all keys under {printable(key)!r}" if recurse else printable(key)
    call.show({"key": key, "deleted": True, "recurse": recurse}, f"Deleted {what}.")


@kv.command("list")
@click.argument("prefix", default="")
@click.option("--keys", is_flag=True, help="Names alone.")
@click.option("--separator", default="", help="Names only up to this, like directories.")
@reads
@with_client
async def list_(call: Call, prefix: str, keys: bool, separator: str, read: Read) -> None:
    """List the entries under PREFIX."""
    if keys or separator:
        names = await call.client.kv.keys(prefix, separator=separator, read=read)
        call.show(names, columns(("KEY",), [(name,) for name in names]))
        return
    entries = await call.client.kv.list(prefix, read=read)
    rows = [
        (entry.key, len(entry.value), entry.modify_index, entry.session or "", _preview(entry))
        for entry in entries
    ]
    headers = ("KEY", "BYTES", "MODIFIED AT", "SESSION", "VALUE")
    call.show([entry_shape(entry) for entry in entries], columns(headers, rows))


@kv.command("watch")
@click.argument("key")
@click.option("--recurse", is_flag=True, help="Watch all keys that begin with KEY.")
@with_client
async def watch(call: Call, key: str, recurse: bool) -> None:
    """Print what KEY holds now and after each change, until Ctrl-C.

    With --output json, one object a line: index and entries.
    """
    kv_api = call.client.kv
    watched = kv_api.watch_tree(key) if recurse else kv_api.watch(key)
    async with aclosing(watched) as changes:
        async for change in changes:
            found: Any = change.value
            entries = found if isinstance(found, list) else [found] if found else []
            data = {"index": change.index, "entries": [entry_shape(e) for e in entries]}
            call.show_line(data, _watch_text(key, change.index, entries, recurse=recurse))


@kv.command("export")
@click.argument("prefix", default="")
@click.option("--file", "target", type=click.Path(path_type=Path), help="Instead of stdout.")
@with_client
async def export(call: Call, prefix: str, target: Path | None) -> None:
    """Write all entries under PREFIX as JSON, in the form of `consul kv export`.

    Not one moment in time: for a backup use `raftreg snapshot save`.
    """
    count = await kv_bulk.export(call.client, prefix, target)
    if target:
        call.show({"exported": count, "file": str(target)}, f"Exported {count} keys to {target}.")


@kv.command("import")
@click.argument("source", default="-")
@click.option("--prefix", default="", help="Put before every key.")
@with_client
async def import_(call: Call, source: str, prefix: str) -> None:
    """Set all entries of a file written by export (- or nothing: stdin).

    Entries go in groups, each whole or not at all; a key that exists is overwritten.
    """
    entries = kv_bulk.read_entries(source, prefix)
    with progress("importing keys", len(entries)) as advance:
        await kv_bulk.import_entries(call.client, entries, advance)
    call.show({"imported": len(entries)}, f"Imported {len(entries)} keys.")


def entry_shape(entry: KVEntry) -> dict[str, Any]:
    """An entry as JSON shows it: Consul's names, the value in base64; `TTL` if it has one."""
    shape = {
        "Key": entry.key,
        "Value": entry.value,  # msgspec writes bytes as base64
        "Flags": entry.flags,
        "Session": entry.session,
        "LockIndex": entry.lock_index,
        "CreateIndex": entry.create_index,
        "ModifyIndex": entry.modify_index,
    }
    return shape | {"TTL": duration_text(entry.ttl_ms / 1000)} if entry.ttl_ms else shape


def read_value(text: str) -> bytes:
    """A value as it is given: itself, @FILE, or - for stdin.

    Raises:
        TooLarge: It is over the limit of a value.
        click.ClickException: The file can't be read.
    """
    if text == "-":
        return _bounded(sys.stdin.buffer, "stdin")
    if text.startswith("@"):
        try:
            with Path(text[1:]).open("rb") as file:
                return _bounded(file, text[1:])
        except OSError as problem:
            raise click.FileError(text[1:], problem.strerror) from None
    return text.encode("utf-8", "surrogateescape")


def _bounded(file: BinaryIO, name: str) -> bytes:
    data = file.read(KV_VALUE_BYTES_MAX + 1)
    if len(data) > KV_VALUE_BYTES_MAX:
        raise TooLarge(f"{name} is larger than a value may be ({KV_VALUE_BYTES_MAX} bytes)")
    return data


def _fields(entry: KVEntry) -> list[tuple[str, object]]:
    return [
        ("Key", entry.key),
        ("Value", entry.value.decode("utf-8", "replace")),
        ("Flags", entry.flags),
        ("Session", entry.session or "-"),
        ("LockIndex", entry.lock_index),
        ("CreateIndex", entry.create_index),
        ("ModifyIndex", entry.modify_index),
        ("TTL", duration_text(entry.ttl_ms / 1000) if entry.ttl_ms else "-"),
    ]


def _preview(entry: KVEntry, length_max: int = 48) -> str:
    text = entry.value[: 4 * length_max].decode("utf-8", "replace")
    return text if len(text) <= length_max else text[: length_max - 1] + "…"


def _watch_text(key: str, index: int, entries: list[KVEntry], *, recurse: bool) -> str:
    if recurse:
        return f"[{index}] {len(entries)} keys under {printable(key)}"
    value = printable(_preview(entries[0], 200)) if entries else "(no such key)"
    return f"[{index}] {printable(key)} = {value}"
