"""`raftreg lookup`: where a service is."""

from __future__ import annotations

import click

from raftreg.client.options import Read
from raftreg.client.records import HealthEntry
from raftreg.config import join_host_port
from raftreg.errors import NotFound
from raftreg_cli.call import Call, reads, with_client
from raftreg_cli.output import columns


@click.command()
@click.argument("service")
@click.option("--tag", "tags", multiple=True, help="Only with this tag; several: with all.")
@click.option("--all", "everything", is_flag=True, help="Those that are not healthy too.")
@click.option("--one", is_flag=True, help="One instance, chosen at random.")
@reads
@with_client
async def lookup(
    call: Call, service: str, tags: tuple[str, ...], everything: bool, one: bool, read: Read
) -> None:
    """Print address and port of the healthy instances of SERVICE.

    Exit code 4 when there is none.
    """
    found = await call.client.health.service(service, tags=tags, passing=not everything, read=read)
    if not found:
        wanted = f" with tags {', '.join(tags)}" if tags else ""
        raise NotFound(f"no {'' if everything else 'healthy '}instance of {service!r}{wanted}")
    if one:
        found = [call.client.rng.choice(found)]
    headers = ("ADDRESS", "NODE", "INSTANCE", "STATUS", "TAGS")
    rows = [
        (_target(e), e.node.name, e.service.id, e.status.value, ",".join(e.service.tags))
        for e in found
    ]
    call.show([_shape(entry) for entry in found], columns(headers, rows))


def _target(entry: HealthEntry) -> str:
    return join_host_port(entry.address, entry.service.port)


def _shape(entry: HealthEntry) -> dict[str, object]:
    return {
        "service": entry.service.name,
        "id": entry.service.id,
        "node": entry.node.name,
        "address": entry.address,
        "port": entry.service.port,
        "tags": entry.service.tags,
        "meta": entry.service.meta,
        "status": entry.status.value,
    }
