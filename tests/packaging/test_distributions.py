"""What is published: the wheel and the sdist, built as a release would, without a network."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: What may lie at the top of the sdist.
SDIST_TOP = {
    *("raftreg", "agent", "cli", "bench", "deploy", "docs", "jepsen_like", "requirements"),
    *("tests", "typings"),
    *("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"),
    *("PKG-INFO", "pyproject.toml", ".gitignore"),
}
#: Runs `raftreg version` from one directory, and refuses to have found the checkout instead.
PROGRAM = """
import sys
sys.path.insert(0, {site!r})
import raftreg, raftreg_agent, raftreg_cli.main
assert all(m.__file__.startswith({site!r}) for m in (raftreg, raftreg_agent, raftreg_cli.main))
sys.argv = ["raftreg", "version"]
raftreg_cli.main.main()
"""


def run(*arguments: str, cwd: Path = ROOT) -> str:
    """Runs Python with these arguments and gives what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and with the wheel that was built from the sdist."""
    directory = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", str(directory), str(ROOT))
    return directory


def only(directory: Path, pattern: str) -> Path:
    """The one file that matches."""
    (found,) = directory.glob(pattern)
    return found


def test_the_wheel_has_exactly_three_packages(distributions: Path) -> None:
    """site-packages gets raftreg, raftreg_agent and raftreg_cli, and nothing beside them."""
    with zipfile.ZipFile(only(distributions, "*.whl")) as wheel:
        names = wheel.namelist()
    top = {name.split("/")[0] for name in names}
    info = f"raftreg-{PROJECT['version']}.dist-info"
    assert top == {"raftreg", "raftreg_agent", "raftreg_cli", info}
    assert "raftreg/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names
    assert not [name for name in names if name.endswith((".pyc", "~"))]


def test_the_sdist_is_what_it_says(distributions: Path) -> None:
    """The sdist holds sources, tests, documents, deploy files, and no stray file."""
    with tarfile.open(only(distributions, "*.tar.gz")) as sdist:
        names = [name.partition("/")[2] for name in sdist.getnames()]
    top = {name.split("/")[0] for name in names} - {""}
    assert top <= SDIST_TOP
    assert {"raftreg", "agent", "cli", "jepsen_like", "tests", "deploy", "LICENSE"} <= top


def test_the_installed_wheel_runs(distributions: Path, tmp_path: Path) -> None:
    """The command works from the files of the wheel alone, away from the checkout."""
    target = tmp_path / "site"
    wheel = str(only(distributions, "*.whl"))
    run(
        "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target), wheel
    )
    program = PROGRAM.format(site=str(target))
    assert PROJECT["version"] in run("-I", "-c", program, cwd=tmp_path)


def test_one_command_is_installed() -> None:
    """There is one console script, `raftreg`."""
    assert PROJECT["scripts"] == {"raftreg": "raftreg_cli.main:main"}
