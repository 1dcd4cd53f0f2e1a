"""`raftreg health`: the checks and what they say."""

from __future__ import annotations

from typing import Any

import click

from raftreg.client.options import Read, segment
from raftreg_cli.call import Call, reads, with_client
from raftreg_cli.output import columns

_STATES = ("any", "passing", "warning", "critical")
_WORST_FIRST = {"critical": 0, "warning": 1, "passing": 2}
_OUTPUT_LENGTH_MAX = 80


@click.command()
@click.option("--node", help="Checks of this node.")
@click.option("--service", help="Checks of this service's instances.")
@click.option("--state", type=click.Choice(_STATES), default="any", show_default=True)
@click.option("--fail", is_flag=True, help="Exit with 1 when one of them is critical.")
@reads
@with_client
async def health(
    call: Call, node: str | None, service: str | None, state: str, fail: bool, read: Read
) -> int:
    """List checks, the worst first."""
    if node and service:
        raise click.UsageError("--node and --service exclude each other")
    found = await call.get(_path(node, service, state), **read.params())
    shown = [check for check in found if state in ("any", check["Status"])]
    shown.sort(key=lambda c: (_WORST_FIRST.get(c["Status"], 3), c["Node"], c["CheckID"]))
    headers = ("STATUS", "NODE", "SERVICE", "CHECK", "OUTPUT")
    call.show(shown, columns(headers, [_row(check) for check in shown]))
    return int(fail and any(check["Status"] == "critical" for check in shown))


def _path(node: str | None, service: str | None, state: str) -> str:
    if node:
        return f"/v1/health/node/{segment(node)}"
    if service:
        return f"/v1/health/checks/{segment(service)}"
    return f"/v1/health/state/{state}"


def _row(check: dict[str, Any]) -> tuple[str, ...]:
    output = " ".join(check["Output"].split())
    if len(output) > _OUTPUT_LENGTH_MAX:
        output = output[: _OUTPUT_LENGTH_MAX - 1] + "…"
    service = check["ServiceID"] or "-"
    return (check["Status"], check["Node"], service, check["CheckID"], output)
