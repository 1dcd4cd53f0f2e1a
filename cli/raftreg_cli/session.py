"""`raftreg session`: the holders of locks."""

from __future__ import annotations

from typing import Any

import click

from raftreg.client.failures import BadAnswer
from raftreg.client.options import Read, segment
from raftreg.client.records import seconds
from raftreg.errors import NotFound
from raftreg.model import SessionBehavior
from raftreg_cli.call import Call, reads, with_client
from raftreg_cli.output import columns

_HEADERS = ("ID", "NAME", "NODE", "TTL", "BEHAVIOR", "LOCK DELAY", "CHECKS")


@click.group()
def session() -> None:
    """Sessions: what holds locks, and ends with its TTL, its node or its checks."""


@session.command("create")
@click.option("--name", default="", help="For people.")
@click.option("--ttl", default="", help="10s to 24h without renewal; left out: no TTL.")
@click.option("--behavior", type=click.Choice(["release", "delete"]), default="release")
@click.option("--lock-delay", default="15s", show_default=True)
@click.option("--node", default="", help="Its node (default: the agent's).")
@with_client
async def create(
    call: Call, name: str, ttl: str, behavior: str, lock_delay: str, node: str
) -> None:
    """Create a session and print its id."""
    found = await call.client.session.create(
        name=name,
        ttl_s=_duration(ttl, "--ttl") if ttl else 0.0,
        behavior=SessionBehavior(behavior),
        lock_delay_s=_duration(lock_delay, "--lock-delay"),
        node=node,
    )
    call.show({"ID": found}, found)


@session.command("list")
@click.option("--node", help="Only those of this node.")
@reads
@with_client
async def list_(call: Call, node: str | None, read: Read) -> None:
    """List sessions."""
    path = f"node/{segment(node)}" if node else "list"
    _show(call, await call.get(f"/v1/session/{path}", **read.params()))


@session.command("info")
@click.argument("session_id", metavar="ID")
@reads
@with_client
async def info(call: Call, session_id: str, read: Read) -> None:
    """Show one session; exit code 4 when there is none."""
    found = await call.get(f"/v1/session/info/{segment(session_id)}", **read.params())
    if not found:
        raise NotFound(f"there is no session {session_id}")
    _show(call, found)


@session.command("renew")
@click.argument("session_id", metavar="ID")
@with_client
async def renew(call: Call, session_id: str) -> None:
    """Give a session its full TTL again; exit code 4 when it has ended."""
    path = f"/v1/session/renew/{segment(session_id)}"
    answer = await call.client.request("PUT", path, accept=(200, 404))
    if answer.status == 404:
        raise NotFound(f"there is no session {session_id}")
    _show(call, answer.json())


@session.command("destroy")
@click.argument("session_id", metavar="ID")
@with_client
async def destroy(call: Call, session_id: str) -> None:
    """End a session, and release its locks; one that has ended is no error."""
    await call.client.session.destroy(session_id)
    call.show({"ID": session_id, "destroyed": True}, f"Session {session_id} has ended.")


def _duration(text: str, option: str) -> float:
    try:
        return seconds(text)
    except BadAnswer:
        message = f"{text!r} is no duration: write 15s or 1m30s"
        raise click.BadParameter(message, param_hint=option) from None


def _show(call: Call, found: list[dict[str, Any]]) -> None:
    rows = [
        (
            one["ID"],
            one.get("Name") or "-",
            one.get("Node", ""),
            one.get("TTL") or "-",
            one.get("Behavior", ""),
            f"{one.get('LockDelay', 0) / 1e9:g}s",
            ",".join(one.get("NodeChecks") or one.get("Checks") or ()),
        )
        for one in found
    ]
    call.show(found, columns(_HEADERS, rows))
