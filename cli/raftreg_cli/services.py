"""`raftreg services`: what is registered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import click

from raftreg.client.options import Read, segment
from raftreg.client.records import HealthEntry
from raftreg.config import join_host_port
from raftreg.errors import InvalidRequest, NotFound
from raftreg_cli.call import Call, reads, with_client
from raftreg_cli.definition import Wanted, definition, service_options
from raftreg_cli.output import columns

_PARALLEL = 16
_DEFINITION_BYTES_MAX = 1 << 20
_STATUSES = ("passing", "warning", "critical")


@click.group()
def services() -> None:
    """Services and their instances."""


@services.command("list")
@reads
@with_client
async def list_(call: Call, read: Read) -> None:
    """List services with their tags and the health of their instances."""
    names = await call.client.catalog.services(read=read)
    limit = asyncio.Semaphore(_PARALLEL)

    async def shape(name: str, tags: list[str]) -> dict[str, Any]:
        async with limit:
            found = await call.client.health.service(name, read=read)
        counts = {status: _count(found, status) for status in _STATUSES}
        return {"name": name, "tags": tags, "instances": len(found), **counts}

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(shape(name, names[name])) for name in sorted(names)]
    shapes = [task.result() for task in tasks]
    headers = ("SERVICE", "INSTANCES", "PASSING", "WARNING", "CRITICAL", "TAGS")
    rows = [
        (s["name"], s["instances"], *(s[status] for status in _STATUSES), ",".join(s["tags"]))
        for s in shapes
    ]
    call.show(shapes, columns(headers, rows))


@services.command("show")
@click.argument("name")
@reads
@with_client
async def show_(call: Call, name: str, read: Read) -> None:
    """Show the instances of a service with their checks; exit code 4 when there is none."""
    found = await call.get(f"/v1/health/service/{segment(name)}", **read.params())
    if not found:
        raise NotFound(f"no service {name!r} is registered; `raftreg services list` shows what is")
    headers = ("INSTANCE", "NODE", "ADDRESS", "CHECK", "STATUS", "OUTPUT")
    rows = [row for entry in found for row in _check_rows(entry)]
    call.show(found, columns(headers, rows))


@services.command("register")
@click.argument("file", type=click.File("rb"), required=False)
@service_options
@with_client
async def register(call: Call, file: Any, wanted: Wanted | None) -> None:
    """Register a service with the agent asked: from a JSON FILE (- is stdin), or by options."""
    if (file is None) == (wanted is None):
        raise click.UsageError("give a FILE, or --name with further options")
    bodies = _from_file(file) if wanted is None else [definition(wanted)]
    for body in bodies:
        await call.client.agent.register_service(body)
    shapes = [{"name": _field(b, "Name"), "id": _id(b), "registered": True} for b in bodies]
    call.show(shapes, "\n".join(f"Registered {shape['id']}." for shape in shapes))


@services.command("deregister")
@click.argument("service_id", metavar="ID")
@click.option("--node", help="Remove it from the catalog for this node, not from the agent.")
@with_client
async def deregister(call: Call, service_id: str, node: str | None) -> None:
    """Remove an instance; one that is not there is no error.

    An agent owns the truth about its host: what is removed with --node comes back when that
    node's agent still has it.
    """
    if node:
        await call.client.catalog.deregister(node, service_id=service_id)
    else:
        await call.client.agent.deregister_service(service_id)
    call.show({"id": service_id, "deregistered": True}, f"Deregistered {service_id}.")


@services.command("watch")
@click.argument("name")
@click.option("--tag", "tags", multiple=True, help="Only instances with this tag.")
@click.option("--passing", is_flag=True, help="Only healthy ones.")
@with_client
async def watch(call: Call, name: str, tags: tuple[str, ...], passing: bool) -> None:
    """Print what was added, changed and removed in a service, until Ctrl-C.

    With --output json, one object a line: index, added, changed and removed instances.
    """
    before: dict[str, dict[str, Any]] = {}
    async with aclosing(call.client.health.watch(name, tags=tags, passing=passing)) as changes:
        async for change in changes:
            now = {f"{e.node.name}/{e.service.id}": _shape(e) for e in change.value}
            delta = _delta(before, now)
            if any(delta.values()) or not before:
                data = {"index": change.index, "service": name, **delta}
                call.show_line(data, _delta_text(change.index, name, delta, len(now)))
            before = now


def _count(entries: list[HealthEntry], status: str) -> int:
    return sum(entry.status.value == status for entry in entries)


def _check_rows(entry: Mapping[str, Any]) -> list[tuple[str, ...]]:
    service, node = entry["Service"], entry["Node"]
    address = join_host_port(service["Address"] or node["Address"], service["Port"])
    instance = (service["ID"], node["Node"], address)
    checks = entry["Checks"] or [{"CheckID": "-", "Status": "-", "Output": ""}]
    return [
        (*instance, check["CheckID"], check["Status"], " ".join(check["Output"].split())[:80])
        for check in checks
    ]


def _from_file(file: Any) -> list[dict[str, Any]]:
    """The services of a definition file, as agents read them from --config-dir."""
    data = file.read(_DEFINITION_BYTES_MAX + 1)
    try:
        found = json.loads(data)
    except ValueError as problem:
        raise InvalidRequest(f"{file.name} is no JSON: {problem}") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{file.name}: a definition is a JSON object")
    bodies = found.get("services") or [found.get("service") or found]
    if not all(isinstance(body, dict) and _field(body, "Name") for body in bodies):
        raise InvalidRequest(f"{file.name}: each service is an object with a name")
    return list(bodies)


def _field(body: Mapping[str, Any], name: str) -> Any:
    """A field in any letter case, as definitions may write it."""
    return next((value for key, value in body.items() if key.lower() == name.lower()), None)


def _id(body: Mapping[str, Any]) -> Any:
    return _field(body, "ID") or _field(body, "Name")


def _shape(entry: HealthEntry) -> dict[str, Any]:
    return {
        "id": entry.service.id,
        "node": entry.node.name,
        "address": join_host_port(entry.address, entry.service.port),
        "tags": list(entry.service.tags),
        "status": entry.status.value,
    }


def _delta(
    before: Mapping[str, dict[str, Any]], now: Mapping[str, dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    return {
        "added": [shape for key, shape in now.items() if key not in before],
        "changed": [s for key, s in now.items() if key in before and before[key] != s],
        "removed": [shape for key, shape in before.items() if key not in now],
    }


def _delta_text(
    index: int, name: str, delta: Mapping[str, list[dict[str, Any]]], total: int
) -> str:
    signs = {"added": "+", "changed": "~", "removed": "-"}
    lines = [
        f"  {signs[kind]} {shape['id']} on {shape['node']} {shape['address']} {shape['status']}"
        for kind, shapes in delta.items()
        for shape in shapes
    ]
    return "\n".join([f"[{index}] {name}: {total} instances", *lines])
