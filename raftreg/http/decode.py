"""Definitions of services and checks, as agents get them by API or file. Pure.

Keys are accepted in any letter case and in snake case. What can't be understood is refused with
`InvalidRequest`, whose text says what is wrong, in the words that clients know where there are
such words.
"""

from __future__ import annotations

import enum

import msgspec

from raftreg.config import join_host_port
from raftreg.errors import InvalidRequest
from raftreg.http.fields import (
    Fields,
    meta_of,
    name_of,
    port_of,
    service_address_of,
    status_of,
    tagged_addresses_of,
    weights_of,
)
from raftreg.http.proxies import (
    LOCAL_ADDRESS,
    SIDECAR_SUFFIX,
    as_sidecar,
    check_mesh_parts,
    mesh_parts,
    nested,
    sidecar_id,
)
from raftreg.model import ServiceInstance, Status

INTERVAL_MIN_S = 1.0
TIMEOUT_DEFAULT_S = 10.0
DEREGISTER_AFTER_MIN_S = 60.0
OUTPUT_BYTES_MAX = 4096


class CheckKind(enum.Enum):
    """How the health of something is found out."""

    TTL = "ttl"
    HTTP = "http"
    TCP = "tcp"
    UDP = "udp"
    GRPC = "grpc"
    SCRIPT = "script"
    ALIAS = "alias"


class CheckDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent runs to learn a check's status.

    Attributes:
        check_id: Id on its node.
        service_id: The instance that it belongs to, "" for the node.
        status: First status, None: the agent's default (critical), or what it has already.
        success_before_passing, failures_before_warning, failures_before_critical: Consecutive
            results beyond the first that it takes to change; 0 changes at once.
        deregister_after_s: Seconds of being critical after which the service goes, 0: never.
        output_max_bytes: Output beyond it is cut.
    """

    check_id: str
    name: str
    kind: CheckKind
    service_id: str = ""
    notes: str = ""
    url: str = ""
    method: str = ""
    headers: dict[str, tuple[str, ...]] = {}
    body: str = ""
    tcp: str = ""
    udp: str = ""
    grpc: str = ""
    grpc_tls: bool = False
    args: tuple[str, ...] = ()
    alias_node: str = ""
    alias_service: str = ""
    interval_s: float = 0.0
    timeout_s: float = TIMEOUT_DEFAULT_S
    ttl_s: float = 0.0
    status: Status | None = None
    success_before_passing: int = 0
    failures_before_warning: int = 0
    failures_before_critical: int = 0
    deregister_after_s: float = 0.0
    tls_skip_verify: bool = False
    tls_server_name: str = ""
    output_max_bytes: int = OUTPUT_BYTES_MAX


class ServiceDefinition(msgspec.Struct, frozen=True):
    """An instance with the checks that its agent runs for it."""

    service: ServiceInstance
    checks: tuple[CheckDefinition, ...] = ()
    #: The instance whose sidecar this is, "" for any other.
    sidecar_of: str = ""
    #: The sidecar that is registered with it; its port 0 means any that is free on its agent.
    sidecar: ServiceDefinition | None = None


def _words(text: str) -> frozenset[str]:
    """Folded field names, written as one text."""
    return frozenset(text.split())


_CHECK_FIELDS = _words(
    "checkid id name status notes scriptargs args http header headers method body tcp udp "
    "interval aliasnode aliasservice dockercontainerid shell grpc grpcusetls tlsskipverify "
    "tlsservername timeout ttl successbeforepassing failuresbeforewarning "
    "failuresbeforecritical proxyhttp proxygrpc deregistercriticalserviceafter outputmaxsize "
    "serviceid token namespace"
)
_SERVICE_FIELDS = _words(
    "id name service tags meta address taggedaddresses port weights enabletagoverride check "
    "checks kind proxy connect token namespace"
)


def service_definition(obj: object, *, node: str = "", strict: bool = True) -> ServiceDefinition:
    """Reads a service registration (PUT /v1/agent/service/register, or a definition file).

    Args:
        obj: The decoded JSON object.
        node: Name of the agent's node, for the row.
        strict: Refuse unknown fields.

    Raises:
        InvalidRequest: It can't be used; the text says why.
    """
    fields = Fields(obj)
    if strict:
        fields.refuse_unknown(_SERVICE_FIELDS)
    name = fields.text("Name", "Service")
    if not name:
        raise InvalidRequest("Missing service name")
    service = _instance(fields, name, fields.text("ID") or name, node)
    check_mesh_parts(service)
    checks = _service_checks(fields, service, strict=strict)
    inner = nested(fields)
    sidecar = None if inner is None else _sidecar(inner, service, strict=strict)
    return ServiceDefinition(service, checks, sidecar=sidecar)


def _instance(fields: Fields, name: str, service_id: str, node: str) -> ServiceInstance:
    proxy, connect = mesh_parts(fields)
    return ServiceInstance(
        node=node,
        id=name_of(service_id, "service ID"),
        name=name_of(name, "service name"),
        tags=fields.texts("Tags"),
        address=service_address_of(fields.text("Address")),
        port=port_of(fields.integer("Port")),
        meta=meta_of(fields.text_map("Meta"), "Service"),
        tagged_addresses=tagged_addresses_of(fields),
        weights=weights_of(fields),
        enable_tag_override=fields.boolean("EnableTagOverride"),
        kind=fields.text("Kind"),
        proxy=proxy,
        connect=connect,
    )


def _sidecar(obj: object, owner: ServiceInstance, *, strict: bool) -> ServiceDefinition:
    """The `Connect.SidecarService` of a registration, with what it takes from the service."""
    fields = Fields(obj, "Connect.SidecarService")
    if strict:
        fields.refuse_unknown(_SERVICE_FIELDS)
    name = fields.text("Name", "Service") or owner.name + SIDECAR_SUFFIX
    row = as_sidecar(_instance(fields, name, sidecar_id(owner.id), owner.node), owner)
    check_mesh_parts(row, sidecar=True)
    checks = _service_checks(fields, row, strict=strict)
    return ServiceDefinition(row, checks, sidecar_of=owner.id)


def with_port(sidecar: ServiceDefinition, port: int) -> ServiceDefinition:
    """A sidecar with its port; one without checks gets those that every sidecar has.

    They are Consul's: that it listens, and that the service behind it is healthy.
    """
    row = msgspec.structs.replace(sidecar.service, port=port)
    checks = sidecar.checks or _sidecar_checks(row, sidecar.sidecar_of)
    return msgspec.structs.replace(sidecar, service=row, checks=checks)


def _sidecar_checks(row: ServiceInstance, owner: str) -> tuple[CheckDefinition, ...]:
    host = row.address or row.proxy.get("LocalServiceAddress") or LOCAL_ADDRESS
    return (
        CheckDefinition(
            check_id=f"service:{row.id}:1",
            name="Connect Sidecar Listening",
            kind=CheckKind.TCP,
            service_id=row.id,
            tcp=join_host_port(host, row.port),
            interval_s=10.0,
        ),
        CheckDefinition(
            check_id=f"service:{row.id}:2",
            name=f"Connect Sidecar Aliasing {owner}",
            kind=CheckKind.ALIAS,
            service_id=row.id,
            alias_service=owner,
        ),
    )


def _service_checks(
    fields: Fields, service: ServiceInstance, *, strict: bool
) -> tuple[CheckDefinition, ...]:
    """The `Checks` and the `Check` of a service, with their default ids and names."""
    given = [item for item in fields.items("Checks") if item is not None]
    if fields.mapping("Check"):
        given.append(fields.mapping("Check"))
    checks = []
    for number, item in enumerate(given, start=1):
        suffix = f":{number}" if len(given) > 1 else ""
        checks.append(
            check_definition(
                item,
                default_id=f"service:{service.id}{suffix}",
                default_name=f"Service '{service.name}' check",
                service_id=service.id,
                strict=strict,
            )
        )
    ids = [check.check_id for check in checks]
    if len(set(ids)) != len(ids):
        raise InvalidRequest(f"Invalid check: the same CheckID twice in {ids}")
    return tuple(checks)


def check_definition(
    obj: object,
    *,
    default_id: str = "",
    default_name: str = "",
    service_id: str = "",
    strict: bool = True,
) -> CheckDefinition:
    """Reads a check registration (PUT /v1/agent/check/register, a service's `Check`, or a file).

    Args:
        obj: The decoded JSON object.
        default_id: Id when it gives none; "" takes its name.
        default_name: Name when it gives none; "" refuses a check without a name.
        service_id: The instance that it belongs to when it does not say so itself.
        strict: Refuse unknown fields.

    Raises:
        InvalidRequest: It can't be used; the text says why.
    """
    fields = Fields(obj)
    if strict:
        fields.refuse_unknown(_CHECK_FIELDS)
    if "DockerContainerID" in fields:
        raise InvalidRequest("Invalid check: Docker checks are not supported")
    name = fields.text("Name") or default_name
    if not name:
        raise InvalidRequest("Missing check name")
    check = CheckDefinition(
        check_id=name_of(fields.text("CheckID", "ID") or default_id or name, "check ID"),
        name=name_of(name, "check name"),
        kind=_check_kind(fields),
        service_id=fields.text("ServiceID") or service_id,
        notes=fields.text("Notes"),
        url=fields.text("HTTP"),
        method=fields.text("Method"),
        headers=_headers(fields),
        body=fields.text("Body"),
        tcp=fields.text("TCP"),
        udp=fields.text("UDP"),
        grpc=fields.text("GRPC"),
        grpc_tls=fields.boolean("GRPCUseTLS"),
        args=fields.texts("ScriptArgs", "Args"),
        alias_node=fields.text("AliasNode"),
        alias_service=fields.text("AliasService"),
        interval_s=fields.duration_s("Interval"),
        timeout_s=fields.duration_s("Timeout") or TIMEOUT_DEFAULT_S,
        ttl_s=fields.duration_s("TTL"),
        status=status_of(fields.text("Status")),
        success_before_passing=fields.integer("SuccessBeforePassing", low=0),
        failures_before_warning=fields.integer("FailuresBeforeWarning", low=0),
        failures_before_critical=fields.integer("FailuresBeforeCritical", low=0),
        deregister_after_s=fields.duration_s("DeregisterCriticalServiceAfter"),
        tls_skip_verify=fields.boolean("TLSSkipVerify"),
        tls_server_name=fields.text("TLSServerName"),
        output_max_bytes=fields.integer("OutputMaxSize", low=0) or OUTPUT_BYTES_MAX,
    )
    return _checked(check)


def _check_kind(fields: Fields) -> CheckKind:
    """The one kind that the fields name."""
    kinds = [
        kind
        for kind, names in (
            (CheckKind.HTTP, ("HTTP",)),
            (CheckKind.TCP, ("TCP",)),
            (CheckKind.UDP, ("UDP",)),
            (CheckKind.GRPC, ("GRPC",)),
            (CheckKind.SCRIPT, ("ScriptArgs", "Args")),
            (CheckKind.ALIAS, ("AliasNode", "AliasService")),
        )
        if any(fields.get(name) for name in names)
    ]
    if len(kinds) > 1:
        named = ", ".join(kind.value for kind in kinds)
        raise InvalidRequest(f"Invalid check: it is of several kinds at once: {named}")
    return kinds[0] if kinds else CheckKind.TTL


def _checked(check: CheckDefinition) -> CheckDefinition:
    """Holds a definition to Consul's rules (and messages), and raises times to their floors."""
    for what, seconds in (
        ("Interval", check.interval_s),
        ("Timeout", check.timeout_s),
        ("TTL", check.ttl_s),
        ("DeregisterCriticalServiceAfter", check.deregister_after_s),
    ):
        if seconds < 0:
            raise InvalidRequest(f"Invalid check: {what} must not be negative")
    _check_times(check)
    _check_thresholds(check)
    interval_s = max(check.interval_s, INTERVAL_MIN_S) if check.interval_s else 0.0
    after_s = (
        max(check.deregister_after_s, DEREGISTER_AFTER_MIN_S) if check.deregister_after_s else 0
    )
    return msgspec.structs.replace(check, interval_s=interval_s, deregister_after_s=float(after_s))


def _check_times(check: CheckDefinition) -> None:
    """Interval and TTL fit the kind."""
    if check.interval_s > 0 and check.ttl_s > 0:
        raise InvalidRequest("Invalid check: Interval and TTL cannot both be specified")
    match check.kind:
        case CheckKind.TTL:
            if check.ttl_s <= 0:
                raise InvalidRequest("Invalid check: TTL must be > 0 for TTL checks")
        case CheckKind.ALIAS:
            if check.interval_s:
                raise InvalidRequest("Invalid check: Interval cannot be set for Alias checks")
            if check.ttl_s:
                raise InvalidRequest("Invalid check: TTL must be not be set for Alias checks")
        case _:
            if check.interval_s <= 0:
                raise InvalidRequest(
                    "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks"
                )


def _check_thresholds(check: CheckDefinition) -> None:
    """A warning can't need more failures than critical does."""
    if check.failures_before_critical and (
        check.failures_before_warning > check.failures_before_critical
    ):
        raise InvalidRequest(
            "Invalid check: FailuresBeforeWarning can't be higher than FailuresBeforeCritical"
        )


def _headers(fields: Fields) -> dict[str, tuple[str, ...]]:
    """`Header` of an HTTP check: name -> list of values (one text counts as a list of one)."""
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in fields.mapping("Header", "Headers").items():
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise InvalidRequest(f"Invalid check: Header {name!r} must be a list of strings")
        if any(char in "\r\n\0" for text in (name, *values) for char in text):
            raise InvalidRequest(f"Invalid check: Header {name!r} holds a line break")
        headers[name] = tuple(values)
    return headers
