"""Registration of nodes, instances and checks: by catalog clients, by agents, and by the leader.

Each command is checked as a whole first and written then, so a refusal leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

import msgspec

from raftreg.core import sessions
from raftreg.core.changes import Changes
from raftreg.core.commands import Deregister, NodeSync, Register, SetLiveness
from raftreg.core.results import Refused
from raftreg.core.state import State
from raftreg.model import SERF_HEALTH, Check, Node, ServiceInstance, Status

SERF_HEALTH_NAME = "Serf Health Status"
SERF_ALIVE_OUTPUT = "Agent alive and reachable"
SERF_FAILED_OUTPUT = "Agent not live or unreachable"
#: How deep JSON objects may be nested: what compares and encodes them recurses.
NESTING_MAX = 64

MISSING_NODE = Refused("missing_node", "Missing node registration")
MISSING_SERVICE = Refused("missing_service", "Missing service registration")


def register(state: State, command: Register, changes: Changes) -> bool | Refused:
    """Writes the node, then its instance, then the checks."""
    name = command.node.name
    service = None if command.service is None else own_service(name, command.service)
    checks = [own_check(name, check) for check in command.checks]
    refused = (
        node_refusal(command.node)
        or (service_refusal(service) if service is not None else None)
        or _checks_refusal(state, name, checks, {service.id} if service is not None else set())
    )
    if refused is not None:
        return refused
    if not (command.skip_node_update and name in state.catalog.nodes):
        state.catalog.put_node(command.node, state.index, changes)
    _put_rows(state, [service] if service is not None else [], checks, changes)
    sessions.end_broken(state, changes)
    return True


def deregister(state: State, command: Deregister, changes: Changes) -> bool:
    """Removes what is named; what is not there is fine."""
    catalog = state.catalog
    if command.service_id:
        catalog.delete_service(command.node, command.service_id, state.index, changes)
    elif command.check_id:
        catalog.delete_check(command.node, command.check_id, state.index, changes)
    else:
        catalog.delete_node(command.node, state.index, changes)
    sessions.end_broken(state, changes)
    return True


def node_sync(state: State, command: NodeSync, changes: Changes) -> bool | Refused:
    """Makes the rows of a host what its agent says."""
    name = command.node.name
    services = [own_service(name, service) for service in command.services]
    checks = [own_check(name, check) for check in command.checks]
    checks = [check for check in checks if check.check_id != SERF_HEALTH]
    going = _going_services(state, command, {service.id for service in services})
    refused = (
        node_refusal(command.node)
        or _first(map(service_refusal, services))
        or _checks_refusal(state, name, checks, {s.id for s in services}, going)
    )
    if refused is not None:
        return refused
    catalog, index = state.catalog, state.index
    if _is_another_host(catalog.nodes.get(name), command.node):
        sessions.end_of_node(state, name, changes)
    catalog.put_node(command.node, index, changes)
    # Checks first: one that moved from a going instance to another is written again below.
    for check_id in _going_checks(state, command, {check.check_id for check in checks}):
        catalog.delete_check(name, check_id, index, changes)
    for service_id in sorted(going):
        catalog.delete_service(name, service_id, index, changes)
    if catalog.check(name, SERF_HEALTH) is None:
        checks.insert(0, serf_health(name, alive=True))
    _put_rows(state, services, checks, changes)
    sessions.end_broken(state, changes)
    return True


def _is_another_host(known: Node | None, told: Node) -> bool:
    """Tells whether a name has gone over to another host (reinstalled, or of another cluster that
    a snapshot was restored from): whoever held locks under it is not there any more.
    """
    return known is not None and known.id != told.id and bool(known.id and told.id)


def set_liveness(state: State, command: SetLiveness, changes: Changes) -> bool:
    """Flips `serfHealth` of a leased node; False when there is no such node."""
    old = state.catalog.check(command.node, SERF_HEALTH)
    if old is None:
        return False
    row = serf_health(command.node, alive=command.alive, output=command.output)
    state.catalog.put_check(row, state.index, changes)
    sessions.end_broken(state, changes)
    return True


def serf_health(node: str, *, alive: bool, output: str = "") -> Check:
    """The check that stands for the lease of a host."""
    return Check(
        node=node,
        check_id=SERF_HEALTH,
        name=SERF_HEALTH_NAME,
        status=Status.PASSING if alive else Status.CRITICAL,
        output=output or (SERF_ALIVE_OUTPUT if alive else SERF_FAILED_OUTPUT),
    )


# -- rows as they are stored -------------------------------------------------------------------


def own_service(node: str, row: ServiceInstance) -> ServiceInstance:
    """The instance under this node, its id defaulting to its name."""
    if row.node == node and row.id:
        return row
    return msgspec.structs.replace(row, node=node, id=row.id or row.name)


def own_check(node: str, row: Check) -> Check:
    """The check under this node, its id defaulting to its name."""
    if row.node == node and row.check_id:
        return row
    return msgspec.structs.replace(row, node=node, check_id=row.check_id or row.name)


def node_refusal(row: Node) -> Refused | None:
    """Tells what is wrong with a node, whatever else is registered."""
    return None if row.name else Refused("invalid_request", "Must provide node and address", 400)


def service_refusal(row: ServiceInstance) -> Refused | None:
    """Tells what is wrong with an instance, whatever else is registered."""
    if not row.name:
        return Refused("invalid_request", "Must provide service name with ID", 400)
    return nesting_refusal(row.proxy, row.connect)


def check_refusal(row: Check) -> Refused | None:
    """Tells what is wrong with a check, whatever else is registered."""
    if not row.check_id:
        return Refused("invalid_request", "Must provide check ID or name", 400)
    return nesting_refusal(row.definition)


def nesting_refusal(*objects: dict[str, Any]) -> Refused | None:
    """Refuses JSON objects that are nested too deep."""
    if any(objects) and not all(_fits(value, NESTING_MAX) for value in objects):
        message = f"objects may be nested at most {NESTING_MAX} deep"
        return Refused("invalid_request", message, 400)
    return None


def _fits(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list | tuple):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_fits(item, levels - 1) for item in inner)


# -- parts ---------------------------------------------------------------------------------------


def _first(refusals: Iterable[Refused | None]) -> Refused | None:
    return next((refused for refused in refusals if refused is not None), None)


def _checks_refusal(
    state: State,
    node: str,
    checks: list[Check],
    coming: Set[str],
    going: Set[str] = frozenset(),
) -> Refused | None:
    """Refuses checks of instances that are neither coming nor there to stay."""
    for check in checks:
        refused = check_refusal(check)
        if refused is not None:
            return refused
        service_id = check.service_id
        if not service_id or service_id in coming:
            continue
        if service_id in going or state.catalog.service(node, service_id) is None:
            return MISSING_SERVICE
    return None


def _put_rows(
    state: State, services: list[ServiceInstance], checks: list[Check], changes: Changes
) -> None:
    for service in services:
        state.catalog.put_service(service, state.index, changes)
    for check in checks:
        state.catalog.put_check(check, state.index, changes)


def _going_services(state: State, command: NodeSync, named: set[str]) -> set[str]:
    going = set(command.remove_services)
    if command.full:
        going.update(row.id for row in state.catalog.services_of(command.node.name))
    return going - named


def _going_checks(state: State, command: NodeSync, named: set[str]) -> list[str]:
    going = set(command.remove_checks)
    if command.full:
        going.update(row.check_id for row in state.catalog.checks_of(command.node.name))
    return sorted(going - named - {SERF_HEALTH})
