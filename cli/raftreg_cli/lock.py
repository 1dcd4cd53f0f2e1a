"""`raftreg lock`: a program that runs only while a lock is held."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from raftreg.client.api import RegistryClient
from raftreg.client.lock import LockOptions
from raftreg.errors import RaftregError
from raftreg_cli import child
from raftreg_cli.call import Call, with_client

CLEAN_UP_TIMEOUT_S = 3.0
_TERMINATED = 128 + signal.SIGTERM


@click.command()
@click.option("--name", default="", help="Name of the session, for people.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Longest wait (default: for ever); 0: try once.",
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
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Between SIGTERM and SIGKILL when the lock is lost.",
)
@click.argument("prefix")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@with_client
async def lock(
    call: Call,
    name: str,
    wait_s: float | None,
    ttl_s: float,
    grace_s: float,
    prefix: str,
    command: tuple[str, ...],
) -> int:
    """Run a program while holding the lock PREFIX/.lock.

    \b
    raftreg lock service/backup -- ./backup --all

    Waits for the lock, keeps it while the program runs, and exits with the program's code. When
    the lock is lost the program gets SIGTERM, then SIGKILL; the exit code is 5. It also ends when
    this process dies. The layout is that of `consul lock`, so both keep each other out. The
    program finds CONSUL_LOCK_HELD=true and RAFTREG_FENCING_TOKEN in its environment; the token
    grows from holder to holder.
    """  # noqa: D301  # click reads the \b
    key = f"{prefix.strip('/')}/.lock"
    options = LockOptions(ttl_s=ttl_s, wait_s=wait_s, session_name=name or f"lock {prefix}")
    with _cancelled_by_sigterm() as terminated:
        try:
            async with call.client.lock(key, options) as held:
                environment = {
                    "CONSUL_LOCK_HELD": "true",
                    "RAFTREG_FENCING_TOKEN": str(held.fencing_token),
                }
                async with child.started(
                    command, extra_env=environment, grace_s=grace_s
                ) as program:
                    code = await program.wait()
        except asyncio.CancelledError:
            if not terminated.is_set():
                raise
            return _TERMINATED
    await _clean_up(call.client, key, options.flags)
    return code


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


async def _clean_up(client: RegistryClient, key: str, flags: int) -> None:
    """Deletes the key when nobody holds it, as `consul lock` does; best effort."""
    with suppress(RaftregError, TimeoutError):
        async with asyncio.timeout(CLEAN_UP_TIMEOUT_S):
            entry = await client.kv.get(key)
            if entry is not None and entry.session is None and entry.flags == flags:
                await client.kv.delete(key, cas=entry.modify_index)
