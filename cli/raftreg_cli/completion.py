"""`raftreg completion`: scripts that complete commands and options in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from raftreg.errors import InvalidRequest
from raftreg_cli.call import with_output
from raftreg_cli.output import Output, show


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@with_output
def completion(shell: str, output: Output) -> None:
    """Print a completion script.

    \b
    bash:  raftreg completion bash > ~/.local/share/bash-completion/completions/raftreg
    zsh:   raftreg completion zsh > "${fpath[1]}/_raftreg"
    fish:  raftreg completion fish > ~/.config/fish/completions/raftreg.fish
    """  # noqa: D301  # click reads the \b
    from raftreg_cli.main import cli  # noqa: PLC0415  # the root imports its commands on use

    kind = get_completion_class(shell)
    if kind is None:
        raise InvalidRequest(f"no completion for {shell}")
    script = kind(cli, {}, "raftreg", "_RAFTREG_COMPLETE").source()
    show(output, {"shell": shell, "script": script}, script)
