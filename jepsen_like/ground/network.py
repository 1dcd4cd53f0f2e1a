"""Hosts of their own on one machine: a network namespace each, and the switch between them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from jepsen_like.ground import switch
from jepsen_like.ground.api import PairCount, Rule
from jepsen_like.ground.fabric import Answer, AskCounts, BadRule, Request, SetRules
from jepsen_like.ground.switch import Port, Setup

CLIENT: Final = "client"  #: the host of the load and the nemesis: this process's own namespace
PREFIX_BITS: Final = 24
HOSTS_MAX: Final = 200
_START_S: Final = 30.0
_ANSWER_S: Final = 10.0
_END_S: Final = 5.0


class NetworkLost(Exception):
    """The switch does not start, or ended, or does not answer; the text says what is known."""


def address_of(number: int) -> str:
    """The address of a host, without prefix length; the client's host is 254."""
    return f"10.77.0.{number}"


class SwitchedNetwork:
    """The switch, as faults see it (`api.Network`).

    Args:
        reader, writer: The control connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    async def set_rules(self, rules: Mapping[tuple[str, str], Rule]) -> None:
        """Replaces all rules.

        Raises:
            BadRule: A pair or a figure that can't be; nothing was changed.
            NetworkLost: The switch does not answer.
        """
        named = [(source, target, rule) for (source, target), rule in rules.items()]
        await self._ask(SetRules(named))

    async def counts(self) -> dict[tuple[str, str], PairCount]:
        """What the switch did so far, by (source, target).

        Raises:
            NetworkLost: The switch does not answer.
        """
        answer = await self._ask(AskCounts())
        return {(source, target): count for source, target, count in answer.counts}

    async def _ask(self, request: Request) -> Answer:
        async with self._turn:
            try:
                self._writer.write(msgspec.json.encode(request) + b"\n")
                answer = await self.answer(_ANSWER_S)
            except BaseException:
                # A late answer would be taken for that of the next request.
                self._writer.close()
                raise
        if answer.error:
            raise BadRule(answer.error)
        return answer

    async def answer(self, timeout_s: float) -> Answer:
        """Reads one line.

        Raises:
            NetworkLost: None came.
        """
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._reader.readline()
                return msgspec.json.decode(line, type=Answer)
        except TimeoutError as error:
            raise NetworkLost(f"the switch did not answer within {timeout_s:g} s") from error
        except (ConnectionError, ValueError) as error:
            raise NetworkLost(f"the switch has ended: {error}") from error


@contextlib.asynccontextmanager
async def open_network(
    hosts: Mapping[str, str], *, seed: int, log: Path
) -> AsyncIterator[SwitchedNetwork]:
    """Makes a namespace for each host and the switch; takes all away at the end.

    Args:
        hosts: Addresses by name; beside them this process's own namespace becomes `CLIENT`.
        seed: Of what the rules leave to chance.
        log: What the switch writes when it fails.

    Raises:
        NetworkLost: It can't be made; the text says why.
    """
    if not 0 < len(hosts) <= HOSTS_MAX:
        raise NetworkLost(f"{len(hosts)} hosts; there can be 1 to {HOSTS_MAX}")
    ports = [
        Port(name, f"{address}/{PREFIX_BITS}", str(switch.namespace_file(name)))
        for name, address in hosts.items()
    ]
    ports.append(Port(CLIENT, f"{address_of(254)}/{PREFIX_BITS}"))
    async with contextlib.AsyncExitStack() as stack:
        for name in hosts:
            await _ip("netns", "add", name)
            stack.push_async_callback(_ip, "netns", "delete", name)
        yield await stack.enter_async_context(_run_switch(Setup(ports, seed), log))


@contextlib.asynccontextmanager
async def _run_switch(setup: Setup, log: Path) -> AsyncIterator[SwitchedNetwork]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = _spawn(theirs, log)
    try:
        # An answer holds counters of up to HOSTS_MAX squared pairs.
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=64 << 20)
        network = SwitchedNetwork(reader, writer)
        try:
            writer.write(msgspec.json.encode(setup) + b"\n")
            answer = await network.answer(_START_S)
            if answer.error:
                raise NetworkLost(f"the switch can't work: {answer.error} (see {log})")
            yield network
        finally:
            writer.close()
    finally:
        ours.close()
        await asyncio.to_thread(_end, process)


def _spawn(control: socket.socket, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", switch.__name__],
            stdin=control.fileno(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """It ends by itself when the connection is closed."""
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _ip(*arguments: str) -> None:
    result = await asyncio.to_thread(
        subprocess.run, ["ip", *arguments], capture_output=True, check=False, timeout=_START_S
    )
    if result.returncode != 0:
        words = result.stderr.decode("utf-8", "replace").strip()
        raise NetworkLost(f"ip {' '.join(arguments)}: {words}")


def prefix(name: str) -> Sequence[str]:
    """What to put before a command line that is to run on a host; the process stays the same."""
    return ("nsenter", f"--net={switch.namespace_file(name)}", "--")
