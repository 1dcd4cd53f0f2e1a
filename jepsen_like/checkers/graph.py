"""A graph of dependencies between transactions, and the cycles in it.

Nodes are numbers. Edges of the kind VIA cost nothing: they lead on from nodes that only stand for
sets of edges (everything that ended before, all who come later), so that those need not be listed
pair by pair. Everything is linear in the edges, except the search for a short cycle, which has a
budget: it starts only where a cycle is known to be.
"""

from __future__ import annotations

import enum
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

import msgspec

_EDGES_MAX: Final = 2_000_000  #: edges followed in the search for one short cycle


class Kind(enum.IntEnum):
    """Kinds of edges."""

    WW = 0  #: the second wrote after the first
    WR = 1  #: the second read what the first wrote
    RW = 2  #: the second overwrote what the first read
    RT = 3  #: the second began after the first had ended
    VIA = 4  #: no dependency of its own


class Step(msgspec.Struct, frozen=True):
    """One edge of a cycle."""

    source: int
    target: int
    kind: Kind


Cycle = tuple[Step, ...]


class Graph:
    """A directed graph with kinds of edges; it is built first, then asked.

    Args:
        nodes: How many nodes there are; `node` makes more.
    """

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self._sources = array("q")
        self._targets = array("q")
        self._kinds = array("b")
        self._first = array("q")
        self._order = array("q")

    def node(self) -> int:
        """Makes a node."""
        self.nodes += 1
        return self.nodes - 1

    def edge(self, source: int, target: int, kind: Kind) -> None:
        """Adds an edge."""
        self._sources.append(source)
        self._targets.append(target)
        self._kinds.append(kind)

    def freeze(self) -> None:
        """Sorts the edges by their sources; call it once, after the last edge."""
        counts = array("q", bytes(8 * (self.nodes + 1)))
        for source in self._sources:
            counts[source + 1] += 1
        for node in range(self.nodes):
            counts[node + 1] += counts[node]
        self._first = array("q", counts)
        self._order = array("q", bytes(8 * len(self._sources)))
        for edge, source in enumerate(self._sources):
            self._order[counts[source]] = edge
            counts[source] += 1

    def out(self, node: int) -> Iterator[tuple[int, Kind]]:
        """The edges that leave a node: target and kind."""
        for at in range(self._first[node], self._first[node + 1]):
            edge = self._order[at]
            yield self._targets[edge], Kind(self._kinds[edge])

    def core(self) -> set[int]:
        """The nodes that remain when those without predecessors are taken away, again and again.

        It is empty exactly when there is no cycle (Kahn, "Topological sorting", 1962).
        """
        waiting = array("q", bytes(8 * self.nodes))
        for target in self._targets:
            waiting[target] += 1
        free = [node for node in range(self.nodes) if not waiting[node]]
        left = self.nodes - len(free)
        first, order, targets = self._first, self._order, self._targets
        while free:
            node = free.pop()
            for at in range(first[node], first[node + 1]):
                target = targets[order[at]]
                waiting[target] -= 1
                if not waiting[target]:
                    free.append(target)
                    left -= 1
        return {node for node in range(self.nodes) if waiting[node]} if left else set()

    def components(self, among: Collection[int], kinds: frozenset[Kind]) -> list[list[int]]:
        """Strongly connected components of more than one node.

        Args:
            among: The nodes looked at.
            kinds: The edges looked at; VIA always belongs to them.
        """
        return list(_components(among, lambda node: self._allowed(node, among, kinds)))

    def _allowed(self, node: int, among: Collection[int], kinds: frozenset[Kind]) -> Iterator[int]:
        for target, kind in self.out(node):
            if target in among and (kind is Kind.VIA or kind in kinds):
                yield target

    def cycle(self, component: Collection[int], pivot: Kind, rest: frozenset[Kind]) -> Cycle | None:
        """A short cycle with one edge of a kind, all others of some kinds.

        Args:
            component: The nodes looked at.
            pivot: The edge that must be there.
            rest: The kinds of the others.

        Returns:
            The shortest that the budget finds, None when it finds none.
        """
        among = frozenset(component)
        best: Cycle | None = None
        left = _EDGES_MAX
        for source in sorted(among):
            for target, kind in self.out(source):
                if kind is not pivot or target not in among or left <= 0:
                    continue
                path, followed = self._path(target, source, among, rest)
                left -= followed
                if path is not None and (best is None or _length(path) + 1 < _length(best)):
                    best = (Step(source, target, kind), *path)
            if best is not None and _length(best) <= 2:
                break
        return best

    def _path(
        self, start: int, goal: int, among: Collection[int], kinds: frozenset[Kind]
    ) -> tuple[Cycle | None, int]:
        """The shortest path by breadth-first search, VIA free of cost; and the edges followed."""
        came: dict[int, Step] = {}
        distance = {start: 0}
        queue = deque([start])
        followed = 0
        while queue:
            node = queue.popleft()
            if node == goal:
                return _trace(came, start, goal), followed
            for target, kind in self.out(node):
                followed += 1
                if target not in among or not (kind is Kind.VIA or kind in kinds):
                    continue
                length = distance[node] + (kind is not Kind.VIA)
                if length < distance.get(target, length + 1):
                    distance[target] = length
                    came[target] = Step(node, target, kind)
                    (queue.appendleft if kind is Kind.VIA else queue.append)(target)
        return None, followed


