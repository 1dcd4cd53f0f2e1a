"""The demo's layout: free addresses, and definitions that the agent accepts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from raftreg.errors import ConfigurationError
from raftreg_agent import definitions
from raftreg_cli.demo import plan as plans
from raftreg_cli.demo import stage


def test_a_busy_block_is_passed_over(tmp_path: Path) -> None:
    """A port that is taken on one address moves the whole demo to the next block."""
    with socket.socket() as taken:
        taken.bind(("127.0.211.12", 18500))
        taken.listen()
        found = plans.free_plan(tmp_path, 18500, blocks=(211, 212))
    assert {host.address.split(".")[2] for host in found.hosts} == {"212"}


def test_nothing_free_is_said_clearly(tmp_path: Path) -> None:
    """The error names the address and the way out."""
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.213.1", 18600))
        with pytest.raises(ConfigurationError, match=r"127\.0\.213\.1:18600/udp.*--base-port"):
            plans.free_plan(tmp_path, 18500, blocks=(213,))


def test_every_host_has_its_own_address(tmp_path: Path) -> None:
    """No two listeners of the demo want the same address and port."""
    layout = plans.plan(tmp_path, 10, 8500)
    wanted = [
        (host.address, port)
        for host in layout.hosts
        for port in (host.http_port, host.dns_port, *(s.port for s in host.samples))
    ]
    assert len(wanted) == len(set(wanted))
    assert {host.raft_port for host in layout.servers} == {8300}


def test_the_agent_reads_the_definitions(tmp_path: Path) -> None:
    """What the demo writes is what an agent loads: each sample with its check."""
    layout = plans.plan(tmp_path, 10, 8500)
    stage.write_files(layout)
    for host in layout.agents:
        loaded = definitions.load(plans.definitions_dir(layout, host), host.name)
        names = {service.service.name for service in loaded.services.values()}
        assert names == {sample.name for sample in host.samples}
        assert all(len(service.checks) == 1 for service in loaded.services.values())


def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Nobody else on the host may read the servers' key."""
    layout = plans.plan(tmp_path, 10, 8500)
    stage.write_files(layout)
    assert plans.key_file(layout).stat().st_mode & 0o077 == 0


def test_a_temporary_directory_goes_a_given_one_stays(tmp_path: Path) -> None:
    """What a person named is kept for a look; what we made is removed."""
    with stage.directory(tmp_path / "kept") as kept:
        pass
    assert kept.is_dir()
    with stage.directory(None) as made:
        (made / "file").touch()
    assert not made.exists()
