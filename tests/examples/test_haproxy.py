"""HAProxy with `server-template` and SRV records of an agent's DNS."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from tests.e2e.ask import Ask
from tests.e2e.cluster import Member
from tests.e2e.waiting import until
from tests.examples.backends import backend
from tests.examples.programs import Programs, install

#: srv_admin_state: forced, inherited or configured maintenance, or no answer of the resolver
#: (HAProxy Management Guide, "show servers state").
_IN_MAINTENANCE = 0x01 | 0x02 | 0x04 | 0x20


async def _runtime(socket: Path, command: str) -> list[list[str]]:
    """Asks HAProxy's runtime socket; gives the words of each line."""
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(f"{command}\n".encode())
    answer = await reader.read()
    writer.close()
    return [line.split() for line in answer.decode().splitlines() if line]


async def _addresses(socket: Path) -> set[str]:
    """host:port of the servers that HAProxy would use."""
    rows = await _runtime(socket, "show servers state web")
    header = rows[1][1:]  # after the format's number, and a "#"
    servers = [dict(zip(header, row, strict=True)) for row in rows[2:]]
    return {
        f"{row['srv_addr']}:{row['srv_port']}"
        for row in servers
        if row["srv_op_state"] == "2" and not int(row["srv_admin_state"]) & _IN_MAINTENANCE
    }


async def test_backends_follow_registration_and_health(
    agent: Member,
    ask: Ask,
    net: str,
    programs: Programs,
    http: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    """Slots fill with passing instances, each at its own port; exactly these get traffic."""
    socket = tmp_path / "admin.sock"
    config = install(
        "haproxy/haproxy.cfg",
        tmp_path,
        {
            "127.0.0.1:8600": f"{agent.address}:8600",
            "127.0.0.1:8080": f"{net}.1:8080",
            "/run/haproxy/admin.sock": str(socket),
            "_web._tcp.service.consul": "_proxied._tcp.service.consul",
        },
    )
    programs.start("haproxy", ["haproxy", "-db", "-f", config])

    async def register(name: str, number: int) -> None:
        check = {"CheckID": f"{name}-ttl", "TTL": "10m", "Status": "passing"}
        where = {"Address": f"{net}.{number}", "Port": 8000 + number}
        await ask.register(agent, "proxied", ID=name, Check=check, **where)

    async def answer() -> tuple[int, str]:
        async with http.get(f"http://{net}.1:8080/") as response:
            return response.status, await response.text()

    async def routed_to(*numbers: int) -> None:
        """HAProxy lists exactly these, and all of them answer, in turn."""
        wanted = {f"{net}.{number}:{8000 + number}" for number in numbers}

        async def listed() -> bool:
            return await _addresses(socket) == wanted

        await until(f"servers {sorted(wanted)}", listed)
        got = [await answer() for _ in range(2 * len(numbers))]
        assert set(got) == {(200, f"backend-{number}") for number in numbers}

    async with AsyncExitStack() as stack:
        for number in (10, 11, 12):
            place = (f"{net}.{number}", 8000 + number)
            await stack.enter_async_context(backend(f"backend-{number}", *place))
        await register("proxied-a", 10)
        await register("proxied-b", 11)
        await routed_to(10, 11)

        await ask.put(agent, "/v1/agent/check/fail/proxied-b-ttl")
        await routed_to(10)

        await register("proxied-c", 12)
        await ask.put(agent, "/v1/agent/check/pass/proxied-b-ttl")
        await ask.put(agent, "/v1/agent/service/deregister/proxied-a")
        await routed_to(11, 12)

        await ask.put(agent, "/v1/agent/service/deregister/proxied-b")
        await ask.put(agent, "/v1/agent/service/deregister/proxied-c")

        async def nobody() -> bool:
            return not await _addresses(socket) and (await answer())[0] == 503

        await until("no server left", nobody)
