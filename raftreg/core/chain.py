"""The discovery chain of a service: its router, splitters and resolvers as one graph. Pure.

What leads where is decided here once, for proxies, for the HTTP API and for the check that a new
entry leaves every chain whole. Names, shapes and the texts of errors are those of Consul's compiled
chain (https://developer.hashicorp.com/consul/api-docs/discovery-chain).

Nested splitters are flattened: their legs become legs of the outer one, weights multiplied. Sizes
are bounded, since a few nested splitters can stand for any number of legs.
"""

from __future__ import annotations

import hashlib

import msgspec

from raftreg.core.chain_graph import (
    Chain,
    ChainError,
    ChainFailover,
    ChainNode,
    ChainResolver,
    ChainRoute,
    ChainSplit,
    ChainTarget,
    flatten,
    reachable,
    refuse_cycles,
    targets_of,
)
from raftreg.core.config_table import ConfigTable
from raftreg.core.entries.common import MeshGateway
from raftreg.core.entries.routing import (
    Failover,
    FailoverTarget,
    Redirect,
    Route,
    ServiceResolver,
    Split,
)
from raftreg.core.results import quoted

NODES_MAX = 2048
NESTING_MAX = 32  #: splitters that lead to splitters
CONNECT_TIMEOUT = "5s"
HTTP_PROTOCOLS = frozenset({"http", "http2", "grpc"})
HASHING = frozenset({"ring_hash", "maglev"})


class Overrides(msgspec.Struct, frozen=True):
    """What a caller wants to be otherwise; "" leaves it as the entries say.

    Attributes:
        protocol: Protocol of the chain; one that is not HTTP leaves routers and splitters out.
        connect_timeout: Of all targets, as Go writes a duration.
        mesh_gateway: Mode of all targets.
    """

    protocol: str = ""
    connect_timeout: str = ""
    mesh_gateway: str = ""


class Place(msgspec.Struct, frozen=True):
    """What a target stands for."""

    service: str
    subset: str
    datacenter: str

    @property
    def id(self) -> str:
        """As targets are keyed."""
        prefix = f"{self.subset}." if self.subset else ""
        return f"{prefix}{self.service}.default.default.{self.datacenter}"


NO_OVERRIDES = Overrides()


def is_http(protocol: str) -> bool:
    """Tells whether requests of this protocol can be routed and split."""
    return protocol.lower() in HTTP_PROTOCOLS


def compile_chain(
    entries: ConfigTable,
    service: str,
    *,
    datacenter: str,
    trust_domain: str,
    overrides: Overrides = NO_OVERRIDES,
) -> Chain:
    """Compiles the chain of a service.

    Args:
        entries: All configuration entries.
        service: Its name.
        datacenter: Where it is resolved.
        trust_domain: Ends the SNI of each target.
        overrides: What the caller wants to be otherwise.

    Raises:
        ChainError: The entries make no chain.
    """
    return _Compiler(entries, service, datacenter, trust_domain, overrides).compile()


