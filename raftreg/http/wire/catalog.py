"""/v1/health/service and /v1/catalog/service on the short way, over a `CatalogSource`.

The answers are those of `raftreg.http.discovery`: queries, bodies and heads are made there.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from raftreg.http.catalog_query import CatalogQuery
from raftreg.http.discovery import (
    CatalogSource,
    answer_head,
    health_service_query,
    service_query,
)
from raftreg.http.json import dumps
from raftreg.http.params import ReadOptions, query_from, read_options
from raftreg.http.problems import check_datacenter
from raftreg.http.reply import GZIP_BYTES_MIN, GZIP_HEAD, JSON, gzip_bytes
from raftreg.http.wire.answers import Answer
from raftreg.http.wire.reads import ReadDesk, ReadRoute
from raftreg.http.wire.road import Caller, Hot, ShortRoute

ANSWERS_KEPT_MAX: Final = 1024
ANSWERS_KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
#: What the short way understands; a request with any other option takes the plain road.
OPTIONS: Final = frozenset(
    {"passing", "stale", "consistent", "cached", "index", "wait", "tag", "dc"}
)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_QUERY = re.compile(r"[A-Za-z0-9=&._:/-]*")

Ask = Callable[[str, ReadOptions], CatalogQuery]
#: Tells whether the source may answer a request with these options now.
May = Callable[[ReadOptions], bool]


def short_options(text: str, allowed: frozenset[str], datacenter: str) -> ReadOptions | None:
    """The options of a query string; None when they are not all simple.

    Args:
        text: The query string.
        allowed: Names of options that the caller understands.
        datacenter: Of this process.

    Raises:
        RaftregError: They are wrong.
    """
    if not _QUERY.fullmatch(text):
        return None
    query = query_from(text)
    if not allowed.issuperset(query):
        return None
    options = read_options(query)
    check_datacenter(options.dc, datacenter)
    return options


class _Kept:
    """The answer to one question in one form, as it was given last."""

    __slots__ = ("answer", "at", "held", "size_bytes")

    def __init__(self) -> None:
        self.at: tuple[object, ...] = ()
        self.answer: Answer | None = None
        self.size_bytes = 0
        self.held = True  # False once it has fallen out of the table


class CatalogAnswers:
    """Answers about a catalog, shared by all who ask the same. Bounded.

    Args:
        source: Where they come from.
        entries_max, bytes_max: Bounds of what is kept.
    """

    def __init__(
        self,
        source: CatalogSource,
        entries_max: int = ANSWERS_KEPT_MAX,
        bytes_max: int = ANSWERS_KEPT_BYTES_MAX,
    ) -> None:
        self.source = source
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def place(self, key: Hashable) -> _Kept:
        """Where the answer to a question is kept."""
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept()
            self._trim()
        return kept

    def get(self, kept: _Kept, asked: CatalogQuery, options: ReadOptions, *, gzip: bool) -> Answer:
        """The answer of now."""
        source = self.source
        catalog = source.catalog()
        index = catalog.last_change(asked.topics)
        told = source.head(options)
        # An index names one value of a query, until the state is replaced.
        at = (index, told, source.rendered.clearings)
        answer = kept.answer
        if answer is None or kept.at != at:
            answer = self._make(asked, options, index, gzip=gzip)
            kept.at, kept.answer = at, answer
            if kept.held:
                self._bytes += answer.size_bytes - kept.size_bytes
                kept.size_bytes = answer.size_bytes
                self._trim()
        return answer

    def _make(self, asked: CatalogQuery, options: ReadOptions, index: int, *, gzip: bool) -> Answer:
        source = self.source
        key = (asked.key, options.pretty)
        body = source.rendered.get(key, index, lambda: dumps(asked.json(source.catalog())))
        head = answer_head(index, source.head(options), options)
        if gzip and len(body) >= GZIP_BYTES_MIN:
            plain = body
            body = source.rendered.get((key, "gzip"), index, lambda: gzip_bytes(plain))
            head += GZIP_HEAD
        return Answer(body, 200, JSON, head)

    def _trim(self) -> None:
        kept = self._kept
        while len(kept) > self._entries_max or (self._bytes > self._bytes_max and len(kept) > 1):
            _, oldest = kept.popitem(last=False)
            self._bytes -= oldest.size_bytes
            oldest.held, oldest.answer = False, None


class CatalogRoute(ReadRoute):
    """One question to the catalog.

    Args:
        desk: What it shares with others.
        label: Path pattern.
        options: Of the request.
        asked: The question.
        answers: Where answers are.
        may: Whether the source may answer.
    """

    __slots__ = ("_answers", "_asked", "_may", "_places")

    def __init__(
        self,
        desk: ReadDesk,
        label: str,
        options: ReadOptions,
        asked: CatalogQuery,
        answers: CatalogAnswers,
        may: May,
    ) -> None:
        super().__init__(desk, label, options, asked.topics)
        self._asked = asked
        self._answers = answers
        self._may = may
        self._places: dict[bool, _Kept] = {}

    def serve(self, caller: Caller) -> bool:
        """See `ShortRoute.serve`."""
        return self._may(self._options) and super().serve(caller)

    def index(self) -> int:
        """See `ReadRoute.index`."""
        return self._answers.source.catalog().last_change(self._asked.topics)

    def newest(self) -> int:
        """See `ReadRoute.newest`."""
        return self._answers.source.catalog().index

    def answer(self, *, gzip: bool) -> Answer:
        """See `ReadRoute.answer`."""
        place = self._places.get(gzip)
        if place is None or not place.held:
            options = self._options
            key = (self._asked.key, gzip, options.consistency, options.cached)
            place = self._places[gzip] = self._answers.place(key)
        return self._answers.get(place, self._asked, self._options, gzip=gzip)


#: From label, path, query string, options and question to a route of what another one answers.
Elsewhere = Callable[[str, str, str, ReadOptions, CatalogQuery], ShortRoute]


def catalog_hot(
    desk: ReadDesk,
    source: CatalogSource,
    may: May,
    here: May = lambda _: True,
    elsewhere: Elsewhere | None = None,
) -> tuple[Hot, ...]:
    """The hot reads of the catalog.

    Args:
        desk: Shares gate, hub and figures.
        source: The catalog.
        may: Whether the source may answer a request with these options now.
        here: Whether it is to answer such requests at all.
        elsewhere: Makes the routes of the others; None sends them down the plain road.
    """
    answers = CatalogAnswers(source)

    def kind(prefix: str, ask: Ask) -> Hot:
        label = f"{prefix}{{name}}"

        def make(name: str, text: str) -> ShortRoute | None:
            options = short_options(text, OPTIONS, source.datacenter)
            if options is None or not _NAME.fullmatch(name):
                return None
            asked = ask(name, options)
            if here(options):
                return CatalogRoute(desk, label, options, asked, answers, may)
            return elsewhere and elsewhere(label, prefix + name, text, options, asked)

        return Hot(b"GET", prefix.encode("ascii"), make)

    return (
        kind("/v1/health/service/", health_service_query),
        kind("/v1/catalog/service/", service_query),
    )
