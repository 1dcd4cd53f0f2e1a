"""Bodies of configuration entries: keys in any case, durations as Go has them. Pure.

What comes out has the keys of `raftreg.core.entries`. Keys of maps (metadata, names of subsets) and
everything under `Config` and the like stay as they are: they belong to whoever wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec

from raftreg.core.durations import format_duration, parse_duration
from raftreg.core.entries import KINDS, SERVICE_INTENTIONS, SERVICE_RESOLVER
from raftreg.core.entries.common import DURATION
from raftreg.core.entry_rules import ONLY_NAMES
from raftreg.core.patterns import compile_pattern
from raftreg.errors import InvalidRequest, TooLarge
from raftreg.http.fields import fold
from raftreg.http.filter import Predicate, compile_filter
from raftreg.http.filter_fields import (
    HEALTH_ENTRY,
    Bool,
    Field,
    Integer,
    Records,
    Struct,
    Text,
    TextMap,
    Texts,
    struct,
)
from raftreg.model import ConfigEntry

ENTRY_BYTES_MAX: Final = 256 * 1024
#: What answers hold beside the entry; clients send them back as they got them.
_WRITTEN_BY_US = frozenset({"createindex", "modifyindex", "hash"})
_TENANCY = frozenset({"Namespace", "Partition"})
_PATTERNS = frozenset({"PathRegex", "Regex"})

Reader = Callable[[Any, str], Any]


def config_entry(obj: object, *, kind: str = "") -> ConfigEntry:
    """Reads an entry.

    Args:
        obj: The decoded body.
        kind: What it must be; "" takes the kind that it names.

    Raises:
        InvalidRequest: It can't be used; the text names the field.
        TooLarge: It is too large.
    """
    if not isinstance(obj, dict):
        raise InvalidRequest("Request decoding failed: the body must be a JSON object")
    named = {fold(key): value for key, value in obj.items()}
    found = kind or _kind(named.get("kind"))
    body = typed(KINDS[found], {**obj, **({} if "kind" in named else {"Kind": found})})
    if body.pop("Kind") != found:
        raise InvalidRequest(f"Request decoding failed: Kind must be {found!r}")
    name = body.pop("Name", "") or ONLY_NAMES.get(found, "")
    if not name:
        raise InvalidRequest("Request decoding failed: Name is required")
    for field in _TENANCY:
        body.pop(field, None)
    if found == SERVICE_RESOLVER:
        _check_filters(body)
    entry = ConfigEntry(kind=found, name=name, body=body)
    size = len(msgspec.json.encode(body))
    if size > ENTRY_BYTES_MAX:
        raise TooLarge(f"{found} {name!r} has {size} bytes, more than {ENTRY_BYTES_MAX}")
    return entry


def known_kind(kind: str) -> str:
    """Gives the kind back.

    Raises:
        InvalidRequest: There is none of that name.
    """
    if kind not in KINDS:
        raise InvalidRequest(f"invalid config entry kind: {kind[:64]!r}")
    return kind


def typed(shape: Any, obj: object, where: str = "") -> dict[str, Any]:
    """Reads an object as a TypedDict: keys folded, types checked, nulls dropped.

    Raises:
        InvalidRequest: A field is unknown or of the wrong type; the text names it.
    """
    folded = _reader(shape)(obj, where)
    try:
        result: dict[str, Any] = msgspec.convert(folded, shape, strict=False)
    except msgspec.ValidationError as error:
        place = str(error).replace("`$.", f"`{where}." if where else "`")
        place = place.replace("`$`", f"`{where or 'the body'}`")
        raise InvalidRequest(f"Request decoding failed: {place}") from error
    return result


def entry_filter(kind: str, expression: str) -> Predicate:
    """The predicate of `?filter` over entries of a kind, as they are rendered.

    Raises:
        InvalidRequest: It is no expression, or asks for a field that there is not.
    """
    return compile_filter(expression, _filter_fields(kind))


@lru_cache(maxsize=32)
def _filter_fields(kind: str) -> Struct:
    fields = _selectable(KINDS[kind])
    assert isinstance(fields, Struct)
    return fields


def _selectable(shape: Any) -> Field | None:
    """What a filter may ask of a type; None where it can ask nothing."""
    shape = _bare(shape)
    origin, arguments = get_origin(shape), get_args(shape)
    if origin is Annotated:
        return _selectable(arguments[0])
    if is_typeddict(shape):
        found = {
            name: _selectable(hint)
            for name, hint in get_type_hints(shape, include_extras=True).items()
        }
        return struct(**{name: field for name, field in found.items() if field is not None})
    if origin is list:
        return _listed(_selectable(arguments[0]))
    if origin is dict:
        value = _selectable(arguments[1])
        return TextMap() if value is None else TextMap(value=value)
    if origin is Literal:
        return Text()
    return {str: Text(), bool: Bool(), int: Integer()}.get(shape)


def _listed(item: Field | None) -> Field | None:
    """A list of texts, or of records."""
    if isinstance(item, Struct):
        return Records(record=item)
    return Texts() if isinstance(item, Text) else None


def _kind(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidRequest(
            "Request decoding failed: Payload does not contain a Kind key at the top level"
        )
    return known_kind(value)


def _check_filters(body: Mapping[str, Any]) -> None:
    """Subsets are filters over health entries."""
    for name, subset in body.get("Subsets", {}).items():
        try:
            compile_filter(subset.get("Filter", ""), HEALTH_ENTRY)
        except InvalidRequest as error:
            raise InvalidRequest(
                f"Filter for subset {name!r} is not a valid expression: {error.message}"
            ) from error


# -- readers by type -------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def _reader(shape: Any) -> Reader:
    """What turns a value into the form of a type; types themselves are checked afterwards."""
    if get_origin(shape) is Annotated:
        inner, *notes = get_args(shape)
        if any((getattr(note, "extra", None) or {}).get(DURATION) for note in notes):
            return _duration
        return _reader(inner)
    if is_typeddict(shape):
        return _Object(shape)
    origin, arguments = get_origin(shape), get_args(shape)
    if origin is list:
        return _list_of(_reader(arguments[0]))
    if origin is dict:
        return _map_of(_reader(arguments[1]))
    return _as_it_is


def _as_it_is(value: Any, where: str) -> Any:
    del where
    return value


def _duration(value: Any, where: str) -> Any:
    if value == "":
        return value
    try:
        return format_duration(parse_duration(value))
    except InvalidRequest as error:
        raise InvalidRequest(f"Request decoding failed: {where}: {error.message}") from error


def _list_of(reader: Reader) -> Reader:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            return value
        return [reader(item, f"{where}[{at}]") for at, item in enumerate(value)]

    return read


def _map_of(reader: Reader) -> Reader:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: reader(item, f"{where}[{key!r}]") for key, item in value.items()}

    return read


class _Object:
    """Reads an object of named fields.

    Args:
        shape: A TypedDict.
    """

    def __init__(self, shape: Any) -> None:
        hints = get_type_hints(shape, include_extras=True)
        self._fields = MappingProxyType({fold(name): name for name in hints})
        self._types = hints

    def __call__(self, value: Any, where: str) -> Any:
        """The object with its fields' own names; what is no object is left to the type check."""
        if isinstance(value, list) and len(value) == 1:
            value = value[0]  # how HCL, turned into JSON, says an object
        if not isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        for key, item in value.items():
            name = self._name(key, where)
            if item is None or name is None:
                continue
            place = f"{where}.{name}" if where else name
            found[name] = _checked(name, _reader(_bare(self._types[name]))(item, place), place)
        return found

    def _name(self, key: str, where: str) -> str | None:
        """The field that a key means; None for what only we write."""
        name = self._fields.get(fold(key))
        if name is None and not (where == "" and fold(key) in _WRITTEN_BY_US):
            place = f" in {where}" if where else ""
            raise InvalidRequest(
                f'Request decoding failed: invalid config key "{key[:128]}"{place}: unknown field'
            )
        return name


def _bare(hint: Any) -> Any:
    """A type without `Required` and `NotRequired`."""
    origin = get_origin(hint)
    if origin is not None and getattr(origin, "_name", None) in {"Required", "NotRequired"}:
        return get_args(hint)[0]
    return hint


def _checked(name: str, value: Any, where: str) -> Any:
    """Values that no type can hold to their rules."""
    if name in _TENANCY and value not in ("", "default"):
        raise InvalidRequest(f'{where}: there is only "default", got {str(value)[:64]!r}')
    if name in _PATTERNS and isinstance(value, str):
        try:
            compile_pattern(value)
        except InvalidRequest as error:
            raise InvalidRequest(f"{where}: {error.message}") from error
    if name == "Methods" and isinstance(value, list):
        return [item.upper() if isinstance(item, str) else item for item in value]
    return value


__all__ = ["ENTRY_BYTES_MAX", "SERVICE_INTENTIONS", "config_entry", "known_kind", "typed"]
