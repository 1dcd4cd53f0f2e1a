"""The ground of a run: clusters of real processes, in namespaces where the machine permits them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from jepsen_like.ground.api import Need
from jepsen_like.ground.build import LocalGround, NotReady, Settings, build
from jepsen_like.ground.capabilities import capabilities, loopback_only
from jepsen_like.ground.hosts import Busy
from jepsen_like.nemeses import network
from tests.e2e.waiting import until
from tests.jepsen.test_ground_sandbox import ENTER, told_why

SLOW_S = 90.0


def settings(folder: Path, **rest: object) -> Settings:
    """Few servers on loopback."""
    return msgspec.convert(
        {"logs": folder / "logs", "servers": 1, "loopback": True, **rest}, Settings
    )


async def test_a_host_is_killed_started_paused_and_wiped(tmp_path: Path) -> None:
    """What a host says of its process is true at once, and data lives as long as it should."""
    async with build(settings(tmp_path)) as ground:
        host = ground.host("n1")
        first = host.pid
        with pytest.raises(Busy, match="n1 runs"):
            await host.wipe()
        await host.start()
        assert host.pid == first
        await host.kill()
        assert (host.pid, host.state()) == (None, "-")
        assert any(host.data_dir.iterdir())
        await host.wipe()
        assert not any(host.data_dir.iterdir())
        await host.start()
        assert host.pid not in {None, first}
        host.send(signal.SIGSTOP)

        async def paused() -> bool:
            return host.state() == "T"

        await until("n1 is paused", paused)
        assert await host.stop() in {0, -signal.SIGTERM}
        assert host.state() == "-"
        assert host.log.stat().st_size > 0


async def test_a_cluster_answers_when_it_is_built_and_is_gone_afterwards(tmp_path: Path) -> None:
    """Servers and agents answer; spares wait; no process and no data is left, nor a claim."""
    async with build(settings(tmp_path, servers=3, agents=1, spares=1)) as ground:
        assert ground.network is None
        assert [host.name for host in ground.hosts] == ["n1", "n2", "n3", "n4", "a1"]
        leader = await ground.leader()
        assert leader in ground.servers
        assert ground.host("n4").pid is None
        for name in ("n1", "a1"):
            said = await ground.ask(ground.host(name), "/v1/status/leader")
            assert said == f"{leader.address}:8300"
        await ground.ask(ground.host("a1"), "/v1/kv/k", "PUT", {"a": 1})
        assert await ground.ask(ground.host("n1"), "/v1/kv/k?raw") == {"a": 1}
        assert await ground.ask(ground.host("n4"), "/v1/status/leader") is None
        with pytest.raises(KeyError):
            ground.host("n9")
        data = [host.data_dir for host in ground.hosts]
        pids = [host.pid for host in ground.hosts if host.pid is not None]
    assert len(pids) == 4
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not any(folder.exists() for folder in data)
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {
        "n1.log",
        "n2.log",
        "n3.log",
        "a1.log",
    }


async def test_a_leader_that_is_paused_is_not_taken_for_one(tmp_path: Path) -> None:
    """Who leads is asked of those that can answer; alone it is nobody."""
    async with build(settings(tmp_path)) as ground:
        leader = await ground.leader()
        assert leader is not None
        leader.send(signal.SIGSTOP)
        assert await ground.leader(timeout_s=0.5) is None
        leader.send(signal.SIGCONT)
        assert await ground.leader(timeout_s=20.0) is leader


async def test_a_cluster_that_does_not_come_up_is_said_so(tmp_path: Path) -> None:
    """The text names the host and its log; the time is bounded; nothing runs on."""
    ends = settings(tmp_path, command_prefix=(sys.executable, "-c", "print('no')"))
    with pytest.raises(NotReady, match=r"n1 ended at once, see .*n1\.log"):
        async with build(ends):
            raise AssertionError("not reached")
    silent = (sys.executable, "-c", f"# {tmp_path}\nimport signal\nsignal.pause()")
    with pytest.raises(NotReady, match=r"no answer within 0\.5 s from n1"):
        async with build(settings(tmp_path, command_prefix=silent, ready_s=0.5)):
            raise AssertionError("not reached")
    assert not [p for p in psutil.process_iter() if str(tmp_path) in " ".join(_words(p))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def killed_after_its_first_line(command: list[str]) -> psutil.Process:
    """Runs a program until it names a process, kills it, gives that process."""
    harness = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert harness.stdout is not None
    with harness.stdout:
        named = psutil.Process(int(harness.stdout.readline()))
    harness.kill()
    harness.wait()
    return named


async def test_processes_on_loopback_end_with_a_harness_that_is_killed(tmp_path: Path) -> None:
    """Where no world does it, the kernel kills each server with its parent, a paused one, too."""
    program = (
        "import asyncio, signal, sys, pathlib\n"
        "from jepsen_like.ground.build import Settings, build\n"
        "async def main():\n"
        "    logs = pathlib.Path(sys.argv[1])\n"
        "    async with build(Settings(logs=logs, data_root=logs.parent, servers=1,"
        " loopback=True)) as ground:\n"
        "        host = ground.servers[0]\n"
        "        host.send(signal.SIGSTOP)\n"
        "        print(host.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "logs")]
    server = killed_after_its_first_line(command)

    async def gone() -> bool:
        return not server.is_running() or server.status() == psutil.STATUS_ZOMBIE

    await until("the server is gone", gone)


@pytest.mark.parametrize(
    ("field", "value"), [("servers", 0), ("servers", 16), ("spares", -1), ("agents", 101)]
)
async def test_a_size_that_cannot_be_is_refused(tmp_path: Path, field: str, value: int) -> None:
    """The text says what there can be."""
    with pytest.raises(ValueError, match=f"{value} {field}; there can be"):
        settings(tmp_path, **{field: value})


async def test_needs_become_settings(tmp_path: Path) -> None:
    """A fault that needs a disk or a clock gets it."""
    found = Settings.of_needs({Need.DISK}, logs=tmp_path)
    assert (found.disk, found.clock) == (True, False)


async def test_what_is_missing_is_said_for_each_need() -> None:
    """Capabilities have a reason for all that is not there, and for nothing else."""
    assert loopback_only("so").lacks() == dict.fromkeys(Need, "so")
    real = capabilities()
    assert real.lacks() == {n: real.missing(n) for n in Need if real.missing(n) is not None}


@pytest.mark.timeout(120)
async def test_every_fault_of_the_network_acts_on_a_real_cluster(tmp_path: Path) -> None:
    """Hosts in namespaces, disks below them, and the counters of the switch prove every fault.

    Where the machine permits no namespaces, build() gives a ground on loopback instead.
    """
    if told_why():
        async with build(settings(tmp_path, loopback=False)) as ground:
            assert_fallback(ground)
        return
    command = [*ENTER, sys.executable, "-m", "tests.jepsen.world.faults", str(tmp_path)]
    result = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, check=False, timeout=SLOW_S
    )
    assert result.returncode == 0, result.stderr.decode()[-3000:]
    found = msgspec.json.decode(result.stdout)
    assert found["acted"] == {kind.name: True for kind in network.FAULTS}
    assert found["leader"] in {"n1", "n2", "n3"}
    assert found["leader_after"]
    assert found["dns"]
    assert found["data"]
    assert found["writes"] > 0


def assert_fallback(ground: LocalGround) -> None:
    """A ground of processes only."""
    assert ground.network is None
    assert all(host.address.startswith("127.") for host in ground.hosts)
