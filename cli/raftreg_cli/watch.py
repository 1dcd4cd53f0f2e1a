"""`raftreg watch`: a handler that runs whenever something in the registry has changed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import click
import msgspec

from raftreg_cli import process
from raftreg_cli.call import Call, with_patient_client
from raftreg_cli.invoke import Ended, invoke
from raftreg_cli.watch_plan import Kind, News, Wanted, ask, check


@click.command()
@click.option(
    "--type",
    "kind",
    type=click.Choice([kind.value for kind in Kind]),
    required=True,
    help="What to watch.",
)
@click.option("--key", default="", help="Key of type key.")
@click.option("--prefix", default="", help="Prefix of type keyprefix.")
@click.option("--service", default="", help="Service of type service or checks.")
@click.option("--tag", "tags", multiple=True, help="Of type service; may be given again.")
@click.option("--passing-only", is_flag=True, help="Of type service: healthy instances alone.")
@click.option(
    "--state",
    default="",
    type=click.Choice(["", "any", "passing", "warning", "critical"]),
    help="Of type checks, instead of a service.",
)
@click.option("--name", default="", help="Name of events of type event (default: all).")
@click.option("--once", is_flag=True, help="End after the first time, with the handler's code.")
@click.option(
    "--handler-timeout",
    "handler_timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End a handler that runs longer (default: let it run).",
)
@click.argument("handler", nargs=-1, type=click.UNPROCESSED)
@with_patient_client
async def watch(
    call: Call,
    /,
    kind: str,
    once: bool,
    handler_timeout_s: float | None,
    handler: tuple[str, ...],
    **given: Any,
) -> int:
    """Run HANDLER now and after each change, with what is watched as JSON on its stdin.

    \b
    raftreg watch --type service --service web --passing-only -- ./update-backends
    raftreg watch --type key --key config/limit

    The JSON is that of the HTTP API: of `key` the entry or null, of `event` the new events.
    RAFTREG_INDEX and CONSUL_INDEX hold its index. One handler runs at a time; what changes
    meanwhile is told in one go afterwards. Without a handler the JSON is printed, one line a time.
    While the registry is out of reach nothing happens.
    """  # noqa: D301  # click reads the \b
    wanted = Wanted(kind=Kind(kind), **given)
    check(wanted)
    watcher = _Watcher(call, wanted, handler, handler_timeout_s)
    running = asyncio.current_task()
    if running is None:
        raise RuntimeError("a command runs in a task")

    def stop() -> None:
        running.cancel()

    with process.stop_on_signals(_nothing, on_stop=stop) as stopped:
        try:
            return await watcher.run(once=once)
        except asyncio.CancelledError:
            if not stopped.is_set():
                raise
            return 0


def _nothing() -> None:
    """There is nothing to be read again on SIGHUP."""


class _Watcher:
    def __init__(
        self, call: Call, wanted: Wanted, handler: tuple[str, ...], timeout_s: float | None
    ) -> None:
        self._call = call
        self._ask = ask(wanted)
        self._handler = handler
        self._timeout_s = timeout_s
        self._news = News(wanted.kind)
        self._arrived = asyncio.Event()

    async def run(self, *, once: bool) -> int:
        """Tells for ever, or once; gives the handler's exit code."""
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._follow(self._call.client.timeout_s if once else None))
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._news:
                    code = await self._tell(*self._news.take())
                    if once:
                        asking.cancel()
                        return code

    async def _follow(self, patience_s: float | None) -> None:
        watch = self._call.client.watch(
            self._ask.path,
            self._ask.decode,
            params=self._ask.params,
            accept=self._ask.accept,
            patience_s=patience_s,
        )
        async with aclosing(watch) as changes:
            async for change in changes:
                self._news.learn(change.index, change.value)
                self._arrived.set()

    async def _tell(self, index: int, value: Any) -> int:
        data = msgspec.json.encode(value)
        if not self._handler:
            click.echo(data)
            return 0
        ended = await invoke(
            self._handler,
            stdin=data + b"\n",
            extra_env={"RAFTREG_INDEX": str(index), "CONSUL_INDEX": str(index)},
            timeout_s=self._timeout_s,
        )
        if problem := _problem(ended):
            click.echo(f"raftreg watch: the handler {problem}", err=True)
        return ended.code


def _problem(ended: Ended) -> str:
    if ended.timed_out:
        return "took too long and was ended"
    return f"ended with code {ended.code}: {ended.output}".rstrip(": ") if ended.code else ""
