"""Definition files of `--config-dir`: Consul's JSON with services and checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from raftreg.errors import ConfigurationError, InvalidRequest
from raftreg.http import json
from raftreg.http.decode import (
    CheckDefinition,
    ServiceDefinition,
    check_definition,
    service_definition,
)
from raftreg.http.fields import fold

FILE_BYTES_MAX = 1 << 20
FILES_MAX = 10_000
_T = TypeVar("_T")


class Definitions(msgspec.Struct, frozen=True):
    """All that the files of a directory define, by id."""

    services: dict[str, ServiceDefinition] = {}
    checks: dict[str, CheckDefinition] = {}


def load(directory: Path, node: str) -> Definitions:
    """Reads every `*.json` of a directory.

    Args:
        directory: What `--config-dir` names.
        node: Name of this host.

    Raises:
        ConfigurationError: A file can't be used; the text names file and field.
    """
    if not directory.is_dir():
        raise ConfigurationError(f"--config-dir {directory}: there is no such directory")
    paths = sorted(directory.glob("*.json"))
    if len(paths) > FILES_MAX:
        raise ConfigurationError(f"--config-dir {directory}: more than {FILES_MAX} files")
    found = Definitions(services={}, checks={})
    for path in paths:
        try:
            _add_file(found, _read(path), node)
        except (InvalidRequest, OSError) as error:
            raise ConfigurationError(f"{path}: {error}") from error
    return found


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise InvalidRequest(f"larger than {FILE_BYTES_MAX} bytes")
    value = json.loads(data)
    if not isinstance(value, dict):
        raise InvalidRequest('must hold a JSON object such as {"service": {...}}')
    return value


def _add_file(found: Definitions, body: dict[str, Any], node: str) -> None:
    for key, value in body.items():
        match fold(key):
            case "service" | "services":
                for where, item in _items(key, value):
                    definition = _at(where, partial(service_definition, item, node=node))
                    _add(found.services, definition.service.id, definition, f"{where}: service")
            case "check" | "checks":
                for where, item in _items(key, value):
                    check = _at(where, partial(check_definition, item))
                    _add(found.checks, check.check_id, check, f"{where}: check")
            case _:
                raise InvalidRequest(f"unknown field {key!r} (known: service(s), check(s))")


def _items(key: str, value: object) -> Iterable[tuple[str, object]]:
    """The objects under a key: one, or a list of them, each with its place."""
    if fold(key) in {"service", "check"}:
        return [(key, value)]
    if not isinstance(value, list):
        raise InvalidRequest(f"{key} must be a list")
    return [(f"{key}[{number}]", item) for number, item in enumerate(value)]


def _at(where: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}") from error


def _add(table: dict[str, _T], key: str, value: _T, what: str) -> None:
    if key in table:
        raise InvalidRequest(f"{what} {key!r} is defined twice")
    table[key] = value
