"""The client libraries that people have already, unchanged, against an agent."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import consul
import pytest

from tests.e2e.cluster import HTTP_PORT, Cluster, Member, clean_environment

_NPM = Path(__file__).parent / "npm"
_INSTALL_S_MAX = 90.0
_SCENARIO_S_MAX = 60.0


@pytest.fixture
def client(mesh: Cluster) -> consul.Consul:
    """The stock py-consul, told of an agent."""
    agent = mesh.agents[0]
    return consul.Consul(host=agent.address, port=HTTP_PORT)


def _keys(client: consul.Consul) -> None:
    kv = client.kv
    assert kv.get("py/missing")[1] is None
    assert kv.put("py/key", "first", flags=42) is True
    index, row = kv.get("py/key")
    assert (row["Value"], row["Flags"]) == (b"first", 42)
    assert int(index) >= row["ModifyIndex"]
    assert kv.put("py/key", "no", cas=row["ModifyIndex"] - 1) is False
    assert kv.put("py/key", "second", cas=row["ModifyIndex"]) is True
    assert kv.put("py/a/b", b"\x00\xff") is True
    assert kv.get("py/", keys=True, separator="/")[1] == ["py/a/", "py/key"]
    assert {row["Key"] for row in kv.get("py/", recurse=True)[1]} == {"py/a/b", "py/key"}
    assert kv.delete("py/", recurse=True) is True
    assert kv.get("py/", recurse=True)[1] is None


def _services(client: consul.Consul) -> None:
    name = "py-service"
    agent = client.agent
    assert agent.service.register(
        name,
        service_id=name,
        port=4242,
        tags=["one"],
        check=consul.Check.ttl("60s"),
    )
    index, found = client.health.service(name, passing=True)
    assert found == []
    assert agent.check.ttl_pass(f"service:{name}", "well") is True
    _, found = client.health.service(name, index=index, wait="20s", passing=True)
    assert [row["Service"]["Port"] for row in found] == [4242]
    assert client.health.checks(name)[1][0]["Output"] == "well"
    assert name in client.catalog.services()[1]
    assert [row["ServiceID"] for row in client.catalog.service(name, tag="one")[1]] == [name]
    assert name in agent.services()
    assert f"service:{name}" in agent.checks()
    assert agent.service.deregister(name) is True
    assert client.catalog.service(name)[1] == []


def _locks(client: consul.Consul) -> None:
    first = client.session.create(ttl=10, lock_delay=0, behavior="release")
    second = client.session.create(ttl=10, behavior="delete")
    assert client.kv.put("py-lock", "1", acquire=first) is True
    assert client.kv.put("py-lock", "2", acquire=second) is False
    assert client.kv.get("py-lock")[1]["Session"] == first
    assert client.session.renew(first)["ID"] == first
    assert client.session.info(first)[1]["ID"] == first
    assert client.session.destroy(first) is True
    assert client.kv.put("py-lock", "2", acquire=second) is True
    assert client.session.destroy(second) is True
    assert client.kv.get("py-lock")[1] is None, "its session's behaviour is to delete"


def _transactions(client: consul.Consul) -> None:
    operation: dict[str, Any] = {"Verb": "set", "Key": "py-txn", "Value": "djE="}
    done = client.txn.put([{"KV": operation}, {"KV": {"Verb": "get", "Key": "py-txn"}}])
    assert done["Errors"] is None
    assert done["Results"][1]["KV"]["Value"] == "djE="
    assert client.kv.get("py-txn")[1]["Value"] == b"v1"


def _events(client: consul.Consul, mesh: Cluster) -> None:
    index, before = client.event.list(name="py-deploy")
    fired = client.event.fire("py-deploy", "v1")
    index, found = client.event.list(name="py-deploy", index=index, wait="20s")
    assert [row["ID"] for row in found] == [*(row["ID"] for row in before), fired["ID"]]
    assert found[-1]["Payload"] == b"v1"
    client.event.fire("py-deploy", node=f"^{mesh.agents[1].name}$")
    assert client.event.list(name="py-deploy")[1] == found, "it is for another host"
    other = consul.Consul(host=mesh.agents[1].address, port=HTTP_PORT)
    with other.http.session:
        assert len(other.event.list(name="py-deploy")[1]) == len(found) + 1


def _operator(client: consul.Consul, mesh: Cluster) -> None:
    operator = client.operator
    members = {row["Node"] for row in operator.raft_config()["Servers"]}
    assert members == {server.name for server in mesh.servers}
    assert operator.autopilot_health()["Healthy"] is True
    assert operator.update_autopilot_configuration(max_trailing_logs=400) is True
    assert operator.autopilot_configuration()["MaxTrailingLogs"] == 400
    assert operator.usage()["Usage"]["dc1"]["Nodes"] >= len(mesh.members)
    with pytest.raises(consul.ConsulException, match="encryption not enabled"):
        operator.keyring_list()
    with pytest.raises(consul.ACLDisabled):
        client.acl.token.list()


def _agent(client: consul.Consul, mesh: Cluster) -> None:
    agent = client.agent
    assert agent.reload() is True
    assert agent.metrics()["Gauges"]
    assert "raftreg_agent_lease_held 1.0" in agent.metrics(format_prometheus=True)
    assert agent.maintenance(True, "py") is True
    assert "_node_maintenance" in agent.checks()
    assert agent.maintenance(False) is True
    assert agent.join(mesh.servers[0].address) is True
    assert agent.force_leave(mesh.agents[1].name) is True, "it is alive: nothing happens"
    with pytest.raises(consul.ACLDisabled):
        agent.token.set_default("s3cret")


def _snapshots(client: consul.Consul) -> None:
    archive = client.snapshot.save()
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        assert [member.name for member in tar] == ["meta.json", "state.bin", "SHA256SUMS"]


def _cluster(client: consul.Consul, mesh: Cluster) -> None:
    assert client.status.leader() in {server.raft_address for server in mesh.servers}
    assert set(client.status.peers()) == {server.raft_address for server in mesh.servers}
    assert client.agent.self()["Config"]["NodeName"] == mesh.agents[0].name
    names = {member["Name"] for member in client.agent.members()}
    assert names == {member.name for member in mesh.members}
    assert {row["Node"] for row in client.catalog.nodes()[1]} >= names, "and what others registered"
    assert client.catalog.datacenters() == ["dc1"]


async def test_py_consul_registers_discovers_watches_locks_and_stores(
    client: consul.Consul, mesh: Cluster
) -> None:
    """Keys, services with a watch, sessions, locks, transactions, the cluster: as with Consul."""

    def scenario() -> None:
        with client.http.session:
            _keys(client)
            _services(client)
            _locks(client)
            _transactions(client)
            _cluster(client, mesh)
            _events(client, mesh)
            _agent(client, mesh)
            _operator(client, mesh)
            _snapshots(client)

    await asyncio.to_thread(scenario)


@pytest.fixture(scope="session")
def npm_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The npm package `consul`, installed by its pinned name and hash."""
    directory = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_NPM / name, directory)
    install = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_INSTALL_S_MAX,
        check=False,
    )
    assert install.returncode == 0, install.stderr.decode(errors="replace")
    return directory / "node_modules"


async def _run(*command: str, cwd: Path, limit_s: float) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=clean_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(limit_s):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, out.decode(errors="replace")
    return out.decode()


async def test_npm_consul_registers_discovers_watches_locks_and_stores(
    npm_modules: Path, mesh: Cluster
) -> None:
    """The same with the npm package `consul`, under node."""
    agent: Member = mesh.agents[1]
    script = str(_NPM / "scenario.js")
    arguments = (agent.address, str(HTTP_PORT), str(npm_modules))
    out = await _run("node", script, *arguments, cwd=_NPM, limit_s=_SCENARIO_S_MAX)
    assert json.loads(out.splitlines()[-1]) == {"ok": True}
