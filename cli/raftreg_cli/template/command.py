"""`raftreg template`: files that follow the registry."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from random import SystemRandom

import click

from raftreg.errors import ConfigurationError
from raftreg_cli import logs, process
from raftreg_cli.call import Call, with_patient_client
from raftreg_cli.template import spec as specs
from raftreg_cli.template.spec import Plan


@click.command()
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="IN:OUT[:COMMAND]",
    help="Template, file, and what to run after it has changed; may be given again.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="TOML file with any number of templates.",
)
@click.option(
    "--check",
    default="",
    metavar="COMMAND",
    help="Must succeed before a file is replaced; {} stands for the new text's file.",
)
@click.option(
    "--wait",
    "wait_text",
    default="",
    metavar="MIN[:MAX]",
    help="Gather changes: MIN without one, but MAX at most.  [default: 100ms:1s]",
)
@click.option("--once", is_flag=True, help="Write every file once, then end.")
@click.option("--dry", is_flag=True, help="Print texts instead of writing files.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Lowest level that is written to stderr.",
)
@with_patient_client
async def template(
    call: Call,
    templates: tuple[str, ...],
    config: Path | None,
    check: str,
    wait_text: str,
    once: bool,
    dry: bool,
    log_level: str,
) -> int:
    """Render templates over the registry, again whenever what they show has changed.

    \b
    raftreg template --template 'nginx.j2:/etc/nginx/nginx.conf:nginx -s reload'

    Templates are Jinja2 and can ask: services(), service(NAME, passing=, tag=, near=), nodes(),
    kv(KEY, DEFAULT), kv_tree(PREFIX), env(NAME, DEFAULT). A file is replaced as a whole, only when
    its text differs, and keeps its mode and owner; then the command runs (no shell) until it has
    succeeded once. While the registry is out of reach the files stay as they are.

    SIGHUP reads the templates and the TOML file again.
    """  # noqa: D301  # click reads the \b
    if importlib.util.find_spec("jinja2") is None:
        raise ConfigurationError(
            "raftreg template needs Jinja2, which is not installed: pip install 'raftreg[template]'"
        )
    from raftreg_cli.template.loop import Loop  # noqa: PLC0415  # needs the extra `template`

    def plan() -> Plan:
        found = specs.from_options(templates, check)
        waited = specs.wait(wait_text, "--wait") if wait_text else None
        if config is not None:
            more, configured = specs.from_file(config)
            found, waited = (*found, *more), waited or configured
        return Plan(specs.checked(found), waited or specs.Wait())

    logs.configure("text", log_level)
    loop = Loop(
        call.client,
        plan,
        dict(os.environ),
        clock=call.client.clock,
        rng=SystemRandom(),
        once=once,
        dry=dry,
    )
    with process.stop_on_signals(loop.reload, on_stop=loop.stop):
        return await loop.run()
