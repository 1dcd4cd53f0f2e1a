"""An agent against a mesh, over real sockets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from raftreg.clock import ManualClock
from raftreg.config import HttpLimits
from raftreg.core.commands import Deregister, NodeSync
from raftreg.errors import ConfigurationError
from raftreg.http.decode import ServiceDefinition, service_definition
from raftreg.model import SERF_HEALTH, ServiceInstance, Status
from raftreg_agent.record_log import RecordLog
from raftreg_agent.state import Source
from tests.agent.mesh import Mood, running, servers, settings_for

WEB = {"Name": "web", "ID": "web1", "Port": 80, "Check": {"TTL": "30s"}}


class Http:
    """A client of one agent."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self._base = f"http://{address}"
        self._session = session

    async def __call__(
        self, method: str, path: str, body: object = None, **options: Any
    ) -> tuple[int, Any, Any]:
        """Sends one request; gives status, body and headers."""
        async with self._session.request(method, self._base + path, json=body, **options) as answer:
            data = await answer.read()
            is_json = answer.content_type == "application/json" and data
            return answer.status, await answer.json() if is_json else data.decode(), answer.headers


@pytest.fixture
async def session() -> Any:
    """Connections to agents."""
    async with aiohttp.ClientSession() as found:
        yield found


async def test_a_registration_is_in_the_catalog_when_it_is_answered(session: Any) -> None:
    """Clients read it back at once; agent mutations answer 200 with an empty body."""
    async with servers() as (server,), running(settings_for(server)) as app:
        http = Http(app.http_address, session)
        status, body, _ = await http("PUT", "/v1/agent/service/register", WEB)
        assert (status, body) == (200, "")
        row = server.history.catalog.service("n1", "web1")
        assert row is not None
        assert row.port == 80
        check = server.history.catalog.check("n1", "service:web1")
        assert check is not None
        assert check.status is Status.CRITICAL
        await http("PUT", "/v1/agent/check/pass/service:web1?note=fine")
        check = server.history.catalog.check("n1", "service:web1")
        assert check is not None
        assert (check.status, check.output) == (Status.PASSING, "fine")


async def test_many_registrations_at_once_share_log_entries(session: Any) -> None:
    """What arrives while one sync is in flight goes into the next one together."""
    async with servers() as (server,), running(settings_for(server)) as app:
        http = Http(app.http_address, session)
        await asyncio.gather(
            *(
                http("PUT", "/v1/agent/service/register", {"Name": "web", "ID": f"w{number}"})
                for number in range(200)
            )
        )
        assert len(server.history.catalog.services_of("n1")) == 200
        assert len(server.history.syncs) < 100


async def test_wish_01_no_ghosts_on_an_agents_host(session: Any, eventually: Any) -> None:
    """What was put on this host through the catalog goes; what was deleted there comes back."""
    async with servers() as (server,), running(settings_for(server)) as app:
        http = Http(app.http_address, session)
        await http("PUT", "/v1/agent/service/register", WEB)
        catalog, history = server.history.catalog, server.history
        ghost = ServiceInstance(node="n1", id="ghost", name="ghost")
        history.apply(NodeSync(node=app.local.node, services=(ghost,)))
        history.apply(NodeSync(node=app.local.node, remove_services=("web1",)))
        await eventually(lambda: catalog.service("n1", "ghost") is None)
        await eventually(lambda: catalog.service("n1", "web1") is not None)
        await http("PUT", "/v1/agent/service/deregister/web1")
        assert catalog.service("n1", "web1") is None


async def test_wish_01_a_host_that_leaves_is_gone_at_once() -> None:
    """Node, services and checks go with SIGTERM, without waiting for the lease."""
    async with servers() as (server,):
        async with running(settings_for(server), leave=True) as app:
            await app.local.registrar.synced(app.local.ledger.revision, 10.0)
            assert "n1" in server.history.catalog.nodes
        assert server.history.catalog.nodes == {}


async def test_wish_05_register_again_keeps_health(session: Any) -> None:
    """A healthy service that is registered again, also with another definition, stays healthy."""
    async with servers() as (server,), running(settings_for(server)) as app:
        http = Http(app.http_address, session)
        await http("PUT", "/v1/agent/service/register", WEB)
        await http("PUT", "/v1/agent/check/pass/service:web1")
        for change in ({}, {"Port": 81}, {"Check": {"TTL": "40s", "Status": "critical"}}):
            await http("PUT", "/v1/agent/service/register", WEB | change)
            check = server.history.catalog.check("n1", "service:web1")
            assert check is not None
            assert check.status is Status.PASSING
        outputs = [row.status for sync in server.history.syncs for row in sync.checks]
        assert outputs[outputs.index(Status.PASSING) :].count(Status.CRITICAL) == 0


