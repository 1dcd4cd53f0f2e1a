"""`raftreg watch`: a handler told of changes, one at a time."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.client.api import RegistryClient
from raftreg_cli.watch_plan import Kind, News
from tests.cli.conftest import Dev, Ran, command_line
from tests.e2e.waiting import until

_WAIT_S_MAX = 30.0
#: Writes what it was told to a file, line by line; holds a lock file while it runs.
_HANDLER = """
import json, os, sys
out, gate = sys.argv[1:]
os.close(os.open(out + ".running", os.O_CREAT | os.O_EXCL))
told = {"index": os.environ["CONSUL_INDEX"], "same": os.environ["RAFTREG_INDEX"],
        "value": json.load(sys.stdin)}
with open(out, "a") as file:
    file.write(json.dumps(told) + chr(10))
if gate:
    os.read(os.open(gate, os.O_RDONLY), 1)
os.unlink(out + ".running")
"""


def handler(out: Path, gate: str = "") -> list[str]:
    """A program that notes what it is told, and fails when another one runs.

    A byte from the pipe `gate` lets it end.
    """
    return [sys.executable, "-c", _HANDLER, str(out), gate]


@asynccontextmanager
async def watching(dev: Dev, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`raftreg watch` while the block runs; it must end in order on SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *command_line("watch", *arguments),
        env=dev.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_WAIT_S_MAX):
            _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def lines(process: asyncio.subprocess.Process, holds: Callable[[Any], bool]) -> Any:
    """Reads JSON lines until one is as wanted; gives it."""
    assert process.stdout is not None
    async with asyncio.timeout(_WAIT_S_MAX):
        while True:
            found = json.loads(await process.stdout.readline())
            if holds(found):
                return found


@pytest.fixture
async def client(dev: Dev) -> AsyncIterator[RegistryClient]:
    """A client of the registry."""
    async with RegistryClient([dev.http]) as client:
        yield client


async def test_keys_and_prefixes_are_printed(dev: Dev, client: RegistryClient) -> None:
    """Without a handler: the entry or null of a key, the list of a prefix, on one line each."""
    async with (
        watching(dev, "--type", "key", "--key", "watched/a") as key,
        watching(dev, "--type", "keyprefix", "--prefix", "watched/") as prefix,
    ):
        await lines(key, lambda found: found is None)
        await lines(prefix, lambda found: found == [])
        await client.kv.put("watched/a", b"1")
        found = await lines(key, bool)
        assert (found["Key"], found["Value"]) == ("watched/a", "MQ==")
        assert await lines(prefix, bool) == [found]
        await client.kv.delete("watched/a")
        await lines(key, lambda found: found is None)


async def test_services_nodes_and_checks_are_printed(dev: Dev, client: RegistryClient) -> None:
    """The other types show what the HTTP API shows, and only what their options choose."""
    service = ("--type", "service", "--service", "watched", "--tag", "blue", "--passing-only")
    async with (
        watching(dev, "--type", "services") as names,
        watching(dev, "--type", "nodes") as nodes,
        watching(dev, *service) as instances,
        watching(dev, "--type", "checks", "--service", "watched") as checks,
        watching(dev, "--type", "checks", "--state", "critical") as critical,
    ):
        await lines(instances, lambda found: found == [])
        assert [node["Node"] for node in await lines(nodes, bool)] == ["dev-1"]
        await client.agent.register_service(
            {"Name": "watched", "Tags": ["blue"], "Check": {"TTL": "1m", "Status": "passing"}}
        )
        (instance,) = await lines(instances, bool)
        assert instance["Service"]["ID"] == "watched"
        await lines(names, lambda found: found.get("watched") == ["blue"])
        await lines(checks, lambda found: [one["Status"] for one in found] == ["passing"])
        await client.request("PUT", "/v1/agent/check/fail/service:watched")
        await lines(instances, lambda found: found == [])
        await lines(critical, lambda found: [one["ServiceID"] for one in found] == ["watched"])
        await client.agent.deregister_service("watched")


def told(out: Path) -> list[Any]:
    """What handlers were told so far."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def idle(out: Path) -> bool:
    """No handler runs."""
    return not Path(f"{out}.running").exists()


async def handlers_told(out: Path, holds: Callable[[list[Any]], bool]) -> None:
    """Waits until what handlers were told is as wanted, and none runs any more."""

    async def done() -> bool:
        return holds(told(out)) and idle(out)

    await until("handlers told", done)


