"""`raftreg config`: central configuration entries."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import msgspec

from raftreg.client.options import Read, segment
from raftreg.errors import Conflict, InvalidRequest
from raftreg_cli.call import Call, reads, with_client
from raftreg_cli.output import columns, json_text

_BYTES_MAX = 1 << 20


@click.group("config")
def config() -> None:
    """Configuration entries: defaults, routes, splits, resolvers, gateways, intentions."""


@config.command("write")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--cas", type=click.IntRange(min=0), help="Only at this ModifyIndex; 0: only if new.")
@with_client
async def write(call: Call, file: Path, cas: int | None) -> None:
    """Write the entry in FILE (JSON, or TOML by its ending; - reads JSON from stdin).

    The registry refuses an entry that leaves a chain of services incomplete, and names the field.
    """
    body = _entry(file)
    params = {} if cas is None else {"cas": cas}
    answer = await call.client.request("PUT", "/v1/config", params=params, json=body)
    if answer.json() is not True:
        raise Conflict(f"the entry is not at index {cas}: read it again")
    named = {name.lower(): value for name, value in body.items()}
    kind, name = named.get("kind"), named.get("name") or ""
    call.show({"Kind": kind, "Name": name, "Written": True}, f"Wrote {kind} {name}".rstrip() + ".")


@config.command("read")
@click.argument("kind")
@click.argument("name")
@reads
@with_client
async def read(call: Call, kind: str, name: str, read: Read) -> None:
    """Show one entry as JSON; exit code 4 when there is none."""
    found = await call.get(_path(kind, name), **read.params())
    call.show(found, json_text(found))


@config.command("list")
@click.argument("kind")
@reads
@with_client
async def list_(call: Call, kind: str, read: Read) -> None:
    """List the entries of a kind."""
    found = await call.get(f"/v1/config/{segment(kind)}", **read.params())
    rows = [(entry["Name"], str(entry["ModifyIndex"]), _summary(entry)) for entry in found]
    call.show(found, columns(("NAME", "INDEX", "FIELDS"), rows))


@config.command("delete")
@click.argument("kind")
@click.argument("name")
@click.option("--cas", type=click.IntRange(min=0), help="Only at this ModifyIndex.")
@with_client
async def delete(call: Call, kind: str, name: str, cas: int | None) -> None:
    """Delete an entry; one that others need stays, and the answer names them."""
    params = {} if cas is None else {"cas": cas}
    answer = await call.client.request("DELETE", _path(kind, name), params=params)
    if answer.json() is False:
        raise Conflict(f"{kind} {name} is not at index {cas}: read it again")
    call.show({"Kind": kind, "Name": name, "Deleted": True}, f"{kind} {name} is gone.")


def _path(kind: str, name: str) -> str:
    return f"/v1/config/{segment(kind)}/{segment(name)}"


def _summary(entry: dict[str, Any]) -> str:
    """What an entry says something about."""
    own = {"Kind", "Name", "Meta", "CreateIndex", "ModifyIndex"}
    return ",".join(name for name, value in entry.items() if name not in own and value) or "-"


def _entry(file: Path) -> dict[str, Any]:
    """The entry in a file.

    Raises:
        InvalidRequest: It can't be read.
    """
    try:
        data = sys.stdin.buffer.read(_BYTES_MAX + 1) if str(file) == "-" else _bytes_of(file)
        found: Any = (
            tomllib.loads(data.decode()) if file.suffix == ".toml" else msgspec.json.decode(data)
        )
    except OSError as error:
        raise InvalidRequest(f"can't read {file}: {error.strerror}") from error
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidRequest(f"{file}: {error}") from error
    if len(data) > _BYTES_MAX or not isinstance(found, dict):
        raise InvalidRequest(f"{file} must hold one entry of at most {_BYTES_MAX} bytes")
    return found


def _bytes_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_BYTES_MAX + 1)