async def test_wish_05_restart_keeps_health(session: Any, tmp_path: Path) -> None:
    """A restarted agent knows its services and their last health; nothing turns critical."""
    async with servers() as (server,):
        settings = settings_for(server, data_dir=str(tmp_path))
        async with running(settings) as app:
            http = Http(app.http_address, session)
            await http("PUT", "/v1/agent/service/register", WEB)
            await http("PUT", "/v1/agent/check/register", {"Name": "mem", "TTL": "30s"})
            await http("PUT", "/v1/agent/check/pass/service:web1")
            await http("PUT", "/v1/agent/check/warn/mem")
            node_id = app.local.node.id
        before = len(server.history.syncs)
        async with running(settings) as app:
            assert app.local.node.id == node_id
            await app.local.registrar.synced(app.local.ledger.revision, 10.0)
            statuses = {
                row.check_id: row.status
                for sync in server.history.syncs[before:]
                for row in sync.checks
            }
            assert statuses == {"service:web1": Status.PASSING, "mem": Status.WARNING}


async def test_what_was_deregistered_does_not_come_back(session: Any, tmp_path: Path) -> None:
    """Neither do its checks, nor a check that was removed alone."""
    async with servers() as (server,):
        settings = settings_for(server, data_dir=str(tmp_path))
        async with running(settings) as app:
            http = Http(app.http_address, session)
            for number in (1, 2):
                await http("PUT", "/v1/agent/service/register", WEB | {"ID": f"web{number}"})
            await http("PUT", "/v1/agent/service/deregister/web1")
            await http("PUT", "/v1/agent/check/deregister/service:web2")
        async with running(settings) as app:
            assert list(app.local.state.services) == ["web2"]
            assert list(app.local.state.checks) == []


async def test_wish_10_a_reinstalled_host_takes_its_name_back(tmp_path: Path) -> None:
    """A new node id under the old name needs no clean-up, and neither does a new name."""
    async with servers() as (server,):
        nodes = server.history.catalog.nodes
        for name, data in (("n1", "a"), ("n1", "b"), ("n2", "b")):
            settings = settings_for(server, node=name, data_dir=str(tmp_path / data))
            async with running(settings) as app:
                await app.local.registrar.synced(app.local.ledger.revision, 10.0)
                assert {node.name: node.id for node in nodes.values()} == {name: app.local.node.id}
                assert server.history.catalog.check(name, SERF_HEALTH) is not None


@pytest.mark.parametrize("mood", [Mood.LEADERLESS, Mood.HANGING, Mood.FORGETFUL])
async def test_the_agent_works_around_a_bad_server(
    session: Any, eventually: Any, mood: Mood
) -> None:
    """Registration, lease and proxied writes go to the other server; each write acts once."""
    async with servers(2) as (bad, good):
        bad.mood = mood
        async with running(settings_for(bad, good)) as app:
            for client in (app._own, app._renewing, app._asking):
                client.distrust(f"http://{good.address}")  # the bad one is asked first
            http = Http(app.http_address, session)
            assert (await http("PUT", "/v1/agent/service/register", WEB))[0] == 200
            await eventually(lambda: good.history.catalog.service("n1", "web1") is not None)
            for number in range(4):
                status, body, _ = await http("PUT", f"/v1/kv/k{number}", data=b"v")
                assert (status, body) == (200, "true")
            assert len(good.history.puts) == 4
            await eventually(lambda: app.local.lease.held)
            assert bad.requests


async def test_registration_holds_while_no_server_can_be_reached(
    session: Any, eventually: Any
) -> None:
    """It is answered with 200 since the agent has it; the sync follows when a server is back."""
    async with servers() as (server,):
        await server.stop()
        async with running(settings_for(server, http=HttpLimits(read_timeout_s=0.3))) as app:
            await eventually(lambda: app.local.lease.failing)
            http = Http(app.http_address, session)
            assert (await http("PUT", "/v1/agent/service/register", WEB))[0] == 200
            status, body, _ = await http("GET", "/v1/agent/services")
            assert list(body) == ["web1"]
            status, text, _ = await http("GET", "/v1/kv/x")
            assert status == 500
            assert text == "No cluster leader"
            await server.start()
            await eventually(lambda: server.history.catalog.service("n1", "web1") is not None)


