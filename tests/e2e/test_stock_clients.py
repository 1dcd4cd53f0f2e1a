"""The client libraries that people have already, unchanged, against an agent."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
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
