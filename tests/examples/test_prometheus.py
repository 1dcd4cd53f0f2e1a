"""Prometheus's `consul_sd_configs` at an agent.

Debian builds Prometheus without its Consul discovery. So the example is run by VictoriaMetrics,
which reads the same file and has a discovery of its own, and by Prometheus wherever the one that
is installed understands the file. What Prometheus's discovery asks and needs is tested besides.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.ask import Answer, Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.waiting import until
from tests.examples.backends import backend
from tests.examples.programs import EXAMPLES, Programs, find, install

Command = Callable[[Path, Path, str], list[str]]


def _prometheus(config: Path, data: Path, where: str) -> list[str]:
    return [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={where}",
    ]


def _victoria_metrics(config: Path, data: Path, where: str) -> list[str]:
    return [
        "victoria-metrics",
        f"-promscrape.config={config}",
        "-promscrape.config.strictParse=false",  # refresh_interval is a flag there
        "-promscrape.consulSDCheckInterval=2s",
        f"-storageDataPath={data}",
        f"-httpListenAddr={where}",
    ]


def _scrapers() -> dict[str, Command]:
    found: dict[str, Command] = {"victoria-metrics": _victoria_metrics}
    example = EXAMPLES / "prometheus" / "prometheus.yml"
    try:
        check = [find("promtool"), "check", "config", str(example)]
        if subprocess.run(check, capture_output=True, timeout=20, check=False).returncode == 0:
            found["prometheus"] = _prometheus
    except FileNotFoundError:
        pass
    return found


SCRAPERS = _scrapers()


@pytest.mark.parametrize("scraper", SCRAPERS)
async def test_targets_follow_the_registry(
    scraper: str,
    registry: Cluster,
    agent: Member,
    ask: Ask,
    net: str,
    programs: Programs,
    http: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    """Tagged instances are scraped with their labels; health, maintenance and absence are seen."""
    server = registry.servers[0]
    own = f"{server.address}:8500"
    config = install(
        "prometheus/prometheus.yml",
        tmp_path,
        {
            '"10.0.0.11:8500", "10.0.0.12:8500", "10.0.0.13:8500"': f'"{own}"',
            "127.0.0.1:8500": f"{agent.address}:8500",
            "scrape_interval: 15s": "scrape_interval: 1s",
        },
    )
    where = f"{net}.1:9090"
    programs.start(scraper, SCRAPERS[scraper](config, tmp_path / "tsdb", where))

    async def targets() -> dict[str, dict[str, Any]]:
        async with http.get(f"http://{where}/api/v1/targets?state=active") as answer:
            rows = (await answer.json(content_type=None))["data"]["activeTargets"]
        return {row["labels"]["instance"]: row for row in rows}

    async def register(name: str, **more: Any) -> None:
        check = {"CheckID": f"{name}-ttl", "TTL": "10m", "Status": "passing"}
        body = {"ID": name, "Address": f"{net}.1", "Port": 8080, "Tags": ["metrics"]} | more
        await ask.register(agent, "measured", Check=check, **body)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(backend("measured", f"{net}.1", 8080))
        await register("here", Meta={"label_team": "search", "metrics_path": "/deep/metrics"})
        await register("sick")
        await register("resting")
        await register("untagged", Tags=[])

        async def scraped() -> bool:
            found = await targets()
            up = {row["health"] for row in found.values()} == {"up"}
            return set(found) == {"here", "sick", "resting", own} and up

        await until("all tagged instances, and the server, scraped", scraped)
        here = (await targets())["here"]
        assert here["scrapeUrl"] == f"http://{net}.1:8080/deep/metrics"
        assert here["labels"] == {
            "instance": "here",
            "job": "services",
            "service": "measured",
            "node": agent.name,
            "team": "search",
            "health": "passing",
        }

        await ask.put(agent, "/v1/agent/check/fail/sick-ttl")
        await ask.put(agent, "/v1/agent/service/maintenance/resting?enable=true")
        await register("new")
        await ask.put(agent, "/v1/agent/service/deregister/here")

        async def followed() -> bool:
            found = await targets()
            health = {name: row["labels"].get("health") for name, row in found.items()}
            return health == {"sick": "critical", "new": "passing", own: None}

        await until("critical marked, maintenance and deregistered gone, new there", followed)
    for name in ("sick", "resting", "new", "untagged"):
        await ask.put(agent, f"/v1/agent/service/deregister/{name}")


def _meta(answer: Answer) -> int:
    """Reads the headers as Go's client of Consul does, which fails on a missing one."""
    assert answer.status == 200, answer.text
    assert int(answer.headers["X-Consul-LastContact"]) >= 0
    assert answer.headers["X-Consul-KnownLeader"] == "true"
    return int(answer.headers["X-Consul-Index"])


async def test_what_prometheus_asks_is_answered(agent: Member, ask: Ask, net: str) -> None:
    """The three requests of Prometheus's discovery (discovery/consul/consul.go), as it makes them.

    First without an index, then blocking for two minutes; stale; one tag parameter for each tag.
    """
    about = (await ask.get(agent, "/v1/agent/self")).json()
    assert about["Config"]["Datacenter"] == "dc1"

    services = "/v1/catalog/services?stale=&wait=120000ms"
    before = _meta(await ask.get(agent, services))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(ask.get(agent, f"{services}&index={before}"))
        await ask.register(
            agent, "asked", Tags=["metrics", "v2"], Meta={"a": "b"}, Address=f"{net}.9", Port=80
        )
    answer = waiting.result()
    assert _meta(answer) > before
    assert set(answer.json()["asked"]) == {"metrics", "v2"}

    path = "/v1/health/service/asked?stale=&tag=metrics&tag=v2&wait=120000ms"
    answer = await ask.get(agent, path)
    _meta(answer)
    (row,) = answer.json()
    assert row["Node"]["Node"] == agent.name
    assert row["Node"]["TaggedAddresses"]["lan"] == agent.address
    assert row["Node"]["Datacenter"] == "dc1"
    assert {key: row["Service"][key] for key in ("Service", "Address", "Port", "Meta")} == {
        "Service": "asked",
        "Address": f"{net}.9",
        "Port": 80,
        "Meta": {"a": "b"},
    }
    assert {check["Status"] for check in row["Checks"]} == {"passing"}
    await ask.put(agent, f"/v1/agent/service/deregister/{row['Service']['ID']}")
