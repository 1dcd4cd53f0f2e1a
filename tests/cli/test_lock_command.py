"""`raftreg lock`: a program runs only while the lock is held."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from raftreg.client.api import RegistryClient
from raftreg.client.holding import LOCK_FLAGS
from tests.cli.conftest import Dev, command_line

_WAIT_S_MAX = 30.0
_HOLD = (
    "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(0));"
    "print(os.environ['CONSUL_LOCK_HELD'], os.environ['RAFTREG_FENCING_TOKEN'], flush=True);"
    "signal.pause()"
)


async def _start(dev: Dev, prefix: str, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command_line("lock", *options, prefix, "--", sys.executable, "-c", _HOLD),
        env=dev.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _held(process: asyncio.subprocess.Process) -> int:
    """Waits until the program runs; gives its fencing token."""
    assert process.stdout is not None
    async with asyncio.timeout(_WAIT_S_MAX):
        held, token = (await process.stdout.readline()).split()
    assert held == b"true"
    return int(token)


async def test_one_at_a_time_and_the_token_grows(dev: Dev) -> None:
    """The second waits for the first; its fencing token is larger; nothing stays behind."""
    first = await _start(dev, "cli/lock/turns")
    token = await _held(first)
    second = await _start(dev, "cli/lock/turns")
    first.send_signal(signal.SIGTERM)
    assert await first.wait() == 0
    assert await _held(second) > token
    second.send_signal(signal.SIGTERM)
    assert await second.wait() == 0
    async with RegistryClient([dev.http]) as client:
        assert await client.kv.get("cli/lock/turns/.lock") is None


async def test_the_layout_is_that_of_consul(dev: Dev) -> None:
    """PREFIX/.lock with the flags of `consul lock`, held by a session with a TTL."""
    process = await _start(dev, "cli/lock/layout", "--name", "mine")
    await _held(process)
    async with RegistryClient([dev.http]) as client:
        entry = await client.kv.get("cli/lock/layout/.lock")
        assert entry is not None
        assert entry.flags == LOCK_FLAGS == 3304740253564472344
        session = await client.session.info(entry.session or "")
        assert session is not None
        assert (session.name, session.ttl_s) == ("mine", 15.0)
    process.send_signal(signal.SIGTERM)
    await process.wait()


async def test_a_lost_lock_ends_the_program(dev: Dev) -> None:
    """When the session is ended by someone else, the program gets SIGTERM and the code is 5."""
    process = await _start(dev, "cli/lock/lost")
    await _held(process)
    async with RegistryClient([dev.http]) as client:
        entry = await client.kv.get("cli/lock/lost/.lock")
        assert entry is not None
        await client.session.destroy(entry.session or "")
    _, err = await process.communicate()
    assert process.returncode == 5
    assert b"no longer held" in err or b"has ended" in err


async def test_no_wait_when_told_so(dev: Dev) -> None:
    """--wait 0 tries once; a held lock is a conflict and the program never runs."""
    holder = await _start(dev, "cli/lock/busy")
    await _held(holder)
    second = await _start(dev, "cli/lock/busy", "--wait", "0")
    out, _ = await second.communicate()
    assert (second.returncode, out) == (5, b"")
    holder.send_signal(signal.SIGTERM)
    await holder.wait()


async def test_sigterm_while_waiting_leaves_no_session(dev: Dev) -> None:
    """Whoever gives up waiting is gone from the registry at once, not when its TTL ends."""
    holder = await _start(dev, "cli/lock/wait")
    await _held(holder)
    waiter = await _start(dev, "cli/lock/wait", "--name", "gives-up")
    async with RegistryClient([dev.http]) as client:
        async with asyncio.timeout(_WAIT_S_MAX):
            async for change in client.watch("/v1/session/list", lambda r: r.json()):
                if "gives-up" in {one["Name"] for one in change.value}:
                    break
        waiter.send_signal(signal.SIGTERM)
        assert await waiter.wait() == 128 + signal.SIGTERM
        assert "gives-up" not in {one.name for one in await client.session.list()}
    holder.send_signal(signal.SIGTERM)
    await holder.wait()


async def test_a_semaphore_lets_so_many_in(dev: Dev) -> None:
    """With -n 2 two programs run and a third waits; the layout is that of `consul lock -n 2`."""
    prefix = "cli/lock/two"
    first = await _start(dev, prefix, "-n", "2")
    await _held(first)
    second = await _start(dev, prefix, "-n", "2")
    newest = await _held(second)
    async with RegistryClient([dev.http]) as client:
        entries = {entry.key: entry for entry in await client.kv.list(f"{prefix}/")}
        lock = entries.pop(f"{prefix}/.lock")
        sessions = {entry.session for entry in entries.values()}
        assert {entry.flags for entry in entries.values()} == {0xE0F69A2BAA414DE0}
        assert lock.flags == 0xE0F69A2BAA414DE0
        assert set(entries) == {f"{prefix}/{session}" for session in sessions}
        assert json.loads(lock.value) == {"Limit": 2, "Holders": dict.fromkeys(sessions, True)}

        refused = await _start(dev, prefix, "-n", "2", "--try", "0s")
        _, err = await refused.communicate()
        assert (refused.returncode, b"no room" in err) == (5, True)
        other = await _start(dev, prefix, "-n", "3")
        _, err = await other.communicate()
        assert (other.returncode, b"has a limit of 2" in err) == (5, True)

        third = await _start(dev, prefix, "-n", "2")
        first.send_signal(signal.SIGTERM)
        assert await first.wait() == 0
        assert await _held(third) > newest
        for program in (second, third):
            program.send_signal(signal.SIGTERM)
            assert await program.wait() == 0
        assert await client.kv.list(f"{prefix}/") == []


async def test_a_dead_holder_makes_room(dev: Dev) -> None:
    """When a holder's session ends, its program is ended and the next one gets the permit."""
    prefix = "cli/lock/dead"
    first = await _start(dev, prefix, "-n", "2")
    await _held(first)
    second = await _start(dev, prefix, "-n", "2")
    await _held(second)
    third = await _start(dev, prefix, "-n", "2")
    async with RegistryClient([dev.http]) as client:
        for entry in await client.kv.list(f"{prefix}/"):
            if entry.session is not None:
                await client.session.destroy(entry.session)
                break
    await _held(third)
    programs = (first, second, third)
    async with asyncio.TaskGroup() as group:
        ends = [group.create_task(program.wait()) for program in programs]
        ended, _ = await asyncio.wait(
            ends, timeout=_WAIT_S_MAX, return_when=asyncio.FIRST_COMPLETED
        )
        assert [end.result() for end in ended] == [5]
        for program in programs:
            if program.returncode is None:
                program.send_signal(signal.SIGTERM)


async def test_the_programs_code_can_be_left_out(dev: Dev) -> None:
    """--no-child-exit-code gives 0 whatever the program's code was."""
    for option, code in (("--child-exit-code", 7), ("--no-child-exit-code", 0)):
        process = await asyncio.create_subprocess_exec(
            *command_line("lock", option, "cli/lock/code", "--", "sh", "-c", "exit 7"),
            env=dev.environment(),
        )
        assert await process.wait() == code
