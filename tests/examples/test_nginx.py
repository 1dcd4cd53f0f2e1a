"""nginx with an agent's DNS as its resolver."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from tests.e2e.ask import Ask
from tests.e2e.cluster import Member
from tests.e2e.waiting import until
from tests.examples.backends import backend
from tests.examples.programs import Programs, install

#: So many requests that a random choice among two leaves none of them out.
_REQUESTS = 30


async def test_requests_go_where_the_registry_says(
    agent: Member,
    ask: Ask,
    net: str,
    programs: Programs,
    http: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    """A running nginx takes up new instances and leaves critical and deregistered ones."""
    config = install(
        "nginx/nginx.conf",
        tmp_path,
        {
            "127.0.0.1:8600": f"{agent.address}:8600",
            "127.0.0.1:8080": f"{net}.1:8080",
            "web.service.consul": "edged.service.consul",
            "worker_processes auto": "worker_processes 1",
        },
    )
    (tmp_path / "run").mkdir()
    program = programs.start(
        "nginx", ["nginx", "-p", tmp_path, "-c", config, "-e", "stderr", "-g", "daemon off;"]
    )

    async def register(name: str, number: int) -> None:
        check = {"CheckID": f"{name}-ttl", "TTL": "10m", "Status": "passing"}
        await ask.register(
            agent, "edged", ID=name, Check=check, Address=f"{net}.{number}", Port=8081
        )

    async def answers() -> set[tuple[int, str]]:
        found = set()
        for _ in range(_REQUESTS):
            async with http.get(f"http://{net}.1:8080/path") as response:
                text = await response.text() if response.status == 200 else ""
                found.add((response.status, text))
        return found

    async def answered_by(*names: str) -> None:
        async def exactly() -> bool:
            return await answers() == {(200, name) for name in names}

        await until(f"answers of {names}", exactly)

    async with AsyncExitStack() as stack:
        for number in (10, 11):
            await stack.enter_async_context(backend(f"backend-{number}", f"{net}.{number}", 8081))
        await register("edged-a", 10)
        await answered_by("backend-10")
        await register("edged-b", 11)
        await answered_by("backend-10", "backend-11")
        await ask.put(agent, "/v1/agent/check/fail/edged-a-ttl")
        await answered_by("backend-11")
        await ask.put(agent, "/v1/agent/service/deregister/edged-b")

        async def nobody() -> bool:
            return await answers() == {(502, "")}

        await until("nobody left to ask", nobody)
    assert program.running, "one nginx all the time, never reloaded"
