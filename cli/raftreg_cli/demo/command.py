"""`raftreg demo`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom

import click

from raftreg.clock import SystemClock
from raftreg_cli import process
from raftreg_cli.call import with_output
from raftreg_cli.demo import plan as plans
from raftreg_cli.demo.live import run_live
from raftreg_cli.demo.once import START_S_MAX, run_once, wait_healthy
from raftreg_cli.demo.probe import Probe
from raftreg_cli.demo.report import Report
from raftreg_cli.demo.stage import directory, started
from raftreg_cli.output import Output

_INTERRUPTED = 130


@click.command()
@click.option("--once", is_flag=True, help="Check everything, report, exit: 0 if all was well.")
@click.option(
    "--dir",
    "wanted",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep data and logs here (default: a temporary directory that is removed).",
)
@click.option(
    "--base-port",
    type=click.IntRange(1300, 65_000),
    default=plans.HTTP_PORT_DEFAULT,
    show_default=True,
    help="HTTP port; DNS is 100 above it, Raft 200 below.",
)
@with_output
def demo(once: bool, wanted: Path | None, base_port: int, output: Output) -> None:
    """Run three servers, three agents and sample services on 127.0.x.y, and show them.

    Real processes, real checks. Ctrl-C stops everything and leaves nothing behind.
    """
    code = process.run(_demo(once, wanted, base_port, output))
    if code:
        raise SystemExit(code)


async def _demo(once: bool, wanted: Path | None, base_port: int, output: Output) -> int:
    clock = SystemClock()
    start = clock.monotonic()
    with _cancelled_by_signals(), directory(wanted) as files:
        layout = plans.free_plan(files, base_port)
        try:
            async with (
                started(layout) as stage,
                Probe(layout, clock, SystemRandom()) as probe,
            ):
                if once:
                    report = Report(output, lambda: clock.monotonic() - start)
                    return 0 if await run_once(stage, probe, report) else 1
                click.echo(f"Starting {len(stage.all())} processes …", err=True)
                try:
                    await wait_healthy(stage, probe, START_S_MAX)
                    await run_live(stage, probe)
                finally:
                    click.echo("Stopping …", err=True)
        except asyncio.CancelledError:
            click.echo("All processes are stopped.", err=True)
            return _INTERRUPTED if once else 0
    return 0


@contextlib.contextmanager
def _cancelled_by_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the demo in order; repeating them does not disturb that."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    ending = False

    def end() -> None:
        nonlocal ending
        if not ending and task is not None:
            ending = True
            task.cancel()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
