"""Builds the ground of a run: hosts, network, disks, clocks, and a cluster that answers.

    async with build(Settings(servers=3, logs=folder)) as ground:
        leader = await ground.leader()

Inside a private world (`sandbox.enter`) every host has a network namespace; elsewhere hosts share
this machine's loopback and `ground.network` is None. At the end everything is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from jepsen_like.ground import disk, leash, loopback, network, sandbox
from jepsen_like.ground.api import DiskControl, Host, Need, Network
from jepsen_like.ground.clock import Clock
from jepsen_like.ground.hosts import HTTP_PORT, RAFT_PORT, Busy, ProcessHost

SERVERS_MAX: Final = 15
SPARES_MAX: Final = 15
AGENTS_MAX: Final = 100
READY_S_MAX: Final = 60.0
_ASK_S: Final = 2.0
_POLL_S: Final = 0.05
_BODY_BYTES_MAX: Final = 8 << 20
_GONE_S: Final = 10.0
_TEXT_BYTES_MAX: Final = 300  #: that is kept of an answer that is no JSON
_FIRST_SPARE: Final = 31  #: last byte of addresses; servers from 1
_FIRST_AGENT: Final = 101


class NotReady(Exception):
    """The cluster did not come up; the text says what is missing and where the logs are."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What to build.

    Attributes:
        logs: Folder for what every process writes; it is made.
        servers, spares, agents: How many. Spares are made but not started.
        disk: Mount a disk with faults under the data of every server and spare.
        clock: Give every server and spare a clock of its own.
        loopback: No namespaces even if there could be some.
        seed: Of what the network leaves to chance.
        command_prefix: What is run; "server" or "agent" and flags follow.
        server_flags, agent_flags: More flags.
        data_root: Where the data lies; None is a temporary folder.
        ready_s: How long to wait for the cluster.
    """

    logs: Path
    servers: int = 3
    spares: int = 0
    agents: int = 0
    disk: bool = False
    clock: bool = False
    loopback: bool = False
    seed: int = 0
    command_prefix: tuple[str, ...] = (sys.executable, "-m", "raftreg_cli.main")
    server_flags: tuple[str, ...] = ()
    agent_flags: tuple[str, ...] = ()
    data_root: Path | None = None
    ready_s: float = READY_S_MAX

    def __post_init__(self) -> None:
        for what, number, least, most in (
            ("servers", self.servers, 1, SERVERS_MAX),
            ("spares", self.spares, 0, SPARES_MAX),
            ("agents", self.agents, 0, AGENTS_MAX),
        ):
            if not least <= number <= most:
                raise ValueError(f"{number} {what}; there can be {least} to {most}")

    @classmethod
    def of_needs(cls, needs: Iterable[Need], **rest: Any) -> Settings:
        """With the controls that faults need."""
        wanted = set(needs)
        return cls(disk=Need.DISK in wanted, clock=Need.CLOCK in wanted, **rest)


class LocalGround:
    """Everything of one run on this machine (`api.Ground`).

    Args:
        servers, spares, agents: The hosts.
        network: The switch, or None on loopback.
        session: For the nemesis's own requests.
    """

    def __init__(
        self,
        servers: list[Host],
        spares: list[Host],
        agents: list[Host],
        network: Network | None,
        session: aiohttp.ClientSession,
    ) -> None:
        self.servers = servers
        self.spares = spares
        self.agents = agents
        self.network = network
        self._session = session

    @property
    def hosts(self) -> list[Host]:
        """All of them."""
        return [*self.servers, *self.spares, *self.agents]

    @property
    def addresses(self) -> dict[str, str]:
        """IP addresses by name."""
        return {host.name: host.address for host in self.hosts}

    def host(self, name: str) -> Host:
        """By name.

        Raises:
            KeyError: There is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    async def leader(self, timeout_s: float = 5.0) -> Host | None:
        """Who leads, by the servers' own words and the highest term; None when nobody does.

        A server that is paused can't be asked and is not found, though others may believe in it.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    if found := await self._claimants():
                        return max(found, key=lambda claim: claim[0])[1]
                    await asyncio.sleep(_POLL_S)
        return None

    async def _claimants(self) -> list[tuple[int, Host]]:
        running = [h for h in (*self.servers, *self.spares) if h.state() not in {"-", "T", "t"}]
        terms = await asyncio.gather(*(self._leads(host) for host in running))
        return [(term, host) for term, host in zip(terms, running, strict=True) if term is not None]

    async def _leads(self, host: Host) -> int | None:
        """The term in which a server says of itself that it leads."""
        health = await self.ask(host, "/v1/operator/autopilot/health?stale")
        if not isinstance(health, dict):
            return None
        entries = health.get("Servers", [])
        return next((entry["LastTerm"] for entry in entries if entry["Leader"]), None)

    async def ask(self, host: Host, path: str, method: str = "GET", body: Any = None) -> Any:
        """One HTTP request of the nemesis to a host.

        Returns:
            Decoded JSON whatever the status; text that is not JSON as {"status": …, "text": …};
            None when there is no answer within two seconds.
        """
        url = f"http://{host.address}:{HTTP_PORT}{path}"
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with self._session.request(method, url, data=data) as response:
                answer = await response.content.read(_BODY_BYTES_MAX)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        try:
            return msgspec.json.decode(answer)
        except msgspec.DecodeError:
            text = answer[:_TEXT_BYTES_MAX].decode("utf-8", "replace")
            return {"status": response.status, "text": text}

    async def start(self, timeout_s: float) -> None:
        """Starts servers, then agents, and waits until each answers.

        Raises:
            NotReady: They don't.
        """
        await self._start(self.servers, timeout_s)
        await self._start(self.agents, timeout_s)

    async def _start(self, hosts: list[Host], timeout_s: float) -> None:
        for host in hosts:
            await host.start()
        missing = list(hosts)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    missing = await self._not_ready(missing)
                    if not missing:
                        return
                    await asyncio.sleep(_POLL_S)
        names = ", ".join(f"{host.name} (state {host.state()}, see {host.log})" for host in missing)
        raise NotReady(f"no answer within {timeout_s:g} s from {names}")

    async def _not_ready(self, hosts: list[Host]) -> list[Host]:
        ended = [host for host in hosts if host.pid is None]
        if ended:
            raise NotReady(f"{ended[0].name} ended at once, see {ended[0].log}")
        # A linearizable read: the host knows a leader that has a majority.
        answers = await asyncio.gather(
            *(self.ask(host, "/v1/kv/jepsen/ready?keys&consistent") for host in hosts)
        )
        return [
            host
            for host, answer in zip(hosts, answers, strict=True)
            if not (isinstance(answer, list) or _is_absent(answer))
        ]


def _is_absent(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("status") == 404


@contextlib.asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[LocalGround]:
    """Gives a ground whose cluster answers; takes everything away at the end.

    Raises:
        NotReady: The cluster does not come up.
        network.NetworkLost: There is no network.
        OSError: A folder or a disk can't be made.
    """
    settings.logs.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        ground = await _lay_out(settings, stack)
        await ground.start(settings.ready_s)
        yield ground


async def _lay_out(settings: Settings, stack: contextlib.AsyncExitStack) -> LocalGround:
    data = _data_folder(settings, stack)
    addresses = _Addresses(settings)
    switch: Network | None = None
    if sandbox.inside() and not settings.loopback:
        named = addresses.named(network.address_of)
        log = settings.logs / "switch.log"
        switch = await stack.enter_async_context(
            network.open_network(named, seed=settings.seed, log=log)
        )
    else:
        net = stack.enter_context(loopback.claimed())
        named = addresses.named(lambda number: f"{net}.{number}")
    architect = _Architect(settings, named, data, stack, namespaces=switch is not None)
    hosts = {name: await architect.host(name) for name in named}
    stack.push_async_callback(_end_all, list(hosts.values()))
    session = aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=_ASK_S),
        connector=aiohttp.TCPConnector(force_close=True),
    )
    await stack.enter_async_context(session)

    def those(names: Iterable[str]) -> list[Host]:
        return [hosts[name] for name in names]

    return LocalGround(
        those(addresses.servers),
        those(addresses.spares),
        those(addresses.agents),
        switch,
        session,
    )


def _data_folder(settings: Settings, stack: contextlib.AsyncExitStack) -> Path:
    root = settings.data_root or sandbox.scratch()
    folder = Path(tempfile.mkdtemp(prefix="jepsen-like-", dir=root))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


class _Addresses:
    """Names of the hosts of each kind, and their numbers."""

    def __init__(self, settings: Settings) -> None:
        first_spare = settings.servers + 1
        self.servers = [f"n{i}" for i in range(1, settings.servers + 1)]
        self.spares = [f"n{i}" for i in range(first_spare, first_spare + settings.spares)]
        self.agents = [f"a{i}" for i in range(1, settings.agents + 1)]

    def named(self, address_of: Callable[[int], str]) -> dict[str, str]:
        """Addresses by name."""
        kinds = ((1, self.servers), (_FIRST_SPARE, self.spares), (_FIRST_AGENT, self.agents))
        return {
            name: address_of(number)
            for first, names in kinds
            for number, name in enumerate(names, first)
        }


class _Architect:
    """Makes one host after the other."""

    def __init__(
        self,
        settings: Settings,
        addresses: Mapping[str, str],
        data: Path,
        stack: contextlib.AsyncExitStack,
        *,
        namespaces: bool,
    ) -> None:
        self._settings = settings
        self._addresses = addresses
        self._data = data
        self._stack = stack
        self._namespaces = namespaces
        self._founders = list(addresses.values())[: settings.servers]

    async def host(self, name: str) -> Host:
        """Makes the host of this name with what the settings give it."""
        data_dir = self._data / name
        server = name.startswith("n")
        environment: dict[str, str] = {}
        disk = await self._disk(name, data_dir) if server and self._settings.disk else None
        clock = None
        if server and self._settings.clock:
            clock = Clock(self._data / f"{name}-clock")
            self._stack.callback(clock.close)
            environment = clock.environment
        command = self._server(name, data_dir) if server else self._agent(name, data_dir)
        return ProcessHost(
            name,
            self._addresses[name],
            [*network.prefix(name), *command] if self._namespaces else leash.command(command),
            data_dir=data_dir,
            log=self._settings.logs / f"{name}.log",
            environment=environment,
            disk=disk,
            clock=clock,
        )

    async def _disk(self, name: str, at: Path) -> DiskControl:
        log = self._settings.logs / f"{name}-disk.log"
        backing = self._data / f"{name}-disk"
        return await self._stack.enter_async_context(disk.mount(name, backing, at, log))

    def _server(self, name: str, data_dir: Path) -> list[str]:
        joins = [f"{address}:{RAFT_PORT}" for address in self._founders]
        command = [*self._common("server", name, data_dir, joins), *self._settings.server_flags]
        if self._addresses[name] in self._founders:
            command += ["--bootstrap-expect", str(self._settings.servers)]
        return command

    def _agent(self, name: str, data_dir: Path) -> list[str]:
        joins = [f"{address}:{HTTP_PORT}" for address in self._founders]
        return [*self._common("agent", name, data_dir, joins), *self._settings.agent_flags]

    def _common(self, kind: str, name: str, data_dir: Path, joins: list[str]) -> list[str]:
        address = self._addresses[name]
        return [
            *(*self._settings.command_prefix, kind, "--node", name),
            *("--data-dir", str(data_dir), "--bind", address, "--client", address),
            *(part for join in joins for part in ("--join", join)),
        ]


async def _end_all(hosts: list[Host]) -> None:
    """SIGKILL to all, then a bounded wait: one whose disk is frozen goes when the disk does."""
    for host in hosts:
        host.send(signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GONE_S):
            await asyncio.gather(*(_gone(host) for host in hosts))


async def _gone(host: Host) -> None:
    with contextlib.suppress(Busy):
        await host.kill()
