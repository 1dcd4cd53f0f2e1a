"""Rules of the project about its own files, kept by tests instead of by memory."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = [ROOT / "raftreg", ROOT / "agent" / "raftreg_agent", ROOT / "cli" / "raftreg_cli"]
SHIPPED = sorted(file for package in PACKAGES for file in package.rglob("*.py"))
HARNESS = sorted((ROOT / "jepsen_like").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
TEXTS = [
    *SHIPPED,
    *HARNESS,
    *TESTS,
    *DOCUMENTS,
    *(file for file in (ROOT / "deploy").rglob("*") if file.suffix not in {".md", ".key", ""}),
    ROOT / "Makefile",
    ROOT / "pyproject.toml",
]
LINES_MAX = 600
#: Modules that run what the bytes say.
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"}
#: Ways for a test to pass without having looked, or to depend on the machine's speed.
EVASIONS = {
    *("pytest.skip", "pytest.xfail", "pytest.importorskip", "time.sleep"),
    *("pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail"),
}


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module, and every name taken out of one, that a source file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_import_rules_hold() -> None:
    """The contracts in pyproject.toml: layers, the pure core, one room that knows the engine."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(linter), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def offenders(files: Sequence[Path], offends: Callable[[str], object]) -> list[str]:
    """The files whose text breaks a rule, as paths below the project."""
    assert files
    return [str(file.relative_to(ROOT)) for file in files if offends(file.read_text())]


def attributes(source: str) -> set[str]:
    """Every dotted name that a source file uses."""
    nodes = ast.walk(ast.parse(source))
    return {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}


def test_nothing_unpickles() -> None:
    """No shipped module imports a format that runs code when it is read."""

    def unpickles(source: str) -> bool:
        parts = {part for one in imported(ast.parse(source)) for part in one.split(".")}
        return bool(parts & UNSAFE)

    assert offenders([*SHIPPED, *HARNESS], unpickles) == []


def test_modules_stay_readable() -> None:
    """A module has at most 600 lines; a longer one wants to be two."""
    assert offenders([*SHIPPED, *HARNESS, *TESTS], lambda text: text.count("\n") > LINES_MAX) == []


def test_nothing_is_left_to_do() -> None:
    """No stub and no note of unfinished work is shipped."""
    unfinished = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
    assert offenders([*SHIPPED, *HARNESS], unfinished.search) == []


def test_no_test_is_skipped_or_sleeps() -> None:
    """Each test runs wherever it is collected, and waits for conditions, never for the clock."""
    assert offenders(TESTS, lambda text: attributes(text) & EVASIONS) == []


def test_no_path_of_somebodys_machine() -> None:
    """Nothing refers to a directory that exists on one developer's machine only."""
    private = re.compile(r"(?<![\w.])/(home|root|work|Users)/\w")
    assert offenders(TEXTS, private.search) == []


def test_links_between_documents_lead_somewhere() -> None:
    """A relative link in a document names a file or directory that exists."""
    links = {file: re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", file.read_text()) for file in DOCUMENTS}
    dead = [
        f"{file.relative_to(ROOT)}: {target}"
        for file, targets in links.items()
        for target in targets
        if not (file.parent / target).exists()
    ]
    assert dead == []


def test_decisions_are_numbered_and_named() -> None:
    """The records of decisions are 0001, 0002, … and each says its status."""
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text()
        assert text.startswith(f"# {int(record.name[:4])}. ")
        assert "\nStatus: " in text


def test_the_changelog_knows_the_version() -> None:
    """The version in pyproject.toml has its section in the change log."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_documented_make_targets_exist() -> None:
    """Every `make …` that a document tells to run is a target."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = {
        target
        for file in DOCUMENTS
        for target in re.findall(r"(?:`|^ {4})make ([a-z-]+)", file.read_text(), re.MULTILINE)
    }
    assert told <= targets


def test_ci_runs_the_same_commands() -> None:
    """`.ci/run` can be started, and ends with the checks and tests that people run."""
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().rstrip().endswith("make check\nmake test")
