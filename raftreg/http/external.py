"""Hosts without an agent, and what is to be checked there. Pure.

The convention is that of Consul's external service monitor. A node whose metadata says
`external-node: true` has no agent. Its checks carry a `Definition`, and servers run them
(https://github.com/hashicorp/consul-esm). With `external-probe: true` the host itself is probed
too: by a TCP connection, to the port that `external-probe-port` names or else to that of its first
TCP or HTTP check.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from raftreg.config import split_host_port
from raftreg.core.catalog import Catalog
from raftreg.errors import ConfigurationError, InvalidRequest
from raftreg.http.decode import CheckDefinition, CheckKind, check_definition
from raftreg.http.fields import PORT_MAX, fold
from raftreg.model import Check, Node

NODE_META: Final = "external-node"
PROBE_META: Final = "external-probe"
PROBE_PORT_META: Final = "external-probe-port"
#: The check that stands for a host without an agent, as `serfHealth` does for others.
HOST_CHECK: Final = "externalNodeHealth"
HOST_CHECK_NAME: Final = "External Node Status"
INTERVAL_DEFAULT_S: Final = 30.0
HOST_INTERVAL_S: Final = 10.0
HOST_TIMEOUT_S: Final = 5.0
#: Scripts run nowhere but on their own host, and an alias has nothing to probe.
_KINDS: Final = frozenset(
    {CheckKind.TTL, CheckKind.HTTP, CheckKind.TCP, CheckKind.UDP, CheckKind.GRPC}
)
_DURATIONS: Final = ("Interval", "Timeout", "DeregisterCriticalServiceAfter")


def is_external(node: Node | None) -> bool:
    """Tells whether a node has no agent."""
    return node is not None and node.meta.get(NODE_META) == "true"


def external_definition(check: Check) -> CheckDefinition | None:
    """What servers run for a check; None when its `Definition` is empty or can't be run."""
    if not check.definition:
        return None
    given: dict[str, Any] = {fold(name): value for name, value in check.definition.items()}
    for name in _DURATIONS:
        # The monitor's own form has both; the typed one is newer.
        longer = given.pop(fold(name + "Duration"), None)
        given[fold(name)] = _set(longer) or _set(given.get(fold(name)))
    if given["interval"] is None and _set(given.get("ttl")) is None:
        given["interval"] = f"{INTERVAL_DEFAULT_S:g}s"
    named = {"checkid": check.check_id, "name": check.name, "serviceid": check.service_id}
    try:
        definition = check_definition(given | named, strict=False)
    except InvalidRequest:
        return None
    return definition if definition.kind in _KINDS else None


def _set(duration: Any) -> Any:
    """A duration as it was given; None for none, and for the zero that stands for none."""
    return None if duration in ("", "0", "0s", 0) else duration


def host_definition(node: Node, catalog: Catalog) -> CheckDefinition | None:
    """The probe of a host itself; None when it is not asked for, or has no port to try."""
    if node.meta.get(PROBE_META) != "true" or not node.address:
        return None
    text = node.meta.get(PROBE_PORT_META, "")
    port = int(text) if text.isascii() and text.isdecimal() and len(text) <= 5 else 0
    if not text:
        port = _first_port(node, catalog)
    if not 0 < port <= PORT_MAX:
        return None
    host = f"[{node.address}]" if ":" in node.address else node.address
    return CheckDefinition(
        check_id=HOST_CHECK,
        name=HOST_CHECK_NAME,
        kind=CheckKind.TCP,
        tcp=f"{host}:{port}",
        interval_s=HOST_INTERVAL_S,
        timeout_s=HOST_TIMEOUT_S,
    )


def _first_port(node: Node, catalog: Catalog) -> int:
    """The port of the first (by id) TCP or HTTP check of a host."""
    for check in catalog.checks_of(node.name):
        definition = external_definition(check)
        if definition is None:
            continue
        port = _port_of(definition)
        if port:
            return port
    return 0


def _port_of(definition: CheckDefinition) -> int:
    try:
        if definition.kind is CheckKind.TCP:
            return split_host_port(definition.tcp, 0)[1]
        if definition.kind is CheckKind.HTTP:
            url = urlsplit(definition.url)
            return url.port or (443 if url.scheme == "https" else 80)
    except (ConfigurationError, ValueError):
        return 0
    return 0