class _Compiler:
    """One compilation."""

    def __init__(
        self,
        entries: ConfigTable,
        service: str,
        datacenter: str,
        trust_domain: str,
        overrides: Overrides,
    ) -> None:
        self._entries = entries
        self._service = service
        self._datacenter = datacenter
        self._trust_domain = trust_domain
        self._overrides = overrides
        self._plain = bool(overrides.protocol) and not is_http(overrides.protocol)
        self._customized: dict[str, str] = {}
        self._protocol = ""
        self._routed = False
        self._nodes: dict[str, ChainNode] = {}
        self._targets: dict[str, ChainTarget] = {}

    # -- the whole -----------------------------------------------------------------------------

    def compile(self) -> Chain:
        start = self._start()
        refuse_cycles(self._nodes, start)
        flatten(self._nodes)
        nodes = reachable(self._nodes, start)
        if self._routed and not is_http(self._protocol):
            raise ChainError(
                f"discovery chain {quoted(self._service)} uses a protocol "
                f"{quoted(self._protocol)} that does not permit advanced routing or splitting "
                "behavior"
            )
        wanted = self._overrides.protocol
        if wanted and wanted != self._protocol:
            self._protocol = self._customized["protocol"] = wanted
        used = targets_of(nodes.values())
        chain = Chain(
            ServiceName=self._service,
            Namespace="default",
            Partition="default",
            Datacenter=self._datacenter,
            Protocol=self._protocol,
            StartNode=start,
            Nodes=nodes,
            Targets={id_: target for id_, target in self._targets.items() if id_ in used},
        )
        self._mark(chain, nodes[start])
        return chain

    def _mark(self, chain: Chain, start: ChainNode) -> None:
        """Fields that are there only when there is something to say."""
        resolver = start.get("Resolver")
        if resolver is not None and resolver.get("Default"):
            target = chain["Targets"][resolver["Target"]]
            if target["Service"] == self._service:
                chain["Default"] = True
        meta = self._entries.defaults(self._service).get("Meta")
        if meta:
            chain["ServiceMeta"] = meta
        if self._customized:
            text = msgspec.json.encode(self._customized, order="sorted")
            chain["CustomizationHash"] = hashlib.sha256(text).hexdigest()[:8]

    def _start(self) -> str:
        """Builds all nodes; gives the first one's key."""
        router = self._entries.router(self._service)
        if router is not None and self._plain:
            router, self._customized["protocol"] = None, self._overrides.protocol
        if router is None:
            return self._next(self._service)
        self._routed = True
        self._use_protocol(self._service)
        routes = [
            ChainRoute(Definition=route, NextNode=self._route_target(route))
            for route in router.get("Routes", ())
        ]
        last = Route(
            Match={"HTTP": {"PathPrefix": "/"}},
            Destination={
                "Service": self._service,
                "Namespace": "default",
                "Partition": "default",
            },
        )
        routes.append(ChainRoute(Definition=last, NextNode=self._next(self._service)))
        name = f"{self._service}.default.default"
        return self._record(ChainNode(Type="router", Name=name, Routes=routes))

    def _route_target(self, route: Route) -> str:
        destination = route.get("Destination", {})
        service = destination.get("Service") or self._service
        subset = destination.get("ServiceSubset", "")
        if subset:
            return self._resolver(Place(service, subset, self._datacenter))
        return self._next(service)

    def _next(self, service: str) -> str:
        """The splitter of a service, else its resolver."""
        return self._splitter(service, ()) or self._resolver(Place(service, "", self._datacenter))

    def _record(self, node: ChainNode) -> str:
        if len(self._nodes) >= NODES_MAX:
            raise ChainError(
                f"discovery chain {quoted(self._service)} uses more than {NODES_MAX} nodes"
            )
        key = f"{node['Type']}:{node['Name']}"
        self._nodes[key] = node
        return key

    # -- protocols -----------------------------------------------------------------------------

    def _use_protocol(self, service: str) -> None:
        protocol = self._entries.protocol(service)
        if not self._protocol:
            self._protocol = protocol
        elif self._protocol != protocol:
            raise ChainError(
                f"discovery chain {quoted(self._service)} uses inconsistent protocols; service "
                f"{quoted(service)} has {quoted(protocol)} which is not {quoted(self._protocol)}"
            )

    # -- splitters -----------------------------------------------------------------------------

    def _splitter(self, service: str, above: tuple[str, ...]) -> str:
        """The key of a service's splitter, "" when it has none."""
        key = f"splitter:{service}.default.default"
        if key in self._nodes:
            return key
        splitter = self._entries.splitter(service)
        if splitter is not None and self._plain:
            splitter, self._customized["protocol"] = None, self._overrides.protocol
        if splitter is None:
            return ""
        if len(above) >= NESTING_MAX:
            raise ChainError(
                f"discovery chain {quoted(self._service)} nests more than {NESTING_MAX} splitters"
            )
        self._routed = True
        splits: list[ChainSplit] = []
        node = ChainNode(Type="splitter", Name=f"{service}.default.default", Splits=splits)
        self._record(node)  # before its legs: one that leads back here finds it
        for split in splitter.get("Splits", ()):
            leg = self._leg(service, split, (*above, service))
            splits.append(
                ChainSplit(Definition=split, Weight=split.get("Weight", 0.0), NextNode=leg)
            )
            balancer = self._nodes[leg].get("LoadBalancer")
            # Requests are hashed before a leg is chosen, so the first such policy counts for all.
            if balancer and balancer.get("Policy") in HASHING:
                node.setdefault("LoadBalancer", balancer)
        return key

    def _leg(self, service: str, split: Split, above: tuple[str, ...]) -> str:
        wanted, subset = split.get("Service") or service, split.get("ServiceSubset", "")
        if wanted != service and not subset:
            inner = self._splitter(wanted, above)
            if inner:
                return inner
        return self._resolver(Place(wanted, subset, self._datacenter))

    # -- resolvers -----------------------------------------------------------------------------

    def _resolver(self, place: Place) -> str:
        """The key of the resolver that a place leads to, with its failover."""
        place = self._redirected(place)
        key = f"resolver:{place.id}"
        if key in self._nodes:
            return key
        entry = self._resolver_entry(place.service)
        node = self._resolver_node(place, entry)
        self._record(node)
        failover = entry.get("Failover", {})
        found = failover.get(place.subset) or failover.get("*")
        if found:
            self._fail_over(node["Resolver"], place, found)
        return key

    def _redirected(self, place: Place) -> Place:
        """Follows redirects and default subsets to the end."""
        seen: dict[str, None] = {}
        while True:
            self._use_protocol(place.service)
            if place.id in seen:
                way = " -> ".join([*seen, place.id])
                raise ChainError(f"detected circular resolver redirect: [{way}]")
            seen[place.id] = None
            if len(seen) > NODES_MAX:
                raise ChainError(
                    f"discovery chain {quoted(self._service)} follows more than {NODES_MAX} "
                    "redirects"
                )
            entry = self._resolver_entry(place.service)
            onward = _onward(place, entry)
            if onward == place:
                return self._checked(place, entry)
            place = onward

    def _resolver_entry(self, service: str) -> ServiceResolver:
        return self._entries.resolver(service) or ServiceResolver(Kind="service-resolver")

    def _checked(self, place: Place, entry: ServiceResolver) -> Place:
        if place.subset and place.subset not in entry.get("Subsets", {}):
            raise ChainError(
                f"service {quoted(place.service)} does not have a subset named "
                f"{quoted(place.subset)}"
            )
        return place

    def _resolver_node(self, place: Place, entry: ServiceResolver) -> ChainNode:
        target = self._target(place, entry)
        resolver = ChainResolver(ConnectTimeout=target["ConnectTimeout"], Target=place.id)
        if not any(entry.get(field) for field in _CUSTOMIZING):
            resolver["Default"] = True
        if entry.get("RequestTimeout"):
            resolver["RequestTimeout"] = entry["RequestTimeout"]
        node = ChainNode(Type="resolver", Name=place.id, Resolver=resolver)
        if entry.get("LoadBalancer"):
            node["LoadBalancer"] = entry["LoadBalancer"]
        return node

    def _fail_over(self, resolver: ChainResolver, place: Place, failover: Failover) -> None:
        targets: list[str] = []
        for other in _failover_places(place, failover):
            if other.id == place.id:
                continue
            ended = self._redirected(other)
            self._target(ended, self._resolver_entry(ended.service))
            targets.append(ended.id)
        if not targets:
            return
        resolver["Failover"] = ChainFailover(Targets=targets)
        policy = failover.get("Policy") or self._entries.proxy_defaults().get("FailoverPolicy")
        if policy:
            resolver["Failover"]["Policy"] = policy

    # -- targets -------------------------------------------------------------------------------

    def _target(self, place: Place, entry: ServiceResolver) -> ChainTarget:
        """The target of a place, made once."""
        known = self._targets.get(place.id)
        if known is not None:
            return known
        if len(self._targets) >= 2 * NODES_MAX:
            raise ChainError(
                f"discovery chain {quoted(self._service)} uses more than {2 * NODES_MAX} targets"
            )
        name = self._sni(place)
        target = ChainTarget(
            ID=place.id,
            Service=place.service,
            Namespace="default",
            Partition="default",
            Datacenter=place.datacenter,
            MeshGateway={},
            Subset=entry.get("Subsets", {}).get(place.subset, {}),
            TransparentProxy={},
            ConnectTimeout=self._timeout(entry),
            SNI=name,
            Name=name,
        )
        if place.subset:
            target["ServiceSubset"] = place.subset
        external = self._entries.defaults(place.service).get("ExternalSNI")
        if external:
            _refuse_for_external(place.service, entry)
            target["SNI"], target["External"] = external, True
        else:
            self._reach(target)
        self._targets[place.id] = target
        return target

    def _sni(self, place: Place) -> str:
        """Name of a target in TLS (Consul: agent/connect/sni)."""
        prefix = f"{place.subset}." if place.subset else ""
        return f"{prefix}{place.service}.default.{place.datacenter}.internal.{self._trust_domain}"

    def _timeout(self, entry: ServiceResolver) -> str:
        own = entry.get("ConnectTimeout") or CONNECT_TIMEOUT
        wanted = self._overrides.connect_timeout
        if wanted and wanted != own:
            self._customized["connect-timeout"] = wanted
            return wanted
        return own

    def _reach(self, target: ChainTarget) -> None:
        """Gateways and dialling: by the service's defaults, else by those of all proxies."""
        own = self._entries.defaults(target["Service"])
        shared = self._entries.proxy_defaults()
        mode = _first(own.get("MeshGateway", {}), shared.get("MeshGateway", {}))
        wanted = self._overrides.mesh_gateway
        if wanted and wanted != mode:
            mode = self._customized["mesh-gateway"] = wanted
        if mode:
            target["MeshGateway"] = {"Mode": mode}  # type: ignore[typeddict-item]
        if any(each.get("TransparentProxy", {}).get("DialedDirectly") for each in (own, shared)):
            target["TransparentProxy"] = {"DialedDirectly": True}


