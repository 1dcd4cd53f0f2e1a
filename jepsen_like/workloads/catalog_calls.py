"""Instances of services as workloads register and find them: catalog, agents, HTTP and DNS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from jepsen_like.door import Answer, Door, NoAnswer, NotSent
from jepsen_like.history import Type
from jepsen_like.workloads.base import Context
from jepsen_like.workloads.steps import Ended, read, refusal, shown, write

#: An agent answers a registration within this, whether or not it reaches a server.
AGENT_TIMEOUT_S = 8.0
_SETUP_PAUSE_S = 0.2
_SERF_HEALTH = "serfHealth"
_SRV_PORT = 2  #: place of the port in the text of an SRV record


class Placement(msgspec.Struct, frozen=True):
    """An instance on a host without an agent, which is registered through servers.

    Attributes:
        host: Name of its node in the catalog.
        address: Address of that node.
        service: Name of its service.
        instance: Its id.
        port: Its port; it tells instances apart in DNS.
        meta: Its metadata.
    """

    host: str
    address: str
    service: str
    instance: str
    port: int
    meta: dict[str, str] = {}

    @property
    def check_id(self) -> str:
        """Id of its check."""
        return f"check-{self.instance}"


class _Service(msgspec.Struct, frozen=True, rename={"id": "ID"}):
    id: str


class _Check(msgspec.Struct, frozen=True, rename={"check_id": "CheckID", "status": "Status"}):
    check_id: str
    status: str


class Entry(msgspec.Struct, frozen=True, rename={"service": "Service", "checks": "Checks"}):
    """An instance with its checks, as /v1/health/service gives it."""

    service: _Service
    checks: list[_Check]

    def passing(self, *, host_too: bool) -> bool:
        """Tells whether none of its checks is critical.

        Args:
            host_too: Count the lease of its host, which also ends without any operation.
        """
        return all(
            check.status != "critical"
            for check in self.checks
            if host_too or check.check_id != _SERF_HEALTH
        )


async def add_host(context: Context, host: str, address: str) -> None:
    """Registers a host without an agent; repeats until it is there."""
    body = msgspec.json.encode({"Node": host, "Address": address})
    while True:
        node = context.rng.choice(context.servers)
        try:
            await write(context.door, node, "PUT", "/v1/catalog/register", body=body)
        except Ended:
            await asyncio.sleep(_SETUP_PAUSE_S)
        else:
            return


async def register(
    door: Door, node: str, what: Placement, *, passing: bool | None = None
) -> int | None:
    """Registers an instance through a server; gives the index.

    Args:
        door: The way to the cluster.
        node: The server.
        what: The instance.
        passing: Status of its check; None registers none.

    Raises:
        Ended: See `write`.
    """
    service = {
        "ID": what.instance,
        "Service": what.service,
        "Port": what.port,
        "Meta": what.meta,
    }
    body = _host(what) | {"Service": service}
    if passing is not None:
        body["Check"] = _check(what, passing=passing)
    return await _send(door, node, "register", body)


async def set_health(door: Door, node: str, what: Placement, *, passing: bool) -> int | None:
    """Sets the status of an instance's check; FAIL when there is no such instance."""
    body = _host(what) | {"Check": _check(what, passing=passing)}
    return await _send(door, node, "register", body)


async def deregister(door: Door, node: str, what: Placement) -> int | None:
    """Removes an instance with its check through a server."""
    body = {"Node": what.host, "ServiceID": what.instance}
    return await _send(door, node, "deregister", body)


def _host(what: Placement) -> dict[str, Any]:
    return {"Node": what.host, "Address": what.address, "SkipNodeUpdate": True}


def _check(what: Placement, *, passing: bool) -> dict[str, str]:
    return {
        "CheckID": what.check_id,
        "Name": what.check_id,
        "ServiceID": what.instance,
        "Status": "passing" if passing else "critical",
    }


async def _send(door: Door, node: str, verb: str, body: Mapping[str, Any]) -> int | None:
    path = f"/v1/catalog/{verb}"
    return (await write(door, node, "PUT", path, body=msgspec.json.encode(body))).index


async def tell_agent(
    door: Door, agent: str, path: str, body: Mapping[str, Any] | None = None
) -> Answer:
    """Sends an agent what concerns its own host.

    An agent first takes a change over and then waits for disk and catalog, so only what it can't
    understand or did not receive is certainly without effect; and a check that it does not have.

    Raises:
        Ended: FAIL or INFO.
    """
    data = b"" if body is None else msgspec.json.encode(body)
    try:
        answer = await door.request(
            agent, "PUT", f"/v1/agent/{path}", body=data, timeout_s=AGENT_TIMEOUT_S
        )
    except NotSent as error:
        raise Ended(Type.FAIL, f"not sent: {error}") from error
    except NoAnswer as error:
        raise Ended(Type.INFO, f"no answer: {error}") from error
    if answer.status == 200:
        return answer
    unheard = 400 <= answer.status < 500 or b"does not have associated TTL" in answer.body
    raise Ended(Type.FAIL if unheard else Type.INFO, refusal(answer))


async def entries(
    door: Door, node: str, service: str, *, params: Mapping[str, str]
) -> tuple[list[Entry], Answer]:
    """Finds the instances of a service by HTTP, and gives the answer itself, too.

    Raises:
        Ended: FAIL: there was no answer.
    """
    answer = await read(door, node, f"/v1/health/service/{service}", params=params)
    if answer.status != 200:
        raise Ended(Type.FAIL, refusal(answer))
    found: list[Entry] = shown(answer, list[Entry])
    return found, answer


async def ports(door: Door, node: str, service: str) -> list[int]:
    """Finds the ports of the passing instances of a service by DNS.

    Raises:
        Ended: FAIL: there was no answer.
    """
    try:
        records = await door.resolve(node, f"{service}.service.consul", "SRV")
    except (NotSent, NoAnswer) as error:
        raise Ended(Type.FAIL, f"no answer: {error}") from error
    return [int(record.split()[_SRV_PORT]) for record in records]
