"""What a name asks for: labels in, one of a closed set of look-ups out.

The grammar is Consul's (its documentation, "DNS Interface"), read from the right:
`[tag.]name.service[.dc].domain`, `_name._tag.service[.dc].domain` (RFC 2782, "tcp" means no tag),
`name.node[.dc].domain`, `hex.addr[.dc].domain`. Letter case never matters (RFC 4343).
"""

from __future__ import annotations

import ipaddress
from typing import Final

import dns.exception
import dns.name
import dns.reversename
import msgspec

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

KINDS: Final = frozenset({"service", "node", "addr", "query"})
_NO_TAG: Final = "tcp"


class ServiceName(msgspec.Struct, frozen=True):
    """Instances of a service, with a tag or (empty) with any."""

    name: str
    tag: str = ""


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
    if behind not in ([], [datacenter]):
        return Nothing()
    if not front:
        return Between()
    return _lookup(kind, front)


def _lookup(kind: str, front: list[str]) -> Lookup:
    match kind:
        case "service":
            return _service(front)
        case "node":
            return NodeName(".".join(front))
        case "addr" if len(front) == 1:
            return _address(front[0])
        case _:  # prepared queries: none are kept yet
            return Nothing()


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
