"""Reading of what clients send: query options. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from raftreg.core.durations import parse_duration
from raftreg.errors import InvalidRequest

WAIT_DEFAULT_S = 300.0
WAIT_MAX_S = 600.0
_SHOWN_CHARS_MAX = 64


class Consistency(enum.Enum):
    """How new an answer must be."""

    DEFAULT = "default"
    CONSISTENT = "consistent"
    STALE = "stale"


class ReadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a read, as its query string gives them.

    Attributes:
        index: Answer only when the result's index is above it; 0: answer at once.
        wait_s: Longest time to block, in seconds, without jitter.
        cached, max_age_s: The answer may come from an agent's view (of at most this age).
        dc: Datacenter asked for; "" means this one.
        tags: An instance must carry all of them.
        passing: Only entries of which every check passes.
        node_meta: Pairs that a node's meta must hold.
        near, filter: As sent, "" when absent.
    """

    index: int = 0
    wait_s: float = WAIT_DEFAULT_S
    consistency: Consistency = Consistency.DEFAULT
    cached: bool = False
    max_age_s: float | None = None
    dc: str = ""
    tags: tuple[str, ...] = ()
    passing: bool = False
    node_meta: tuple[tuple[str, str], ...] = ()
    near: str = ""
    filter: str = ""
    pretty: bool = False


DEFAULT_READ = ReadOptions()


class Query(Mapping[str, str]):
    """A query string's pairs: the first value of each name, and all of them by `all`.

    Args:
        pairs: (name, value) as they came, already decoded.

    Attributes:
        options: What `read_options` made of it, kept for the next request with the same query.
    """

    __slots__ = ("_first", "_pairs", "options")

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = tuple(pairs)
        self._first: dict[str, str] = {}
        self.options: ReadOptions | None = None
        for name, value in self._pairs:
            self._first.setdefault(name, value)

    def __getitem__(self, name: str) -> str:
        return self._first[name]

    def __iter__(self) -> Any:
        return iter(self._first)

    def __contains__(self, name: object) -> bool:
        return name in self._first

    def __len__(self) -> int:
        return len(self._first)

    def all(self, name: str) -> tuple[str, ...]:
        """All values given for a name."""
        return tuple(value for key, value in self._pairs if key == name)


NO_QUERY = Query(())
QUERY_FIELDS_MAX = 256
QUERY_KEPT_CHARS = 32  #: `stale`, `consistent`, `recurse`: what has no index in it


def query_from(text: str) -> Query:
    """Reads a query string; short ones, which come again and again, are read once.

    Raises:
        InvalidRequest: It holds too many fields.
    """
    return _query_kept(text) if len(text) <= QUERY_KEPT_CHARS else _query(text)


def _query(text: str) -> Query:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError as error:
        raise InvalidRequest(f"Invalid query string: {error}") from error
    return Query(pairs)


_query_kept = lru_cache(maxsize=1024)(_query)


def read_options(query: Query) -> ReadOptions:
    """Reads the options that every read shares.

    A flag counts when it is present, with or without a value.

    Raises:
        InvalidRequest: With the text that clients of this API know.
    """
    if query.options is None:
        query.options = _read_options(query) if query else DEFAULT_READ
    return query.options


def _read_options(query: Query) -> ReadOptions:
    return ReadOptions(
        index=_index(query.get("index", "")),
        wait_s=_wait(query.get("wait", "")),
        consistency=_consistency(query),
        cached="cached" in query,
        max_age_s=_max_age(query.get("max_age", "")),
        dc=query.get("dc", ""),
        tags=tuple(tag for tag in query.all("tag") if tag),
        passing=_passing(query),
        node_meta=tuple(_pair(text) for text in query.all("node-meta")),
        near=query.get("near", ""),
        filter=query.get("filter", ""),
        pretty="pretty" in query,
    )


def _index(text: str) -> int:
    """An unsigned 64-bit number, 0 when absent."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 1 << 64):
        raise InvalidRequest("Invalid index")
    return int(text)


def _wait(text: str) -> float:
    """Seconds to block: 5 minutes when absent or zero, never above 10 minutes."""
    if not text:
        return WAIT_DEFAULT_S
    try:
        seconds = parse_duration(text)
    except InvalidRequest as error:
        raise InvalidRequest("Invalid wait time") from error
    if seconds < 0:
        raise InvalidRequest("Invalid wait time")
    return min(seconds, WAIT_MAX_S) if seconds > 0 else WAIT_DEFAULT_S


def _consistency(query: Query) -> Consistency:
    """Which of the three modes is asked for."""
    stale, consistent = "stale" in query, "consistent" in query
    if stale and consistent:
        raise InvalidRequest("Cannot specify ?stale with ?consistent, conflicting semantics.")
    if consistent and "cached" in query:
        raise InvalidRequest("Cannot specify ?cached with ?consistent, conflicting semantics.")
    if stale:
        return Consistency.STALE
    return Consistency.CONSISTENT if consistent else Consistency.DEFAULT


def _max_age(text: str) -> float | None:
    if not text:
        return None
    try:
        return parse_duration(text)
    except InvalidRequest as error:
        raise InvalidRequest("Invalid max_age") from error


def _passing(query: Query) -> bool:
    """`?passing` and `?passing=true` ask for it, `?passing=false` does not."""
    text = query.get("passing")
    if text is None:
        return False
    if text in _TRUE or text == "":
        return True
    if text in _FALSE:
        return False
    raise InvalidRequest("Invalid value for ?passing")


_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def _pair(text: str) -> tuple[str, str]:
    """`key:value` of `?node-meta`; the value may be empty."""
    key, _, value = text.partition(":")
    return key, value


def parse_bool(text: str, what: str) -> bool:
    """Reads a boolean of a query string as Go's `strconv.ParseBool` does.

    Raises:
        InvalidRequest: It is none; the text names `what`.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidRequest(f"Invalid value for {what}: {text[:_SHOWN_CHARS_MAX]!r}")


def parse_uint(text: str, message: str) -> int:
    """Reads an unsigned 64-bit number.

    Raises:
        InvalidRequest: With `message`.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 1 << 64):
        raise InvalidRequest(message)
    return int(text)