async def test_a_host_too_large_for_one_sync_is_synced_in_parts(
    tmp_path: Path, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is registered and ghosts go, also when one command can't hold it all."""
    async with servers() as (server,):
        settings = settings_for(server, data_dir=str(tmp_path))
        async with running(settings) as app:
            http = Http(app.http_address, session)
            for number in range(20):
                body = {"Name": "web", "ID": f"w{number}", "Check": {"TTL": "9s"}}
                await http("PUT", "/v1/agent/service/register", body)
            node = app.local.node
        server.history.apply(Deregister(node="n1"))
        ghost = ServiceInstance(node="n1", id="ghost", name="ghost")
        server.history.apply(NodeSync(node=node, services=(ghost,)))
        for room in ("registrar", "ledger"):
            monkeypatch.setattr(f"raftreg_agent.{room}.SYNC_BYTES_MAX", 600)
        server.history.syncs.clear()
        async with running(settings) as app:
            await app.local.registrar.synced(app.local.ledger.revision + 1, 10.0)
            held = server.history.catalog.services_of("n1")
            assert {row.id for row in held} == {f"w{number}" for number in range(20)}
            assert len(server.history.syncs) > 2
            assert not any(sync.full for sync in server.history.syncs)


async def test_a_refused_row_does_not_hold_up_the_others(session: Any) -> None:
    """The client learns the reason; everything else is registered all the same."""
    deep: Any = []
    for _ in range(80):
        deep = [deep]
    async with servers() as (server,), running(settings_for(server)) as app:
        http = Http(app.http_address, session)
        row = ServiceInstance(node="n1", id="bad", name="bad", proxy={"deep": deep})
        app.local._put_service(ServiceDefinition(row), Source.API, replace_checks=False)
        answers = await asyncio.gather(
            *(
                http("PUT", "/v1/agent/service/register", {"Name": "web", "ID": f"w{number}"})
                for number in range(5)
            )
        )
        assert [status for status, _, _ in answers] == [200] * 5
        assert len(server.history.catalog.services_of("n1")) == 5
        assert "nested" in app.local.ledger.refused["service bad"]


async def test_probes_and_ttls_reach_the_catalog(session: Any, eventually: Any) -> None:
    """An HTTP check passes once its service answers; a TTL that nobody renews ends critical."""
    async with servers() as (server,), running(settings_for(server)) as app:
        http = Http(app.http_address, session)
        status = f"http://{app.http_address}/v1/agent/self"
        checks = [
            {"CheckID": "up", "HTTP": status, "Interval": "1s"},
            {"CheckID": "port", "TCP": app.http_address, "Interval": "1s"},
            {"CheckID": "ttl", "TTL": "200ms", "Status": "passing"},
        ]
        await http("PUT", "/v1/agent/service/register", {"Name": "web", "Checks": checks})
        catalog = server.history.catalog

        def shown() -> dict[str, Status]:
            return {row.check_id: row.status for row in catalog.checks_of_instance("n1", "web")}

        wanted = {"up": Status.PASSING, "port": Status.PASSING, "ttl": Status.CRITICAL}
        await eventually(lambda: shown() == wanted)
        check = catalog.check("n1", "ttl")
        assert check is not None
        assert check.output == "TTL expired"


async def test_checks_of_services_of_files_are_remembered(session: Any, tmp_path: Path) -> None:
    """A check that a client added survives a restart; one whose service vanished is dropped."""
    files, data = tmp_path / "files", tmp_path / "data"
    files.mkdir()
    for name in ("web", "api"):
        (files / f"{name}.json").write_text(json.dumps({"service": {"name": name}}))
    async with servers() as (server,):
        settings = settings_for(server, config_dir=str(files), data_dir=str(data))
        async with running(settings) as app:
            http = Http(app.http_address, session)
            for name in ("web", "api"):
                body = {"Name": f"of-{name}", "TTL": "30s", "ServiceID": name}
                await http("PUT", "/v1/agent/check/register", body)
                await http("PUT", f"/v1/agent/check/pass/of-{name}")
        (files / "api.json").unlink()
        async with running(settings) as app:
            assert list(app.local.state.services) == ["web"]
            assert list(app.local.state.checks) == ["of-web"]
            assert app.local.state.checks["of-web"].machine.status is Status.PASSING
        values, _ = RecordLog(data / "registrations.log").load()
        assert [shelf for shelf, _ in values].count("check-state") == 1
        assert [shelf for shelf, _ in values].count("checks") == 1


async def test_a_disk_that_is_full_is_told(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registration is in the catalog, and its client knows that a restart would lose it."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with (
        servers() as (server,),
        running(settings_for(server, data_dir=str(tmp_path))) as app,
    ):
        http = Http(app.http_address, session)
        with monkeypatch.context() as patched:
            patched.setattr("raftreg_agent.store._write_group", full)
            status, text, _ = await http("PUT", "/v1/agent/service/register", WEB)
            assert (status, "No space left" in text) == (500, True)
        assert (await http("PUT", "/v1/agent/service/register", WEB))[0] == 200
        values, _ = RecordLog(tmp_path / "registrations.log").load()
        assert [shelf for shelf, _ in values] == ["services"]


async def test_reload_registers_what_changed_and_drops_what_vanished(
    session: Any, tmp_path: Path
) -> None:
    """A bad file is refused, and the last good set stays."""
    web, api = tmp_path / "web.json", tmp_path / "api.json"
    web.write_text('{"service": {"name": "web", "port": 1, "check": {"ttl": "30s"}}}')
    api.write_text('{"service": {"name": "api", "port": 1}}')
    async with (
        servers() as (server,),
        running(settings_for(server, config_dir=str(tmp_path))) as app,
    ):
        http = Http(app.http_address, session)
        await http("PUT", "/v1/agent/service/register", {"Name": "mine"})
        await http("PUT", "/v1/agent/check/pass/service:web")
        added = {"Name": "added", "TTL": "30s", "ServiceID": "web"}
        await http("PUT", "/v1/agent/check/register", added)
        web.write_text('{"service": {"name": "web", "port": 2, "check": {"ttl": "30s"}}}')
        api.unlink()
        assert (await http("PUT", "/v1/agent/reload"))[0] == 200
        services = app.local.state.services
        assert {key: value.row.port for key, value in services.items()} == {"web": 2, "mine": 0}
        assert app.local.state.checks["service:web"].machine.status is Status.PASSING
        assert "added" in app.local.state.checks
        web.write_text("{")
        status, text, _ = await http("PUT", "/v1/agent/reload")
        assert status == 400
        assert "web.json" in text
        assert services["web"].row.port == 2


async def test_a_bad_definition_file_stops_the_start(tmp_path: Path) -> None:
    """An agent that would forget services silently does not start."""
    (tmp_path / "bad.json").write_text('{"service": {"port": 1}}')
    async with servers() as (server,):
        with pytest.raises(ExceptionGroup) as caught:
            async with running(settings_for(server, config_dir=str(tmp_path))):
                pass
        assert caught.group_contains(ConfigurationError, match="bad.json")


async def test_a_critical_service_is_deregistered_in_time() -> None:
    """DeregisterCriticalServiceAfter takes the service with all its checks."""
    clock = ManualClock()
    definition = {"Name": "web", "Checks": [{"TTL": "10s", "DeregisterCriticalServiceAfter": "1s"}]}
    async with servers() as (server,), running(settings_for(server), clock=clock) as app:
        await app.local.register_service(service_definition(definition, node="n1"))
        clock.advance(59.0)
        await app.local.keep_house_once()
        assert list(app.local.state.services) == ["web"]
        clock.advance(1.0)
        await app.local.keep_house_once()
        assert (app.local.state.services, app.local.state.checks) == ({}, {})


async def test_an_alias_follows_at_once(session: Any, eventually: Any) -> None:
    """A local alias takes its target's status; an unknown target is critical."""
    async with servers() as (server,), running(settings_for(server)) as app:
        http = Http(app.http_address, session)
        await http("PUT", "/v1/agent/service/register", WEB)
        await http("PUT", "/v1/agent/service/register", {"Name": "front"})
        alias = {"Name": "follows", "CheckID": "a", "ServiceID": "front", "AliasService": "web1"}
        lost = alias | {"CheckID": "b", "AliasNode": "n9"}
        await http("PUT", "/v1/agent/check/register", alias)
        await http("PUT", "/v1/agent/check/register", lost)
        checks = app.local.state.checks
        for verb, status in (("pass", "passing"), ("warn", "warning"), ("fail", "critical")):
            await http("PUT", f"/v1/agent/check/{verb}/service:web1")
            await eventually(lambda status=status: checks["a"].machine.status.value == status)
        assert "could not be found" in checks["b"].machine.output
