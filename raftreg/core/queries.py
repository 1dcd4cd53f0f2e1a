"""Prepared queries: how they are written, and what they find. Pure.

Their semantics are Consul's (https://developer.hashicorp.com/consul/api-docs/query); templates are
rendered in `raftreg.http.query_template`, before a query gets here.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from raftreg.core.catalog import Catalog
from raftreg.core.changes import Changes, Topic
from raftreg.core.commands import QueryDelete, QuerySet
from raftreg.core.query import Found, ServiceEntry
from raftreg.core.querystore import Queries
from raftreg.core.results import Refused, quoted
from raftreg.core.state import State
from raftreg.model import (
    Check,
    PreparedQuery,
    QueryFailover,
    QueryService,
    Status,
)

QUERIES_MAX = 10_000

# -- writes ----------------------------------------------------------------------------------------


def write(state: State, command: QuerySet, changes: Changes) -> str | Refused:
    """Creates or updates a query; gives its id."""
    query, table = command.query, state.queries
    old = table.rows.get(query.id)
    if command.update and old is None:
        return not_there(query.id)
    if old is not None and command.keep_name:
        query = msgspec.structs.replace(query, name=old.name)
    refused = _refusal(state, query, old, update=command.update)
    if refused is not None:
        return refused
    index = state.index
    created = index if old is None else old.create_index
    table.put(msgspec.structs.replace(query, create_index=created, modify_index=index))
    table.changed = index
    _publish(query.id, changes)
    return query.id


def delete(state: State, command: QueryDelete, changes: Changes) -> bool | Refused:
    """Deletes a query; one that is not there is refused, as in Consul."""
    if command.id not in state.queries.rows:
        return not_there(command.id)
    _delete(state, command.id, changes)
    return True


def delete_of_session(state: State, session_id: str, changes: Changes) -> None:
    """Deletes the queries that end with a session."""
    for query_id in state.queries.of_session(session_id):
        _delete(state, query_id, changes)


def not_there(query_id: str) -> Refused:
    """What a change of a query that does not exist is answered with."""
    text = f"Cannot modify non-existent prepared query: '{quoted(query_id)[1:-1]}'"
    return Refused("not_found", text, 404)


def _delete(state: State, query_id: str, changes: Changes) -> None:
    table = state.queries
    table.remove(query_id)
    table.changed = table.deleted = state.index
    _publish(query_id, changes)


def _publish(query_id: str, changes: Changes) -> None:
    changes.topics["query", query_id] = None
    changes.topics["queries", ""] = None


def _refusal(
    state: State, query: PreparedQuery, old: PreparedQuery | None, *, update: bool
) -> Refused | None:
    """Why a query can't be written as things stand; None when it can."""
    table = state.queries
    if not query.id:
        return _invalid("Missing Query ID")
    if old is None and len(table.rows) >= QUERIES_MAX:
        return Refused("too_many", f"there are {QUERIES_MAX} prepared queries already", 400)
    if old is not None and not update:
        return Refused("query_exists", f"prepared query {quoted(query.id)} already exists")
    if not (query.name or query.session or query.template.type):
        return _invalid("Invalid prepared query: Must be bound to a session")
    if query.session and query.session not in state.sessions:
        return Refused("invalid_session", f"invalid session {quoted(query.session)}")
    return _name_refusal(table, query)


def _name_refusal(table: Queries, query: PreparedQuery) -> Refused | None:
    shown = f"name '{quoted(query.name)[1:-1]}'"
    if query.name in table.rows:
        return _invalid(f"{shown} aliases an existing query ID")
    if table.holder(query) in (None, query.id):
        return None
    if query.name:
        return _invalid(f"{shown} aliases an existing query name")
    return _invalid("a query template with an empty name already exists")


def _invalid(message: str) -> Refused:
    return Refused("invalid_request", message, 400)


# -- reads -----------------------------------------------------------------------------------------


