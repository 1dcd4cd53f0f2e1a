"""Conditions on requests, compiled once: path, headers, query and method. Pure.

Their fields are those of Consul's service-router and service-intentions, and mean what they mean to
Envoy, which Consul hands them to: expressions match whole values, and a header that is missing
meets no condition on its value, inverted or not.
https://developer.hashicorp.com/consul/docs/reference/config-entry/service-router
https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/route/v3/route_components.proto
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raftreg.core.entries.access import HTTPPermission
from raftreg.core.entries.common import HeaderMatch, QueryMatch
from raftreg.core.entries.routing import RouteHTTPMatch
from raftreg.core.patterns import compile_pattern
from raftreg.errors import InvalidRequest
from raftreg.mesh.nouns import Call, MeshConfigError

#: Tells whether a call meets a condition.
Condition = Callable[[Call], bool]
_TextTest = Callable[[str], bool]


def always(call: Call) -> bool:
    """Is met by every call."""
    del call
    return True


def http_condition(match: RouteHTTPMatch | HTTPPermission, where: str) -> Condition:
    """Compiles conditions of which all must hold.

    Args:
        match: What is asked of a request.
        where: Field that it stands in, for errors.

    Raises:
        MeshConfigError: A condition is none, or an expression can't be compiled.
    """
    insensitive = bool(match.get("CaseInsensitive"))
    headers = match.get("Header", ())
    conditions = [
        *_methods(match.get("Methods", ())),
        *_path(match, where, insensitive=insensitive),
        *(_header(each, f"{where}.Header[{at}]") for at, each in enumerate(headers)),
        *(_query(each, f"{where}.QueryParam[{at}]") for at, each in enumerate(_params(match))),
    ]
    return all_of(conditions)


def all_of(conditions: Sequence[Condition]) -> Condition:
    """Is met when all are; they are asked in this order."""
    if not conditions:
        return always
    if len(conditions) == 1:
        return conditions[0]

    def met(call: Call) -> bool:
        for condition in conditions:  # noqa: SIM110 - a generator costs more than the loop
            if not condition(call):
                return False
        return True

    return met


def from_sources(names: Sequence[str]) -> Condition:
    """Is met by calls of these services."""
    wanted = frozenset(names)
    return lambda call: call.source in wanted


def pattern(text: str, where: str) -> _TextTest:
    """Compiles an expression that matches whole texts.

    Raises:
        MeshConfigError: It can't be compiled.
    """
    try:
        compiled: Any = compile_pattern(text)
    except InvalidRequest as error:
        raise MeshConfigError(f"{where}: {error.message}") from error
    return lambda value: compiled.fullmatch(value) is not None


def _params(match: Any) -> Sequence[QueryMatch]:
    """Only routes look at the query."""
    found: Sequence[QueryMatch] = match.get("QueryParam", ())
    return found


def _methods(methods: Sequence[str]) -> list[Condition]:
    wanted = frozenset(methods)
    return [lambda call: call.method in wanted] if wanted else []


def _path(
    match: RouteHTTPMatch | HTTPPermission, where: str, *, insensitive: bool
) -> list[Condition]:
    if exact := match.get("PathExact"):
        return [_path_test(exact, "exact", insensitive=insensitive)]
    prefix = match.get("PathPrefix")
    if prefix and prefix != "/":
        return [_path_test(prefix, "prefix", insensitive=insensitive)]
    if regex := match.get("PathRegex"):
        test = pattern(regex, f"{where}.PathRegex")
        return [lambda call: test(call.path)]
    return []


def _path_test(wanted: str, kind: str, *, insensitive: bool) -> Condition:
    if kind == "exact":
        if insensitive:
            folded = wanted.lower()
            return lambda call: call.path.lower() == folded
        return lambda call: call.path == wanted
    if insensitive:
        start = wanted.lower()
        return lambda call: call.path[: len(wanted)].lower() == start
    return lambda call: call.path.startswith(wanted)


def _header(match: HeaderMatch, where: str) -> Condition:
    name = match.get("Name", "").lower()
    invert = bool(match.get("Invert"))
    if match.get("Present"):
        return lambda call: (name in call.headers) is not invert
    test = _value_test(match, where)

    def met(call: Call) -> bool:
        value = call.headers.get(name)
        return value is not None and test(value) is not invert

    return met


def _value_test(match: HeaderMatch, where: str) -> _TextTest:
    if regex := match.get("Regex"):
        return pattern(regex, f"{where}.Regex")
    wanted, kind = _wanted(match, where)
    if not match.get("IgnoreCase"):
        return _text_test(wanted, kind)
    folded = _text_test(wanted.lower(), kind)
    return lambda value: folded(value.lower())


def _wanted(match: HeaderMatch, where: str) -> tuple[str, str]:
    found = {
        "Exact": match.get("Exact"),
        "Prefix": match.get("Prefix"),
        "Suffix": match.get("Suffix"),
        "Contains": match.get("Contains"),
    }
    for kind, wanted in found.items():
        if wanted:
            return wanted, kind
    raise MeshConfigError(
        f"{where}: one of Present, Exact, Prefix, Suffix, Contains or Regex is required"
    )


def _text_test(wanted: str, kind: str) -> _TextTest:
    match kind:
        case "Exact":
            return lambda value: value == wanted
        case "Prefix":
            return lambda value: value.startswith(wanted)
        case "Suffix":
            return lambda value: value.endswith(wanted)
        case _:
            return lambda value: wanted in value


def _query(match: QueryMatch, where: str) -> Condition:
    name = match.get("Name", "")
    if match.get("Present"):
        return lambda call: name in call.query
    if regex := match.get("Regex"):
        test = pattern(regex, f"{where}.Regex")
        return lambda call: name in call.query and test(call.query[name])
    exact = match.get("Exact", "")
    if not exact:
        raise MeshConfigError(f"{where}: one of Present, Exact or Regex is required")
    return lambda call: call.query.get(name) == exact
