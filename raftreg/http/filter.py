"""The filter language of `?filter=`: text to a predicate over rows as they are rendered. Pure.

Grammar, operators and the texts of errors follow Consul's documentation
(https://developer.hashicorp.com/consul/api-docs/features/filtering) and its evaluator
(https://github.com/hashicorp/go-bexpr):

    Service.Meta.env == "prod" and not ("canary" in Service.Tags or Node.Meta["zone"] is empty)

`or` binds weaker than `and`, `and` weaker than `not`. Regular expressions are those of RE2, whose
time grows only with the text (https://github.com/google/re2): a filter can't stall a server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from raftreg.core.patterns import compile_pattern
from raftreg.errors import InvalidRequest
from raftreg.http.filter_fields import Bool, Field, Integer, Struct, Text

Row = Mapping[str, Any]
Predicate = Callable[[Row], bool]

EXPRESSION_CHARS_MAX: Final = 16 * 1024
DEPTH_MAX: Final = 64
MATCHES_MAX: Final = 512

_PREFIX = "Failed to create boolean expression evaluator: "

_SPACE = re.compile(r"[ \t\r\n]*")
_IDENTIFIER = re.compile(r"[a-zA-Z][a-zA-Z0-9_/]*")
_PART = re.compile(r"\.([a-zA-Z][a-zA-Z0-9_/]*|[0-9]+)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?=[ \t\r\n)]|$)")
_STRING = re.compile(r'`([^`]*)`|"((?:[^"\\\n]|\\.)*)"')
_OPERATORS: Final = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\s*==\s*", "Equal"),
        (r"\s*!=\s*", "Not Equal"),
        (r"\s+is\s+not\s+empty(?![a-zA-Z0-9_/])", "Is Not Empty"),
        (r"\s+is\s+empty(?![a-zA-Z0-9_/])", "Is Empty"),
        (r"\s+not\s+contains\s+", "Not In"),
        (r"\s+contains\s+", "In"),
        (r"\s+not\s+matches\s+", "Not Matches"),
        (r"\s+matches\s+", "Matches"),
    )
)
_IN = re.compile(r"\s+(not\s+)?in\s+")
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"'])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = dict(zip("abfnrtv\\\"'", "\a\b\f\n\r\t\v\\\"'", strict=True))

#: Operators that hold where the key of a map, or the whole value, is missing.
_HOLDS_WITHOUT = frozenset({"Not Equal", "Is Empty", "Not In", "Not Matches"})


class _Match(msgspec.Struct, frozen=True):
    path: tuple[str, ...]
    operator: str
    value: str | None
    at: int


class _Not(msgspec.Struct, frozen=True):
    inner: _Expression


class _Both(msgspec.Struct, frozen=True):
    operator: str  #: "and" or "or"
    parts: tuple[_Expression, ...]


_Expression = _Match | _Not | _Both


class _Parser:
    """Recursive descent over one text; every error tells line and column."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._matches = 0

    def parse(self) -> _Expression:
        self._skip()
        expression = self._or()
        self._skip()
        if self._at != len(self._text):
            raise self._wrong("no match found: an operator, and, or, or the end was expected")
        return expression

    def _or(self) -> _Expression:
        return self._chain("or", lambda: self._chain("and", self._not))

    def _chain(self, word: str, part: Callable[[], _Expression]) -> _Expression:
        parts = [part()]
        while self._word_between(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else _Both(word, tuple(parts))

    def _word_between(self, word: str) -> bool:
        """Takes `word` where space is around it (or a parenthesis before or behind)."""
        found = re.compile(rf"\s*\b{word}(?=[\s(])\s*").match(self._text, self._at)
        if found is None or not (found[0][:1].isspace() or self._text[self._at - 1] == ")"):
            return False
        self._at = found.end()
        return True

    def _not(self) -> _Expression:
        negated = False
        while found := re.compile(r"not(?:\s+|(?=\())").match(self._text, self._at):
            negated, self._at = not negated, found.end()
        inner = self._grouped() if self._text[self._at : self._at + 1] == "(" else self._match()
        return _Not(inner) if negated else inner

    def _grouped(self) -> _Expression:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._wrong(f"more than {DEPTH_MAX} levels of parentheses")
        self._at += 1
        self._skip()
        inner = self._or()
        self._skip()
        if self._text[self._at : self._at + 1] != ")":
            raise self._wrong("Unmatched parentheses")
        self._at += 1
        self._depth -= 1
        return inner

    def _match(self) -> _Expression:
        self._matches += 1
        if self._matches > MATCHES_MAX:
            raise self._wrong(f"more than {MATCHES_MAX} match expressions")
        began = self._at
        path = self._selector()
        if path is not None:
            for pattern, name in _OPERATORS:
                found = pattern.match(self._text, self._at)
                if found:
                    self._at = found.end()
                    value = None if name.endswith("Empty") else self._value()
                    return _Match(path, name, value, began)
            self._at = began
        value = self._value()
        found = _IN.match(self._text, self._at)
        if found is None:
            raise self._wrong("no match found: an operator was expected")
        self._at = found.end()
        path = self._selector()
        if path is None:
            raise self._wrong("Invalid selector")
        return _Match(path, "Not In" if found[1] else "In", value, began)

    def _selector(self) -> tuple[str, ...] | None:
        first = _IDENTIFIER.match(self._text, self._at)
        if first is None:
            return None
        self._at = first.end()
        path = [first[0]]
        while True:
            if part := _PART.match(self._text, self._at):
                path.append(part[1])
                self._at = part.end()
            elif self._text[self._at : self._at + 1] == "[":
                path.append(self._index())
            else:
                return tuple(path)

    def _index(self) -> str:
        self._at += 1
        self._skip()
        if self._text[self._at : self._at + 1] not in {'"', "`"}:
            raise self._wrong("Invalid index")
        key = self._string()
        self._skip()
        if self._text[self._at : self._at + 1] != "]":
            raise self._wrong("Unclosed index expression")
        self._at += 1
        return key

    def _value(self) -> str:
        if self._text[self._at : self._at + 1] in {'"', "`"}:
            return self._string()
        number = _NUMBER.match(self._text, self._at)
        if number:
            self._at = number.end()
            return number[0]
        path = self._selector()
        if path is None:
            raise self._wrong("no match found: a selector or a value was expected")
        return ".".join(path)

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        if found is None:
            raise self._wrong("Unterminated string literal")
        began, self._at = self._at, found.end()
        if found[1] is not None:
            return found[1]
        return _ESCAPE.sub(lambda escape: self._unescape(escape, began), found[2])

    def _unescape(self, escape: re.Match[str], at: int) -> str:
        if escape[1]:
            return _ESCAPED[escape[1]]
        digits = escape[2] or escape[3]
        if not digits:
            self._at = at
            raise self._wrong(f"invalid escape {escape[0]} in a string")
        return chr(int(digits, 16))

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _wrong(self, what: str) -> InvalidRequest:
        before = self._text[: self._at]
        line, column = before.count("\n") + 1, self._at - (before.rfind("\n") + 1) + 1
        return InvalidRequest(f"{_PREFIX}{line}:{column} ({self._at}): {what}")


@lru_cache(maxsize=256)
def compile_filter(text: str, fields: Struct) -> Predicate:
    """Makes a predicate out of an expression; the empty one holds everywhere.

    Args:
        text: The expression.
        fields: What the rows have (`raftreg.http.filter_fields`).

    Raises:
        InvalidRequest: It can't be parsed, names a field that the rows don't have, or asks of a
            field what its kind can't answer; the text says what and where.
    """
    if not text:
        return lambda row: True
    if len(text) > EXPRESSION_CHARS_MAX:
        raise InvalidRequest(
            f"{_PREFIX}{len(text)} characters, at most {EXPRESSION_CHARS_MAX} are allowed"
        )
    return _compile(_Parser(text).parse(), fields)


def _compile(expression: _Expression, fields: Struct) -> Predicate:
    match expression:
        case _Match():
            return _compile_match(expression, fields)
        case _Not(inner):
            positive = _compile(inner, fields)
            return lambda row: not positive(row)
        case _Both("and", parts):
            every = [_compile(part, fields) for part in parts]
            return lambda row: all(holds(row) for holds in every)
        case _Both(_, parts):
            some = [_compile(part, fields) for part in parts]
            return lambda row: any(holds(row) for holds in some)


def _compile_match(match: _Match, fields: Struct) -> Predicate:
    field: Field = fields
    for depth, name in enumerate(match.path, 1):
        inner = field.inner(name)
        if inner is None:
            shown = ".".join(match.path[:depth])
            raise InvalidRequest(f'{_PREFIX}Selector "{shown}" is not valid')
        field = inner
    shown = ".".join(match.path)
    if match.operator not in field.operators:
        raise InvalidRequest(
            f'{_PREFIX}Invalid match operator "{match.operator}" for selector "{shown}"'
        )
    test = _test(match, field, shown)
    missing = match.operator in _HOLDS_WITHOUT
    return lambda row: _reach(row, match.path, test, missing)


def _reach(value: Any, path: tuple[str, ...], test: Callable[[Any], bool], missing: bool) -> bool:
    """Follows the path; in a list of records, any one of them may hold."""
    for depth, name in enumerate(path):
        if isinstance(value, list):
            return any(_reach(item, path[depth:], test, missing) for item in value)
        if not isinstance(value, Mapping) or name not in value:
            return missing
        value = value[name]
    return test(value)


def _test(match: _Match, field: Field, shown: str) -> Callable[[Any], bool]:
    negative = match.operator.startswith(("Not ", "Is Not "))
    positive = _positive(match, field, shown)
    return (lambda value: not positive(value)) if negative else positive


def _positive(match: _Match, field: Field, shown: str) -> Callable[[Any], bool]:
    """The test of the operator without its "not"."""
    raw = match.value
    if raw is None:
        return lambda value: not value
    if match.operator.endswith("Matches"):
        pattern = _pattern(raw)
        return lambda value: pattern.search(value or "") is not None
    if match.operator.endswith("In"):
        return lambda value: raw in (value or "")
    wanted = _coerce(raw, field, shown)
    empty = "" if isinstance(field, Text) else None
    return lambda value: (empty if value is None else value) == wanted


def _coerce(raw: str, field: Field, shown: str) -> str | int | bool:
    match field:
        case Bool():
            known = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
            if raw.lower() in known:
                return known[raw.lower()]
        case Integer():
            try:
                return int(raw, 0)
            except ValueError:
                pass
        case _:
            return raw
    raise InvalidRequest(
        f'{_PREFIX}Failed to coerce value "{raw[:100]}" for selector "{shown}": invalid syntax'
    )


def _pattern(raw: str) -> Any:
    try:
        return compile_pattern(raw)
    except InvalidRequest as error:
        raise InvalidRequest(f"{_PREFIX}{error.message}") from error
