"""Fixtures of the end-to-end tests: real processes, kept for the next test while all is well."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator

import pytest

from tests.e2e.ask import Ask, asking
from tests.e2e.cluster import Cluster
from tests.e2e.ground import Ground

_CLUSTERS = pytest.StashKey[list[Cluster]]()
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows the ends of the logs of a failed test's processes."""
    del call
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
        for cluster in item.stash.get(_CLUSTERS, []):
            for member in cluster.members:
                state = "running" if member.running else "ended"
                report.sections.append(
                    (f"{member.name} at {member.address} ({state})", member.log_tail())
                )
    return report


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    """The loopback addresses of this test process."""
    ground = Ground()
    yield ground
    ground.close()


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Sends requests."""
    async with asking() as ask:
        yield ask


class _Shared:
    """The cluster that tests pass on to each other."""

    def __init__(self, make: Callable[[], Cluster]) -> None:
        self._make = make
        self._cluster: Cluster | None = None

    def get(self) -> Cluster:
        if self._cluster is None:
            self._cluster = self._make()
            self._cluster.start()
        return self._cluster

    def drop(self) -> None:
        if self._cluster is not None:
            self._cluster.kill()
            self._cluster = None


@pytest.fixture(scope="session")
def shared_mesh(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Shared]:
    """Holds the cluster of three servers and two agents between the tests."""
    shared = _Shared(lambda: Cluster(ground, tmp_path_factory.mktemp("mesh")))
    yield shared
    shared.drop()


@pytest.fixture
async def mesh(
    shared_mesh: _Shared, ask: Ask, request: pytest.FixtureRequest
) -> AsyncIterator[Cluster]:
    """Three servers and two agents, all well; a test may kill and restart what it likes.

    What it wrote stays: every test uses names of its own.
    """
    cluster = shared_mesh.get()
    request.node.stash[_CLUSTERS] = [cluster]
    try:
        await ask.settled(cluster)
        yield cluster
    finally:
        if request.node.stash.get(_FAILED, False):
            shared_mesh.drop()  # nobody inherits what may be broken


NewCluster = Callable[..., Cluster]


@pytest.fixture
def new_cluster(
    ground: Ground,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[NewCluster]:
    """Makes clusters for this test alone: `new_cluster(servers=3, agents=0)`, not started."""
    made: list[Cluster] = []
    request.node.stash[_CLUSTERS] = made

    def make(*, servers: int = 3, agents: int = 0) -> Cluster:
        cluster = Cluster(
            ground, tmp_path_factory.mktemp("cluster"), servers=servers, agents=agents
        )
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.kill()
