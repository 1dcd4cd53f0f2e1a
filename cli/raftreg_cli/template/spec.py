"""What is to be rendered: options of the command line, or a TOML file, to one list of jobs."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from raftreg.core.durations import parse_duration
from raftreg.errors import ConfigurationError, InvalidRequest

TEMPLATES_MAX = 256
FILE_BYTES_MAX = 1 << 20
NEW_FILE_MODE = 0o644
COMMAND_TIMEOUT_S = 30.0
#: In the arguments of a check: the file to look at.
CANDIDATE = "{}"

Argv = tuple[str, ...]


class Wait(msgspec.Struct, frozen=True):
    """How long changes are gathered.

    Attributes:
        min_s: Seconds without a change before a file is rendered.
        max_s: Seconds from the first change after which it is rendered all the same.
    """

    min_s: float = 0.1
    max_s: float = 1.0


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One file to keep current.

    Attributes:
        source: The template.
        destination: The file.
        command: Run after the file has changed; () runs nothing.
        check: Run before, `{}` being a file with the new text; unless it ends with 0 the file
            stays as it is.
        command_timeout_s: Longest run of either, in seconds.
        mode: Mode of a file that is made; one that exists keeps its own.
    """

    source: Path
    destination: Path
    command: Argv = ()
    check: Argv = ()
    command_timeout_s: float = COMMAND_TIMEOUT_S
    mode: int = NEW_FILE_MODE


class Plan(msgspec.Struct, frozen=True):
    """All that one process does."""

    specs: tuple[Spec, ...]
    wait: Wait


_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    source: _Text
    destination: _Text
    command: tuple[_Text, ...] = ()
    check: tuple[_Text, ...] = ()
    command_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = COMMAND_TIMEOUT_S
    mode: Annotated[str, msgspec.Meta(pattern="^0?[0-7]{3}$")] = f"{NEW_FILE_MODE:o}"


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    wait: str = ""
    template: Annotated[tuple[_Table, ...], msgspec.Meta(min_length=1, max_length=TEMPLATES_MAX)]


def from_options(templates: Sequence[str], check: str) -> tuple[Spec, ...]:
    """Reads `IN:OUT[:COMMAND]` texts; `check` is for all of them.

    Raises:
        ConfigurationError: One can't be read.
    """
    return tuple(_from_option(text, check) for text in templates)


def _from_option(text: str, check: str) -> Spec:
    source, _, rest = text.partition(":")
    destination, _, command = rest.partition(":")
    if not source or not destination:
        raise ConfigurationError(f"--template {text!r}: give IN:OUT or IN:OUT:COMMAND")
    return Spec(
        source=Path(source),
        destination=Path(destination),
        command=argv(command, "--template"),
        check=argv(check, "--check"),
    )


def argv(text: str, where: str) -> Argv:
    """Splits a command as a shell would; no shell runs it, so nothing in it is expanded.

    Raises:
        ConfigurationError: A quote is not closed.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigurationError(f"{where}: {text!r}: {error}") from error


def from_file(path: Path) -> tuple[tuple[Spec, ...], Wait | None]:
    """Reads a TOML file; its paths are relative to its folder.

    Raises:
        ConfigurationError: It can't be read; the text says what and where.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise ConfigurationError(f"can't read {path}: {problem.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    try:
        found = msgspec.convert(tomllib.loads(data.decode()), _File)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    folder = path.resolve().parent
    specs = tuple(
        Spec(
            source=folder / table.source,
            destination=folder / table.destination,
            command=table.command,
            check=table.check,
            command_timeout_s=table.command_timeout_s,
            mode=int(table.mode, 8),
        )
        for table in found.template
    )
    return specs, wait(found.wait, str(path)) if found.wait else None


def wait(text: str, where: str) -> Wait:
    """Reads `MIN:MAX` or `MIN` (durations as "100ms" or "2s"); MAX is four times MIN by default.

    Raises:
        ConfigurationError: It can't be read.
    """
    first, _, second = text.partition(":")
    try:
        min_s = parse_duration(first)
        max_s = parse_duration(second) if second else 4 * min_s
    except InvalidRequest as error:
        raise ConfigurationError(f"{where}: wait {text!r}: {error.message}") from error
    if not 0 <= min_s <= max_s:
        raise ConfigurationError(f"{where}: wait {text!r}: give MIN:MAX with MIN not above MAX")
    return Wait(min_s, max_s)


def checked(specs: Sequence[Spec]) -> tuple[Spec, ...]:
    """Refuses what can't be done together.

    Raises:
        ConfigurationError: Nothing is asked for, too much, or one file twice.
    """
    if not specs:
        raise ConfigurationError("nothing to render: give --template IN:OUT[:COMMAND] or --config")
    if len(specs) > TEMPLATES_MAX:
        raise ConfigurationError(f"more than {TEMPLATES_MAX} templates")
    seen: set[Path] = set()
    for spec in specs:
        target = spec.destination.resolve()
        if target in seen:
            raise ConfigurationError(f"two templates write {spec.destination}")
        if target == spec.source.resolve():
            raise ConfigurationError(f"{spec.source} would overwrite itself")
        seen.add(target)
    return tuple(specs)
