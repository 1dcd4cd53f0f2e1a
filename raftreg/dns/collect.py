"""The records for a question, from a view of the catalog and what else is known. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import assert_never

import dns.name
import dns.rdatatype
import dns.rrset
import msgspec

from raftreg.config import DnsSettings
from raftreg.core.catalog import Catalog
from raftreg.core.changes import Topic
from raftreg.dns import records
from raftreg.dns.draft import Draft
from raftreg.dns.known import HOSTS_MAX, Failed, Gateway, Known, QueryAsk, host_ask
from raftreg.dns.lookup import Names, Row, is_given_out
from raftreg.dns.question import (
    AddressName,
    Apex,
    Between,
    ConnectName,
    Elsewhere,
    IngressName,
    IPAddress,
    NameServer,
    NodeName,
    Nothing,
    QueryName,
    ReverseName,
    ServiceName,
    VirtualName,
    read_name,
)
from raftreg.dns.ttl import ServiceTtls
from raftreg.model import Node

SERVERS_SERVICE = "consul"  #: the service under which servers register
NAME_SERVERS_MAX = 3
CNAME_CHAIN_MAX = 3

A, AAAA, ANY = dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.ANY
SRV, TXT, NS, SOA, PTR = (
    dns.rdatatype.SRV,
    dns.rdatatype.TXT,
    dns.rdatatype.NS,
    dns.rdatatype.SOA,
    dns.rdatatype.PTR,
)


class Zone(msgspec.Struct, frozen=True):
    """A domain that is answered with authority, and the names made below it."""

    domain: dns.name.Name
    namer: records.Namer


class Question(msgspec.Struct, frozen=True):
    """What is asked, over which view.

    Attributes:
        name: The absolute name, as it was asked.
        rdtype: The type.
        view: The catalog.
        known: What else is known.
        zone: The domain that the name was asked in; names in the answer stay in it.
        recursive: Host names of other domains may be asked for at recursors.
    """

    name: dns.name.Name
    rdtype: dns.rdatatype.RdataType
    view: Catalog
    known: Known
    zone: Zone
    recursive: bool

    def of(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Question:
        """The same for another name and type."""
        return msgspec.structs.replace(self, name=name, rdtype=rdtype)


class Collector:
    """Collects records by one set of settings.

    Args:
        settings: How names are answered.
        rng: Shuffles instances.
        wall: Seconds since the epoch, for the serial of SOA.
        datacenter: Name of the own datacenter.
    """

    def __init__(
        self, settings: DnsSettings, rng: Random, wall: Callable[[], float], datacenter: str
    ) -> None:
        self._settings = settings
        self._rng = rng
        self._wall = wall
        self._datacenter = datacenter
        self._ttls = ServiceTtls(settings.service_ttl, settings.service_ttl_s)
        self._names = Names()
        domains = [settings.domain, *([settings.alt_domain] if settings.alt_domain else [])]
        zones = [
            Zone(domain, records.Namer(domain, datacenter))
            for domain in map(dns.name.from_text, domains)
        ]
        self._main = zones[0]
        #: The longest first: one may be below the other.
        self._zones = sorted(zones, key=lambda zone: len(zone.domain), reverse=True)

    def zone(self, name: dns.name.Name) -> Zone:
        """The zone of a name; the main one for names outside of all."""
        for zone in self._zones:
            if name.is_subdomain(zone.domain):
                return zone
        return self._main

    def collect(
        self,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        view: Catalog,
        known: Known,
        *,
        recursive: bool,
    ) -> Draft | None:
        """Collects the records for a question; None when another domain has to answer.

        A draft without answers is to get the SOA of its zone.
        """
        asked = Question(name, rdtype, view, known, self.zone(name), recursive)
        draft = Draft()
        return draft if self._collect(draft, asked) else None

    def soa(self, zone: Zone) -> dns.rrset.RRset:
        """The SOA record of a zone, as of now."""
        settings = self._settings
        times = (
            settings.soa_refresh_s,
            settings.soa_retry_s,
            settings.soa_expire_s,
            settings.soa_min_ttl_s,
        )
        return records.soa(zone.domain, int(self._wall()), times)

    def _collect(self, draft: Draft, asked: Question) -> bool:  # noqa: C901 (an arm a kind)
        lookup = read_name(asked.name, asked.zone.domain, self._datacenter)
        match lookup:
            case ServiceName() | ConnectName():
                self._service(draft, asked, lookup)
            case IngressName() | QueryName():
                self._executed(draft, asked, _query_ask(lookup))
            case VirtualName():
                self._virtual(draft, asked, lookup)
            case NodeName():
                self._node(draft, asked, lookup)
            case AddressName():
                self._if_asked(draft, asked, lookup.address, self._settings.node_ttl_s)
            case ReverseName():
                return self._reverse(draft, asked, lookup.address)
            case Apex() | NameServer():
                self._servers(draft, asked, lookup)
            case Between() | Nothing():
                draft.exists = isinstance(lookup, Between)
            case Elsewhere():
                return False
            case _:
                assert_never(lookup)
        return True

    # -- services ------------------------------------------------------------------------------

    def _service(self, draft: Draft, asked: Question, lookup: ServiceName | ConnectName) -> None:
        names, view, only_passing = self._names, asked.view, self._settings.only_passing
        draft.topics = self._service_topics(view, lookup)
        if isinstance(lookup, ConnectName):
            rows = names.mesh(view, lookup.name, only_passing=only_passing)
        else:
            rows = names.instances(view, lookup.name, lookup.tag, only_passing=only_passing)
        self._rng.shuffle(rows)
        draft.shuffles = True
        self._rows(draft, asked, rows, self._ttls.of(lookup.name))

    def _service_topics(
        self, view: Catalog, lookup: ServiceName | ConnectName
    ) -> tuple[Topic, ...]:
        names, name = self._names, lookup.name
        if isinstance(lookup, ConnectName):
            exact = names.exact_in_mesh(view, name)
            kinds = "connect", "connect-checks"
            topics: list[Topic] = [] if exact == [name] else [("instances", "")]
        else:
            exact = names.exact(view, name)
            kinds = "service", "checks"
            topics = [] if exact == [name] else [("services", "")]
        return (*topics, *((kind, one) for one in exact for kind in kinds))

    def _executed(self, draft: Draft, asked: Question, ask: QueryAsk) -> None:
        """What a query gave, in its order."""
        if ask not in asked.known.queries:
            draft.missing[ask] = None
            draft.failed = True
            return
        found = asked.known.queries[ask]
        match found:
            case None:
                draft.exists = False
            case Failed():
                draft.failed = True
            case _:
                ttl_s = self._ttls.of(found.service.lower()) if found.ttl_s is None else found.ttl_s
                rows = [(row.instance, row.node, row.status) for row in found.rows]
                if ask.kind is Gateway.INGRESS:
                    rows = self._healthy(rows)
                self._rows(draft, asked, rows, ttl_s)

    def _healthy(self, rows: list[Row]) -> list[Row]:
        only_passing = self._settings.only_passing
        found = [row for row in rows if is_given_out(row[2], only_passing=only_passing)]
        self._rng.shuffle(found)
        return found

    def _rows(self, draft: Draft, asked: Question, rows: list[Row], ttl_s: int) -> None:
        """Answers with instances, in this order; none: the name does not exist."""
        draft.exists = bool(rows)
        aliases: list[dns.name.Name] = []
        for row, target in _targets(asked, rows):
            if asked.rdtype == SRV:
                self._srv(draft, asked, row, target, ttl_s)
            elif target.address is None:
                aliases.append(target.name)
            else:
                self._if_asked(draft, asked, target.address, ttl_s)
                if 0 < self._settings.a_record_limit <= len(draft.answers):
                    return
        if aliases and not draft.answers and asked.rdtype in (A, AAAA, ANY):
            # A name has one CNAME or none (RFC 1034, 3.6.2); addresses are the better answer.
            self._alias(draft, asked, self._best(asked, aliases), ttl_s)

    def _srv(
        self, draft: Draft, asked: Question, row: Row, target: records.Target, ttl_s: int
    ) -> None:
        instance, node, status = row
        weight = records.weight(instance, status)
        answer = records.srv(asked.name, ttl_s, weight, instance.port, target.name)
        draft.add(answer, *self._srv_extras(draft, asked, target, node, ttl_s))

    def _best(self, asked: Question, aliases: list[dns.name.Name]) -> dns.name.Name:
        """One that has been asked for already, so that rounds don't each ask for another."""
        for alias in aliases:
            for rdtype in (A, AAAA):
                if asked.known.hosts.get(host_ask(alias, rdtype)):
                    return alias
        return aliases[0]

    def _srv_extras(
        self, draft: Draft, asked: Question, target: records.Target, node: Node, ttl_s: int
    ) -> list[dns.rrset.RRset]:
        if target.address is not None:
            extras = [records.address_record(target.name, ttl_s, target.address)]
        else:
            draft.topics = None
            extras = self._host(draft, asked, target.name, (A, AAAA), ttl_s)
        if self._settings.node_meta_txt:
            owner = asked.zone.namer.of_node(node.name)
            if owner is not None:
                extras.extend(records.txt(owner, self._settings.node_ttl_s, node.meta))
        return extras

    def _virtual(self, draft: Draft, asked: Question, lookup: VirtualName) -> None:
        addresses = self._names.virtual(asked.view, lookup.name)
        draft.exists = addresses is not None
        for address in addresses or ():
            self._if_asked(draft, asked, address, self._settings.node_ttl_s)

    # -- host names ----------------------------------------------------------------------------

    def _alias(self, draft: Draft, asked: Question, target: dns.name.Name, ttl_s: int) -> None:
        """Answers with a CNAME and with what is known of the name that it points to."""
        draft.topics = None
        draft.add(records.cname(asked.name, ttl_s, target))
        rdtypes = (A, AAAA) if asked.rdtype == ANY else (asked.rdtype,)
        for answer in self._host(draft, asked, target, rdtypes, ttl_s):
            if answer.name != asked.name:  # a circle ends here
                draft.add(answer)

    def _host(
        self,
        draft: Draft,
        asked: Question,
        name: dns.name.Name,
        rdtypes: Iterable[dns.rdatatype.RdataType],
        ttl_s: int,
    ) -> list[dns.rrset.RRset]:
        """Records of a host name: from the view when it is in a domain of ours, else as learnt."""
        zone = self.zone(name)
        found: list[dns.rrset.RRset] = []
        if name.is_subdomain(zone.domain):
            if draft.aliases < CNAME_CHAIN_MAX:
                for rdtype in rdtypes:
                    further = Draft(draft.aliases + 1)
                    inner = msgspec.structs.replace(asked.of(name, rdtype), zone=zone)
                    self._collect(further, inner)
                    draft.missing.update(further.missing)
                    found.extend(further.answers)
            return _each_once(found)
        for rdtype in rdtypes:
            ask = host_ask(name, rdtype)
            learnt = asked.known.hosts.get(ask)
            if learnt is None and asked.recursive and len(draft.missing) < HOSTS_MAX:
                draft.missing[ask] = None
            found.extend(records.with_ttl(one, min(one.ttl, ttl_s)) for one in learnt or ())
        return _each_once(found)

    # -- the rest ------------------------------------------------------------------------------

    def _node(self, draft: Draft, asked: Question, lookup: NodeName) -> None:
        draft.topics = (("nodes", ""),)
        node = self._names.node(asked.view, lookup.name)
        if node is None:
            draft.exists = False
            return
        ttl_s = self._settings.node_ttl_s
        target = asked.zone.namer.node_target(node)
        if target is not None and target.address is not None:
            self._if_asked(draft, asked, target.address, ttl_s)
        elif target is not None and target.name != asked.name and asked.rdtype in (A, AAAA, ANY):
            self._alias(draft, asked, target.name, ttl_s)
            return  # a CNAME has no other records beside it
        texts = records.txt(asked.name, ttl_s, node.meta)
        if asked.rdtype in (TXT, ANY):
            for text in texts:
                draft.add(text)
        elif draft.answers and self._settings.node_meta_txt:
            draft.extras[-1].extend(texts)

    def _if_asked(self, draft: Draft, asked: Question, address: IPAddress, ttl_s: int) -> None:
        """Adds A or AAAA when the question is for that type or for any."""
        if asked.rdtype in (ANY, A if address.version == 4 else AAAA):
            draft.add(records.address_record(asked.name, ttl_s, address))

    def _reverse(self, draft: Draft, asked: Question, address: IPAddress) -> bool:
        """Names of an address; one that we don't know is for other name servers, if there are."""
        namer = self._main.namer
        nodes = self._names.nodes_at(asked.view, address)
        if nodes:
            targets = [namer.of_node(one) for one in nodes]
        else:
            services = self._names.services_at(asked.view, address)
            targets = [namer.of_service(one) for one in services]
        known = [target for target in targets if target is not None]
        if asked.rdtype in (PTR, ANY):
            for target in known:
                draft.add(records.ptr(asked.name, self._settings.node_ttl_s, target))
        draft.exists = bool(known)
        return bool(known) or not asked.recursive

    def _servers(self, draft: Draft, asked: Question, lookup: Apex | NameServer) -> None:
        """The domain itself, and the name that its SOA gives as the primary."""
        found, ttl_s = self._name_servers(asked), self._settings.node_ttl_s
        if isinstance(lookup, NameServer):
            for _, address in found:
                self._if_asked(draft, asked, address, ttl_s)
            return
        if asked.rdtype not in (NS, SOA, ANY):
            return
        targets = [one for one, _ in found] or [dns.name.from_text("ns", asked.zone.domain)]
        servers = [records.ns(asked.name, ttl_s, target) for target in targets]
        draft.additional = [records.address_record(one, ttl_s, address) for one, address in found]
        if asked.rdtype == NS:
            for server in servers:
                draft.add(server)
            draft.authority.append(self.soa(asked.zone))
        else:
            draft.add(self.soa(asked.zone))
            draft.authority.extend(servers)

    def _name_servers(self, asked: Question) -> list[tuple[dns.name.Name, IPAddress]]:
        """Names and addresses of up to three servers of the cluster."""
        found = self._names.instances(asked.view, SERVERS_SERVICE, "", only_passing=False)
        self._rng.shuffle(found)
        targets = {
            target.name: target.address
            for target in (asked.zone.namer.node_target(node) for _, node, _ in found)
            if target is not None and target.address is not None
        }
        return list(targets.items())[:NAME_SERVERS_MAX]


def _each_once(found: Iterable[dns.rrset.RRset]) -> list[dns.rrset.RRset]:
    """Each record once: the same CNAME may come with A and with AAAA."""
    return list({(one.name, one.rdtype, one[0]): one for one in found}.values())


def _query_ask(lookup: QueryName | IngressName) -> QueryAsk:
    kind = Gateway.QUERY if isinstance(lookup, QueryName) else Gateway.INGRESS
    return QueryAsk(lookup.name, kind)


def _targets(asked: Question, rows: Iterable[Row]) -> Iterator[tuple[Row, records.Target]]:
    """Where instances are; instances that would give the same record come once."""
    seen: set[tuple[object, ...]] = set()
    for row in rows:
        instance, node, _ = row
        target = asked.zone.namer.target(instance, node, asked.name)
        if target is None:
            continue
        where = target.address or target.name
        key = (where, instance.port, node.name) if asked.rdtype == SRV else (where,)
        if key not in seen:
            seen.add(key)
            yield row, target
