"""What a name asks for: labels in, one of a closed set of look-ups out.

The grammar is Consul's (its documentation, "DNS Interface"), read from the right; WHERE is nothing,
`dc`, or pairs of a value and its kind, such as `default.ns.dc1.dc`:

    [tag.]name.service[.WHERE].domain        instances of a service
    _name._tag[.service][.WHERE].domain      the same by RFC 2782; "tcp" means no tag
    name.connect[.WHERE].domain              what takes connections of the mesh for a service
    name.ingress[.WHERE].domain              gateways that lead to a service
    name.virtual[.WHERE].domain              the virtual address of a service
    name.node[.WHERE].domain                 a host
    name.query[.WHERE].domain                a prepared query; also _name._tcp.query
    hex.addr[.WHERE].domain                  an address

Letter case never matters (RFC 4343).
"""

from __future__ import annotations

import ipaddress
from typing import Final

import dns.exception
import dns.name
import dns.reversename
import msgspec

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

KINDS: Final = frozenset({"service", "connect", "ingress", "virtual", "node", "query", "addr"})
_NO_TAG: Final = "tcp"
_DEFAULT: Final = "default"  #: the one namespace and the one partition that there are


class ServiceName(msgspec.Struct, frozen=True):
    """Instances of a service, with a tag or (empty) with any."""

    name: str
    tag: str = ""


class ConnectName(msgspec.Struct, frozen=True):
    """Proxies of a service, and its instances that are in the mesh without one."""

    name: str


class IngressName(msgspec.Struct, frozen=True):
    """Ingress gateways of a service."""

    name: str


class VirtualName(msgspec.Struct, frozen=True):
    """The address that stands for a service in the mesh."""

    name: str


class QueryName(msgspec.Struct, frozen=True):
    """A prepared query by name or id."""

    name: str


class NodeName(msgspec.Struct, frozen=True):
    """A host."""

    name: str


class AddressName(msgspec.Struct, frozen=True):
    """An address written as hex digits."""

    address: IPAddress


class ReverseName(msgspec.Struct, frozen=True):
    """What has this address (PTR)."""

    address: IPAddress


class Apex(msgspec.Struct, frozen=True):
    """The domain itself."""


class NameServer(msgspec.Struct, frozen=True):
    """The name `ns` that SOA records give as the primary."""


class Between(msgspec.Struct, frozen=True):
    """A name without records that has names below it: no NXDOMAIN, which would deny those
    (RFC 8020).
    """


class Nothing(msgspec.Struct, frozen=True):
    """A name in the domain that does not exist."""


class Elsewhere(msgspec.Struct, frozen=True):
    """A name outside of the domain."""


Lookup = (
    ServiceName
    | ConnectName
    | IngressName
    | VirtualName
    | QueryName
    | NodeName
    | AddressName
    | ReverseName
    | Apex
    | NameServer
    | Between
    | Nothing
    | Elsewhere
)


def read_name(name: dns.name.Name, domain: dns.name.Name, datacenter: str) -> Lookup:
    """Says what a name asks for.

    Args:
        name: The absolute name of a question.
        domain: The absolute domain that is answered with authority.
        datacenter: The own datacenter; names of others do not exist here.
    """
    if not name.is_subdomain(domain):
        return _reverse(name)
    try:
        labels = [label.decode("utf-8").lower() for label in name.labels[: -len(domain.labels)]]
    except UnicodeDecodeError:
        return Nothing()
    if not labels:
        return Apex()
    if labels == ["ns"]:
        return NameServer()
    return _within(labels, datacenter.lower())


def _reverse(name: dns.name.Name) -> Lookup:
    try:
        return ReverseName(ipaddress.ip_address(dns.reversename.to_address(name)))
    except (dns.exception.DNSException, ValueError):
        return Elsewhere()


def _within(labels: list[str], datacenter: str) -> Lookup:
    if labels == [datacenter]:
        return Between()
    for position in reversed(range(len(labels))):
        if labels[position] in KINDS:
            break
        if labels[position].startswith("_"):  # `service` may be left out after `_name._tag`
            labels = [*labels[: position + 1], "service", *labels[position + 1 :]]
            position += 1  # noqa: PLW2901 (now the position of the inserted label)
            break
    else:
        return Nothing()
    front, kind, behind = labels[:position], labels[position], labels[position + 1 :]
    if not _is_here(behind, datacenter):
        return Nothing()
    if not front:
        return Between()
    return _lookup(kind, front)


def _is_here(labels: list[str], datacenter: str) -> bool:
    """Tells whether the labels behind the kind name this datacenter, or leave it open."""
    if labels in ([], [datacenter]):
        return True
    kinds, values = labels[1::2], labels[::2]
    if len(values) != len(kinds) or len(set(kinds)) != len(kinds):
        return False
    ours = {"dc": datacenter, "ns": _DEFAULT, "ap": _DEFAULT}
    return all(ours.get(kind) == value for kind, value in zip(kinds, values, strict=True))


def _lookup(kind: str, front: list[str]) -> Lookup:
    match kind:
        case "service":
            return _service(front)
        case "connect":
            return ConnectName(front[-1])
        case "ingress":
            return IngressName(front[-1])
        case "virtual":
            return VirtualName(front[-1])
        case "query":
            return _query(front)
        case "node":
            return NodeName(".".join(front))
        case _:
            return _address(front[0]) if len(front) == 1 else Nothing()


def _query(front: list[str]) -> QueryName:
    """Also `_name._tcp`; the name may hold dots, and what follows the last one is passed over."""
    if len(front) > 1 and front[0].startswith("_") and front[-1].startswith("_"):
        return QueryName(".".join(front[:-1])[1:])
    return QueryName(".".join(front))


def _service(front: list[str]) -> Lookup:
    if len(front) == 2 and all(label.startswith("_") and len(label) > 1 for label in front):
        tag = front[1][1:]
        return ServiceName(front[0][1:], "" if tag == _NO_TAG else tag)
    if front == [f"_{_NO_TAG}"]:
        return Between()
    return ServiceName(front[-1], ".".join(front[:-1]))


def _address(digits: str) -> Lookup:
    try:
        packed = bytes.fromhex(digits)
        if len(packed) * 2 != len(digits):  # fromhex passes over spaces
            return Nothing()
        return AddressName(ipaddress.ip_address(packed))
    except ValueError:
        return Nothing()
