"""What pyproject.toml declares is what the code imports, no less and no more."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = TABLE["project"]
PACKAGES = [ROOT / "raftreg", ROOT / "agent" / "raftreg_agent", ROOT / "cli" / "raftreg_cli"]
HARNESS = ROOT / "jepsen_like"
OURS = {"raftreg", "raftreg_agent", "raftreg_cli", "jepsen_like"}


def names(requirements: list[str]) -> set[str]:
    """Names of the distributions in a list of requirements."""
    return {re.split(r"[^A-Za-z0-9_.-]", one)[0].lower() for one in requirements}


def imported(source: str) -> Iterator[str]:
    """Top-level packages that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def distributions(packages: list[Path]) -> set[str]:
    """Names of the distributions that the modules of some packages import."""
    files = [file for package in packages for file in package.rglob("*.py")]
    modules = {module for file in files for module in imported(file.read_text())}
    owners = packages_distributions()
    return {
        owner.lower().replace("_", "-")
        for module in modules - OURS - sys.stdlib_module_names
        for owner in owners[module]
    }


def test_declared_and_imported_distributions_agree() -> None:
    """Nothing is imported that only came along with something else, nothing is declared in vain."""
    used = distributions(PACKAGES)
    required = names(PROJECT["dependencies"])
    optional = names([one for extra in PROJECT["optional-dependencies"].values() for one in extra])
    assert required <= used
    assert used <= required | optional


def test_the_harness_imports_what_the_checkout_declares() -> None:
    """What jepsen_like needs beside raftreg's own dependencies is in the group `dev`."""
    group = [one for one in TABLE["dependency-groups"]["dev"] if isinstance(one, str)]
    assert distributions([HARNESS]) <= names(PROJECT["dependencies"]) | names(group)
