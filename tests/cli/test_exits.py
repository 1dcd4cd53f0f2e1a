"""Exit codes: what `--help` says is what the errors do."""

from __future__ import annotations

from collections.abc import Iterator

from click.testing import CliRunner

from raftreg.client import failures  # noqa: F401  # its errors belong to the tree too
from raftreg.errors import RaftregError
from raftreg_cli.exits import EXIT_CODES
from raftreg_cli.main import COMMANDS, cli


def _tree(root: type[RaftregError]) -> Iterator[type[RaftregError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def test_every_error_has_a_documented_code() -> None:
    """No error ends a command with a code that the documentation does not know."""
    undocumented = {e.__name__ for e in _tree(RaftregError) if e.exit_code not in EXIT_CODES}
    assert not undocumented


def test_only_what_may_have_happened_exits_with_7() -> None:
    """A script may repeat after any code but 7: that one alone says that it may have happened."""
    for error in _tree(RaftregError):
        if not error.definite:
            assert error.exit_code in (7, 8), error.__name__


def test_help_lists_all_commands_and_codes() -> None:
    """`raftreg --help` names each command and each code."""
    text = CliRunner().invoke(cli, ["--help"]).output
    for name in COMMANDS:
        assert f"  {name} " in text
    for code in EXIT_CODES:
        assert f"  {code} " in text


def test_every_command_loads_and_has_help() -> None:
    """Each name in the table leads to a command that explains itself."""
    for name in COMMANDS:
        result = CliRunner().invoke(cli, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert "Usage:" in result.output
