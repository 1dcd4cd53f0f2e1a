"""`raftreg rtt`: the estimated round trip between two nodes."""

from __future__ import annotations

import click

from raftreg.client.options import Read
from raftreg.core.vivaldi import round_trip_s
from raftreg.errors import NotFound
from raftreg.model import Coordinate, NodeCoordinate
from raftreg_cli.call import Call, reads, with_client


@click.command()
@click.argument("node")
@click.argument("other", required=False)
@reads
@with_client
async def rtt(call: Call, node: str, other: str | None, read: Read) -> None:
    """Estimate the round trip between NODE and OTHER (the agent's own node when left out).

    It is reckoned from network coordinates, nothing is measured now. Exit code 4 when one of the
    nodes has none yet.
    """
    if other is None:
        own = await call.client.agent.self()
        other = str(own["Config"]["NodeName"])
    one, two = [await call.client.coordinate.node(name, read=read) for name in (node, other)]
    for name, rows in ((node, one), (other, two)):
        if not rows:
            raise NotFound(f"node {name!r} has no coordinate (yet), or there is no such node")
    pair = common(one, two)
    if pair is None:
        raise NotFound(f"nodes {node!r} and {other!r} are in no common network segment")
    seconds = round_trip_s(*pair)
    shape = {"node": node, "other": other, "rtt_ms": round(seconds * 1000, 3)}
    call.show(shape, f"{node} <-> {other}: {seconds * 1000:.3f} ms (estimated)")


def common(
    one: list[NodeCoordinate], two: list[NodeCoordinate]
) -> tuple[Coordinate, Coordinate] | None:
    """Coordinates of both nodes in one segment, None when they share none."""
    others = {row.segment: row.coordinate for row in two}
    for row in one:
        if row.segment in others:
            return row.coordinate, others[row.segment]
    return None