def query_get(state: State, query_id: str) -> Found[PreparedQuery | None]:
    """One query by its id."""
    row = state.queries.rows.get(query_id)
    index = state.queries.deleted if row is None else row.modify_index
    return Found(max(index, state.index_floor, 1), row)


def topics_query(query_id: str) -> tuple[Topic, ...]:
    """What a watcher of `query_get` waits on."""
    return (("query", query_id),)


def query_list(state: State) -> Found[list[PreparedQuery]]:
    """All queries, by id."""
    rows = [state.queries.rows[query_id] for query_id in sorted(state.queries.rows)]
    return Found(max(state.queries.changed, state.index_floor, 1), rows)


def topics_queries() -> tuple[Topic, ...]:
    """What a watcher of `query_list` waits on."""
    return (("queries", ""),)


# -- what a query finds ----------------------------------------------------------------------------


class Selection(msgspec.Struct, frozen=True):
    """What a query found.

    Attributes:
        service: Name of the service that the entries belong to.
        entries: By node and id.
        failovers: How many other places were tried.
    """

    service: str
    entries: list[ServiceEntry]
    failovers: int = 0


def run(
    catalog: Catalog, service: QueryService, datacenter: str, *, connect: bool = False
) -> Selection:
    """Finds the healthy instances, or those of the first place to fail over to that has any.

    Args:
        catalog: Where to look.
        service: What to look for, rendered.
        datacenter: This one. Others can't be reached: each that is named is a try in vain.
        connect: As if the query asked for it.
    """
    entries = select(catalog, service, connect=connect)
    if entries:
        return Selection(service.service, entries)
    failovers = 0
    for name in _places(service, datacenter):
        failovers += 1
        if name is not None:
            other = msgspec.structs.replace(service, service=name)
            entries = select(catalog, other, connect=connect)
        if entries:
            return Selection(name or service.service, entries, failovers)
    return Selection(service.service, [], failovers)


def _places(service: QueryService, datacenter: str) -> list[str | None]:
    """Names of the services to try next; None for a place out of reach.

    No other datacenter is known, so the nearest ones are none. This datacenter among
    `datacenters` was tried already.
    """
    failover: QueryFailover = service.failover
    named = dict.fromkeys(failover.datacenters)
    places: list[str | None] = [None for name in named if name != datacenter]
    for target in failover.targets:
        here = not target.peer and target.datacenter in ("", datacenter)
        places.append((target.service or service.service) if here else None)
    return places


def select(catalog: Catalog, service: QueryService, *, connect: bool = False) -> list[ServiceEntry]:
    """The instances that a query lets through, with the checks that decide over them."""
    found = []
    mesh = connect or service.connect
    rows = catalog.connected(service.service) if mesh else catalog.instances(service.service)
    for row in rows:
        node = catalog.nodes.get(row.node)
        if node is None or not _has(node.meta, service.node_meta):
            continue
        if not _has(row.meta, service.service_meta) or not has_tags(row.tags, service.tags):
            continue
        checks = (
            *catalog.checks_of_node_itself(row.node),
            *catalog.checks_of_instance(row.node, row.id),
        )
        if _is_healthy(checks, service):
            found.append(ServiceEntry(node, row, checks))
    return found


def _has(meta: dict[str, str], wanted: dict[str, str]) -> bool:
    return all(meta.get(key) == value for key, value in wanted.items())


def has_tags(tags: Iterable[str], wanted: Iterable[str]) -> bool:
    """Tells whether all wanted tags are there, and none of those after a `!`; case is ignored."""
    own = {tag.lower() for tag in tags}
    return all(
        tag[1:].lower() not in own if tag.startswith("!") else tag.lower() in own for tag in wanted
    )


def _is_healthy(checks: Iterable[Check], service: QueryService) -> bool:
    for check in checks:
        if check.check_id in service.ignore_check_ids:
            continue
        if check.status is Status.CRITICAL:
            return False
        if service.only_passing and check.status is not Status.PASSING:
            return False
    return True
