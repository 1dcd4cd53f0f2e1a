"""`raftreg lock`: a program that runs only while a lock is held."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from raftreg.client.api import RegistryClient
from raftreg.client.holding import LOCK_FLAGS, Holding, LockOptions
from raftreg.client.permits import HOLDERS_MAX
from raftreg.client.semaphore import remove_unused
from raftreg.core.durations import parse_duration
from raftreg.errors import RaftregError
from raftreg_cli import child
from raftreg_cli.call import Call, with_client

CLEAN_UP_TIMEOUT_S = 3.0
_TERMINATED = 128 + signal.SIGTERM


@click.command()
@click.option("--name", default="", help="Name of the session, for people.")
@click.option(
    "-n",
    "limit",
    type=click.IntRange(1, HOLDERS_MAX),
    default=1,
    show_default=True,
    help="How many may hold it at a time; more than one is a semaphore.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Longest wait (default: for ever); 0: try once.",
)
@click.option(
    "--try",
    "try_text",
    metavar="DURATION",
    help="The same as --wait, as `consul lock` has it: 15s, 1m30s.",
)
@click.option(
    "--ttl",
    "ttl_s",
    type=click.FloatRange(10, 86_400),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a dead holder holds.",
)
@click.option(
    "--lock-delay",
    "lock_delay_s",
    type=click.FloatRange(0, 60),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the lock stays closed after a dead holder was found out.",
)
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Between SIGTERM and SIGKILL when the lock is lost.",
)
@click.option(
    "--monitor-retry",
    "retries",
    type=click.IntRange(min=0),
    metavar="N",
    help="Seconds (about one a retry) without an answer about the lock after which it counts as "
    "lost.  [default: as long as the session can be renewed]",
)
@click.option(
    "--child-exit-code/--no-child-exit-code",
    "pass_code",
    default=True,
    show_default=True,
    help="Exit with the program's code, or with 0 whatever it was.",
)
@click.argument("prefix")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@with_client
async def lock(
    call: Call,
    /,
    limit: int,
    grace_s: float,
    pass_code: bool,
    prefix: str,
    command: tuple[str, ...],
    **given: Any,
) -> int:
    """Run a program while holding the lock PREFIX/.lock, or with -n one of N permits.

    \b
    raftreg lock service/backup -- ./backup --all
    raftreg lock -n 3 service/encoding -- ./encode film.mkv

    Waits for the lock, keeps it while the program runs, and exits with the program's code. When
    the lock is lost the program gets SIGTERM, then SIGKILL; the exit code is 5. It also ends when
    this process dies. The layout is that of `consul lock`, so both keep each other out. The
    program finds CONSUL_LOCK_HELD=true and RAFTREG_FENCING_TOKEN in its environment; the token
    grows from holder to holder.
    """  # noqa: D301  # click reads the \b
    held = _holding(call.client, prefix, limit, _options(prefix, **given))
    with _cancelled_by_sigterm() as terminated:
        try:
            code = await _run(held, command, grace_s)
        except asyncio.CancelledError:
            if not terminated.is_set():
                raise
            return _TERMINATED
    await _clean_up(call.client, prefix, limit)
    return code if pass_code else 0


def _options(
    prefix: str,
    *,
    name: str,
    wait_s: float | None,
    try_text: str | None,
    ttl_s: float,
    lock_delay_s: float,
    retries: int | None,
) -> LockOptions:
    if try_text is not None:
        if wait_s is not None:
            raise click.UsageError("--try and --wait say the same")
        wait_s = parse_duration(try_text)
    return LockOptions(
        ttl_s=ttl_s,
        lock_delay_s=lock_delay_s,
        wait_s=wait_s,
        session_name=name or f"lock {prefix}",
        monitor_patience_s=None if retries is None else float(retries),
    )


def _lock_key(prefix: str) -> str:
    return f"{prefix.strip('/')}/.lock"


def _holding(client: RegistryClient, prefix: str, limit: int, options: LockOptions) -> Holding:
    if limit == 1:
        return client.lock(_lock_key(prefix), options)
    return client.semaphore(prefix, limit, options)


async def _run(holding: Holding, command: tuple[str, ...], grace_s: float) -> int:
    async with holding as held:
        environment = {
            "CONSUL_LOCK_HELD": "true",
            "RAFTREG_FENCING_TOKEN": str(held.fencing_token),
        }
        async with child.started(command, extra_env=environment, grace_s=grace_s) as program:
            return await program.wait()


@contextmanager
def _cancelled_by_sigterm() -> Iterator[asyncio.Event]:
    """SIGTERM ends the wait for the lock in order: session and contender are gone at once.

    While the program runs the signal is the program's (see `child.started`).
    """
    loop, task, terminated = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()

    def end() -> None:
        terminated.set()
        if task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        yield terminated
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _clean_up(client: RegistryClient, prefix: str, limit: int) -> None:
    """Deletes the key when nobody holds it, as `consul lock` does; best effort."""
    with suppress(RaftregError, TimeoutError):
        async with asyncio.timeout(CLEAN_UP_TIMEOUT_S):
            if limit > 1:
                await remove_unused(client, prefix)
                return
            entry = await client.kv.get(_lock_key(prefix))
            if entry is not None and entry.session is None and entry.flags == LOCK_FLAGS:
                await client.kv.delete(entry.key, cas=entry.modify_index)
