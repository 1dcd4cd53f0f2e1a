"""nginx with a configuration that `raftreg template` keeps current."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from tests.e2e.ask import Ask
from tests.e2e.cluster import Member, raftreg
from tests.e2e.waiting import until
from tests.examples.backends import backend
from tests.examples.programs import Programs, find, install

_REQUESTS = 12


async def _answers(http: aiohttp.ClientSession, url: str) -> set[tuple[int, str]]:
    found = set()
    for _ in range(_REQUESTS):
        async with http.get(url) as response:
            text = await response.text() if response.status == 200 else ""
            found.add((response.status, text))
    return found


async def test_upstreams_follow_without_a_restart(
    agent: Member,
    ask: Ask,
    net: str,
    programs: Programs,
    http: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    """New instances, other ports, health and keys reach one nginx process, which never restarts."""
    (tmp_path / "run").mkdir()
    target = tmp_path / "nginx.conf"
    install(
        "template/nginx.conf.j2",
        tmp_path,
        {
            "127.0.0.1:8080": f"{net}.1:8080",
            'tag="http"': 'tag="edge-http"',
            "worker_processes auto": "worker_processes 1",
        },
    )
    config = install(
        "template/template.toml",
        tmp_path,
        {
            "/etc/nginx/nginx.conf": str(target),
            "/var/lib/nginx": str(tmp_path),
            '"nginx", "-': f'"{find("nginx")}", "-e", "stderr", "-',
        },
    )
    command = raftreg("template", "--config", str(config), "--http-addr", f"{agent.address}:8500")

    async def register(name: str, number: int, service: str = "edge-web") -> None:
        check = {"CheckID": f"{name}-ttl", "TTL": "10m", "Status": "passing"}
        place = {"Address": f"{net}.{number}", "Port": 8000 + number, "Tags": ["edge-http"]}
        await ask.register(agent, service, ID=name, Check=check, **place)

    async def answered(service: str, *expected: tuple[int, str]) -> None:
        async def exactly() -> bool:
            return await _answers(http, f"http://{net}.1:8080/{service}/") == set(expected)

        await until(f"{service} answered by {expected}", exactly)

    async with AsyncExitStack() as stack:
        for number in (10, 11, 12):
            place = (f"{net}.{number}", 8000 + number)
            await stack.enter_async_context(backend(f"backend-{number}", *place))
        await register("edge-a", 10)
        # A first file, so that nginx can start; nothing to reload yet, and the command may fail.
        programs.start("template-once", [*command, "--once"])

        async def there() -> bool:
            return target.exists() and f"{net}.10:8010" in target.read_text()

        await until("a first configuration", there)
        nginx = programs.start(
            "nginx",
            ["nginx", "-e", "stderr", "-p", tmp_path, "-c", target, "-g", "daemon off;"],
        )
        await answered("edge-web", (200, "backend-10"))

        programs.start("template", command)
        await register("edge-b", 11)
        await answered("edge-web", (200, "backend-10"), (200, "backend-11"))
        await ask.put(agent, "/v1/agent/check/fail/edge-a-ttl")
        await answered("edge-web", (200, "backend-11"))
        await register("edge-c", 12, service="edge-other")
        await answered("edge-other", (200, "backend-12"))
        # Neither a name nor an address that is a piece of configuration gets into the file.
        await ask.register(
            agent, "edge-web", ID="evil", Address="1.1.1.1; return", Tags=["edge-http"]
        )
        await ask.kv_put(agent, "edge/read_timeout_s", b"7")

        async def adjusted() -> bool:
            return "proxy_read_timeout 7s;" in target.read_text()

        await until("the key's value in the file", adjusted)
        assert "evil" not in target.read_text()
        for name in ("edge-a", "edge-b", "edge-c", "evil"):
            await ask.put(agent, f"/v1/agent/service/deregister/{name}")
        await answered("edge-other", (404, ""))
    assert nginx.running
