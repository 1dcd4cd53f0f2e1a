"""What one command changed: topics that wake watchers, rows that agents follow, steps to undo.

A topic is a pair (kind, name):

====================  ===========================================================================
("kv", key)           a key was written or deleted
("kv-tree", prefix)   all keys under a prefix were deleted
("service", name)     instances of a service, or the rows of the nodes that they run on
("checks", name)      checks that decide over the instances of a service (theirs or their nodes')
("connect", name)     instances that speak the mesh's TLS for a service, or their nodes' rows
("connect-checks", n) checks that decide over those
("services", "")      the set of service names, or the union of the tags of one
("instances", "")     any instance of any service
("node", name or id)  a node's row or its instances
("nodes", "")         any node's row
("node-checks", name) checks of a node and of its instances
("check-state", s)    checks that entered, left or changed within a status; "" for any status
("session", id)       a session began or ended
("session-node", n)   likewise for any session of a node
("sessions", "")      likewise for any session
("config", kind)      configuration entries of a kind
("events", "")        a user event was fired
("query", id)         a prepared query was written or deleted
("queries", "")       likewise any prepared query
("coordinate", node)  the network coordinate of a node changed or went
("coordinates", "")   likewise of any node
("all", "")           everything: the state was restored
====================  ===========================================================================

A watcher waits on topics of the same kinds, and on ("kv-prefix", prefix); `covers` tells which
published topic wakes which waiting one. `raftreg.core.query` names the topics of each query.
"""

from __future__ import annotations

from collections.abc import Callable

from raftreg.core.delta import CatalogDelta

Topic = tuple[str, str]

ALL: Topic = ("all", "")


def covers(waiting: Topic, published: Topic) -> bool:
    """Tells whether a published topic wakes a watcher of another (or the same) one."""
    kind, name = published
    if published in (ALL, waiting):
        return True
    wanted_kind, wanted = waiting
    if wanted_kind == "kv-prefix":
        if kind == "kv":
            return name.startswith(wanted)
        return kind == "kv-tree" and (name.startswith(wanted) or wanted.startswith(name))
    return wanted_kind == "kv" and kind == "kv-tree" and wanted.startswith(name)


class Changes:
    """Gathers what a command does while it does it.

    Args:
        reversible: Keep the steps that undo everything (transactions).

    Attributes:
        topics: What to publish, in order, each once.
        deltas: Catalog rows written or deleted, in order.
        undo: Steps to run in reverse, or None when nobody will ask for it.
    """

    __slots__ = ("deltas", "topics", "undo")

    def __init__(self, *, reversible: bool = False) -> None:
        self.topics: dict[Topic, None] = {}
        self.deltas: list[CatalogDelta] = []
        self.undo: list[Callable[[], object]] | None = [] if reversible else None

    def roll_back(self) -> None:
        """Undoes everything gathered so far.

        Raises:
            RuntimeError: It was not made reversible.
        """
        if self.undo is None:
            raise RuntimeError("these changes can't be rolled back: make them reversible")
        for step in reversed(self.undo):
            step()
        self.undo.clear()
        self.topics.clear()
        self.deltas.clear()
