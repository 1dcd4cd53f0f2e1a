"""`raftreg intention`: who may call whom."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from raftreg.client.options import Read, segment
from raftreg.errors import Conflict, Forbidden, NotFound
from raftreg_cli.call import Call, reads, with_client
from raftreg_cli.output import columns

_PATH = "/v1/connect/intentions"
_HEADERS = ("SOURCE", "DESTINATION", "ACTION", "PRECEDENCE", "DESCRIPTION")


@click.group()
def intention() -> None:
    """Intentions: which service may call which; `*` stands for all of them."""


@intention.command("create")
@click.argument("source")
@click.argument("destination")
@click.option("--allow/--deny", default=True, help="What it says (default: allow).")
@click.option("--description", default="", help="For people.")
@click.option("--replace", is_flag=True, help="Replace the one that there may be.")
@with_client
async def create(
    call: Call, source: str, destination: str, allow: bool, description: str, replace: bool
) -> None:
    """Let SOURCE call DESTINATION, or forbid it."""
    pair = {"source": source, "destination": destination}
    if not replace:
        known = await call.client.request("GET", f"{_PATH}/exact", params=pair, accept=(200, 404))
        if known.status == 200:
            raise Conflict(f"there is an intention {source} => {destination}: use --replace")
    action = "allow" if allow else "deny"
    body = {"Action": action, "Description": description}
    await call.client.request("PUT", f"{_PATH}/exact", params=pair, json=body)
    call.show({**pair, "action": action}, f"Created: {source} => {destination} ({action})")


@intention.command("check")
@click.argument("source")
@click.argument("destination")
@reads
@with_client
async def check(call: Call, source: str, destination: str, read: Read) -> None:
    """Tell whether SOURCE may call DESTINATION; exit code 3 when it may not."""
    pair = {"source": source, "destination": destination}
    found = await call.get(f"{_PATH}/check", **pair, **read.params())
    if not found["Allowed"]:
        raise Forbidden(f"{source} may not call {destination}")
    call.show(found, "Allowed")


@intention.command("list")
@reads
@with_client
async def list_(call: Call, read: Read) -> None:
    """List all intentions, those that decide first at the head."""
    _show(call, await call.get(_PATH, **read.params()))


@intention.command("match")
@click.argument("service")
@click.option("--source", "by", flag_value="source", help="For calls from the service.")
@click.option(
    "--destination", "by", flag_value="destination", default=True, help="To it (default)."
)
@reads
@with_client
async def match(call: Call, service: str, by: str, read: Read) -> None:
    """List the intentions that cover calls to SERVICE, or from it."""
    found = await call.get(f"{_PATH}/match", by=by, name=service, **read.params())
    _show(call, found[service])


@intention.command("delete")
@click.argument("source_or_id", metavar="SOURCE|ID")
@click.argument("destination", required=False)
@with_client
async def delete(call: Call, source_or_id: str, destination: str | None) -> None:
    """Delete an intention by its SOURCE and DESTINATION, or by its ID."""
    if destination is not None:
        path, pair = f"{_PATH}/exact", {"source": source_or_id, "destination": destination}
        what = f"{source_or_id} => {destination}"
    elif _is_id(source_or_id):
        path, pair, what = f"{_PATH}/{segment(source_or_id)}", {}, source_or_id
    else:
        raise click.UsageError("name SOURCE and DESTINATION, or the ID of an intention")
    known = await call.client.request("GET", path, params=pair, accept=(200, 404))
    if known.status == 404:
        raise NotFound(f"there is no intention {what}")
    await call.client.request("DELETE", path, params=pair)
    call.show({"Deleted": what}, f"Intention {what} is gone.")


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _show(call: Call, found: list[dict[str, Any]]) -> None:
    rows = [
        (
            one["SourceName"],
            one["DestinationName"],
            one.get("Action") or "by request",
            str(one["Precedence"]),
            one.get("Description") or "-",
        )
        for one in found
    ]
    call.show(found, columns(_HEADERS, rows))
