"""Fixtures of the examples: a small real registry, and programs that end with their test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.ask import Ask, asking
from tests.e2e.cluster import Cluster, Member
from tests.e2e.ground import Ground
from tests.examples.programs import Programs

_PROGRAMS = pytest.StashKey[Programs]()
_CLUSTER = pytest.StashKey[Cluster]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows the ends of the logs of a failed test's programs."""
    del call
    report = yield
    if not report.failed:
        return report
    if (programs := item.stash.get(_PROGRAMS, None)) is not None:
        for program in programs.started:
            state = "running" if program.running else "ended"
            report.sections.append((f"{program.name} ({state})", program.tail()))
    if (cluster := item.stash.get(_CLUSTER, None)) is not None:
        for member in cluster.members:
            report.sections.append((f"{member.name} at {member.address}", member.log_tail()))
    return report


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    """The loopback addresses of this test process."""
    ground = Ground()
    yield ground
    ground.close()


@pytest.fixture(scope="session")
def shared_registry(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One server and two agents, kept between the tests."""
    cluster = Cluster(ground, tmp_path_factory.mktemp("registry"), servers=1, agents=2)
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Sends requests to the registry."""
    async with asking() as ask:
        yield ask


@pytest.fixture
async def registry(shared_registry: Cluster, ask: Ask, request: pytest.FixtureRequest) -> Cluster:
    """The registry, well; what a test registers in it has names of its own."""
    request.node.stash[_CLUSTER] = shared_registry
    await ask.settled(shared_registry)
    return shared_registry


@pytest.fixture
def agent(registry: Cluster) -> Member:
    """The agent that the example asks, 127.0.0.1 in its files."""
    return registry.agents[0]


@pytest.fixture
def net(ground: Ground) -> str:
    """Three bytes of loopback addresses that are this test's alone."""
    return ground.net()


@pytest.fixture
def programs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Programs]:
    """Starts programs, and ends them after the test."""
    found = Programs(tmp_path)
    request.node.stash[_PROGRAMS] = found
    yield found
    found.stop_all()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Sends requests to the programs; a connection each, as new clients do."""
    connector = aiohttp.TCPConnector(force_close=True)
    limit = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
        yield session
