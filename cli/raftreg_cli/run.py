"""`raftreg run`: a program that is registered while it runs (third-party registration)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import click
import structlog

from raftreg.client.api import RegistryClient
from raftreg.client.failures import transient
from raftreg.errors import RaftregError
from raftreg_cli import child, logs
from raftreg_cli.call import Call, with_patient_client
from raftreg_cli.definition import Wanted, definition, service_options

#: How long the agent may take to hear that the program has ended.
DEREGISTER_TIMEOUT_S = 5.0
#: How often the registration is looked at: an agent that was reinstalled has forgotten it.
CONFIRM_EVERY_S = 15.0
_log = structlog.get_logger(__name__)


@click.command()
@service_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@with_patient_client
async def run(call: Call, command: tuple[str, ...], wanted: Wanted | None) -> int:
    """Run a program, registered as a service while it runs.

    \b
    raftreg run --name web --port 8080 --check-http http://127.0.0.1:8080/health -- ./web

    The program starts at once, also while the agent is away: registering is tried until it works.
    Signals are passed on. When the program ends it is deregistered, and its exit code is ours.
    """  # noqa: D301  # click reads the \b
    if wanted is None:
        raise click.UsageError("give the service a --name")
    logs.configure("text", "warning")
    body = definition(wanted)
    async with child.started(command) as program, asyncio.TaskGroup() as group:
        registration = group.create_task(_stay_registered(call.client, body))
        code = await program.wait()
        registration.cancel()
    await _deregister(call.client, wanted.id)
    return code


async def _stay_registered(client: RegistryClient, body: dict[str, Any]) -> None:
    """Registers, tries again while the agent is away, and again when it has forgotten."""
    failures = 0
    registered = False
    while True:
        try:
            # The first time in any case: an earlier run may have left another definition.
            if not registered or await client.agent.service(body["ID"]) is None:
                await client.agent.register_service(body)
            registered, failures = True, 0
            await asyncio.sleep(CONFIRM_EVERY_S)
        except RaftregError as error:
            if failures == 0:
                _log.warning("not_registered", service=body["ID"], reason=error.message)
            if transient(error):
                await client.pause(failures)
            else:  # refused: the agent may be configured otherwise later
                await asyncio.sleep(CONFIRM_EVERY_S)
            failures += 1


async def _deregister(client: RegistryClient, service_id: str) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(DEREGISTER_TIMEOUT_S):
            try:
                await client.agent.deregister_service(service_id)
            except RaftregError as error:
                _log.warning("not_deregistered", service=service_id, reason=error.message)