_CUSTOMIZING = (
    "DefaultSubset",
    "Subsets",
    "Redirect",
    "Failover",
    "ConnectTimeout",
    "RequestTimeout",
    "LoadBalancer",
)


def _first(*gateways: MeshGateway) -> str:
    return next((str(each["Mode"]) for each in gateways if each.get("Mode")), "")


def _onward(place: Place, entry: ServiceResolver) -> Place:
    """One step: where a redirect leads, else the default subset, else the place itself."""
    redirect = entry.get("Redirect")
    if redirect:
        onward = _rewritten(place, redirect)
        if onward != place:
            return onward
    if not place.subset and entry.get("DefaultSubset"):
        return msgspec.structs.replace(place, subset=entry["DefaultSubset"])
    return place


def _rewritten(
    place: Place, other: Redirect | Failover | FailoverTarget, datacenter: str = ""
) -> Place:
    """A place with what another names; a subset does not go with the service to another one."""
    service = other.get("Service") or place.service
    subset = other.get("ServiceSubset", "")
    if not subset and service == place.service:
        subset = place.subset
    named = str(other.get("Datacenter") or "")
    return Place(service, subset, datacenter or named or place.datacenter)


def _failover_places(place: Place, failover: Failover) -> list[Place]:
    datacenters, targets = failover.get("Datacenters", ()), failover.get("Targets", ())
    if datacenters:
        return [_rewritten(place, failover, datacenter) for datacenter in datacenters]
    if targets:
        return [_rewritten(place, target) for target in targets]
    return [_rewritten(place, failover)]


def _refuse_for_external(service: str, entry: ServiceResolver) -> None:
    """A service under another's name can't be redirected, cut into subsets, or fail over."""
    for field, what in (
        ("Redirect", "redirects"),
        ("Subsets", "subsets"),
        ("Failover", "failover"),
    ):
        if entry.get(field):
            raise ChainError(
                f"service {quoted(service)} has an external SNI set; cannot define {what} for "
                "external services"
            )
