"""Prepared queries as JSON: bodies in, rows out. Pure.

See https://developer.hashicorp.com/consul/api-docs/query.
"""

from __future__ import annotations

from typing import Any, Final, NotRequired, TypedDict

from raftreg.core.durations import parse_duration
from raftreg.errors import InvalidRequest
from raftreg.http.fields import Fields, meta_of, name_of
from raftreg.http.query_template import check_template
from raftreg.http.shapes import HealthEntryJson
from raftreg.model import (
    PreparedQuery,
    QueryFailover,
    QueryService,
    QueryTarget,
    QueryTemplate,
)

BODY_BYTES_MAX: Final = 64 * 1024
LIST_ITEMS_MAX: Final = 256
TEXT_BYTES_MAX: Final = 4096
NEAREST_N_MAX: Final = 1 << 31
#: What answers show in the place of a token, as Consul does.
REDACTED: Final = "<hidden>"


class TargetJson(TypedDict, total=False):
    """Where a query looks next."""

    Service: str
    Datacenter: str
    Peer: str


class FailoverJson(TypedDict):
    """What is tried when the service has no healthy instance here."""

    NearestN: int
    Datacenters: list[str] | None
    Targets: NotRequired[list[TargetJson] | None]


class QueryServiceJson(TypedDict):
    """What a query looks for."""

    Service: str
    Failover: FailoverJson
    OnlyPassing: bool
    IgnoreCheckIDs: list[str] | None
    Near: str
    Tags: list[str] | None
    NodeMeta: dict[str, str] | None
    ServiceMeta: dict[str, str] | None
    Connect: bool


class TemplateJson(TypedDict):
    """Makes a query answer for all names that begin with its own."""

    Type: str
    Regexp: str
    RemoveEmptyTags: bool


class QueryDnsJson(TypedDict):
    """How DNS answers with a query."""

    TTL: str


class QueryJson(TypedDict):
    """A prepared query; a token is shown as `<hidden>`."""

    ID: str
    Name: str
    Session: str
    Token: str
    Template: TemplateJson
    Service: QueryServiceJson
    DNS: QueryDnsJson
    CreateIndex: int
    ModifyIndex: int


class FailoverBody(TypedDict, total=False):
    """As `FailoverJson`; everything may be left out."""

    NearestN: int
    Datacenters: list[str] | None
    Targets: list[TargetJson] | None


class QueryServiceBody(TypedDict):
    """As `QueryServiceJson`; everything but the name may be left out."""

    Service: str
    Failover: NotRequired[FailoverBody]
    OnlyPassing: NotRequired[bool]
    IgnoreCheckIDs: NotRequired[list[str] | None]
    Near: NotRequired[str]
    Tags: NotRequired[list[str] | None]
    NodeMeta: NotRequired[dict[str, str] | None]
    ServiceMeta: NotRequired[dict[str, str] | None]
    Connect: NotRequired[bool]


class TemplateBody(TypedDict, total=False):
    """As `TemplateJson`; everything may be left out."""

    Type: str
    Regexp: str
    RemoveEmptyTags: bool


class QueryBody(TypedDict):
    """A query as it is written."""

    Service: QueryServiceBody
    Name: NotRequired[str]
    Session: NotRequired[str]
    Token: NotRequired[str]
    Template: NotRequired[TemplateBody]
    DNS: NotRequired[QueryDnsJson]


class ExplainJson(TypedDict):
    """The query that a name leads to, rendered."""

    Query: QueryJson


class ExecuteJson(TypedDict):
    """What a query found."""

    Service: str
    Nodes: list[HealthEntryJson]
    DNS: QueryDnsJson
    Datacenter: str
    Failovers: int


# -- in --------------------------------------------------------------------------------------------


def query_of(fields: Fields, query_id: str) -> PreparedQuery:
    """Reads a query.

    Args:
        fields: The body.
        query_id: Its id.

    Raises:
        InvalidRequest: It can't be used; the text says why, in Consul's words where it has some.
    """
    token = fields.text("Token")
    if token == REDACTED:
        raise _invalid(
            f"Bad Token '{REDACTED}', it looks like a query definition with a redacted token was "
            "submitted"
        )
    query = PreparedQuery(
        id=query_id,
        name=name_of(fields.text("Name"), "query name"),
        session=name_of(fields.text("Session"), "session ID"),
        token=name_of(token, "token"),
        template=_template(fields.fields("Template")),
        service=_service(fields.fields("Service") or Fields({})),
        dns_ttl=_ttl(fields.fields("DNS")),
    )
    check_template(query)
    return query


def ttl_s(query: PreparedQuery) -> float | None:
    """The TTL of DNS answers in seconds; None when the query names none."""
    return parse_duration(query.dns_ttl) if query.dns_ttl else None


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid prepared query: {reason}")


