"""A compiled chain as a graph: its shape, and what is done to it once it is built. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NotRequired, TypedDict, TypeVar

from raftreg.core.entries.common import HeaderModifiers, MeshGateway, Pairs, TransparentProxy
from raftreg.core.entries.routing import FailoverPolicy, LoadBalancer, Route, Split, Subset

LEGS_MAX = 4096


class ChainError(Exception):
    """The entries make no chain; the text says why."""


class ChainFailover(TypedDict):
    """Targets to try in this order when a target has no healthy instance."""

    Targets: list[str]
    Policy: NotRequired[FailoverPolicy]


class ChainResolver(TypedDict):
    """Where a chain ends: a target, and how it is reached."""

    Default: NotRequired[bool]
    ConnectTimeout: str
    RequestTimeout: NotRequired[str]
    Target: str
    Failover: NotRequired[ChainFailover]


class ChainRoute(TypedDict):
    """A route and the node that it leads to."""

    Definition: Route
    NextNode: str


class ChainSplit(TypedDict):
    """A leg of a splitter: its share in percent, and the node that it leads to."""

    Definition: Split
    Weight: float
    NextNode: str


class ChainNode(TypedDict):
    """A node of the graph; `Type` says which of `Routes`, `Splits` and `Resolver` is there."""

    Type: str
    Name: str
    Routes: NotRequired[list[ChainRoute]]
    Splits: NotRequired[list[ChainSplit]]
    Resolver: NotRequired[ChainResolver]
    LoadBalancer: NotRequired[LoadBalancer]


class ChainTarget(TypedDict):
    """Instances that a resolver leads to."""

    ID: str
    Service: str
    ServiceSubset: NotRequired[str]
    Namespace: str
    Partition: str
    Datacenter: str
    MeshGateway: MeshGateway
    Subset: Subset
    TransparentProxy: TransparentProxy
    ConnectTimeout: NotRequired[str]
    External: NotRequired[bool]
    SNI: str
    Name: str


class Chain(TypedDict):
    """A compiled chain."""

    ServiceName: str
    Namespace: str
    Partition: str
    Datacenter: str
    CustomizationHash: NotRequired[str]
    Default: NotRequired[bool]
    Protocol: str
    ServiceMeta: NotRequired[Pairs]
    StartNode: str
    Nodes: dict[str, ChainNode]
    Targets: dict[str, ChainTarget]


def _successors(node: ChainNode) -> list[str]:
    steps: Sequence[ChainRoute | ChainSplit] = node.get("Routes") or node.get("Splits") or ()
    return list(dict.fromkeys(step["NextNode"] for step in steps))


def refuse_cycles(nodes: dict[str, ChainNode], start: str) -> None:
    """Refuses a graph in which a way leads back to where it was.

    Depth first with an explicit stack; nodes that are done are not entered again.

    Raises:
        ChainError: With the way, node by node.
    """
    done: set[str] = set()
    way = [start]
    branches = [iter(_successors(nodes[start]))]
    while way:
        following = next(branches[-1], None)
        if following is None:
            branches.pop()
            done.add(way.pop())
        elif following in way:
            text = " -> ".join([*way, following])
            raise ChainError(f"detected circular reference: [{text}]")
        elif following not in done:
            way.append(following)
            branches.append(iter(_successors(nodes[following])))


def flatten(nodes: dict[str, ChainNode]) -> None:
    """Replaces legs that lead to splitters by the legs of those (there are no cycles).

    Raises:
        ChainError: They stand for too many.
    """
    flat: set[str] = set()

    def legs_of(key: str) -> list[ChainSplit]:
        node = nodes[key]
        if key in flat:
            return node["Splits"]
        legs: list[ChainSplit] = []
        for split in node["Splits"]:
            if nodes[split["NextNode"]]["Type"] != "splitter":
                legs.append(split)
            else:
                legs += [_merged(split, inner) for inner in legs_of(split["NextNode"])]
            if len(legs) > LEGS_MAX:
                raise ChainError(f"the splitters of {key} stand for more than {LEGS_MAX} legs")
        flat.add(key)
        node["Splits"] = legs
        return legs

    for key, node in nodes.items():
        if node["Type"] == "splitter":
            legs_of(key)


def _merged(outer: ChainSplit, inner: ChainSplit) -> ChainSplit:
    """A leg of a leg: what both do to headers is done, in the order of the call."""
    definition = inner["Definition"].copy()
    given = outer["Definition"]
    request = _headers(given.get("RequestHeaders"), definition.get("RequestHeaders"))
    response = _headers(definition.get("ResponseHeaders"), given.get("ResponseHeaders"))
    if request:
        definition["RequestHeaders"] = request
    if response:
        definition["ResponseHeaders"] = response
    weight = round(outer["Weight"] * inner["Weight"]) / 100
    return ChainSplit(Definition=definition, Weight=weight, NextNode=inner["NextNode"])


def _headers(
    first: HeaderModifiers | None, second: HeaderModifiers | None
) -> HeaderModifiers | None:
    """Changes to headers, the second ones made after the first."""
    if not first or not second:
        return first or second
    merged = HeaderModifiers()
    if added := first.get("Add", {}) | second.get("Add", {}):
        merged["Add"] = added
    if put := first.get("Set", {}) | second.get("Set", {}):
        merged["Set"] = put
    if removed := _union(first.get("Remove", ()), second.get("Remove", ())):
        merged["Remove"] = removed
    return merged


_T = TypeVar("_T")


def _union(*lists: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(item for items in lists for item in items))


def reachable(nodes: dict[str, ChainNode], start: str) -> dict[str, ChainNode]:
    """The nodes that are still in use, in the order in which they were made."""
    used, todo = {start}, [start]
    while todo:
        for key in _successors(nodes[todo.pop()]):
            if key not in used:
                used.add(key)
                todo.append(key)
    return {key: node for key, node in nodes.items() if key in used}


def targets_of(nodes: Iterable[ChainNode]) -> set[str]:
    """Ids of the targets that resolvers lead to, failover included."""
    used: set[str] = set()
    for node in nodes:
        resolver = node.get("Resolver")
        if resolver is not None:
            used.add(resolver["Target"])
            used.update(resolver.get("Failover", {}).get("Targets", ()))
    return used
