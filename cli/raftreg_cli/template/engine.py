"""Templates: answers of the registry in, text and further questions out. No I/O but its files.

Jinja2's immutable sandbox runs them, so that a template can do no more than write text; a name
that is not defined is an error, not an empty place in a configuration file. While it renders, a
template asks questions (`service("web")`). They are recorded; one that has no answer yet gets an
empty one, and the text is thrown away: the caller finds the answers, and renders again.
"""

from __future__ import annotations

import ipaddress
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from jinja2.sandbox import ImmutableSandboxedEnvironment

from raftreg.errors import ConfigurationError
from raftreg_cli.template.queries import (
    Instance,
    Key,
    Nodes,
    NodeView,
    Query,
    Service,
    ServiceName,
    Services,
    Tree,
    nothing,
)

TEXT_BYTES_MAX = 64 * 1024 * 1024
#: Each question holds one connection.
QUERIES_MAX = 500
_REQUIRED = object()
_DNS_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HOST_CHARS_MAX = 255


class Complete(msgspec.Struct, frozen=True):
    """The text, and all that it depends on."""

    text: bytes
    used: frozenset[Query]


class Waiting(msgspec.Struct, frozen=True):
    """Some questions have no answer yet."""

    used: frozenset[Query]
    missing: frozenset[Query]


class Failed(msgspec.Struct, frozen=True):
    """The template could not make a text of these answers."""

    message: str
    used: frozenset[Query]


Rendering = Complete | Waiting | Failed


class Template:
    """A template file; what it includes lies beside it.

    Args:
        source: The file.
        variables: What `env(…)` sees.

    Raises:
        ConfigurationError: It can't be read or compiled; the text names file and line.
    """

    def __init__(self, source: Path, variables: Mapping[str, str]) -> None:
        self._root = source.resolve().parent
        self._source = source
        self._asked = _Asked({})
        self._variables = variables
        environment = ImmutableSandboxedEnvironment(
            loader=jinja2.FileSystemLoader(self._root),
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
            autoescape=False,  # not HTML: configuration files of any kind
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.globals.update(self._functions())
        environment.filters["fromjson"] = _from_json
        environment.tests["dns_label"] = _is_dns_label
        environment.tests["host"] = _is_host
        try:
            self._template = environment.get_template(source.name)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigurationError(f"{error.filename}:{error.lineno}: {error.message}") from error
        except jinja2.TemplateNotFound as error:
            raise ConfigurationError(f"there is no template {source}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"can't read {source}: {error}") from error

    def render(self, answers: Mapping[Query, Any]) -> Rendering:
        """Renders with these answers."""
        asked = self._asked = _Asked(answers)
        try:
            text = self._text()
        except Exception as error:  # noqa: BLE001  # a template can fail in any way; all are its own
            if asked.missing:  # with empty answers it may: rendered again when they are there
                return Waiting(frozenset(asked.used), frozenset(asked.missing))
            return Failed(self._explained(error), frozenset(asked.used))
        if asked.missing:
            return Waiting(frozenset(asked.used), frozenset(asked.missing))
        return Complete(text, frozenset(asked.used))

    def _text(self) -> bytes:
        parts: list[bytes] = []
        left_bytes = TEXT_BYTES_MAX
        for part in self._template.generate():
            parts.append(part.encode())
            left_bytes -= len(parts[-1])
            if left_bytes < 0:
                raise ValueError(f"the text is longer than {TEXT_BYTES_MAX} bytes")
        return b"".join(parts)

    def _explained(self, error: Exception) -> str:
        """The error with the line of the template, or of what it includes, that led to it."""
        if isinstance(error, jinja2.TemplateSyntaxError):
            return f"{error.filename}:{error.lineno}: {error.message}"
        where = str(self._source)
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename).is_relative_to(self._root):
                where = f"{frame.filename}:{frame.lineno}"
        return f"{where}: {error}" if str(error) else f"{where}: {type(error).__name__}"

    # -- what templates call ---------------------------------------------------------------------

    def _functions(self) -> dict[str, Callable[..., Any]]:
        return {
            "services": self._services,
            "service": self._service,
            "nodes": self._nodes,
            "kv": self._kv,
            "kv_tree": self._kv_tree,
            "env": self._env,
        }

    def _services(self, tag: str | None = None) -> Sequence[ServiceName]:
        found: Sequence[ServiceName] = self._asked.answer(Services())
        return [one for one in found if tag is None or tag in one.tags]

    def _service(
        self,
        name: str,
        *,
        passing: bool = True,
        tag: str | Sequence[str] = (),
        near: str = "",
    ) -> Sequence[Instance]:
        tags = (tag,) if isinstance(tag, str) else tuple(tag)
        found: Sequence[Instance] = self._asked.answer(Service(name, passing, tags, near))
        return found

    def _nodes(self) -> Sequence[NodeView]:
        found: Sequence[NodeView] = self._asked.answer(Nodes())
        return found

    def _kv(self, key: str, default: Any = _REQUIRED) -> Any:
        value: bytes | None = self._asked.answer(Key(key))
        if value is not None:
            return _decoded(key, value)
        if default is not _REQUIRED:
            return default
        raise LookupError(f"there is no key {key!r} (a default helps: kv({key!r}, ''))")

    def _kv_tree(self, prefix: str) -> dict[str, str]:
        found: dict[str, bytes] = self._asked.answer(Tree(prefix))
        return {key: _decoded(prefix + key, value) for key, value in found.items()}

    def _env(self, name: str, default: Any = _REQUIRED) -> Any:
        value = self._variables.get(name, default)
        if value is _REQUIRED:
            raise LookupError(f"the environment has no {name} (a default helps: env({name!r}, ''))")
        return value


class _Asked:
    """The questions of one rendering."""

    def __init__(self, answers: Mapping[Query, Any]) -> None:
        self._answers = answers
        self.used: set[Query] = set()
        self.missing: set[Query] = set()

    def answer(self, query: Query) -> Any:
        self.used.add(query)
        if len(self.used) > QUERIES_MAX:
            raise ValueError(f"it asks more than {QUERIES_MAX} different questions")
        if query in self._answers:
            return self._answers[query]
        self.missing.add(query)
        return nothing(query)


def _decoded(key: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"the value of key {key!r} is no text: {error}") from error


def _is_dns_label(value: object) -> bool:
    """A name that can't be mistaken for syntax: anybody may register anything."""
    return isinstance(value, str) and _DNS_LABEL.fullmatch(value) is not None


def _is_host(value: object) -> bool:
    """An IP address or a DNS name."""
    if not isinstance(value, str) or len(value) > _HOST_CHARS_MAX:
        return False
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return all(_is_dns_label(part) for part in value.removesuffix(".").split("."))
    return "%" not in value  # a zone may hold any text


def _from_json(text: str) -> Any:
    return msgspec.json.decode(text)
