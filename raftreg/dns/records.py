"""Rows of the catalog as resource records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.rrset

from raftreg.dns.lookup import as_ip
from raftreg.dns.question import IPAddress
from raftreg.model import Node, ServiceInstance, Status

IN = dns.rdataclass.IN
# dnspython's constructors carry no types.
_A: Any = dns.rdtypes.IN.A.A
_AAAA: Any = dns.rdtypes.IN.AAAA.AAAA
_CNAME: Any = dns.rdtypes.ANY.CNAME.CNAME
_NS: Any = dns.rdtypes.ANY.NS.NS
_PTR: Any = dns.rdtypes.ANY.PTR.PTR
_SOA: Any = dns.rdtypes.ANY.SOA.SOA
_SRV: Any = dns.rdtypes.IN.SRV.SRV
SRV_PRIORITY = 1
_RAW_META_PREFIX = "rfc1035-"  # such a key's value is the whole text (Consul)
_TEXT_BYTES_MAX = 255


def record(name: dns.name.Name, ttl_s: int, rdata: dns.rdata.Rdata) -> dns.rrset.RRset:
    """One record. Each stands alone: dnspython shuffles within a set, by a chance not ours."""
    return dns.rrset.from_rdata(name, ttl_s, rdata)


def address_record(name: dns.name.Name, ttl_s: int, address: IPAddress) -> dns.rrset.RRset:
    """A or AAAA, by the kind of address."""
    if address.version == 4:
        return record(name, ttl_s, _A(IN, dns.rdatatype.A, str(address)))
    return record(name, ttl_s, _AAAA(IN, dns.rdatatype.AAAA, str(address)))


def cname(name: dns.name.Name, ttl_s: int, target: dns.name.Name) -> dns.rrset.RRset:
    """CNAME."""
    return record(name, ttl_s, _CNAME(IN, dns.rdatatype.CNAME, target))


def srv(
    name: dns.name.Name, ttl_s: int, weight: int, port: int, target: dns.name.Name
) -> dns.rrset.RRset:
    """SRV; what does not fit 16 bits is cut to what does."""
    rdata = _SRV(IN, dns.rdatatype.SRV, SRV_PRIORITY, _u16(weight), _u16(port), target)
    return record(name, ttl_s, rdata)


def _u16(number: int) -> int:
    return min(max(number, 0), 0xFFFF)


def ns(name: dns.name.Name, ttl_s: int, target: dns.name.Name) -> dns.rrset.RRset:
    """NS."""
    return record(name, ttl_s, _NS(IN, dns.rdatatype.NS, target))


def ptr(name: dns.name.Name, ttl_s: int, target: dns.name.Name) -> dns.rrset.RRset:
    """PTR."""
    return record(name, ttl_s, _PTR(IN, dns.rdatatype.PTR, target))


def soa(domain: dns.name.Name, serial: int, times_s: tuple[int, int, int, int]) -> dns.rrset.RRset:
    """SOA.

    Args:
        domain: The zone.
        serial: Its version.
        times_s: Refresh, retry, expire, and how long resolvers may remember that a name is not
            there: also the TTL of the record, for the smaller one counts (RFC 2308, 5).
    """
    rdata = _SOA(
        IN,
        dns.rdatatype.SOA,
        dns.name.from_text("ns", domain),
        dns.name.from_text("hostmaster", domain),
        serial & 0xFFFFFFFF,
        *times_s,
    )
    return record(domain, times_s[-1], rdata)


def txt(name: dns.name.Name, ttl_s: int, meta: Mapping[str, str]) -> list[dns.rrset.RRset]:
    """One TXT for each pair of a node's meta data, as "key=value" (RFC 1464)."""
    found = []
    for key, value in sorted(meta.items()):
        raw = meta_text(key, value).encode("utf-8", "replace")
        # An empty text still needs one (empty) character string.
        strings = [
            raw[at : at + _TEXT_BYTES_MAX] for at in range(0, max(len(raw), 1), _TEXT_BYTES_MAX)
        ]
        rdata = dns.rdtypes.ANY.TXT.TXT(IN, dns.rdatatype.TXT, strings)
        found.append(record(name, ttl_s, rdata))
    return found