def _length(cycle: Sequence[Step]) -> int:
    return sum(step.kind is not Kind.VIA for step in cycle)


def _trace(came: dict[int, Step], start: int, goal: int) -> Cycle:
    steps: list[Step] = []
    node = goal
    while node != start:
        steps.append(came[node])
        node = came[node].source
    steps.reverse()
    return tuple(steps)


def _components(nodes: Collection[int], out: Callable[[int], Iterator[int]]) -> Iterator[list[int]]:
    """Tarjan's algorithm ("Depth-first search and linear graph algorithms", 1972), unrolled."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in nodes:
        if root in number:
            continue
        path: list[tuple[int, Iterator[int]]] = []
        _enter(root, number, low, stack, on_stack)
        path.append((root, out(root)))
        while path:
            node, targets = path[-1]
            child = _next_child(node, targets, number, low, on_stack)
            if child is not None:
                _enter(child, number, low, stack, on_stack)
                path.append((child, out(child)))
                continue
            path.pop()
            if path:
                low[path[-1][0]] = min(low[path[-1][0]], low[node])
            if low[node] == number[node]:
                component = _leave(node, stack, on_stack)
                if len(component) > 1:
                    yield component


def _enter(
    node: int, number: dict[int, int], low: dict[int, int], stack: list[int], on_stack: set[int]
) -> None:
    number[node] = low[node] = len(number)
    stack.append(node)
    on_stack.add(node)


def _next_child(
    node: int,
    targets: Iterator[int],
    number: dict[int, int],
    low: dict[int, int],
    on_stack: set[int],
) -> int | None:
    """The next target never seen; those on the stack are noted on the way."""
    for target in targets:
        if target not in number:
            return target
        if target in on_stack:
            low[node] = min(low[node], number[target])
    return None


def _leave(node: int, stack: list[int], on_stack: set[int]) -> list[int]:
    component: list[int] = []
    while True:
        member = stack.pop()
        on_stack.discard(member)
        component.append(member)
        if member == node:
            return component


#: Anomalies by what their cycles are made of, the worst first: name, the edge that must be there,
#: and the kinds of all others (Adya, "Weak Consistency", 1999; real time after Elle).
_DATA: Final = frozenset({Kind.WW, Kind.WR})
LEVELS: Final[tuple[tuple[str, Kind, frozenset[Kind]], ...]] = (
    ("G0", Kind.WW, frozenset({Kind.WW})),
    ("G1c", Kind.WR, _DATA),
    ("G-single", Kind.RW, _DATA),
    ("G2-item", Kind.RW, _DATA | {Kind.RW}),
    ("G0-realtime", Kind.RT, frozenset({Kind.WW, Kind.RT})),
    ("G1c-realtime", Kind.WR, _DATA | {Kind.RT}),
    ("G-single-realtime", Kind.RW, _DATA | {Kind.RT}),
    ("G2-item-realtime", Kind.RW, _DATA | {Kind.RW, Kind.RT}),
)


def anomalies(graph: Graph) -> list[tuple[str, Cycle]]:
    """One short cycle for each tangle of transactions, named by the worst kind that it holds.

    Without real time first; what is tangled there is not reported again with it.
    """
    core = graph.core()
    if not core:
        return []
    found: list[tuple[str, Cycle]] = []
    reported: set[int] = set()
    for levels in (LEVELS[:4], LEVELS[4:]):
        kinds = frozenset[Kind]().union(*(rest | {pivot} for _, pivot, rest in levels))
        for component in graph.components(core, kinds):
            if reported.isdisjoint(component):
                found.extend(_worst(graph, component, levels))
                reported.update(component)
    return found


def _worst(
    graph: Graph, component: list[int], levels: Sequence[tuple[str, Kind, frozenset[Kind]]]
) -> list[tuple[str, Cycle]]:
    for name, pivot, rest in levels:
        for tangle in graph.components(frozenset(component), rest | {pivot}):
            cycle = graph.cycle(tangle, pivot, rest)
            if cycle is not None:
                return [(name, cycle)]
    # A cycle is certain, and the last level takes any: the budget ended before it was found.
    return [("cycle", ())]
