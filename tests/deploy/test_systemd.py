"""The systemd units: systemd's own verdict on them, and what they must keep locked."""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
HOST_UNITS = Path("/usr/lib/systemd/system")

#: Directives of the units, for machines without systemd: a misspelt one is found there too.
KNOWN = {
    "Unit": "Description Wants After StartLimitIntervalSec StartLimitBurst",
    "Service": (
        "Type NotifyAccess User Group EnvironmentFile ExecStart ExecReload KillMode TimeoutStopSec "
        "TimeoutStartSec Restart RestartSec LimitNOFILE OOMScoreAdjust StateDirectory "
        "StateDirectoryMode UMask ProtectSystem ProtectHome PrivateTmp PrivateDevices "
        "CapabilityBoundingSet AmbientCapabilities NoNewPrivileges RestrictSUIDSGID "
        "RestrictNamespaces RestrictRealtime LockPersonality MemoryDenyWriteExecute RemoveIPC "
        "ProtectKernelTunables ProtectKernelModules ProtectKernelLogs ProtectControlGroups "
        "ProtectClock ProtectHostname ProtectProc RestrictAddressFamilies "
        "SystemCallArchitectures SystemCallFilter SystemCallErrorNumber"
    ),
    "Install": "WantedBy",
}


def directives(unit: Path) -> dict[str, dict[str, list[str]]]:
    """Reads a unit file: section, directive, values in order."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), defaultdict(list))
        elif line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            section[name].append(value)
    return sections


def systemd_root(root: Path) -> Path:
    """A directory that looks like the root of a host with raftreg installed."""
    shutil.copytree(HOST_UNITS, root / "usr/lib/systemd/system", symlinks=True)
    for program in ("opt/raftreg/bin/raftreg", "bin/kill"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).write_text("#!/bin/sh\n")
        (root / program).chmod(0o755)
    installed = root / "etc/systemd/system"
    installed.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(unit, installed)
    return root


def analyze(*arguments: str) -> tuple[int, str]:
    """Runs systemd-analyze; gives its exit code and all it printed."""
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_every_directive_is_known(unit: Path) -> None:
    """A misspelt directive, which systemd would ignore, is found without systemd."""
    for section, found in directives(unit).items():
        assert set(found) <= set(KNOWN[section].split()), section


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_unit_keeps_its_contract(unit: Path) -> None:
    """The process tells when it is ready, reloads on SIGHUP, writes to its own directory."""
    service = directives(unit)["Service"]
    kind = unit.stem.removeprefix("raftreg-")
    assert service["Type"] == ["notify"]
    assert service["ExecStart"] == [
        f"/opt/raftreg/bin/raftreg {kind} --config /etc/raftreg/{kind}.toml"
    ]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert service["User"] == ["raftreg"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["NoNewPrivileges"] == ["true"]
    assert service["CapabilityBoundingSet"] == [""]
    assert service["StateDirectory"] == ["raftreg"]


if shutil.which("systemd-analyze") and HOST_UNITS.is_dir():  # .ci/run installs it

    def test_systemd_accepts_the_units(tmp_path: Path) -> None:
        """`systemd-analyze verify` finds nothing to say about the units as installed."""
        root = systemd_root(tmp_path)
        names = [unit.name for unit in UNITS]
        assert analyze("verify", "--man=no", f"--root={root}", *names) == (0, "")

    def test_systemd_finds_a_planted_mistake(tmp_path: Path) -> None:
        """The check above can fail: an unknown directive is reported."""
        root = systemd_root(tmp_path)
        unit = root / "etc/systemd/system" / UNITS[0].name
        unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHomes="))
        _, said = analyze("verify", "--man=no", f"--root={root}", UNITS[0].name)
        assert "ProtectHomes" in said

    @pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
    def test_systemd_rates_the_unit_as_well_protected(unit: Path) -> None:
        """The exposure that `systemd-analyze security` computes stays below 2.0 of 10."""
        code, said = analyze("security", "--offline=true", "--threshold=20", str(unit))
        assert code == 0, said
