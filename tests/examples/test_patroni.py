"""PostgreSQL kept highly available by Patroni, with an agent as its Consul."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member, clean_environment
from tests.e2e.waiting import until
from tests.examples.programs import Program, Programs, demoted, find, install

USER = "postgres"
PASSWORD = "change-me-1"  # as in the example
_WAIT_S_MAX = 60.0


@pytest.fixture
def home(programs: Programs) -> Iterator[Path]:
    """A directory of the user that PostgreSQL insists on; nothing of it runs on afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="raftreg-pg-"))
    if os.geteuid() == 0:
        shutil.chown(directory, USER)
    yield directory
    for program in programs.started:
        program.kill()  # leaving in order takes time, for a database that is thrown away
    for node in directory.iterdir():
        kill_postmaster(node / "data")
    shutil.rmtree(directory, ignore_errors=True)


def kill_postmaster(data: Path) -> None:
    """Sends SIGKILL to the server of a data directory, which is no child of Patroni's group."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(pid, signal.SIGKILL)


class Node:
    """A host with Patroni and PostgreSQL.

    Args:
        name: Its name in Patroni.
        address: Where both listen.
        agent: The agent of its host.
        home: Its files.
    """

    def __init__(self, name: str, address: str, agent: Member, home: Path) -> None:
        self.name = name
        self.address = address
        self.data = home / name / "data"
        directory = home / name
        directory.mkdir()
        self.config = install(
            "patroni/patroni.yml",
            directory,
            {
                "name: pg-1": f"name: {name}",
                "127.0.0.1:8500": f"{agent.address}:8500",
                "10.0.0.0/24": "127.0.0.0/8",
                "10.0.0.21": address,
                "/var/lib/postgresql/15/orders": str(self.data),
                "/var/lib/postgresql/orders.pgpass": str(directory / "pgpass"),
                "/usr/lib/postgresql/15/bin": str(_bin_dir()),
                "/var/run/postgresql": str(directory),
                "- data-checksums": "- no-sync",
                # As fast as Patroni lets us: a session of 10 s.
                "ttl: 30": "ttl: 20",
                "loop_wait: 5": "loop_wait: 1",
                "retry_timeout: 5": "retry_timeout: 3",
                "service_check_interval: 2s": "service_check_interval: 1s",
            },
        )
        if os.geteuid() == 0:
            for path in (directory, self.config):
                shutil.chown(path, USER)
        self._program: Program | None = None

    def start(self, programs: Programs) -> None:
        """Starts Patroni."""
        self._program = programs.start(
            self.name, ["patroni", self.config], cwd=self.config.parent, as_user=USER
        )

    def kill(self) -> None:
        """The host dies: Patroni and PostgreSQL get no chance to say anything."""
        assert self._program is not None
        self._program.kill()
        kill_postmaster(self.data)

    async def sql(self, statement: str) -> str:
        """Runs a statement as a client over TCP.

        Raises:
            OSError: It failed.
        """
        target = f"host={self.address} port=5432 user=postgres dbname=postgres connect_timeout=3"
        command = (str(_bin_dir() / "psql"), target, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c")
        code, out = await run(*command, statement, PGPASSWORD=PASSWORD)
        if code:
            raise ConnectionError(f"{self.name}: {out}")
        return out.strip()


def _bin_dir() -> Path:
    """Where the newest PostgreSQL is; Debian keeps versions apart and out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    return found[-1] if found else Path(find("postgres")).parent


async def run(*command: str, **environment: str) -> tuple[int, str]:
    """Runs a program; gives its exit code and all it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**clean_environment(), **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode("utf-8", "replace")


async def members(node: Node) -> dict[str, dict[str, Any]]:
    """What `patronictl list` says."""
    command = demoted([find("patronictl"), "-c", str(node.config), "list", "-f", "json"], USER)
    code, out = await run(*command, HOME=str(node.config.parent), LC_ALL="C.UTF-8", LANG="C.UTF-8")
    assert code == 0, out
    return {row["Member"]: row for row in json.loads(out)}


async def roles(node: Node) -> dict[str, tuple[str, str]]:
    """Role and state of each member, as `patronictl` says."""
    return {name: (row["Role"], row["State"]) for name, row in (await members(node)).items()}


async def settled(asked: Node, leader: Node, standby: Node) -> None:
    """Waits until Patroni names these two as leader and synchronous standby."""

    async def both() -> bool:
        found = await roles(asked)
        wanted = {leader.name: "Leader", standby.name: "Sync Standby"}
        return {name: role for name, (role, _) in found.items()} == wanted

    await until(f"{leader.name} leads, {standby.name} follows", both, limit_s=_WAIT_S_MAX)


async def named(ask: Ask, agent: Member, role: str, node: Node) -> None:
    """Waits until DNS leads exactly to this node for a role."""

    async def exactly() -> bool:
        return await ask.addresses(agent, f"{role}.orders") == {node.address}

    await until(f"{role}.orders.service.consul is {node.name}", exactly)


async def test_the_replica_takes_over_and_the_old_primary_rejoins(
    registry: Cluster, ask: Ask, net: str, programs: Programs, home: Path
) -> None:
    """After SIGKILL of the primary all acknowledged rows are at the new one, found by name."""
    first = Node("pg-1", f"{net}.21", registry.agents[0], home)
    second = Node("pg-2", f"{net}.22", registry.agents[1], home)
    first.start(programs)

    async def leads() -> bool:
        return await roles(first) == {first.name: ("Leader", "running")}

    await until("a first primary", leads, limit_s=_WAIT_S_MAX)
    second.start(programs)
    await settled(second, first, second)
    await named(ask, registry.agents[0], "primary", first)
    await named(ask, registry.agents[1], "replica", second)

    await first.sql("create table orders (id int primary key)")
    acknowledged = 0
    for number in range(20):
        await first.sql(f"insert into orders values ({number})")
        acknowledged += 1
    first.kill()

    async def promoted() -> bool:
        return await second.sql("select pg_is_in_recovery()") == "f"

    await until("the standby promoted", promoted, limit_s=_WAIT_S_MAX)
    assert await second.sql("select count(*) from orders") == str(acknowledged)
    await named(ask, registry.agents[0], "primary", second)

    first.start(programs)
    await settled(second, second, first)

    async def caught_up() -> bool:
        await second.sql("insert into orders select coalesce(max(id), 0) + 1 from orders")
        return await first.sql("select count(*) from orders") == await second.sql(
            "select count(*) from orders"
        )

    await until("the old primary follows the new one", caught_up)
    await named(ask, registry.agents[1], "replica", first)
