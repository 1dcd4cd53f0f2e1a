"""`raftreg demo --once`: start, look, kill the leader, look again, restart it, look again."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterable
from functools import partial

import msgspec

from raftreg.client.api import RegistryClient
from raftreg.config import join_host_port
from raftreg.errors import RaftregError
from raftreg.model import SERF_HEALTH, Status
from raftreg_cli.demo.plan import API, DB, WEB, Host, sample_counts
from raftreg_cli.demo.probe import STALE, Probe
from raftreg_cli.demo.report import Report
from raftreg_cli.demo.stage import DemoFailure, Stage

START_S_MAX = 60.0
RECOVER_S_MAX = 30.0
#: Written before the kill; every one of them has to be there after it.
KEYS_BEFORE = 50
_ATTEMPT_S = 0.25
_RETRY_S = 0.01
_CLI_S_MAX = 20.0


class Scenario:
    """The steps of `--once`.

    Args:
        stage: The running processes.
        probe: Clients of all hosts.
        report: What was seen.
    """

    def __init__(self, stage: Stage, probe: Probe, report: Report) -> None:
        self._stage = stage
        self._probe = probe
        self._report = report
        self._plan = stage.plan

    async def run(self) -> None:
        """Runs all steps.

        Raises:
            DemoFailure: One did not end as it should.
        """
        await self._all_healthy()
        await self._write_before()
        await self._look("a lookup")
        dead = await self._kill_leader()
        await self._all_written_is_there(dead)
        await self._look("a lookup without that server")
        await self._restart(dead)
        await self._look("a lookup at the end")

    async def _all_healthy(self) -> None:
        await wait_healthy(self._stage, self._probe, START_S_MAX)
        leader = await self._leader()
        view = await self._probe.view(self._plan.servers)
        counts = ", ".join(f"{len(found)} {name}" for name, found in view.services.items())
        self._report.ok(
            f"three servers and three agents run, {leader.name} leads",
            f"nodes with a live lease: {', '.join(sorted(view.nodes))}",
            f"healthy instances: {counts}",
        )

    async def _write_before(self) -> None:
        client = self._probe.at(self._plan.agents[0])
        for number in range(KEYS_BEFORE):
            await client.kv.put(f"demo/before/{number:02}", str(number).encode())
        self._report.ok(f"{KEYS_BEFORE} keys written through {self._plan.agents[0].name}")

    async def _look(self, what: str) -> None:
        """The same question by CLI, HTTP and DNS, each at another agent: one answer."""
        first, second, third = self._plan.agents
        expected = self._targets(WEB.name)
        by_cli = await self._by_cli(first, WEB.name)
        entries = await self._probe.at(second).health.service(WEB.name, passing=True)
        by_http = {(entry.address, entry.service.port) for entry in entries}
        by_dns = await self._probe.dns_srv(third, WEB.name)
        shown = [
            f"raftreg lookup {WEB.name} at {first.name}: {_targets_text(by_cli)}",
            f"GET /v1/health/service/{WEB.name}?passing at {second.name}: {_targets_text(by_http)}",
            f"SRV {WEB.name}.service.consul at {third.name}: {_targets_text(by_dns)}",
        ]
        if not by_cli == by_http == by_dns == expected:
            raise DemoFailure(
                f"{what} gave different answers; expected {_targets_text(expected)}\n"
                + "\n".join(shown)
            )
        self._report.ok(f"{what} by CLI, HTTP and DNS: one answer", *shown)

    def _targets(self, service: str) -> set[tuple[str, int]]:
        return {
            (host.address, sample.port)
            for host in self._plan.agents
            for sample in host.samples
            if sample.name == service
        }

    async def _by_cli(self, host: Host, service: str) -> set[tuple[str, int]]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "raftreg_cli.main", "lookup", service),
            *("--output", "json", "--http-addr", host.http),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_CLI_S_MAX):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise DemoFailure(f"raftreg lookup {service} did not end") from None
        if process.returncode != 0:
            raise DemoFailure(f"raftreg lookup {service}: {err.decode(errors='replace').strip()}")
        return {(row["address"], row["port"]) for row in msgspec.json.decode(out)}

    async def _kill_leader(self) -> Host:
        """Kills the leader with SIGKILL and measures the time to the next accepted write."""
        leader = await self._leader()
        survivors = [host for host in self._plan.servers if host is not leader]
        process = self._stage.servers[leader.name]
        self._stage.expected_down.add(process.name)
        clock = self._probe.clock
        async with RegistryClient(
            [host.http for host in survivors], attempt_timeout_s=_ATTEMPT_S
        ) as client:
            await client.status.leader()  # connections are open before the clock starts
            killed_at = clock.monotonic()
            process.signal(signal.SIGKILL)
            await self._probe.until(
                "a write after the leader's death",
                lambda: client.kv.put("demo/after", b"written without the old leader"),
                RECOVER_S_MAX,
                poll_s=_RETRY_S,
            )
            outage_s = clock.monotonic() - killed_at
        await process.wait()
        new = await self._leader(tuple(survivors))
        self._report.figure("leader_killed_to_next_write_s", outage_s)
        self._report.ok(
            f"kill -9 of the leader {leader.name} (pid {process.pid}): "
            f"the next write was accepted after {outage_s:.3f} s, {new.name} leads",
            "(a dead process is noticed by its closed connections; a dead host or a cut network "
            "takes an election timeout more)",
        )
        return leader

    async def _all_written_is_there(self, dead: Host) -> None:
        host = next(one for one in self._plan.servers if one is not dead)
        entries = await self._probe.at(host).kv.list("demo/")
        found = {entry.key for entry in entries}
        wanted = {f"demo/before/{number:02}" for number in range(KEYS_BEFORE)} | {"demo/after"}
        if missing := wanted - found:
            raise DemoFailure(f"acknowledged writes are missing: {_some(missing)}")
        self._report.ok(f"all {len(wanted)} acknowledged writes are there, asked at {host.name}")

    async def _restart(self, dead: Host) -> None:
        """Starts the dead server again; it has caught up when its own state holds it all."""
        clock = self._probe.clock
        started_at = clock.monotonic()
        self._stage.expected_down.discard(dead.name)
        await self._stage.servers[dead.name].start()

        async def caught_up() -> bool | None:
            # Stale: answered from the state of this very server.
            return await self._probe.at(dead).kv.get("demo/after", read=STALE) is not None

        await self._probe.until(
            f"{dead.name} to catch up", caught_up, RECOVER_S_MAX, watch=self._stage.check
        )
        took_s = clock.monotonic() - started_at
        await wait_healthy(self._stage, self._probe, RECOVER_S_MAX)
        leader = await self._leader()
        self._report.figure("restart_to_caught_up_s", took_s)
        self._report.ok(
            f"{dead.name} was started again and had caught up after {took_s:.2f} s, "
            f"{leader.name} leads"
        )

    async def _leader(self, hosts: tuple[Host, ...] = ()) -> Host:
        async def known() -> Host | None:
            return self._stage.server_at(await self._probe.leader(hosts or self._plan.servers))

        return await self._probe.until("a leader", known, RECOVER_S_MAX)


async def wait_healthy(stage: Stage, probe: Probe, limit_s: float) -> None:
    """Waits until all nodes live and all sample services pass, in the eyes of every agent.

    Raises:
        DemoFailure: It took too long, or a process has ended.
    """
    wanted = sample_counts(stage.plan)

    async def healthy_at(host: Host) -> bool | None:
        client = probe.at(host)
        for name, count in wanted.items():
            if len(await client.health.service(name, passing=True)) != count:
                return None
        checks = await client.health.state(Status.PASSING)
        alive = {check.node for check in checks if check.check_id == SERF_HEALTH}
        return alive == {one.name for one in stage.plan.hosts}

    for host in stage.plan.agents:
        await probe.until(
            f"all services to be healthy at {host.name}",
            partial(healthy_at, host),
            limit_s,
            watch=stage.check,
        )
        await probe.until(
            f"DNS of {host.name} to know all",
            partial(_dns_knows, probe, host, wanted),
            limit_s,
            watch=stage.check,
        )


async def _dns_knows(probe: Probe, host: Host, wanted: dict[str, int]) -> bool | None:
    for sample in (WEB, API, DB):
        if len(await probe.dns_srv(host, sample.name)) != wanted[sample.name]:
            return None
    return True


async def run_once(stage: Stage, probe: Probe, report: Report) -> bool:
    """Runs the scenario; tells whether all was well. What failed is in the report."""
    try:
        await Scenario(stage, probe, report).run()
    except RaftregError as error:
        logs = [
            f"--- {process.name}\n{process.log_tail()}"
            for process in stage.servers.values()
            if process.log.exists()
        ]
        report.failed(error.message, *logs)
    return report.finish()


def _targets_text(targets: Iterable[tuple[str, int]]) -> str:
    return ", ".join(join_host_port(host, port) for host, port in sorted(targets)) or "nothing"


def _some(keys: Iterable[str], count_max: int = 5) -> str:
    ordered = sorted(keys)
    more = f" and {len(ordered) - count_max} more" if len(ordered) > count_max else ""
    return ", ".join(ordered[:count_max]) + more
