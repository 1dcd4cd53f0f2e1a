"""`raftreg version`."""

from __future__ import annotations

import platform
from importlib.metadata import version

import click

from raftreg_cli.call import with_output
from raftreg_cli.output import Output, show


@click.command("version")
@with_output
def version_command(output: Output) -> None:
    """Print the version of raftreg, and of what it runs on."""
    found = {
        "raftreg": version("raftreg"),
        "python": platform.python_version(),
        "pysyncobj": version("pysyncobj"),
    }
    text = f"raftreg {found['raftreg']} (Python {found['python']})"
    show(output, found, text)
