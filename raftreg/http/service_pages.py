"""GET /v1/health/services: every service with its health, tags and metadata, page by page.

Ours; Consul needs one request a service for it. What the options of a read select (`tag`,
`node-meta`, `status`, `passing`) are instances; a service is in the answer when one of its
instances is, and counts and unions are over those. `filter` then chooses among the rows.

Pages follow each other by name, so a cursor stays good whatever comes and goes meanwhile: nothing
that stays is told twice or passed over. The work for a page is bounded: where a filter lets little
through, a page may be short, even empty, and still have a cursor.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NotRequired, TypedDict

import msgspec
from aiohttp import web

from raftreg.core import query
from raftreg.core.catalog import Catalog
from raftreg.core.query import ServiceEntry
from raftreg.errors import InvalidRequest
from raftreg.http import render
from raftreg.http.catalog_query import CatalogQuery
from raftreg.http.discovery import CatalogSource, answer, options_of, query_of
from raftreg.http.fields import status_of
from raftreg.http.filter import Predicate, compile_filter
from raftreg.http.filter_fields import Integer, Text, TextMap, Texts, struct
from raftreg.http.operation import Flag, Param, Unsigned, operation
from raftreg.http.params import Query, ReadOptions, parse_bool, parse_uint
from raftreg.http.reply import Reply
from raftreg.http.shapes import HealthEntryJson
from raftreg.model import Status

PATH: Final = "/v1/health/services"
PAGE_SIZE: Final = 100
PAGE_SIZE_MAX: Final = 1_000
#: Instances looked at for one page, and told with it; at least one service is always looked at.
SCAN_MAX: Final = 20_000
INSTANCES_MAX: Final = 5_000
#: Different values of one key of the metadata that a row tells.
META_VALUES_MAX: Final = 32
_NAME_CHARS_MAX: Final = 2_048

SUMMARY: Final = struct(
    Name=Text(),
    Status=Text(),
    Tags=Texts(),
    Meta=TextMap(value=Texts()),
    Nodes=Integer(),
    Passing=Integer(),
    Warning=Integer(),
    Critical=Integer(),
)


class ServiceSummaryJson(TypedDict):
    """A service: `Status` is the best of its instances', `Meta` holds all values of each key."""

    Name: str
    Status: str
    Tags: list[str]
    Meta: dict[str, list[str]]
    Nodes: int
    Passing: int
    Warning: int
    Critical: int
    Instances: NotRequired[list[HealthEntryJson]]


class ServicePageJson(TypedDict):
    """A page; `After` leads to the next one, "" ends them."""

    Services: list[ServiceSummaryJson]
    After: str


class Page(msgspec.Struct, frozen=True):
    """What is asked for.

    Attributes:
        tags, node_meta, status: What an instance must have; None: any status.
        after: Name of the last service of the page before.
        size: Most rows.
        instances: Tell the instances too.
        filter: Chooses among the rows.
    """

    tags: tuple[str, ...]
    node_meta: tuple[tuple[str, str], ...]
    status: Status | None
    after: str
    size: int
    instances: bool
    filter: str


def topics() -> tuple[tuple[str, str], ...]:
    """What a page depends on: all that is registered."""
    return (*query.topics_instances(), *query.topics_checks_in_state(query.ANY_STATE))


def page_query(page: Page) -> CatalogQuery:
    """One page as a question to a catalog.

    Raises:
        InvalidRequest: The filter is malformed.
    """
    holds = compile_filter(page.filter, SUMMARY)
    return CatalogQuery(
        ("service-page", page), topics(), lambda catalog: _page_json(catalog, page, holds)
    )


def read_page(params: Query, options: ReadOptions) -> Page:
    """Reads what is asked for.

    Raises:
        InvalidRequest: An option is malformed.
    """
    status = status_of(params.get("status", ""))
    if options.passing:
        if status not in (None, Status.PASSING):
            raise InvalidRequest(f"?passing and ?status={params['status']} exclude each other")
        status = Status.PASSING
    size_text = params.get("page-size", str(PAGE_SIZE))
    size = parse_uint(size_text, f"Invalid page-size {size_text[:32]!r}")
    if not 1 <= size <= PAGE_SIZE_MAX:
        raise InvalidRequest(f"Invalid page-size {size}: it must be between 1 and {PAGE_SIZE_MAX}")
    instances = params.get("instances")
    return Page(
        tags=options.tags,
        node_meta=options.node_meta,
        status=status,
        after=read_cursor(params.get("after", "")),
        size=size,
        instances=instances is not None and (not instances or parse_bool(instances, "instances")),
        filter=options.filter,
    )


