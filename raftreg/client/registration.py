"""A service that is registered while a block runs, with its TTL checks kept passing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from raftreg.client.failures import BadAnswer
from raftreg.client.options import segment
from raftreg.client.records import seconds
from raftreg.errors import InvalidRequest, NotFound, RaftregError, Rejected
from raftreg.model import Status

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient

DEREGISTER_TIMEOUT_S = 5.0
_BEATS_PER_TTL = 3


def _always_passing() -> Status:
    return Status.PASSING


@asynccontextmanager
async def registered(
    client: RegistryClient,
    definition: Mapping[str, Any],
    *,
    health: Callable[[], Status] | None = None,
) -> AsyncIterator[str]:
    """See `RegistryClient.registered`."""
    body = dict(definition)
    name = str(_field(body, "name") or "")
    if not name:
        raise InvalidRequest("a service definition needs a Name")
    service_id = str(_field(body, "id") or name)
    await client.agent.register_service(body)
    ttl_checks = _ttl_checks(body, service_id)
    await client.agent.register_service(body)
    failure: BaseException | None = None
    try:
        beats = [_beat(client, body, *check, health or _always_passing) for check in ttl_checks]
        async with _running(beats):
            yield service_id
    except BaseException as error:
        failure = error
        raise
    finally:
        await _deregister(client, service_id, failure)


@asynccontextmanager
async def _running(endless: Sequence[Coroutine[None, None, None]]) -> AsyncIterator[None]:
    """Runs coroutines that never fail beside a block, whose own exception passes unwrapped."""
    body_error: Exception | None = None
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in endless]
        try:
            yield
        except Exception as error:  # noqa: BLE001 (raised below, outside of the group)
            body_error = error
        finally:
            for task in tasks:
                task.cancel()
    if body_error is not None:
        raise body_error


async def _deregister(
    client: RegistryClient, service_id: str, failure: BaseException | None
) -> None:
    try:
        await client.request(
            "PUT",
            f"/v1/agent/service/deregister/{segment(service_id)}",
            accept=(200, 404),
            deadline_s=DEREGISTER_TIMEOUT_S,
        )
    except RaftregError as error:
        if failure is None:
            raise
        failure.add_note(f"and service {service_id!r} stays registered: {error.message}")


async def _beat(
    client: RegistryClient,
    definition: dict[str, Any],
    check_id: str,
    ttl_s: float,
    health: Callable[[], Status],
) -> None:
    """Reports a TTL check for ever; an agent that has forgotten the service is told again."""
    while True:
        try:
            await client.agent.set_check(check_id, health())
        except (NotFound, Rejected):
            await _register_again(client, definition)
        except RaftregError:
            pass  # the agent is away: its own TTL tells the mesh, the next beat tells the agent
        await asyncio.sleep(ttl_s / _BEATS_PER_TTL)


async def _register_again(client: RegistryClient, definition: dict[str, Any]) -> None:
    try:
        await client.agent.register_service(definition)
    except RaftregError:
        return  # the next beat tries again


def _ttl_checks(definition: Mapping[str, Any], service_id: str) -> list[tuple[str, float]]:
    """Gives (id, TTL in seconds) of the TTL checks, with the ids that the agent gives them."""
    one, many = _field(definition, "check"), _field(definition, "checks")
    checks = [*([one] if isinstance(one, Mapping) else []), *(many or [])]
    found = []
    for number, check in enumerate(checks, start=1):
        ttl = _field(check, "ttl")
        if not ttl:
            continue
        suffix = f":{number}" if len(checks) > 1 else ""
        given = _field(check, "checkid") or _field(check, "id")
        found.append((str(given or f"service:{service_id}{suffix}"), _ttl_s(str(ttl))))
    return found


def _ttl_s(text: str) -> float:
    try:
        ttl_s = seconds(text)
    except BadAnswer as error:
        raise InvalidRequest(f"TTL: {error.message}") from error
    if ttl_s <= 0:
        raise InvalidRequest(f"TTL: {text!r} is not positive")
    return ttl_s


def _field(body: Mapping[str, Any], name: str) -> Any:
    """Reads a field as the API does: any letter case, with or without underscores."""
    for key, value in body.items():
        if key.replace("_", "").lower() == name:
            return value
    return None