def _template(fields: Fields | None) -> QueryTemplate:
    if fields is None:
        return QueryTemplate()
    return QueryTemplate(
        type=fields.text("Type"),
        regexp=_text(fields, "Regexp"),
        remove_empty_tags=fields.boolean("RemoveEmptyTags"),
    )


def _service(fields: Fields) -> QueryService:
    name = _text(fields, "Service")
    if not name:
        raise _invalid("Must provide a Service name to query")
    if fields.get("SamenessGroup"):
        raise _invalid("SamenessGroup is not supported: there is one datacenter and no partition")
    return QueryService(
        service=name,
        failover=_failover(fields.fields("Failover") or Fields({})),
        only_passing=fields.boolean("OnlyPassing"),
        ignore_check_ids=_texts(fields, "IgnoreCheckIDs"),
        near=_text(fields, "Near"),
        tags=_texts(fields, "Tags"),
        node_meta=meta_of(fields.text_map("NodeMeta"), "Node"),
        service_meta=meta_of(fields.text_map("ServiceMeta"), "Service"),
        connect=fields.boolean("Connect"),
    )


def _failover(fields: Fields) -> QueryFailover:
    nearest_n = fields.integer("NearestN")
    if nearest_n < 0:
        raise _invalid(f"Bad NearestN '{nearest_n}', must be >= 0")
    if nearest_n >= NEAREST_N_MAX:
        raise _invalid(f"Bad NearestN '{nearest_n}', must be below {NEAREST_N_MAX}")
    failover = QueryFailover(
        nearest_n=nearest_n,
        datacenters=_texts(fields, "Datacenters"),
        targets=tuple(_target(item) for item in _items(fields, "Targets")),
    )
    if failover.targets and (failover.nearest_n or failover.datacenters):
        raise _invalid("Targets cannot be used with NearestN or Datacenters")
    return failover


def _target(item: object) -> QueryTarget:
    fields = Fields(item, "Targets")
    return QueryTarget(
        service=_text(fields, "Service"),
        datacenter=_text(fields, "Datacenter"),
        peer=_text(fields, "Peer", "PeerName"),
    )


def _ttl(fields: Fields | None) -> str:
    text = "" if fields is None else fields.text("TTL")
    if not text:
        return ""
    try:
        seconds = parse_duration(text)
    except InvalidRequest as error:
        raise _invalid(f"Bad DNS TTL '{text[:64]}': {error.message}") from error
    if seconds < 0:
        raise _invalid(f"DNS TTL '{text[:64]}', must be >=0")
    return text


def _text(fields: Fields, *names: str) -> str:
    text = fields.text(*names)
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise _invalid(f"{names[0]} is longer than {TEXT_BYTES_MAX} bytes")
    return text


def _items(fields: Fields, name: str) -> list[Any]:
    items = fields.items(name)
    if len(items) > LIST_ITEMS_MAX:
        raise _invalid(f"{name} holds {len(items)} items, at most {LIST_ITEMS_MAX} are allowed")
    return items


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    _items(fields, name)
    texts = fields.texts(name)
    if any(len(text.encode()) > TEXT_BYTES_MAX for text in texts):
        raise _invalid(f"{name} holds a text of more than {TEXT_BYTES_MAX} bytes")
    return texts


# -- out -------------------------------------------------------------------------------------------


def query_json(query: PreparedQuery) -> QueryJson:
    """A query as answers show it."""
    return {
        "ID": query.id,
        "Name": query.name,
        "Session": query.session,
        "Token": REDACTED if query.token else "",
        "Template": {
            "Type": query.template.type,
            "Regexp": query.template.regexp,
            "RemoveEmptyTags": query.template.remove_empty_tags,
        },
        "Service": _service_json(query.service),
        "DNS": {"TTL": query.dns_ttl},
        "CreateIndex": query.create_index,
        "ModifyIndex": query.modify_index,
    }


def _service_json(service: QueryService) -> QueryServiceJson:
    return {
        "Service": service.service,
        "Failover": _failover_json(service.failover),
        "OnlyPassing": service.only_passing,
        "IgnoreCheckIDs": list(service.ignore_check_ids) or None,
        "Near": service.near,
        "Tags": list(service.tags) or None,
        "NodeMeta": service.node_meta or None,
        "ServiceMeta": service.service_meta or None,
        "Connect": service.connect,
    }


def _failover_json(failover: QueryFailover) -> FailoverJson:
    out: FailoverJson = {
        "NearestN": failover.nearest_n,
        "Datacenters": list(failover.datacenters) or None,
    }
    if failover.targets:
        out["Targets"] = [
            {"Service": one.service, "Datacenter": one.datacenter, "Peer": one.peer}
            for one in failover.targets
        ]
    return out
