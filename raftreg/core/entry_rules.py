"""What an entry of each kind must keep to, whatever else is configured. Pure.

The types of `raftreg.core.entries` say which fields there are; here is what they can't say. Rules
and the words of refusals follow Consul's documentation of each kind
(https://developer.hashicorp.com/consul/docs/connect/config-entries).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from raftreg.core.chain import HASHING, HTTP_PROTOCOLS
from raftreg.core.config_table import GLOBAL, misfit
from raftreg.core.entries.access import (
    HTTPPermission,
    JWTProvider,
    Permission,
    ServiceIntentions,
    SourceIntention,
)
from raftreg.core.entries.common import HeaderMatch, QueryMatch
from raftreg.core.entries.gateways import (
    APIGateway,
    IngressGateway,
    IngressListener,
    InlineCertificate,
    TCPRoute,
    TerminatingGateway,
)
from raftreg.core.entries.resilience import Resilience
from raftreg.core.entries.routing import (
    Failover,
    FailoverTarget,
    HashPolicy,
    LoadBalancer,
    ProxyDefaults,
    Redirect,
    Route,
    RouteHTTPMatch,
    ServiceDefaults,
    ServiceResolver,
    ServiceRouter,
    ServiceSplitter,
)
from raftreg.core.resilience_rules import resilience_refusal
from raftreg.core.results import quoted
from raftreg.model import ConfigEntry

META_PAIRS_MAX = 64
META_KEY_CHARS_MAX = 128
META_VALUE_CHARS_MAX = 512
NAME_CHARS_MAX = 1024
WILDCARD = "*"
PATHS = ("PathExact", "PathPrefix", "PathRegex")
RETRY_CONDITIONS: Final = frozenset(
    {
        "5xx",
        "cancelled",
        "connect-failure",
        "deadline-exceeded",
        "envoy-ratelimited",
        "gateway-error",
        "internal",
        "refused-stream",
        "reset",
        "reset-before-request",
        "resource-exhausted",
        "retriable-4xx",
        "unavailable",
    }
)
#: Kinds of which there is one entry, and its name.
ONLY_NAMES: Final = {"proxy-defaults": GLOBAL, "mesh": "mesh", "exported-services": "default"}
_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"}
)
_SUBSET_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")


class BadEntry(Exception):
    """An entry breaks a rule; the text says which, and where."""


def _require(holds: object, text: str) -> None:
    if not holds:
        raise BadEntry(text)


def entry_refusal(entry: ConfigEntry) -> str | None:
    """Tells what is wrong with an entry of a known kind; None when nothing is."""
    text = misfit(entry)
    if text is not None:
        return text
    try:
        _refuse_common(entry)
        rule = _RULES.get(entry.kind)
        if rule is not None:
            rule(entry.name, entry.body)
    except BadEntry as error:
        return str(error)
    return None


def _refuse_common(entry: ConfigEntry) -> None:
    only = ONLY_NAMES.get(entry.kind)
    _require(
        only in (None, entry.name),
        f'invalid name ({quoted(entry.name)}), only "{only}" is supported',
    )
    _require(len(entry.name) <= NAME_CHARS_MAX, f"Name is longer than {NAME_CHARS_MAX} characters")
    meta: Mapping[str, str] = entry.body.get("Meta", {})
    _require(len(meta) <= META_PAIRS_MAX, f"Meta holds more than {META_PAIRS_MAX} pairs")
    for key, value in meta.items():
        _require(
            0 < len(key) <= META_KEY_CHARS_MAX and len(value) <= META_VALUE_CHARS_MAX,
            f"Meta: keys have 1 to {META_KEY_CHARS_MAX} characters, values at most "
            f"{META_VALUE_CHARS_MAX}",
        )


def _not_negative(field: str, duration: str) -> None:
    _require(not duration.startswith("-"), f"Bad {field} '{duration}', must be >= 0")


# -- defaults --------------------------------------------------------------------------------------


def _proxy_defaults(name: str, body: ProxyDefaults) -> None:
    del name
    _resilience(body.get("Raftreg"))


def _resilience(block: Resilience | None) -> None:
    refusal = resilience_refusal(block) if block is not None else None
    _require(refusal is None, refusal or "")


def _service_defaults(name: str, body: ServiceDefaults) -> None:
    _require(name != WILDCARD, 'Name can\'t be "*"')
    _resilience(body.get("Raftreg"))
    upstreams = body.get("UpstreamConfig", {})
    _require(
        not upstreams.get("Defaults", {}).get("Name"),
        "UpstreamConfig.Defaults.Name must be empty: defaults are for all upstreams",
    )
    for at, override in enumerate(upstreams.get("Overrides", ())):
        named = override.get("Name", "")
        _require(named, f"UpstreamConfig.Overrides[{at}].Name is required")
        _require(named != WILDCARD, f'UpstreamConfig.Overrides[{at}].Name can\'t be "*"')
    destination = body.get("Destination")
    if destination is not None:
        _require(destination.get("Addresses"), "Destination.Addresses is required")
        _require(destination.get("Port"), "Destination.Port is required")


# -- router ----------------------------------------------------------------------------------------


def _router(name: str, body: ServiceRouter) -> None:
    del name
    for at, route in enumerate(body.get("Routes", ())):
        match = route.get("Match", {}).get("HTTP", {})
        _http_conditions(f"Route[{at}] ", match)
        for number, param in enumerate(match.get("QueryParam", ())):
            _query_condition(f"Route[{at}] QueryParam[{number}] ", param)
        _destination(f"Route[{at}] ", route, match)


def _http_conditions(where: str, match: RouteHTTPMatch | HTTPPermission) -> None:
    paths = [field for field in PATHS if match.get(field)]
    _require(
        len(paths) <= 1,
        f"{where}should only contain at most one of PathExact, PathPrefix, or PathRegex",
    )
    for field in ("PathExact", "PathPrefix"):
        path = str(match.get(field) or "/")
        _require(path.startswith("/"), f"{where}{field} doesn't start with '/': {quoted(path)}")
    for number, header in enumerate(match.get("Header", ())):
        _header_condition(f"{where}Header[{number}] ", header)
    _methods(where, match.get("Methods", ()))


def _header_condition(where: str, header: HeaderMatch) -> None:
    _require(header.get("Name"), f"{where}missing required Name field")
    kinds = ("Present", "Exact", "Prefix", "Suffix", "Contains", "Regex")
    _require(
        sum(bool(header.get(kind)) for kind in kinds) == 1,
        f"{where}should only contain one of Present, Exact, Prefix, Suffix, Contains, or Regex",
    )


def _query_condition(where: str, param: QueryMatch) -> None:
    _require(param.get("Name"), f"{where}missing required Name field")
    _require(
        sum(bool(param.get(kind)) for kind in ("Present", "Exact", "Regex")) == 1,
        f"{where}should only contain one of Present, Exact, or Regex",
    )


def _methods(where: str, methods: Sequence[str]) -> None:
    for method in methods:
        _require(method in _METHODS, f"{where}Methods contains an invalid method {quoted(method)}")
        _require(
            methods.count(method) == 1, f"{where}Methods contains {quoted(method)} more than once"
        )


def _destination(where: str, route: Route, match: RouteHTTPMatch) -> None:
    destination = route.get("Destination", {})
    rewritable = match.get("PathExact") or match.get("PathPrefix")
    _require(
        rewritable or not destination.get("PrefixRewrite"),
        f"{where}cannot make use of PrefixRewrite without configuring either PathExact or "
        "PathPrefix",
    )
    for condition in destination.get("RetryOn", ()):
        _require(
            condition in RETRY_CONDITIONS,
            f"{where}contains an invalid retry condition: {quoted(condition)}",
        )
    _not_negative(f"{where}RequestTimeout", destination.get("RequestTimeout", ""))
    _not_negative(f"{where}IdleTimeout", destination.get("IdleTimeout", ""))


# -- splitter --------------------------------------------------------------------------------------


def _splitter(name: str, body: ServiceSplitter) -> None:
    splits = body.get("Splits", [])
    _require(splits, "no splits configured")
    seen = set()
    for split in splits:
        service, subset = split.get("Service") or name, split.get("ServiceSubset", "")
        _require(
            (service, subset) not in seen,
            f"split destination occurs more than once: service={quoted(service)}, "
            f"subset={quoted(subset)}",
        )
        seen.add((service, subset))
    total = sum(round(split.get("Weight", 0.0) * 100) for split in splits)
    _require(total == 10_000, f"the sum of all split weights must be 100, not {total / 100:g}")


# -- resolver --------------------------------------------------------------------------------------


def _resolver(name: str, body: ServiceResolver) -> None:
    subsets = body.get("Subsets", {})
    for subset in subsets:
        _require(subset, "Subset defined with empty name")
        _require(
            _SUBSET_NAME.match(subset),
            f"Subset {quoted(subset)} is invalid: must be 1 to 63 characters of a-z 0-9 -",
        )
    default = body.get("DefaultSubset", "")
    _require(
        not default or default in subsets, f"DefaultSubset {quoted(default)} is not a valid subset"
    )
    if "Redirect" in body:
        _require(not body.get("Failover"), "Redirect and Failover cannot both be set")
        _redirect(name, body["Redirect"], subsets)
    for subset, failover in body.get("Failover", {}).items():
        _failover(name, subset, failover, subsets)
    _not_negative("ConnectTimeout", body.get("ConnectTimeout", ""))
    _not_negative("RequestTimeout", body.get("RequestTimeout", ""))
    _load_balancer(body.get("LoadBalancer", {}))


def _redirect(name: str, redirect: Redirect, subsets: Mapping[str, Any]) -> None:
    _require(any(redirect.values()), "Redirect is empty")
    _refuse_elsewhere("Redirect.", redirect)
    service, subset = redirect.get("Service", ""), redirect.get("ServiceSubset", "")
    if not service:
        _require(not subset, "Redirect.ServiceSubset defined without Redirect.Service")
    _subset_exists("Redirect.", name, service, subset, subsets)


def _subset_exists(
    where: str, name: str, service: str, subset: str, subsets: Mapping[str, Any]
) -> None:
    """A subset of the same service must be one of those defined here."""
    _require(
        not subset or service not in ("", name) or subset in subsets,
        f"{where}ServiceSubset {quoted(subset)} is not a valid subset of {quoted(name)}",
    )


def _failover(name: str, subset: str, failover: Failover, subsets: Mapping[str, Any]) -> None:
    where = f"Bad Failover[{quoted(subset)}]: "
    _require(subset == WILDCARD or subset in subsets, f"{where}not a valid subset")
    targets, datacenters = failover.get("Targets", ()), failover.get("Datacenters", ())
    service, wanted = failover.get("Service", ""), failover.get("ServiceSubset", "")
    _require(
        service or wanted or targets or datacenters,
        f"{where}one of Service, ServiceSubset, Targets, or Datacenters is required",
    )
    _refuse_elsewhere(where, failover)
    _subset_exists(where, name, service, wanted, subsets)
    for field in ("Datacenters", "ServiceSubset", "Service"):
        _require(
            not (targets and failover.get(field)), f"{where}Targets cannot be set with {field}"
        )
    for at, target in enumerate(targets):
        place = f"Bad Failover[{quoted(subset)}].Targets[{at}]: "
        _refuse_elsewhere(place, target)
        _subset_exists(
            place, name, target.get("Service", ""), target.get("ServiceSubset", ""), subsets
        )


def _refuse_elsewhere(where: str, place: Redirect | Failover | FailoverTarget) -> None:
    """There are no other clusters whose services could be meant."""
    for field in ("Peer", "SamenessGroup"):
        _require(not place.get(field), f"{where}{field} is not supported: there are no peers")


def _load_balancer(balancer: LoadBalancer) -> None:
    policy = balancer.get("Policy", "")
    for field, owner in (("RingHashConfig", "ring_hash"), ("LeastRequestConfig", "least_request")):
        _require(
            policy == owner or field not in balancer,
            f"Bad LoadBalancer configuration. {field} specified for incompatible load balancing "
            f"policy {quoted(policy)}",
        )
    policies = balancer.get("HashPolicies", ())
    _require(
        policy in HASHING or not policies,
        "Bad LoadBalancer configuration: HashPolicies specified for non-hash-based Policy: "
        f"{quoted(policy)}",
    )
    for at, each in enumerate(policies):
        _hash_policy(f"Bad LoadBalancer HashPolicy[{at}]: ", each)


def _hash_policy(where: str, policy: HashPolicy) -> None:
    field, value = policy.get("Field", ""), policy.get("FieldValue", "")
    if policy.get("SourceIP"):
        _require(
            not field,
            f"{where}A single hash policy cannot hash both a source address and a {quoted(field)}",
        )
        _require(not value, f"{where}A FieldValue cannot be specified when hashing SourceIP")
    _require(value or not field, f"{where}Field {quoted(field)} was specified without a FieldValue")
    _require(field or not value, f"{where}FieldValue requires a Field to apply to")
    if "CookieConfig" in policy:
        cookie = policy["CookieConfig"]
        _require(field == "cookie", f"{where}cookie_config provided for {quoted(field)}")
        _require(
            not (cookie.get("Session") and cookie.get("TTL", "0s") != "0s"),
            f"{where}a session cookie cannot have an associated TTL",
        )


# -- gateways --------------------------------------------------------------------------------------


def _ingress(name: str, body: IngressGateway) -> None:
    del name
    ports = set()
    for at, listener in enumerate(body.get("Listeners", ())):
        port = listener.get("Port", 0)
        _require(port, f"Listeners[{at}].Port is required")
        _require(port not in ports, f"port {port} declared on two listeners")
        ports.add(port)
        _ingress_listener(port, listener)


def _ingress_listener(port: int, listener: IngressListener) -> None:
    where = f"listener on port {port}: "
    protocol, services = listener.get("Protocol", "tcp"), listener.get("Services", [])
    _require(
        protocol == "tcp" or protocol in HTTP_PROTOCOLS,
        f"protocol must be 'tcp', 'http', 'http2', or 'grpc'. '{protocol}' is an unsupported "
        f"protocol on listener on port {port}",
    )
    _require(services, f"No service declared for listener with port {port}")
    _require(
        protocol != "tcp" or len(services) == 1,
        f"{where}multiple services per listener are only supported for L7 protocols",
    )
    seen = set()
    for service in services:
        named, hosts = service.get("Name", ""), service.get("Hosts", [])
        _require(named, f"{where}Service name cannot be blank")
        _require(named not in seen, f"{where}Service {quoted(named)} is declared twice")
        seen.add(named)
        _require(
            named != WILDCARD or protocol != "tcp",
            f'{where}Wildcard service name is only valid for protocol = "http", "http2" or "grpc"',
        )
        _require(
            not (hosts and named == WILDCARD),
            f"{where}Associating hosts to a wildcard service is not supported",
        )
        _require(
            not (hosts and protocol == "tcp"),
            f"{where}Associating hosts to a service is not supported for the tcp protocol",
        )


def _terminating(name: str, body: TerminatingGateway) -> None:
    del name
    seen = set()
    for service in body.get("Services", ()):
        named = service.get("Name", "")
        _require(named, "Service name cannot be blank.")
        _require(named not in seen, f"Service {quoted(named)} was specified more than once")
        seen.add(named)
        _require(
            bool(service.get("CertFile")) == bool(service.get("KeyFile")),
            f"Service {quoted(named)} must have both CertFile and KeyFile, or none of them",
        )


def _api_gateway(name: str, body: APIGateway) -> None:
    del name
    seen: dict[int, str] = {}
    for at, listener in enumerate(body.get("Listeners", ())):
        port, protocol = listener.get("Port", 0), listener.get("Protocol", "http")
        _require(port, f"Listeners[{at}].Port must be between 1 and 65535")
        _require(
            protocol in ("http", "tcp"),
            f"Listeners[{at}]: unsupported listener protocol {quoted(protocol)}, must be one of "
            "'tcp', or 'http'",
        )
        _require(
            seen.setdefault(port, protocol) == protocol,
            f"Listeners[{at}]: port {port} is used with several protocols",
        )


def _tcp_route(name: str, body: TCPRoute) -> None:
    del name
    for parent in body.get("Parents", ()):
        _require(
            parent.get("Kind", "api-gateway") == "api-gateway",
            f"unsupported parent kind: {quoted(parent.get('Kind', ''))}, must be 'api-gateway'",
        )


# -- access ----------------------------------------------------------------------------------------


def _intentions(name: str, body: ServiceIntentions) -> None:
    _no_partial_wildcard("Name", name)
    sources = body.get("Sources", [])
    _require(sources, "At least one source is required")
    seen = set()
    for at, source in enumerate(sources):
        named = source.get("Name", "")
        _require(named, f"Sources[{at}].Name is required")
        _no_partial_wildcard(f"Sources[{at}].Name", named)
        _require(named not in seen, f"Sources[{at}] defines {quoted(named)} more than once")
        seen.add(named)
        _source(f"Sources[{at}]", name, source)


def _no_partial_wildcard(field: str, name: str) -> None:
    _require(
        WILDCARD not in name or name == WILDCARD,
        f"{field}: wildcard character '*' cannot be used with partial values",
    )


def _source(where: str, destination: str, source: SourceIntention) -> None:
    for field in ("Peer", "SamenessGroup"):
        _require(not source.get(field), f"{where}.{field} is not supported: there are no peers")
    action, permissions = source.get("Action", ""), source.get("Permissions", [])
    _require(
        action or permissions, f"{where}.Action must be set to 'allow' or 'deny'"
    )  # fmt: skip
    _require(
        not (action and permissions),
        f"{where}.Action must be omitted if Permissions are specified",
    )
    _require(
        not (permissions and destination == WILDCARD),
        f"{where}.Permissions cannot be specified on intentions with wildcarded destinations",
    )
    for at, permission in enumerate(permissions):
        _permission(f"{where}.Permissions[{at}]", permission)


def _permission(where: str, permission: Permission) -> None:
    _require(permission.get("Action"), f"{where}.Action must be set to 'allow' or 'deny'")
    http = permission.get("HTTP", {})
    _require(any(http.values()), f"{where}.HTTP is required")
    _http_conditions(f"{where}.HTTP: ", http)


def _jwt_provider(name: str, body: JWTProvider) -> None:
    del name
    keys = body.get("JSONWebKeySet", {})
    _require("Local" in keys or "Remote" in keys, "JSONWebKeySet is required")
    _require(
        not ("Local" in keys and "Remote" in keys),
        "must specify exactly one of Local or Remote JSON Web key set",
    )
    for location in body.get("Locations", ()):
        _require(len(location) == 1, "must set exactly one of: Header, QueryParam, Cookie")


def _inline_certificate(name: str, body: InlineCertificate) -> None:
    del name
    # What a read shows in place of the key must not become the key.
    _require("-----BEGIN" in body.get("PrivateKey", ""), "PrivateKey must be a key in PEM form")


_RULES: Final[Mapping[str, Callable[[str, Any], None]]] = {
    "proxy-defaults": _proxy_defaults,
    "service-defaults": _service_defaults,
    "service-router": _router,
    "service-splitter": _splitter,
    "service-resolver": _resolver,
    "ingress-gateway": _ingress,
    "terminating-gateway": _terminating,
    "service-intentions": _intentions,
    "api-gateway": _api_gateway,
    "tcp-route": _tcp_route,
    "jwt-provider": _jwt_provider,
    "inline-certificate": _inline_certificate,
}
