"""Templates of prepared queries: the texts of a query with the name asked for filled in. Pure.

`${name.full}`, `${name.prefix}`, `${name.suffix}`, `${match(N)}` and `${agent.segment}` stand for
parts of the name (https://developer.hashicorp.com/consul/api-docs/query#prepared-query-templates);
`$${` stands for `${` itself. What else Consul's interpolation language (HIL) can compute is
refused when the query is written, and so never fails when it is executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from raftreg.core.patterns import compile_pattern
from raftreg.errors import InvalidRequest
from raftreg.model import PreparedQuery, QueryFailover, QueryService, QueryTarget

NAME_PREFIX_MATCH: Final = "name_prefix_match"
#: A text of a query may hold so many characters once it is rendered; more are cut off.
RENDERED_CHARS_MAX: Final = 4096

_PIECE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_MATCH = re.compile(r"match\(\s*([0-9]{1,9})\s*\)")
_NAMES: Final = ("name.full", "name.prefix", "name.suffix", "agent.segment")

#: Fills one text, given (path in the query, text).
_Fill = Callable[[str, str], str]


class _Values(msgspec.Struct, frozen=True):
    """What the interpolations of one rendering stand for."""

    named: dict[str, str]
    matches: Sequence[str]

    def value(self, expression: str) -> str | None:
        """What an expression stands for; None when it is none."""
        expression = expression.strip()
        match = _MATCH.fullmatch(expression)
        if match is None:
            return self.named.get(expression)
        number = int(match[1])
        return self.matches[number] if number < len(self.matches) else ""


def check_template(query: PreparedQuery) -> None:
    """Makes sure that a query can be rendered for each name.

    Raises:
        InvalidRequest: Its type, its expression or one of its texts can't be used.
    """
    template = query.template
    if not template.type:
        return
    if template.type != NAME_PREFIX_MATCH:
        raise InvalidRequest(f"Bad Template.Type '{template.type[:64]}'")
    if template.regexp:
        try:
            compile_pattern(template.regexp)
        except InvalidRequest as error:
            raise InvalidRequest(f"Bad Regexp: {error.message}") from error
    _mapped(query.service, _checked)


def render(query: PreparedQuery, name: str, *, segment: str = "") -> PreparedQuery:
    """Fills the name asked for into the texts of a template's service; other queries stay.

    Args:
        query: The query, as `check_template` let it through.
        name: The whole name that was asked for.
        segment: Network segment of the agent that asks.
    """
    template = query.template
    if not template.type:
        return query
    values = _Values(
        {
            "name.full": name,
            "name.prefix": query.name,
            "name.suffix": _suffix(name, query.name),
            "agent.segment": segment,
        },
        _matches(template.regexp, name),
    )
    service = _mapped(query.service, lambda _, text: _filled(text, values))
    if template.remove_empty_tags:
        kept = tuple(tag for tag in service.tags if tag)
        service = msgspec.structs.replace(service, tags=kept)
    return msgspec.structs.replace(query, service=service)


def _suffix(name: str, prefix: str) -> str:
    return name[len(prefix) :] if name.lower().startswith(prefix.lower()) else name


def _matches(regexp: str, name: str) -> Sequence[str]:
    """The whole match and the groups, as far as the expression matches at all."""
    if not regexp:
        return ()
    try:
        found = compile_pattern(regexp).search(name)
    except InvalidRequest:  # written when another version of RE2 took it
        return ()
    return () if found is None else (found[0], *(group or "" for group in found.groups()))


def _filled(text: str, values: _Values) -> str:
    def fill(piece: re.Match[str]) -> str:
        if piece[1] is None:
            return "${"
        return values.value(piece[1]) or ""

    return _PIECE.sub(fill, text)[:RENDERED_CHARS_MAX]


def _checked(path: str, text: str) -> str:
    """Refuses a text with an interpolation that stands for nothing."""
    known = _Values(dict.fromkeys(_NAMES, ""), ())
    for piece in _PIECE.finditer(text):
        if piece[0] == "$${":
            continue
        if piece[1] is None:
            raise InvalidRequest(f"Bad format '{text[:200]}' in Service{path}: expected '}}'")
        if known.value(piece[1]) is None:
            raise InvalidRequest(
                f"Bad format '{text[:200]}' in Service{path}: '${{{piece[1][:64]}}}' is none of "
                f"{', '.join(_NAMES)}, match(N)"
            )
    return text


def _mapped(service: QueryService, fill: _Fill) -> QueryService:
    """The service with each of its texts filled."""
    return QueryService(
        service=fill(".Service", service.service),
        failover=_mapped_failover(service.failover, fill),
        only_passing=service.only_passing,
        ignore_check_ids=_all(".IgnoreCheckIDs", service.ignore_check_ids, fill),
        near=fill(".Near", service.near),
        tags=_all(".Tags", service.tags, fill),
        node_meta=_each(".NodeMeta", service.node_meta, fill),
        service_meta=_each(".ServiceMeta", service.service_meta, fill),
        connect=service.connect,
    )


def _mapped_failover(failover: QueryFailover, fill: _Fill) -> QueryFailover:
    targets = [
        QueryTarget(
            service=fill(f".Failover.Targets[{number}].Service", target.service),
            datacenter=fill(f".Failover.Targets[{number}].Datacenter", target.datacenter),
            peer=fill(f".Failover.Targets[{number}].Peer", target.peer),
        )
        for number, target in enumerate(failover.targets)
    ]
    return QueryFailover(
        nearest_n=failover.nearest_n,
        datacenters=_all(".Failover.Datacenters", failover.datacenters, fill),
        targets=tuple(targets),
    )


def _all(path: str, texts: tuple[str, ...], fill: _Fill) -> tuple[str, ...]:
    return tuple(fill(f"{path}[{number}]", text) for number, text in enumerate(texts))


def _each(path: str, texts: dict[str, str], fill: _Fill) -> dict[str, str]:
    return {key: fill(f"{path}[{key}]", text) for key, text in texts.items()}
