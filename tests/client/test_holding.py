"""What is held while a block runs: locks, sessions, registrations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from raftreg.client import LockLost, LockOptions, RegistryClient
from raftreg.errors import Conflict, InvalidRequest
from raftreg.model import Status
from tests.client.rigs import Registry, client_of, hangs, listening

KEY = "service/leader"
#: Shorter than any server allows, so that renewals happen within a test.
FAST = LockOptions(ttl_s=0.2, value=b"me")


@pytest.fixture
def registry() -> Registry:
    """An empty registry."""
    return Registry()


@pytest.fixture
async def client(registry: Registry) -> AsyncIterator[RegistryClient]:
    """A client of it."""
    async with listening(registry.handle) as address, client_of(address) as found:
        yield found


async def test_a_lock_is_held_renewed_and_released(
    registry: Registry, client: RegistryClient
) -> None:
    """While the block runs the key belongs to the session, which is renewed; after it the key
    is free and the session is gone.
    """
    async with client.lock(KEY, FAST) as lock:
        assert registry.kv[KEY]["Session"] == lock.session
        assert lock.lock_index == 1
        assert lock.fencing_token == registry.kv[KEY]["ModifyIndex"]
        await registry.until(lambda: registry.renewals >= 3)
    assert "Session" not in registry.kv[KEY]
    assert not registry.sessions


async def test_one_holder_at_a_time(registry: Registry, client: RegistryClient) -> None:
    """Contenders hold the lock one after the other, with growing fencing tokens."""
    tokens: list[int] = []
    inside = 0

    async def contend() -> None:
        nonlocal inside
        async with client.lock(KEY) as lock:
            inside += 1
            assert inside == 1
            tokens.append(lock.fencing_token)
            await client.kv.get("elsewhere")
            inside -= 1

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(contend())
    assert len(tokens) == 5
    assert tokens == sorted(set(tokens))


async def test_a_lost_session_cancels_the_body(registry: Registry, client: RegistryClient) -> None:
    """When the session ends, the body is cancelled where it waits and LockLost is raised."""
    cancelled = False

    async def hold() -> None:
        nonlocal cancelled
        async with client.lock(KEY) as lock:
            await registry.end_session(lock.session)
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled = True
                raise

    with pytest.raises(LockLost):
        await hold()
    assert cancelled
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_registry_that_is_away_for_a_ttl_loses_the_lock(
    registry: Registry,
) -> None:
    """Without a renewal for a whole TTL the lock counts as lost, without a word from a server."""
    unreachable = asyncio.Event()

    async def sometimes(request: web.Request) -> web.StreamResponse:
        return await (hangs if unreachable.is_set() else registry.handle)(request)

    async def hold(other: RegistryClient) -> None:
        async with other.lock(KEY, FAST):
            unreachable.set()
            await asyncio.get_running_loop().create_future()

    async with listening(sometimes) as address, client_of(address) as other:
        with pytest.raises(LockLost):
            await hold(other)


async def test_the_bodys_own_error_passes_unchanged(
    registry: Registry, client: RegistryClient
) -> None:
    """An exception of the body comes out as it is, and the lock is free."""
    with pytest.raises(KeyError, match="mine"):
        async with client.lock(KEY):
            raise KeyError("mine")
    assert "Session" not in registry.kv[KEY]


async def test_cancelling_the_holder_releases(registry: Registry, client: RegistryClient) -> None:
    """A holder that is cancelled from outside releases the lock and stays cancelled."""

    async def hold() -> None:
        async with client.lock(KEY):
            await asyncio.get_running_loop().create_future()

    async with asyncio.TaskGroup() as group:
        holder = group.create_task(hold())
        await registry.until(lambda: "Session" in registry.kv.get(KEY, {}))
        holder.cancel()
    assert holder.cancelled()
    assert "Session" not in registry.kv[KEY]
    assert not registry.sessions


async def test_lock_delay_is_waited_out(registry: Registry, client: RegistryClient) -> None:
    """A free key that may not be had yet is asked for again until it may."""
    registry.delayed.add(KEY)
    async with asyncio.TaskGroup() as group:

        async def hold() -> None:
            async with client.lock(KEY) as lock:
                assert registry.kv[KEY]["Session"] == lock.session

        group.create_task(hold())
        await registry.until(lambda: bool(registry.sessions))
        registry.delayed.clear()


async def test_a_lock_that_is_not_to_be_had(registry: Registry, client: RegistryClient) -> None:
    """With a limited wait a held lock is a Conflict, and the contender's session is gone; so is
    a key that holds data.
    """
    async with client.lock(KEY) as holder:
        for wait_s in (0, 0.05):
            with pytest.raises(Conflict):
                async with client.lock(KEY, LockOptions(wait_s=wait_s)):
                    pytest.fail("it was held by another")
        assert registry.sessions == {holder.session}
    await client.kv.put("data", b"precious")
    with pytest.raises(Conflict, match="no such lock"):
        async with client.lock("data"):
            pytest.fail("it was data")
    assert not registry.sessions


async def test_a_service_is_registered_while_the_block_runs(
    registry: Registry, client: RegistryClient
) -> None:
    """The instance is there within the block, its TTL check is reported, and it is gone after;
    an agent that forgot it is told again.
    """
    definition = {"Name": "web", "ID": "web-1", "Port": 80, "Check": {"TTL": "30ms"}}
    async with client.registered(definition, health=lambda: Status.WARNING) as service_id:
        assert service_id == "web-1"
        await registry.until(lambda: "check/warn/service:web-1" in registry.beats)
        registry.services.clear()
        await registry.until(lambda: "web-1" in registry.services)
    assert not registry.services


async def test_a_registration_ends_with_the_bodys_error(
    registry: Registry, client: RegistryClient
) -> None:
    """An exception of the body comes out as it is, and the instance is gone."""
    with pytest.raises(KeyError, match="mine"):
        async with client.registered({"name": "web", "checks": [{"ttl": "1s"}, {"ttl": "2s"}]}):
            raise KeyError("mine")
    assert not registry.services


@pytest.mark.parametrize(
    "definition",
    [{}, {"Name": "x", "Check": {"TTL": "soon"}}, {"Name": "x", "check": {"ttl": "0s"}}],
)
async def test_bad_definitions(client: RegistryClient, definition: dict[str, object]) -> None:
    """A definition that can't work is refused before anything is registered."""
    with pytest.raises(InvalidRequest):
        async with client.registered(definition):
            pytest.fail("it was refused")
