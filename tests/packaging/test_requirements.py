"""The locked requirements: pinned, hashed, from nowhere in particular, and in step."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
FILES = ["build", "run", "dev"]
PINNED = re.compile(r"^([a-z0-9][a-z0-9.-]*)==(\S+)(?: ; [^\\]+)? \\$")


def pins(name: str) -> dict[str, str]:
    """Package to version, as pinned in a requirements file."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    found = [PINNED.match(line) for line in lines if line and line[0] not in "# "]
    assert all(found), f"{name}.txt has a line that pins nothing"
    return {match[1]: match[2] for match in found if match}


@pytest.mark.parametrize("name", FILES)
def test_every_package_is_pinned_and_hashed(name: str) -> None:
    """Each package has one version and at least one SHA-256."""
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins(name))
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("name", FILES)
def test_no_download_address(name: str) -> None:
    """No address, index or path: whatever index pip is set up for may serve the packages."""
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|-e|--index-url|--extra-index-url|--find-links)", text, re.M)


def test_tests_run_on_what_is_shipped() -> None:
    """A package that raftreg runs on or is built with has the same version everywhere."""
    dev = pins("dev")
    for name in ("build", "run"):
        assert pins(name).items() <= dev.items()


def test_every_dependency_is_locked() -> None:
    """What pyproject.toml asks for is in run.txt, and the engine has its one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    asked = {re.split(r"[=>;\[ ]", one)[0] for one in [*project["dependencies"], *extras]}
    locked = pins("run")
    assert asked <= set(locked)
    assert "pysyncobj==0.3.17" in project["dependencies"]
    assert locked["pysyncobj"] == "0.3.17"