def cursor(name: str) -> str:
    """The cursor behind a service."""
    return urlsafe_b64encode(b"1" + name.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def read_cursor(text: str) -> str:
    """The name that a cursor stands behind; "" begins.

    Raises:
        InvalidRequest: It is no cursor.
    """
    if not text:
        return ""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        data = urlsafe_b64decode(padded)
        if len(text) > _NAME_CHARS_MAX or data[:1] != b"1":
            raise InvalidRequest("Invalid after: it must be the After of the page before")
        return data[1:].decode("utf-8", "surrogatepass")
    except (UnicodeError, binascii.Error):
        raise InvalidRequest("Invalid after: it must be the After of the page before") from None


def _page_json(catalog: Catalog, page: Page, holds: Predicate) -> ServicePageJson:
    names = sorted(catalog.service_names())
    at = bisect_right(names, page.after) if page.after else 0
    rows: list[ServiceSummaryJson] = []
    scanned = told = 0
    while at < len(names) and len(rows) < page.size:
        name = names[at]
        if scanned and (scanned >= SCAN_MAX or told >= INSTANCES_MAX):
            break
        at += 1
        scanned += len(catalog.instances(name)) + 1
        entries = _entries(catalog, name, page)
        if not entries:
            continue
        row = _row(name, entries)
        if not holds(row):
            continue
        if page.instances:
            told += len(entries)
            row["Instances"] = [
                render.health_entry_json(entry.node, entry.service, entry.checks)
                for entry in entries
            ]
        rows.append(row)
    return {"Services": rows, "After": cursor(names[at - 1]) if at < len(names) else ""}


def _entries(catalog: Catalog, name: str, page: Page) -> list[ServiceEntry]:
    found = query.health_service(
        catalog, name, page.tags, page.status is Status.PASSING, page.node_meta
    ).value
    if page.status in (None, Status.PASSING):
        return found
    return [entry for entry in found if entry.status is page.status]


def _row(name: str, entries: Sequence[ServiceEntry]) -> ServiceSummaryJson:
    counts = dict.fromkeys(Status, 0)
    for entry in entries:
        counts[entry.status] += 1
    best = next(status for status in Status if counts[status])
    return {
        "Name": name,
        "Status": best.value,
        "Tags": sorted({tag for entry in entries for tag in entry.service.tags}),
        "Meta": _meta(entry.service.meta for entry in entries),
        "Nodes": len({entry.node.name for entry in entries}),
        "Passing": counts[Status.PASSING],
        "Warning": counts[Status.WARNING],
        "Critical": counts[Status.CRITICAL],
    }


def _meta(metas: Iterable[dict[str, str]]) -> dict[str, list[str]]:
    """All values of each key; of a key that has very many, the first of them by order."""
    values: dict[str, set[str]] = {}
    for meta in metas:
        for key, value in meta.items():
            values.setdefault(key, set()).add(value)
    return {key: sorted(values[key])[:META_VALUES_MAX] for key in sorted(values)}


def service_pages_routes(source: CatalogSource) -> list[web.RouteDef]:
    """The endpoint over a server's state or an agent's view."""

    @operation(
        "Lists all services with their health, tags and metadata, page by page",
        tag="health",
        about=(
            "The options select instances; a service is there when one of its instances is. "
            "`filter` chooses among the rows, whose fields are those of the answer: "
            '`"v2" in Tags and Critical == 0 and "prod" in Meta.env`. Go on with `after` as long '
            "as `After` is not empty; a page may be shorter than `page-size` all the same."
        ),
        reads=True,
        query=(
            Param("page-size", f"most services of a page, at most {PAGE_SIZE_MAX}", Unsigned),
            Param("after", "`After` of the page before"),
            Param("status", "only instances with this status"),
            Param("passing", "only instances whose checks all pass", Flag),
            Param("tag", "only instances with this tag; all given must match", repeats=True),
            Param("node-meta", "only nodes with this `key:value`", repeats=True),
            Param("instances", "with the instances and their checks", Flag),
        ),
        answer=ServicePageJson,
    )
    async def services(request: web.Request) -> Reply:
        options = options_of(request, source.datacenter)
        page = read_page(query_of(request), options)
        return await answer(source, request, options, page_query(page))

    return [web.get(PATH, services)]
