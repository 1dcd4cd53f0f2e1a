"""`raftreg snapshot`: the whole registry as one file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import click

from raftreg.client.options import Read
from raftreg.clock import new_id
from raftreg_cli import snapshot_file
from raftreg_cli.call import Call, reads, with_client, with_output
from raftreg_cli.output import Advance, Output, columns, progress, show

_CHUNK_BYTES = 64 * 1024
_RESTORE_S_MAX = 3600.0
_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.group()
def snapshot() -> None:
    """Back up and restore the whole registry."""


@snapshot.command("save")
@_file
@reads
@with_client
async def save(call: Call, file: Path, read: Read) -> None:
    """Write a snapshot to FILE; it is whole and verified before it has that name."""
    partial = file.with_name(f".{file.name}.{new_id()}.partial")
    try:
        with progress("saving", None, in_bytes=True) as advance:
            async with call.client.snapshot.save(read=read) as stream:
                with partial.open("xb") as target:  # nothing else runs here
                    async for chunk in stream:
                        target.write(chunk)
                        advance(len(chunk))
        meta = await asyncio.to_thread(snapshot_file.verify, partial)
        partial.replace(file)
    except OSError as problem:
        raise click.FileError(str(file), problem.strerror) from None
    finally:
        partial.unlink(missing_ok=True)
    size = _size(file)
    data = {"file": str(file), "bytes": size, "index": meta.get("Index")}
    call.show(data, f"Saved {size} bytes to {file} (index {meta.get('Index')}).")


@snapshot.command("restore")
@_file
@with_client
async def restore(call: Call, file: Path) -> None:
    """Replace the WHOLE registry with FILE. It is verified before anything is sent."""
    meta = await asyncio.to_thread(snapshot_file.verify, file)
    size = _size(file)
    with progress("restoring", size, in_bytes=True) as advance:
        await call.client.snapshot.restore(_sent(file, advance), deadline_s=_RESTORE_S_MAX)
    data = {"file": str(file), "bytes": size, "index": meta.get("Index"), "restored": True}
    call.show(data, f"Restored {file} (index {meta.get('Index')}).")


@snapshot.command("inspect")
@_file
@with_output
def inspect(file: Path, output: Output) -> None:
    """Verify FILE and show what is in it; asks nobody."""
    found = snapshot_file.inspect(file)
    tables = {
        name: {"rows": table.rows, "bytes": table.bytes} for name, table in found.tables.items()
    }
    data = {"meta": found.meta, "state_bytes": found.state_bytes, "tables": tables}
    rows = [(name, table["rows"], table["bytes"]) for name, table in tables.items()]
    show(output, data, columns(("TABLE", "ROWS", "BYTES"), rows))


def _size(file: Path) -> int:
    return file.stat().st_size


async def _sent(file: Path, advance: Advance) -> AsyncIterator[bytes]:
    with file.open("rb") as source:  # nothing else runs here
        while chunk := source.read(_CHUNK_BYTES):
            yield chunk
            advance(len(chunk))
