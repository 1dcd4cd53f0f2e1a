"""`python -m tests.fuzz`: throws bytes at the decoders, guided by what they make them do.

Coverage-guided by atheris (https://github.com/google/atheris, on libFuzzer). A process a target,
since libFuzzer ends its process at the first find. A find is kept as a file in `crashers/`, which
the tests replay for ever after; fix the fault, and commit both.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from tests.fuzz import targets
from tests.fuzz.seeds import seeds

CRASHERS = Path(__file__).with_name("crashers")


@click.command()
@click.option("--target", "names", type=click.Choice(list(targets.TARGETS)), multiple=True)
@click.option("--seconds", default=60, show_default=True, help="For each target.")
def main(names: tuple[str, ...], seconds: int) -> None:
    """Fuzz all decoders, or those that are named; exits with 1 after a find."""
    found = [name for name in names or targets.TARGETS if not _run(name, seconds)]
    for name in found:
        click.echo(f"{name}: a find, see {CRASHERS / name}", err=True)
    sys.exit(1 if found else 0)


def _run(name: str, seconds: int) -> bool:
    """Fuzzes a target in a process of its own; False after a find."""
    (CRASHERS / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="raftreg-fuzz-") as directory:
        for number, data in enumerate(seeds()[name]):
            (Path(directory) / f"seed-{number}").write_bytes(data)
        arguments = [name, str(seconds), directory, str(CRASHERS / name)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.one", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    lines = done.stderr.splitlines()
    told = [line for line in lines if line.startswith(("stat::", "Done")) or "cov:" in line]
    click.echo(f"{name}: {told[-1].strip() if told else 'no figures'}")
    if done.returncode:
        click.echo("\n".join(lines[-40:]), err=True)
    elif not any((CRASHERS / name).iterdir()):
        (CRASHERS / name).rmdir()
    return done.returncode == 0


if __name__ == "__main__":
    main()
