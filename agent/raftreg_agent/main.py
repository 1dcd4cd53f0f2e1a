"""The process `raftreg agent`: signals, systemd, and the order in which it starts and ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from random import Random, SystemRandom

import structlog

from raftreg.clock import Clock, SystemClock
from raftreg.config import AgentSettings
from raftreg.errors import ConfigurationError
from raftreg_agent.app import AgentApp
from raftreg_agent.local import LocalAgent
from raftreg_agent.notify import READY, STOPPING, sd_notify

log = structlog.get_logger(__name__)


async def run_agent(
    settings: AgentSettings,
    *,
    clock: Clock | None = None,
    rng: Random | None = None,
    ready: Callable[[AgentApp], None] | None = None,
) -> None:
    """Runs an agent until SIGTERM, SIGINT, or a request to leave; it leaves the registry then.

    SIGHUP reads the definition files again; a bad file is logged and the last good set stays.

    Args:
        settings: Settings of the process.
        clock: Source of time; None takes the host's.
        rng: Source of jitter and of ids; None takes the host's.
        ready: Is called once the listeners are open.

    Raises:
        ConfigurationError: The settings or a definition file can't be used.
    """
    app = AgentApp(settings, clock or SystemClock(), rng or SystemRandom())
    ending = asyncio.Event()
    hangup = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    try:
        async with asyncio.TaskGroup() as tasks:
            await _run(app, tasks, ending, hangup, ready)
    except* ConfigurationError as errors:
        # A group of one thing to say is said as that one thing.
        raise errors.exceptions[0] from None
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _run(
    app: AgentApp,
    tasks: asyncio.TaskGroup,
    ending: asyncio.Event,
    hangup: asyncio.Event,
    ready: Callable[[AgentApp], None] | None,
) -> None:
    helpers: list[asyncio.Task[None]] = []
    leave = False
    try:
        await app.start(tasks)
        helpers.append(tasks.create_task(reload_on(hangup, app.local)))
        helpers.append(tasks.create_task(_end_with(app.local, ending)))
        sd_notify(READY)
        if ready is not None:
            ready(app)
        await ending.wait()
        leave = True
    finally:
        sd_notify(STOPPING)
        for helper in helpers:
            helper.cancel()
        await app.stop(leave=leave)


async def reload_on(hangup: asyncio.Event, local: LocalAgent) -> None:
    """Reads the definition files again whenever the event is set, until it is cancelled."""
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            await local.reload()
        except ConfigurationError as error:
            log.error("reload refused, the last good definitions stay", error=error.message)  # noqa: TRY400 - the message says it all


async def _end_with(local: LocalAgent, ending: asyncio.Event) -> None:
    await local.left.wait()
    ending.set()
