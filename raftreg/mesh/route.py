"""From a compiled discovery chain to a table that says where a call goes. Pure.

What routers, splitters and resolvers mean is decided in `raftreg.core.chain`; here their graph
becomes one list of rules, each with the legs among which a call is shared, each leg with the
targets that are tried in turn. All that a call needs is made beforehand: `route` hands out the same
few objects over and over.
https://developer.hashicorp.com/consul/docs/manage-traffic/discovery-chain
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec

from raftreg.core.chain_graph import Chain, ChainNode, ChainResolver, ChainRoute, ChainSplit
from raftreg.core.durations import parse_duration
from raftreg.core.entries.routing import LoadBalancer, RouteDestination, RouteHTTPMatch
from raftreg.errors import InvalidRequest
from raftreg.mesh.balance.hash_key import HashPolicy, check_policies, hash_call
from raftreg.mesh.changes import HeaderChanges, Rewrite, header_changes
from raftreg.mesh.match import Condition, all_of, always, from_sources, http_condition
from raftreg.mesh.nouns import Call, Instance, MeshConfigError, Randomness

_GOLDEN: Final = 0x9E37_79B9_7F4A_7C15
_MASK: Final = (1 << 64) - 1


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Instances that calls are sent to.

    Attributes:
        id: As the chain names it.
        subset: Name of a part of the service's instances; "" for all.
        filter: Expression over health entries that its instances meet; "" for all.
        only_passing: Leaves out instances whose checks warn.
        connect_timeout_s: How long a connection may take.
        sni: Name in TLS.
        external: It is outside the mesh.
    """

    id: str
    service: str
    subset: str = ""
    datacenter: str = ""
    filter: str = ""
    only_passing: bool = False
    connect_timeout_s: float = 5.0
    sni: str = ""
    external: bool = False

    def members(
        self, instances: Sequence[Instance], admits: Callable[[Instance], bool] | None = None
    ) -> list[Instance]:
        """Those instances of its service that belong to it.

        Args:
            instances: Instances of the service in the target's datacenter.
            admits: `filter`, compiled by whom has what it asks for; None for all.
        """
        return [
            each
            for each in instances
            if (each.passing or not self.only_passing) and (admits is None or admits(each))
        ]


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where a leg ends.

    Attributes:
        targets: The first is its own; the others are tried in turn when it has no healthy instance.
        load_balancer: How an instance is chosen; None for the settings of the service.
        request_timeout_s: How long a call may take; None for what is set elsewhere.
    """

    targets: tuple[Target, ...]
    load_balancer: LoadBalancer | None = None
    request_timeout_s: float | None = None


class RouteRetry(msgspec.Struct, frozen=True, kw_only=True):
    """What a route says of retries.

    Attributes:
        retries_max: Tries after the first; None for what is set elsewhere.
        conditions: On what, as Envoy names it (`5xx`, `reset`, `connect-failure`).
        statuses: On which status codes.
    """

    retries_max: int | None = None
    conditions: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """Where a call goes, and what is done to it on the way.

    Attributes:
        route: Name of the rule, for measurements.
        destination: Where it ends.
        request: Changes to the request's headers.
        response: Changes to the answer's headers.
        rewrite: Change of the path.
        timeout_s: How long the call may take, tries included; None for what is set elsewhere.
        idle_timeout_s: How long nothing may be heard of it; None for what is set elsewhere.
        retry: What the rule says of retries; None for nothing.
    """

    route: str
    destination: Destination
    request: HeaderChanges = HeaderChanges()
    response: HeaderChanges = HeaderChanges()
    rewrite: Rewrite | None = None
    timeout_s: float | None = None
    idle_timeout_s: float | None = None
    retry: RouteRetry | None = None


class _Rule:
    """A condition, and the legs among which its calls are shared."""

    __slots__ = ("_ends", "legs", "met")

    def __init__(self, met: Condition, legs: Sequence[Routed], weights: Sequence[float]) -> None:
        self.met = met
        self.legs = tuple(legs)
        total = sum(weights)
        self._ends = [end / total for end in accumulate(weights)]

    def leg(self, at: float) -> Routed:
        """The leg at a place in [0, 1); one of weight 0 has none."""
        return self.legs[min(bisect_right(self._ends, at), len(self.legs) - 1)]


class RoutingTable:
    """Where calls to one service go. Made by `compile_routes`.

    Attributes:
        service: Its name.
        protocol: What is spoken with it.
        targets: All targets that calls may go to, by id.
    """

    def __init__(
        self,
        service: str,
        protocol: str,
        rules: Sequence[_Rule],
        targets: Mapping[str, Target],
        sticky: tuple[HashPolicy, ...],
    ) -> None:
        self.service = service
        self.protocol = protocol
        self.targets = targets
        self._rules = tuple(rules)
        self._sticky = sticky

    def route(self, call: Call, rng: Randomness) -> Routed | None:
        """Finds where a call goes: by the first rule that it meets, there by the legs' weights.

        None when it meets no rule. A number is drawn only where there is a choice.
        """
        for rule in self._rules:
            if rule.met(call):
                return rule.legs[0] if len(rule.legs) == 1 else rule.leg(self._place(call, rng))
        return None

    def legs(self) -> list[Routed]:
        """All that `route` may find."""
        return [leg for rule in self._rules for leg in rule.legs]

    def _place(self, call: Call, rng: Randomness) -> float:
        """Where a call lies among the legs: with sticky splits, like calls at the same place."""
        hashed = hash_call(call, self._sticky) if self._sticky else None
        if hashed is None:
            return rng.random()
        # Mixed once more (Fibonacci hashing), so that a leg is not a stretch of a hash ring too.
        return (hashed * _GOLDEN & _MASK) / 2.0**64


def compile_routes(chain: object, *, sticky: Sequence[HashPolicy] = ()) -> RoutingTable:
    """Makes the table of a service.

    Args:
        chain: Its discovery chain, as `/v1/discovery-chain` has it.
        sticky: What keeps a caller on one leg of a split; empty to draw for each call.

    Raises:
        MeshConfigError: It is no chain, or can't be followed; the text says where.
    """
    try:
        found = msgspec.convert(chain, Chain)
    except (msgspec.ValidationError, RecursionError) as error:
        raise MeshConfigError(f"the discovery chain can't be read: {error}") from error
    check_policies(sticky)
    return _Compiler(found, tuple(sticky)).compile()


def direct_routes(service: str, *, protocol: str = "http") -> RoutingTable:
    """The table of a service without entries: all calls go to it, as those a sidecar lets in."""
    target = Target(id=service, service=service)
    leg = Routed(route="/", destination=Destination(targets=(target,)))
    return RoutingTable(service, protocol, [_Rule(always, [leg], [1.0])], {target.id: target}, ())


class _Compiler:
    """One compilation."""

    def __init__(self, chain: Chain, sticky: tuple[HashPolicy, ...]) -> None:
        self._chain = chain
        self._sticky = sticky
        self._destinations: dict[str, Destination] = {}
        self._targets = {key: _target(chain, key) for key in chain["Targets"]}

    def compile(self) -> RoutingTable:
        start = self._chain["StartNode"]
        node = self._node(start)
        if node["Type"] == "router":
            rules = [self._rule(each, at) for at, each in enumerate(node.get("Routes", ()))]
        else:
            rules = [self._shared(always, Routed(route="/", destination=_NOWHERE), start)]
        chain = self._chain
        return RoutingTable(
            chain["ServiceName"], chain["Protocol"], rules, self._targets, self._sticky
        )

    def _node(self, key: str) -> ChainNode:
        node = self._chain["Nodes"].get(key)
        if node is None:
            raise MeshConfigError(f"Nodes: there is no {key[:256]!r}, though the chain leads there")
        return node

    def _rule(self, route: ChainRoute, at: int) -> _Rule:
        definition = route["Definition"]
        where = f"Routes[{at}]"
        match = definition.get("Match", {})
        http = match.get("HTTP", {})
        conditions = [http_condition(http, f"{where}.Match.HTTP")]
        if sources := match.get("Raftreg", {}).get("Sources"):
            conditions.insert(0, from_sources(sources))
        plain = _plain(definition.get("Destination", {}), http, where)
        return self._shared(all_of(conditions), plain, route["NextNode"])

    def _shared(self, met: Condition, plain: Routed, key: str) -> _Rule:
        """A rule with the legs of the splitter it leads to; a resolver is one leg."""
        node = self._node(key)
        if node["Type"] != "splitter":
            return _Rule(met, [self._leg(plain, None, key)], [1.0])
        splits = [split for split in node.get("Splits", ()) if split["Weight"] > 0]
        if not splits:
            raise MeshConfigError(f"Nodes[{key[:256]!r}].Splits: no leg has a weight")
        legs = [self._leg(plain, split, split["NextNode"]) for split in splits]
        return _Rule(met, legs, [split["Weight"] for split in splits])

    def _leg(self, plain: Routed, split: ChainSplit | None, key: str) -> Routed:
        """What the rule says, on the way to one destination.

        Changes of the split are made first, those of the route last, as Envoy makes those of a
        weighted cluster and of its route.
        """
        destination = self._destination(key)
        given = split["Definition"] if split else {}
        timeout_s = plain.timeout_s
        return msgspec.structs.replace(
            plain,
            destination=destination,
            request=header_changes(given.get("RequestHeaders")).then(plain.request),
            response=header_changes(given.get("ResponseHeaders")).then(plain.response),
            timeout_s=destination.request_timeout_s if timeout_s is None else timeout_s,
        )

    def _destination(self, key: str) -> Destination:
        found = self._destinations.get(key)
        if found is None:
            node = self._node(key)
            resolver = node.get("Resolver")
            if resolver is None:
                raise MeshConfigError(f"Nodes[{key[:256]!r}]: must be a resolver")
            found = self._destinations[key] = Destination(
                targets=tuple(self._target(each, key) for each in _target_ids(resolver)),
                load_balancer=node.get("LoadBalancer"),
                request_timeout_s=seconds(
                    resolver.get("RequestTimeout"), f"Nodes[{key}].Resolver.RequestTimeout"
                ),
            )
        return found

    def _target(self, key: str, node: str) -> Target:
        found = self._targets.get(key)
        if found is None:
            raise MeshConfigError(
                f"Targets: there is no {key[:256]!r}, though {node!r} leads there"
            )
        return found


_NOWHERE: Final = Destination(targets=())


def _target_ids(resolver: ChainResolver) -> list[str]:
    others = resolver.get("Failover", {}).get("Targets", ())
    return list(dict.fromkeys([resolver["Target"], *others]))


def _target(chain: Chain, key: str) -> Target:
    given = chain["Targets"][key]
    return Target(
        id=key,
        service=given["Service"],
        subset=given.get("ServiceSubset", ""),
        datacenter=given["Datacenter"],
        filter=given["Subset"].get("Filter", ""),
        only_passing=given["Subset"].get("OnlyPassing", False),
        connect_timeout_s=seconds(given.get("ConnectTimeout"), f"Targets[{key}].ConnectTimeout")
        or 5.0,
        sni=given["SNI"],
        external=given.get("External", False),
    )


def _plain(destination: RouteDestination, match: RouteHTTPMatch, where: str) -> Routed:
    """What a route says, before it is known where it ends."""
    place = f"{where}.Destination"
    return Routed(
        route=_name(match),
        destination=_NOWHERE,
        request=header_changes(destination.get("RequestHeaders")),
        response=header_changes(destination.get("ResponseHeaders")),
        rewrite=_rewrite(destination, match, where),
        timeout_s=seconds(destination.get("RequestTimeout"), f"{place}.RequestTimeout"),
        idle_timeout_s=seconds(destination.get("IdleTimeout"), f"{place}.IdleTimeout"),
        retry=_retry(destination),
    )


def _name(match: Mapping[str, Any]) -> str:
    path = match.get("PathExact") or match.get("PathPrefix") or match.get("PathRegex") or "/"
    return str(path)


def _rewrite(destination: RouteDestination, match: RouteHTTPMatch, where: str) -> Rewrite | None:
    beginning = destination.get("PrefixRewrite")
    if not beginning:
        return None
    matched = match.get("PathExact") or match.get("PathPrefix")
    if not matched:
        raise MeshConfigError(f"{where}.Destination.PrefixRewrite: needs PathExact or PathPrefix")
    return Rewrite(len(matched), beginning)


def _retry(destination: RouteDestination) -> RouteRetry | None:
    conditions = list(destination.get("RetryOn", ()))
    if destination.get("RetryOnConnectFailure"):
        conditions.append("connect-failure")
    statuses = tuple(destination.get("RetryOnStatusCodes", ()))
    retries_max = destination.get("NumRetries") or None
    if not conditions and not statuses and retries_max is None:
        return None
    return RouteRetry(
        retries_max=retries_max, conditions=tuple(dict.fromkeys(conditions)), statuses=statuses
    )


def seconds(text: str | None, where: str) -> float | None:
    """Reads a duration; None where there is none, as 0 says too.

    Raises:
        MeshConfigError: It is none, or negative.
    """
    if not text:
        return None
    try:
        found = parse_duration(text)
    except InvalidRequest as error:
        raise MeshConfigError(f"{where}: {error.message}") from error
    if found < 0:
        raise MeshConfigError(f"{where}: must be >= 0, not {text}")
    return found or None