async def test_one_handler_at_a_time_is_told_the_newest(
    dev: Dev, client: RegistryClient, tmp_path: Path
) -> None:
    """While a handler runs changes are gathered; afterwards one handler is told how things are."""
    out, gate = tmp_path / "told", tmp_path / "gate"
    os.mkfifo(gate)
    opener = os.open(gate, os.O_RDWR)
    await client.kv.put("gathered", b"0")

    async def first_runs() -> bool:
        return len(told(out)) == 1

    try:
        arguments = ("--type", "key", "--key", "gathered", "--", *handler(out, str(gate)))
        async with watching(dev, *arguments):
            await until("a first handler", first_runs)
            for number in range(1, 6):
                await client.kv.put("gathered", str(number).encode())
            os.write(opener, bytes(100))
            await handlers_told(out, lambda found: bool(found[-1]["value"]["Value"] == "NQ=="))
    finally:
        os.close(opener)
    assert len(told(out)) <= 3, "the changes that came meanwhile were told in one go"
    assert all(one["same"] == one["index"] for one in told(out))


async def test_all_events_are_told_in_order(
    dev: Dev, client: RegistryClient, tmp_path: Path
) -> None:
    """Of events none is passed over, however many come while the handler runs; none comes twice."""
    out = tmp_path / "told"

    def payloads(found: list[Any]) -> list[int]:
        events = [event for one in found for event in one["value"]]
        return [int(base64.b64decode(event["Payload"])) for event in events]

    async with watching(dev, "--type", "event", "--name", "deploy", "--", *handler(out)):
        for number in range(12):
            await client.request("PUT", "/v1/event/fire/deploy", data=str(number).encode())
            await client.request("PUT", "/v1/event/fire/other")
        await handlers_told(out, lambda found: len(payloads(found)) >= 12)
    assert payloads(told(out)) == list(range(12))


async def test_the_handler_ends_with_the_watch(dev: Dev, tmp_path: Path) -> None:
    """SIGTERM ends the handler that runs, with what it has started, and then the watch."""
    out, gate = tmp_path / "told", tmp_path / "gate"
    os.mkfifo(gate)
    opener = os.open(gate, os.O_RDWR)

    async def runs() -> bool:
        return len(told(out)) == 1

    try:
        async with watching(dev, "--type", "nodes", "--", *handler(out, str(gate))):
            await until("the handler runs", runs)
    finally:
        os.close(opener)
    assert not idle(out), "it did not come to its end"


def test_once_ends_with_the_handlers_code(raftreg: Callable[..., Ran]) -> None:
    """--once tells the present state and ends; a handler that fails is named."""
    ran = raftreg("watch", "--type", "nodes", "--once")
    assert (ran.code, [node["Node"] for node in json.loads(ran.out)]) == (0, ["dev-1"])
    ran = raftreg("watch", "--type", "nodes", "--once", "--", "sh", "-c", "exit 3")
    assert (ran.code, ran.err) == (3, "raftreg watch: the handler ended with code 3\n")
    ran = raftreg("watch", "--type", "nodes", "--once", "--", "/no/such/program")
    assert ran.code == 127
    assert "/no/such/program: command not found" in ran.err
    slow = ("--once", "--handler-timeout", "0.2", "--", "sleep", "600")
    ran = raftreg("watch", "--type", "nodes", *slow)
    assert "took too long" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--type", "key"], "needs --key"),
        (["--type", "nodes", "--key", "k"], "--key has no meaning for --type nodes"),
        (["--type", "key", "--key", "k", "--tag", "t"], "--tag has no meaning"),
        (["--type", "checks", "--service", "s", "--state", "any"], "exclude each other"),
    ],
)
def test_options_that_do_not_go_together(
    raftreg: Callable[..., Ran], arguments: list[str], said: str
) -> None:
    """A mistake ends at once with exit code 2 and says what is wrong."""
    ran = raftreg("watch", *arguments)
    assert ran.code == 2
    assert said in ran.err


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40))
def test_a_handler_of_events_sees_each_once(steps: list[tuple[int, bool]]) -> None:
    """Whatever the moments of answers and handlers, and though the registry forgets old events."""
    news, fired, told = News(Kind.EVENT), list[dict[str, str]](), list[str]()
    for count, take in steps:
        fired += [{"ID": f"event-{len(fired) + i}"} for i in range(count)]
        news.learn(len(fired), fired[-16:])
        if take and news:
            told += [event["ID"] for event in news.take()[1]]
    if news:
        told += [event["ID"] for event in news.take()[1]]
    assert told == [event["ID"] for event in fired]