def meta_text(key: str, value: str) -> str:
    """One pair as text; backquotes quote what would be read otherwise (RFC 1464, 2)."""
    if key.lower().startswith(_RAW_META_PREFIX):
        return value
    name = key.replace("`", "``").replace("=", "`=")
    inner = name.strip(" ")
    leading = len(name) - len(name.lstrip(" "))
    trailing = len(name) - leading - len(inner)
    return f"{'` ' * leading}{inner}{'` ' * trailing}={value.replace('`', '``')}"


def with_ttl(one: dns.rrset.RRset, ttl_s: int) -> dns.rrset.RRset:
    """The same record with another TTL."""
    return record(one.name, ttl_s, one[0])


def host_name(text: str) -> dns.name.Name | None:
    """A host name that may be a target; None when it is none."""
    try:
        name = dns.name.from_text(text)
    except (dns.exception.DNSException, UnicodeError, ValueError):
        return None
    return None if name == dns.name.root else name


def weight(instance: ServiceInstance, status: Status) -> int:
    """Weight of an instance in SRV, by its health."""
    weights = instance.weights
    return weights.warning if status is Status.WARNING else weights.passing


class Target:
    """Where an instance is: an address or a host name, and the name that stands for it in SRV.

    Attributes:
        name: Target of the SRV record.
        address: The address behind it; None when `name` is a host name from elsewhere.
    """

    __slots__ = ("address", "name")

    def __init__(self, name: dns.name.Name, address: IPAddress | None) -> None:
        self.name = name
        self.address = address


class Namer:
    """Makes the names below the domain.

    Args:
        domain: The absolute domain.
        datacenter: The own datacenter; part of every name made.
    """

    def __init__(self, domain: dns.name.Name, datacenter: str) -> None:
        self._parents = {
            kind: dns.name.from_text(f"{kind}.{datacenter}", domain)
            for kind in ("service", "node", "addr")
        }

    def of_node(self, name: str) -> dns.name.Name | None:
        """`name.node.dc.domain`; None when the node's name is no DNS name."""
        return self._below("node", name)

    def of_service(self, name: str) -> dns.name.Name | None:
        """`name.service.dc.domain`; None when the service's name is no DNS name."""
        return self._below("service", name)

    def of_address(self, address: IPAddress) -> dns.name.Name:
        """`hex.addr.dc.domain`."""
        return dns.name.Name((address.packed.hex().encode(), *self._parents["addr"].labels))

    def _below(self, kind: str, name: str) -> dns.name.Name | None:
        try:
            labels = tuple(label.encode("utf-8") for label in name.split("."))
            if not all(labels):
                return None
            return dns.name.Name((*labels, *self._parents[kind].labels))
        except (dns.exception.DNSException, UnicodeError):
            return None

    def target(self, instance: ServiceInstance, node: Node, asked: dns.name.Name) -> Target | None:
        """Where an instance is; None when neither it nor its node has a usable address.

        Args:
            instance: The instance.
            node: Its node.
            asked: The name in question: an instance whose address is that very name would point
                at itself, so its node's address counts.
        """
        own = as_ip(instance.address)
        if own is not None:
            return Target(self.of_address(own), own)
        if instance.address:
            name = host_name(instance.address)
            if name is not None and name != asked:
                return Target(name, None)
        return self.node_target(node)

    def node_target(self, node: Node) -> Target | None:
        """Where a node is; None when it has no usable address."""
        address = as_ip(node.address)
        if address is not None:
            return Target(self.of_node(node.name) or self.of_address(address), address)
        name = host_name(node.address) if node.address else None
        return None if name is None else Target(name, None)
